package iscsitest

import (
	"encoding/binary"
	"sync"

	"pmsapp/internal/iscsi"
)

// Task is a command with all its data.
type Task struct {
	LUN     uint64
	CDB     []byte
	DataOut []byte
	InLen   int // bytes that the initiator expects
	// Reply answers the task, once, from any goroutine.
	Reply func(status byte, sense, dataIn []byte)
}

// task is a command that still gets data.
type task struct {
	Task
	itt   uint32
	have  int
	asked int
	final bool // unsolicited data are complete
	r2tSN uint32
}

// Serve answers the PDUs of a connection until it ends or the initiator logs out. Commands go to execute when their data
// are complete, many at a time; it must not block. Everything else is answered as a good target does.
func (c *Conn) Serve(execute func(*Task)) { c.ServeThen(execute, func() {}) }

// ServeThen is Serve with a call of end when the connection has ended, before the tasks under way are waited for.
func (c *Conn) ServeThen(execute func(*Task), end func()) {
	tasks := map[uint32]*task{}
	var replies sync.WaitGroup
	defer replies.Wait()
	defer end()
	for {
		h, data, err := c.Next()
		if err != nil {
			return
		}
		var t *task
		switch h.Opcode() {
		case iscsi.OpSCSICommand:
			t = &task{itt: h.ITT(), final: h.Final()}
			t.LUN = h.LUN()
			if t.CDB, _, err = iscsi.CDB(nil, h, c.R.AHS()); err != nil {
				return
			}
			if h.Has(iscsi.FlagWrite) {
				t.DataOut = make([]byte, h.EDTL())
			} else {
				t.InLen = int(h.EDTL())
			}
			t.have = copy(t.DataOut, data)
			tasks[t.itt] = t
		case iscsi.OpDataOut:
			if t = tasks[h.ITT()]; t == nil || int(h.Offset()) != t.have {
				return
			}
			t.have += copy(t.DataOut[t.have:], data)
			t.final = t.final || h.Final()
		case iscsi.OpNopOut:
			if h.ITT() != iscsi.NoTag {
				var a iscsi.BHS
				a.Init(iscsi.OpNopIn, iscsi.FlagFinal)
				a.SetITT(h.ITT())
				a.SetTTT(iscsi.NoTag)
				c.Send(&a, data)
			}
			continue
		case iscsi.OpLogoutReq:
			var a iscsi.BHS
			a.Init(iscsi.OpLogoutResp, iscsi.FlagFinal)
			a.SetITT(h.ITT())
			c.Send(&a, nil)
			return
		case iscsi.OpTaskReq:
			var a iscsi.BHS
			a.Init(iscsi.OpTaskResp, iscsi.FlagFinal)
			a.SetITT(h.ITT())
			c.Send(&a, nil)
			continue
		default:
			return
		}
		if t.have == len(t.DataOut) {
			delete(tasks, t.itt)
			replies.Add(1)
			t.Reply = func(status byte, sense, dataIn []byte) {
				c.Answer(t.itt, t.InLen, status, sense, dataIn)
				replies.Done()
			}
			execute(&t.Task)
		} else if t.final && t.asked <= t.have {
			c.ask(t)
		}
	}
}

// ask sends as many R2Ts as the task may have.
func (c *Conn) ask(t *task) {
	t.asked = t.have
	for n := 0; n < c.Params.MaxR2T && t.asked < len(t.DataOut); n++ {
		length := min(c.Params.MaxBurst, len(t.DataOut)-t.asked)
		var h iscsi.BHS
		h.Init(iscsi.OpR2T, iscsi.FlagFinal)
		h.SetLUN(t.LUN)
		h.SetITT(t.itt)
		h.SetTTT(t.r2tSN + 7)
		h.SetDataSN(t.r2tSN)
		h.SetOffset(uint32(t.asked))
		h.SetDesired(uint32(length))
		t.r2tSN++
		t.asked += length
		c.Send(&h, nil)
	}
}

// Answer sends the data and the status of a command.
func (c *Conn) Answer(itt uint32, inLen int, status byte, sense, data []byte) {
	data = data[:min(len(data), inLen)]
	var h iscsi.BHS
	sn, off := uint32(0), 0
	for off < len(data) {
		n := min(len(data)-off, c.Params.MaxSend)
		h.Init(iscsi.OpDataIn, 0)
		last := off+n == len(data)
		if last {
			h.SetFlags(iscsi.FlagFinal)
		}
		if last && status == 0 { // status in the same PDU
			h.SetFlags(iscsi.FlagFinal | iscsi.FlagStatus)
			residual(&h, inLen-len(data))
		}
		h.SetITT(itt)
		h.SetTTT(iscsi.NoTag)
		h.SetDataSN(sn)
		h.SetOffset(uint32(off))
		c.Send(&h, data[off:off+n])
		sn++
		off += n
	}
	if sn > 0 && status == 0 {
		return
	}
	h.Init(iscsi.OpSCSIResponse, iscsi.FlagFinal)
	h.SetITT(itt)
	h.SetStatus(status)
	h.SetDataSN(sn)
	residual(&h, inLen-len(data))
	var segment []byte
	if len(sense) > 0 {
		segment = binary.BigEndian.AppendUint16(nil, uint16(len(sense)))
		segment = append(segment, sense...)
	}
	c.Send(&h, segment)
}

func residual(h *iscsi.BHS, n int) {
	if n > 0 {
		h.SetFlags(h.Flags() | iscsi.FlagUnderflow)
		h.SetResidual(uint32(n))
	}
}

package target

import (
	"encoding/binary"
	"sync"
	"syscall"
	"time"

	"pmsapp/internal/iscsi"
)

type itemKind uint8

const (
	itemTask   itemKind = iota + 1 // the end of a task
	itemR2T                        // a request for data
	itemWindow                     // a NOP-In that only carries MaxCmdSN
	itemAnswer                     // any other PDU
)

// item is something to be sent. An R2T has copies of what it needs: its task may be stopped before it is sent.
type item struct {
	kind       itemKind
	slots      int  // its places in session.control
	last       bool // the connection ends after it
	quiet      bool // itemAnswer: it takes no StatSN
	task       *Task
	lun        LUN
	itt, sn    uint32
	off, count uint32
	head       *iscsi.BHS
	data       []byte
}

// push queues an item. Called with mu.
func (s *session) push(it item) {
	if s.closed {
		if it.task != nil && it.kind == itemTask {
			s.recycle(it.task)
		}
		return
	}
	s.queue = append(s.queue, it)
	if !s.attended {
		s.signal()
	}
}

// answer queues a PDU that the reader owes to the initiator. It waits while too many of them wait to be sent, or too much.
func (s *session) answer(h *iscsi.BHS, data []byte) {
	n := min(1+len(data)/controlData, maxControl/2) // not all: a reset that takes a while may have one
	if !s.place(n) {
		return
	}
	s.mu.Lock()
	s.push(item{kind: itemAnswer, slots: n, head: h, data: data})
	s.mu.Unlock()
}

// place takes places for an answer in the queue; false: the session is over. The reader alone calls it, so what it waits for comes back.
func (s *session) place(n int) bool {
	for range n {
		select {
		case s.control <- struct{}{}:
		case <-s.dead:
			return false
		}
	}
	return true
}

// sender is what sends the answers of a session: the writer, or the reader where it can do so at once.
type sender struct {
	s  *session
	mu sync.Mutex // held by who sends; guards what follows
	// left is what the reader has put into w and the connection has not taken; the writer goes on with it before anything else.
	left  []item
	batch []item          // the reader's
	raw   syscall.RawConn // nil: the reader never sends

	w        *iscsi.Writer
	statSN   uint32
	exp, max uint32
	head     iscsi.BHS
	sense    [2 + maxSense]byte
	until    time.Time // the deadline of writes
}

// run is the writer goroutine: it sends what is queued, all that there is with one flush.
func (o *sender) run() {
	s := o.s
	var batch []item
	for {
		select {
		case <-s.wake:
		case <-s.dead:
			o.farewell()
			return
		}
		if s.pumps.Swap(false) {
			s.pump()
		}
		for {
			var last bool
			var err error
			o.mu.Lock()
			if len(o.left) > 0 {
				err = o.goOn()
			}
			if err == nil {
				batch = o.take(batch)
			}
			if err == nil && len(batch) > 0 {
				last, err = o.send(batch)
				o.settle(batch)
			}
			o.mu.Unlock()
			if err != nil {
				o.failed(err)
				return
			}
			if last {
				return
			}
			if len(batch) == 0 {
				break
			}
		}
	}
}

// take swaps the queue for an empty one, and counts its commands as answered.
func (o *sender) take(old []item) []item {
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bye { // nothing is answered any more
		return old[:0]
	}
	batch := s.queue
	s.queue = old[:0]
	for i := range batch {
		t := batch[i].task
		if t == nil {
			continue
		}
		delete(s.tasks, t.Tag)
		if t.immediate {
			s.immediate--
		} else {
			s.window.release()
		}
	}
	o.exp, o.max = s.window.exp, s.window.max
	s.sentMax = o.max
	s.statSN = o.statSN + answers(batch)
	return batch
}

func (o *sender) send(batch []item) (last bool, err error) {
	o.bound(batch)
	for i := range batch {
		if err := o.add(&batch[i]); err != nil {
			return false, err
		}
		last = last || batch[i].last
	}
	return last, o.w.Flush()
}

// add gives an item to the connection's Writer.
func (o *sender) add(it *item) error {
	switch it.kind {
	case itemTask:
		if f := it.task.Delivered; f != nil {
			o.s.sent(o.statSN, f)
		}
		return o.task(it.task)
	case itemR2T:
		return o.r2t(it)
	case itemWindow:
		o.head.Init(iscsi.OpNopIn, iscsi.FlagFinal)
		o.head.SetITT(iscsi.NoTag)
		o.head.SetTTT(iscsi.NoTag)
		return o.put(&o.head, nil, false)
	}
	return o.put(it.head, it.data, !it.quiet)
}

// bound gives what is sent its time: who takes nothing for so long is gone, or holds memory for nothing.
func (o *sender) bound(batch []item) {
	limit := o.s.srv.tunables.Load().stall()
	if o.s.parting.Load() {
		return
	}
	if limit == 0 {
		if !o.until.IsZero() { // it was tuned since
			o.s.conn.SetWriteDeadline(time.Time{})
			o.until = time.Time{}
		}
		return
	}
	bytes := 0
	for i := range batch {
		if t := batch[i].task; t != nil {
			bytes += len(t.DataIn)
		}
	}
	// It is set for a little longer, so that it has to be set seldom.
	want := time.Now().Add(limit + time.Duration(bytes)*time.Second/slowest)
	if o.until.Before(want) || o.until.After(want.Add(limit/4)) {
		o.until = want.Add(limit / 8)
		o.s.conn.SetWriteDeadline(o.until)
	}
}

// settle frees what was sent. Nothing refers to the buffers after the flush.
func (o *sender) settle(batch []item) {
	s := o.s
	s.mu.Lock()
	for i := range batch {
		if batch[i].task != nil {
			s.recycle(batch[i].task)
		}
		for range batch[i].slots {
			<-s.control
		}
		batch[i] = item{}
	}
	s.mu.Unlock()
}

// put sends a PDU with the numbers of this moment; counts says that it takes a StatSN.
func (o *sender) put(h *iscsi.BHS, data []byte, counts bool) error {
	h.SetStatSN(o.statSN)
	h.SetExpCmdSN(o.exp)
	h.SetMaxCmdSN(o.max)
	if counts {
		o.statSN++
	}
	return o.w.Write(h, nil, data)
}

func (o *sender) r2t(it *item) error {
	h := &o.head
	h.Init(iscsi.OpR2T, iscsi.FlagFinal)
	copy(h[8:16], it.lun[:])
	h.SetITT(it.itt)
	h.SetTTT(it.sn) // R2TSN is unique within the task, and Data-Out names the task
	h.SetDataSN(it.sn)
	h.SetOffset(it.off)
	h.SetDesired(it.count)
	return o.put(h, nil, false)
}

// task sends the data and the status of a task.
func (o *sender) task(t *Task) error {
	data := t.DataIn
	if int64(len(data)) > t.ExpIn {
		data = data[:t.ExpIn]
	}
	flags, residual := residuals(t)
	h := &o.head
	sn, off := uint32(0), 0
	for off < len(data) {
		n := min(len(data)-off, o.s.params.MaxSend, o.s.params.MaxBurst-off%o.s.params.MaxBurst)
		h.Init(iscsi.OpDataIn, 0)
		copy(h[8:16], t.LUN[:])
		h.SetITT(t.Tag)
		h.SetTTT(iscsi.NoTag)
		h.SetDataSN(sn)
		h.SetOffset(uint32(off))
		h.SetExpCmdSN(o.exp)
		h.SetMaxCmdSN(o.max)
		end := off + n
		var f byte
		if end == len(data) || end%o.s.params.MaxBurst == 0 {
			f = iscsi.FlagFinal
		}
		if end == len(data) && t.Status == statusGood && !t.Write {
			h.SetFlags(iscsi.FlagFinal | iscsi.FlagStatus | flags)
			h.SetStatus(t.Status)
			h.SetResidual(residual)
			return o.put(h, data[off:end], true)
		}
		h.SetFlags(f)
		if err := o.w.Write(h, nil, data[off:end]); err != nil {
			return err
		}
		sn, off = sn+1, end
	}
	h.Init(iscsi.OpSCSIResponse, iscsi.FlagFinal|flags)
	h.SetITT(t.Tag)
	h.SetStatus(t.Status)
	h.SetDataSN(sn)
	h.SetResidual(residual)
	if len(t.Sense) == 0 {
		return o.put(h, nil, true)
	}
	n := copy(o.sense[2:], t.Sense)
	binary.BigEndian.PutUint16(o.sense[:], uint16(n))
	return o.put(h, o.sense[:2+n], true)
}

// SAM-5 5.3.
const (
	statusGood           = 0x00
	statusCheckCondition = 0x02
	statusTaskSetFull    = 0x28
)

// residuals tells how the data that the command moved, or would have moved, differs from what the initiator expected
// (RFC 7143 11.4.5).
func residuals(t *Task) (flags byte, count uint32) {
	have, want := int64(len(t.DataIn)), t.ExpIn
	if t.Write {
		have, want = t.Moved, t.ExpOut
	} else if t.Moved > have {
		have = t.Moved // Data-Out for which the initiator has set no W flag
	}
	d := have - want
	switch {
	case d > 0:
		return iscsi.FlagOverflow, uint32(min(d, 1<<32-1))
	case d < 0:
		return iscsi.FlagUnderflow, uint32(-d)
	}
	return 0, 0
}

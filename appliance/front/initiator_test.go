package front

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

// initiator is a host's end of a session with a node of a world: it sees every PDU.
type initiator struct {
	t      testing.TB
	conn   net.Conn
	params iscsi.Params

	mu     sync.Mutex // guards w and what numbers PDUs
	w      *iscsi.Writer
	cmdSN  uint32
	statSN uint32
	itt    uint32

	in    chan heard
	early []heard // answers to others than the one that was waited for
	async []byte  // events told
}

// heard is a PDU that came.
type heard struct {
	iscsi.BHS
	data []byte
}

// portName is an ISID.
func portName(n byte) iscsi.ISID { return iscsi.ISID{0x80, 0, 0, 0, 0, n} }

// connect logs in to a node, or returns the status with which that was refused; 0 if there was no answer.
func (n *worldNode) connect(id iscsi.ISID, discovery bool) (*initiator, iscsi.LoginStatus) {
	t := n.w.t
	t.Helper()
	ours, theirs := net.Pipe()
	remote := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.99:40000"))
	select {
	case n.conns <- pipe{theirs, n.Addr(), remote}:
	case <-n.closed:
		return nil, 0
	}
	name := TargetName("vol")
	if n.w.mapped {
		name = CommonName(n.hosts.cfg.Cluster)
	}
	wish := iscsi.DefaultWish()
	cfg := iscsi.InitiatorLoginConfig{Initiator: "iqn.h", Target: name, ISID: id, Wish: wish}
	if discovery {
		cfg.Discovery, cfg.Target = true, ""
	}
	l, err := iscsi.NewInitiatorLogin(cfg)
	if err != nil {
		t.Fatal(err)
	}
	i := &initiator{t: t, conn: ours, w: iscsi.NewWriter(ours), cmdSN: 1, in: make(chan heard, 256)}
	r := iscsi.NewReader(ours)
	pdu := l.First()
	for done := false; !done; {
		pdu.BHS.SetCmdSN(i.cmdSN)
		pdu.BHS.SetExpStatSN(i.statSN)
		i.w.Write(&pdu.BHS, nil, pdu.Data)
		if err := i.w.Flush(); err != nil {
			t.Fatal(err)
		}
		h, data, err := next(r)
		if err != nil {
			ours.Close()
			return nil, 0
		}
		i.statSN = h.StatSN() + 1
		var refused *iscsi.LoginError
		if pdu, done, err = l.Response(&h, data); errors.As(err, &refused) {
			ours.Close()
			return nil, refused.Status
		} else if err != nil {
			t.Fatal(err)
		}
	}
	i.params = l.Params()
	r.SetMaxData(i.params.MaxRecv)
	go i.listen(r)
	t.Cleanup(func() { ours.Close() })
	return i, iscsi.LoginOK
}

func next(r *iscsi.Reader) (h iscsi.BHS, data []byte, err error) {
	p, err := r.Next()
	if err != nil {
		return h, nil, err
	}
	h, data = *p, make([]byte, r.Pending())
	return h, data, r.ReadData(data)
}

// listen hears the target until the connection ends; it answers probes.
func (i *initiator) listen(r *iscsi.Reader) {
	defer close(i.in)
	for {
		h, data, err := next(r)
		if err != nil {
			return
		}
		if h.Opcode() == iscsi.OpNopIn && h.TTT() != iscsi.NoTag {
			var a iscsi.BHS
			a.Init(iscsi.OpNopOut, iscsi.FlagFinal)
			a.SetImmediate()
			a.SetITT(iscsi.NoTag)
			a.SetTTT(h.TTT())
			i.send(&a, nil)
			continue
		}
		i.in <- heard{h, data}
	}
}

func (i *initiator) send(h *iscsi.BHS, data []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	h.SetCmdSN(i.cmdSN)
	if !h.Immediate() {
		i.cmdSN++
	}
	h.SetExpStatSN(i.statSN)
	if i.w.Write(h, nil, data) == nil {
		i.w.Flush() // a connection that ends is heard of
	}
}

// start sends a command and returns its tag.
func (i *initiator) start(c *probe, lun uint16) uint32 {
	var h iscsi.BHS
	flags := byte(iscsi.FlagFinal | iscsi.AttrSimple)
	if c.in > 0 {
		flags |= iscsi.FlagRead
		h.SetEDTL(uint32(c.in))
	}
	if len(c.out) > 0 {
		flags |= iscsi.FlagWrite
	}
	h.Init(iscsi.OpSCSICommand, flags)
	l := target.FlatLUN(lun)
	copy(h[8:16], l[:])
	h.SetEDTL(uint32(max(c.in, len(c.out))))
	copy(h[32:48], c.cdb)
	i.itt++
	h.SetITT(i.itt)
	i.send(&h, c.out)
	return h.ITT()
}

// manage sends a task management function and returns its tag.
func (i *initiator) manage(f target.Function, ref uint32) uint32 {
	var h iscsi.BHS
	h.Init(iscsi.OpTaskReq, byte(f)|iscsi.FlagFinal)
	h.SetImmediate()
	l := target.FlatLUN(1)
	copy(h[8:16], l[:])
	h.SetRefTag(ref)
	i.itt++
	h.SetITT(i.itt)
	i.send(&h, nil)
	return h.ITT()
}

// await waits for the last answer to a command or a function, at most for limit, and says what it was. Data are of all Data-In.
func (i *initiator) await(itt uint32, limit time.Duration) (result string, data []byte) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		var h heard
		ok := true
		if k := slices.IndexFunc(i.early, func(e heard) bool { return e.ITT() == itt }); k >= 0 {
			h = i.early[k]
			i.early = slices.Delete(i.early, k, k+1)
		} else {
			select {
			case h, ok = <-i.in:
			case <-timer.C:
				return "held", data
			}
			if !ok {
				return "dropped", nil
			}
			i.mu.Lock()
			if op := h.Opcode(); op != iscsi.OpR2T && (op != iscsi.OpDataIn || h.Has(iscsi.FlagStatus)) && op != iscsi.OpNopIn {
				i.statSN = h.StatSN() + 1
			}
			i.mu.Unlock()
			if h.Opcode() == iscsi.OpAsync {
				i.async = append(i.async, h.AsyncEvent())
				continue
			}
			if h.ITT() != itt {
				i.early = append(i.early, h)
				continue
			}
		}
		switch h.Opcode() {
		case iscsi.OpDataIn:
			data = append(data, h.data...)
			if !h.Has(iscsi.FlagStatus) {
				continue
			}
			return "good", data
		case iscsi.OpTaskResp:
			return fmt.Sprintf("response %d", h.Response()), nil
		case iscsi.OpReject:
			return "rejected", nil
		}
		switch h.Status() {
		case 0:
			return "good", data
		case 2:
			s := h.data[2:]
			return fmt.Sprintf("%x/%04x", s[2]&0xf, binary.BigEndian.Uint16(s[12:])), nil
		case 8:
			return "busy", nil
		case 0x18:
			return "conflict", nil
		}
		return fmt.Sprintf("status %02x", h.Status()), nil
	}
}

// do runs a command to its end, whatever that takes.
func (i *initiator) do(c *probe) (result string, took time.Duration, data []byte) {
	begin := time.Now()
	result, data = i.await(i.start(c, 1), time.Minute)
	return result, time.Since(begin), data
}

// attentions takes all unit attentions that there are, in their order; nil and "dropped" if the session has ended.
func (i *initiator) attentions() (all []string, dropped bool) {
	ready := probes()[0]
	for range 20 {
		r, _, _ := i.do(&ready)
		switch {
		case r == "dropped":
			return all, true
		case len(r) > 2 && r[:2] == "6/":
			all = append(all, r[2:])
		default:
			return all, false
		}
	}
	i.t.Fatalf("unit attentions without an end: %v", all)
	return nil, false
}

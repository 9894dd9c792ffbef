package initiator

import (
	"pmsapp/internal/iscsi"
)

// maxBatch is how many PDUs may wait for one flush.
const maxBatch = 256

// writer is what the writing goroutine has.
type writer struct {
	s   *Session
	ahs [iscsi.MaxAHS]byte
	// batch has the commands of PDUs given to the Writer and not flushed. Each counts in its command's refs.
	batch []*Command
}

// unit is something to be sent, taken under the lock and written without it.
type unit struct {
	bhs     iscsi.BHS
	data    []byte
	cmd     *Command // nil for a control PDU
	kind    unitKind
	burst   burst
	dataLen int // unsolicited data that follow a command
}

type unitKind uint8

const (
	unitControl unitKind = iota + 1
	unitCommand
	unitBurst
)

// write sends what there is to send until the session dies. What is queued goes into one batch, which is flushed when
// nothing is queued any more.
func (s *Session) write() error {
	w := &writer{s: s, batch: make([]*Command, 0, maxBatch)}
	for {
		u, ok := w.next()
		if !ok {
			w.release() // of those that were answered, nobody else would call Done
			return s.Err()
		}
		if err := w.send(&u); err != nil {
			w.release()
			return netError(err)
		}
	}
}

// next waits for something to send, flushing first if there is nothing. It returns false when the session has died.
func (w *writer) next() (u unit, ok bool) {
	s := w.s
	s.mu.Lock()
	for {
		if s.err != nil {
			s.mu.Unlock()
			return u, false
		}
		if len(w.batch) < maxBatch && s.take(&u) {
			if u.cmd != nil {
				u.cmd.refs++
				w.batch = append(w.batch, u.cmd)
			}
			s.mu.Unlock()
			return u, true
		}
		if s.w.Buffered() > 0 || len(w.batch) > 0 {
			s.mu.Unlock()
			if err := s.w.Flush(); err != nil {
				s.die(netError(err))
			}
			w.release()
			s.mu.Lock()
			continue
		}
		s.cond.Wait()
	}
}

// take chooses what is sent next: the session's own PDUs, then data that the target waits for, then new commands.
func (s *Session) take(u *unit) bool {
	if len(s.control) > 0 {
		p := s.control[0]
		s.control = append(s.control[:0], s.control[1:]...)
		*u = unit{bhs: p.bhs, data: p.data, kind: unitControl}
		u.bhs.SetCmdSN(s.cmdSN)
		u.bhs.SetExpStatSN(s.expStatSN)
		if w, ok := s.waiters[u.bhs.ITT()]; ok {
			w.bhs = u.bhs
		}
		return true
	}
	if c := s.bursts.head; c != nil {
		*u = unit{cmd: c, kind: unitBurst, burst: c.r2ts[c.firstR2T]}
		c.firstR2T = (c.firstR2T + 1) % maxR2T
		if c.countR2T--; c.countR2T == 0 {
			s.bursts.remove(c)
			c.state = stateSent
		}
		s.dataOut(&u.bhs, c, u.burst.ttt)
		return true
	}
	c := s.pending.head
	if c == nil || s.draining != nil || !iscsi.SNLessEq(s.cmdSN, s.maxCmdSN) || s.sent >= maxSlots {
		return false
	}
	s.pending.remove(c)
	s.place(c)
	*u = unit{cmd: c, kind: unitCommand}
	s.command(u, c)
	c.cmdSN = s.cmdSN
	s.cmdSN++
	return true
}

// command fills in the PDU of a command and decides which of its data go without being asked for.
func (s *Session) command(u *unit, c *Command) {
	flags, total := byte(0), len(c.DataIn)
	switch {
	case len(c.DataOut) > 0:
		flags, total = iscsi.FlagWrite, len(c.DataOut)
	case len(c.DataIn) > 0:
		flags = iscsi.FlagRead
	}
	p := &s.params
	first := min(len(c.DataOut), p.FirstBurst)
	if p.ImmediateData {
		u.data = c.DataOut[:min(first, p.MaxSend)]
	}
	if !p.InitialR2T {
		u.dataLen = first - len(u.data)
	}
	if u.dataLen == 0 {
		flags |= iscsi.FlagFinal
	}
	attr := c.Attr
	if attr == 0 {
		attr = iscsi.AttrSimple
	}
	u.bhs.Init(iscsi.OpSCSICommand, flags|attr)
	u.bhs.SetLUN(c.LUN)
	u.bhs.SetITT(c.itt)
	u.bhs.SetEDTL(uint32(total))
	u.bhs.SetCmdSN(s.cmdSN)
	u.bhs.SetExpStatSN(s.expStatSN)
}

// dataOut fills in what all Data-Out PDUs of a burst have in common.
func (s *Session) dataOut(h *iscsi.BHS, c *Command, ttt uint32) {
	h.Init(iscsi.OpDataOut, 0)
	h.SetLUN(c.LUN)
	h.SetITT(c.itt)
	h.SetTTT(ttt)
	h.SetExpStatSN(s.expStatSN)
}

// send gives the PDUs of a unit to the Writer.
func (w *writer) send(u *unit) error {
	s := w.s
	switch u.kind {
	case unitControl:
		return s.w.Write(&u.bhs, nil, u.data)
	case unitBurst:
		return w.sendData(u.bhs, u.cmd.DataOut, u.burst)
	}
	ahs, err := iscsi.SetCDB(&u.bhs, w.ahs[:0], u.cmd.CDB)
	if err != nil {
		return err
	}
	if err := s.w.Write(&u.bhs, ahs, u.data); err != nil || u.dataLen == 0 {
		return err
	}
	var h iscsi.BHS
	h.Init(iscsi.OpDataOut, 0)
	h.SetLUN(u.bhs.LUN())
	h.SetITT(u.bhs.ITT())
	h.SetTTT(iscsi.NoTag)
	h.SetExpStatSN(u.bhs.ExpStatSN())
	return w.sendData(h, u.cmd.DataOut, burst{offset: uint32(len(u.data)), length: uint32(u.dataLen)})
}

// sendData sends one burst of Data-Out.
func (w *writer) sendData(h iscsi.BHS, data []byte, b burst) error {
	for sn := uint32(0); b.length > 0; sn++ {
		n := min(b.length, uint32(w.s.params.MaxSend))
		if n == b.length {
			h.SetFlags(iscsi.FlagFinal)
		}
		h.SetDataSN(sn)
		h.SetOffset(b.offset)
		if err := w.s.w.Write(&h, nil, data[b.offset:b.offset+n]); err != nil {
			return err
		}
		b.offset += n
		b.length -= n
	}
	return nil
}

// release lets the commands of the batch go, and ends those that were answered meanwhile.
func (w *writer) release() {
	s := w.s
	var ended list
	s.mu.Lock()
	for _, c := range w.batch {
		if c.refs--; c.refs == 0 && c.state == stateEnded {
			c.state = stateIdle
			ended.push(c)
		}
	}
	s.mu.Unlock()
	clear(w.batch)
	w.batch = w.batch[:0]
	ended.finish()
}

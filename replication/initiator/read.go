package initiator

import (
	"encoding/binary"
	"fmt"

	"pmsapp/internal/iscsi"
)

// maxScratch is the most bytes that a PDU other than Data-In, a text response or a probe may carry.
const maxScratch = 8192

// read takes what the target sends until the session dies. It returns why that is.
func (s *Session) read() error {
	scratch := make([]byte, maxScratch)
	for {
		if s.r.Buffered() < iscsi.BHSLen {
			s.uncork()
		}
		h, err := s.r.Next()
		if err != nil {
			return netError(err)
		}
		if s.r.Buffered() < s.r.Pending() {
			s.uncork()
		}
		if h.Opcode() == iscsi.OpDataIn {
			err = s.dataIn(h)
		} else {
			err = s.handle(h, scratch)
		}
		if err != nil {
			return err
		}
	}
}

// uncork lets the writer have what was submitted while the reader had PDUs to handle. Between two
// calls Submit wakes nobody: the commands that the Done of a batch of answers submits go out together.
func (s *Session) uncork() {
	s.mu.Lock()
	s.corked = false
	if s.pending.head != nil || s.bursts.head != nil {
		s.cond.Signal()
	}
	s.mu.Unlock()
}

func protocolError(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrProtocol)...)
}

// arrived notes the sequence numbers of a PDU. withStat says that its StatSN is one that counts.
func (s *Session) arrived(h *iscsi.BHS, withStat bool) error {
	s.lastRecv = s.now()
	s.corked = true
	exp, top := h.ExpCmdSN(), h.MaxCmdSN()
	if iscsi.SNLessEq(exp, top+1) { // otherwise both are to be ignored (RFC 7143, 4.2.2.1)
		if iscsi.SNLess(s.maxCmdSN, top) {
			s.maxCmdSN = top
		}
		if iscsi.SNLess(s.expCmdSN, exp) {
			if iscsi.SNLess(s.cmdSN, exp) {
				return protocolError("ExpCmdSN %d, and the next command is %d", exp, s.cmdSN)
			}
			s.expCmdSN = exp
		}
	}
	if withStat {
		if h.StatSN() != s.expStatSN {
			return protocolError("%s with StatSN %d, expected %d", h.Opcode(), h.StatSN(), s.expStatSN)
		}
		s.expStatSN++
	}
	return nil
}

// dataIn puts data into the buffer of its command, and ends the command if its status came with them.
func (s *Session) dataIn(h *iscsi.BHS) error {
	n := h.DataLen()
	s.mu.Lock()
	err := s.arrived(h, h.Has(iscsi.FlagStatus))
	c := s.lookup(h.ITT())
	if err == nil {
		err = s.checkDataIn(h, c, n)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	// Only this goroutine ends a command that the target has, as long as the session lives: the buffer is ours.
	if err := s.r.ReadData(c.DataIn[c.Received : c.Received+n]); err != nil {
		return netError(err)
	}
	s.mu.Lock()
	c.Received += n
	c.dataSN++
	c.moved = s.lastRecv
	if !h.Has(iscsi.FlagStatus) {
		s.mu.Unlock()
		return nil
	}
	s.status(h, c)
	call := s.end(c, nil)
	s.mu.Unlock()
	if call {
		c.Done(c)
	}
	return nil
}

// checkDataIn verifies that data come in order and within the buffer.
func (s *Session) checkDataIn(h *iscsi.BHS, c *Command, n int) error {
	switch {
	case c == nil:
		return protocolError("Data-In for unknown task %#x", h.ITT())
	case h.DataSN() != c.dataSN:
		return protocolError("Data-In with DataSN %d, expected %d", h.DataSN(), c.dataSN)
	case int64(h.Offset()) != int64(c.Received):
		return protocolError("Data-In at offset %d, expected %d", h.Offset(), c.Received)
	case n > len(c.DataIn)-c.Received:
		return protocolError("Data-In beyond the expected %d bytes", len(c.DataIn))
	}
	return nil
}

// status takes SCSI status and residual count of h, a Data-In or a SCSI Response.
func (s *Session) status(h *iscsi.BHS, c *Command) {
	c.Status = h.Status()
	switch {
	case h.Has(iscsi.FlagUnderflow):
		c.Residual = int(h.Residual())
	case h.Has(iscsi.FlagOverflow):
		c.Residual = -int(h.Residual())
	}
}

// handle takes all PDUs but Data-In.
func (s *Session) handle(h *iscsi.BHS, scratch []byte) error {
	var data []byte
	switch op := h.Opcode(); {
	case op == iscsi.OpNopIn:
		if err := s.r.Discard(); err != nil {
			return netError(err)
		}
	case op == iscsi.OpTextResp:
		data = make([]byte, h.DataLen()) // at most MaxRecv
	case h.DataLen() > len(scratch):
		return protocolError("%s with %d bytes of data", op, h.DataLen())
	default:
		data = scratch[:h.DataLen()]
	}
	if err := s.r.ReadData(data); err != nil {
		return netError(err)
	}
	s.mu.Lock()
	counts := h.Opcode() != iscsi.OpR2T && (h.Opcode() != iscsi.OpNopIn || h.ITT() != iscsi.NoTag)
	if err := s.arrived(h, counts); err != nil {
		s.mu.Unlock()
		return err
	}
	if h.Opcode() == iscsi.OpSCSIResponse {
		c, call, err := s.response(h, data)
		s.mu.Unlock()
		if call {
			c.Done(c)
		}
		return err
	}
	if h.Opcode() == iscsi.OpTaskResp {
		return s.taskResponse(h)
	}
	defer s.mu.Unlock()
	switch h.Opcode() {
	case iscsi.OpR2T:
		return s.r2t(h)
	case iscsi.OpNopIn:
		return s.nopIn(h)
	case iscsi.OpTextResp:
		return s.answerWaiter(h, data)
	case iscsi.OpLogoutResp:
		if !s.loggingOut || h.ITT() != tagLogout {
			return protocolError("logout response without a request")
		}
		return s.draining
	case iscsi.OpAsync:
		return s.async(h)
	case iscsi.OpReject:
		return s.reject(h, data)
	}
	return protocolError("%s (%#x) from the target", h.Opcode(), h[0])
}

// response ends a command.
func (s *Session) response(h *iscsi.BHS, data []byte) (c *Command, call bool, err error) {
	c = s.lookup(h.ITT())
	if c == nil {
		return nil, false, protocolError("SCSI Response for unknown task %#x", h.ITT())
	}
	if h.Response() != iscsi.ResponseCompleted {
		return c, s.end(c, fmt.Errorf("response %#x: %w", h.Response(), ErrFailed)), nil
	}
	s.status(h, c)
	if len(data) >= 2 {
		n := int(binary.BigEndian.Uint16(data))
		if n > len(data)-2 {
			return nil, false, protocolError("sense of %d bytes in a data segment of %d", n, len(data))
		}
		c.Sense = c.senseBuf[:copy(c.senseBuf[:], data[2:2+n])]
	}
	return c, s.end(c, nil), nil
}

// r2t notes that the target wants data of a command.
func (s *Session) r2t(h *iscsi.BHS) error {
	c := s.lookup(h.ITT())
	b := burst{ttt: h.TTT(), offset: h.Offset(), length: h.Desired()}
	switch {
	case c == nil:
		return protocolError("R2T for unknown task %#x", h.ITT())
	case h.DataSN() != c.r2tSN:
		return protocolError("R2TSN %d, expected %d", h.DataSN(), c.r2tSN)
	case b.ttt == iscsi.NoTag:
		return protocolError("R2T without a tag")
	case b.length == 0 || int64(b.length) > int64(s.params.MaxBurst) || int64(b.offset)+int64(b.length) > int64(len(c.DataOut)):
		return protocolError("R2T for %d bytes at %d of %d", b.length, b.offset, len(c.DataOut))
	case c.countR2T >= maxR2T:
		return protocolError("more than %d R2Ts under way", maxR2T)
	}
	c.moved = s.lastRecv
	c.r2ts[(c.firstR2T+c.countR2T)%maxR2T] = b
	c.countR2T++
	c.r2tSN++
	if c.state == stateSent {
		c.state = stateData
		s.bursts.push(c)
	}
	s.cond.Signal()
	return nil
}

// nopIn answers the target's probe, or takes the answer to one of ours.
func (s *Session) nopIn(h *iscsi.BHS) error {
	if h.ITT() != iscsi.NoTag {
		if h.ITT() != tagNoop || s.probed == 0 {
			return protocolError("NOP-In for unknown task %#x", h.ITT())
		}
		s.probed = 0
		s.kickLocked()
		return nil
	}
	if h.TTT() == iscsi.NoTag {
		return nil // tells sequence numbers and wants no answer
	}
	var p controlPDU
	p.bhs.Init(iscsi.OpNopOut, iscsi.FlagFinal)
	p.bhs.SetLUN(h.LUN())
	p.bhs.SetITT(iscsi.NoTag)
	p.bhs.SetTTT(h.TTT())
	s.sendControl(p)
	return nil
}

// async takes an asynchronous message.
func (s *Session) async(h *iscsi.BHS) error {
	s.log.Debug("asynchronous message", "event", h.AsyncEvent(), "p1", h.AsyncParam(1), "p2", h.AsyncParam(2), "p3", h.AsyncParam(3))
	switch h.AsyncEvent() {
	case iscsi.AsyncLogoutRequest:
		if s.draining == nil {
			s.draining = ErrLogoutRequested
		}
		s.kickLocked()
	case iscsi.AsyncDropConnection, iscsi.AsyncDropSession:
		return ErrDropped
	case iscsi.AsyncNegotiate:
		return protocolError("the target asks for a negotiation") // nothing can be negotiated anew
	}
	return nil
}

// reject takes the target's word that a PDU of ours was wrong. Without error recovery that ends the session, unless the
// PDU was one of the session's own.
func (s *Session) reject(h *iscsi.BHS, data []byte) error {
	if h.Response() == iscsi.RejectDataDigest {
		return fmt.Errorf("rejected by the target: %w", ErrDigest)
	}
	if len(data) < iscsi.BHSLen {
		return protocolError("reject for reason %#x", h.Response())
	}
	bad := iscsi.BHS(data[:iscsi.BHSLen])
	tag := bad.ITT()
	if w, ok := s.waiters[tag]; ok {
		delete(s.waiters, tag)
		w.ch <- reply{err: fmt.Errorf("reason %#x: %w", h.Response(), ErrRejected)}
		return nil
	}
	if bad.Opcode() == iscsi.OpNopOut {
		s.probed = 0 // the path lives
		return nil
	}
	return protocolError("the target rejected a %s for reason %#x", bad.Opcode(), h.Response())
}

// answerWaiter hands a response to who waits for it.
func (s *Session) answerWaiter(h *iscsi.BHS, data []byte) error {
	w, ok := s.waiters[h.ITT()]
	if !ok {
		return protocolError("%s for unknown task %#x", h.Opcode(), h.ITT())
	}
	delete(s.waiters, h.ITT())
	w.ch <- reply{bhs: *h, data: data}
	return nil
}

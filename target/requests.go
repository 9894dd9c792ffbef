package target

import (
	"fmt"

	"pmsapp/internal/iscsi"
)

// request is a PDU that came before its turn.
type request struct {
	task *Task // a SCSI command
	head iscsi.BHS
	data []byte
}

// maxEarlyData bounds the data of a PDU, other than a command, that came before its turn, and maxAllEarly of all of them.
const (
	maxEarlyData = 16 << 10
	maxAllEarly  = 4 * maxEarlyData
)

// receive is the loop of the reader. It returns why the session is over.
func (s *session) receive() error {
	for {
		h, err := s.reader.Next()
		if err != nil {
			return err
		}
		s.heard.Add(1)
		s.acknowledge(h.ExpStatSN())
		err = s.dispatch(h)
		if s.helps && !s.help() {
			return errSuperseded
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) dispatch(h *iscsi.BHS) error {
	var err error
	switch h.Opcode() {
	case iscsi.OpDataOut:
		return s.dataOut(h)
	case iscsi.OpSCSICommand:
		err = s.command(h)
	case iscsi.OpNopOut, iscsi.OpTaskReq, iscsi.OpTextReq, iscsi.OpLogoutReq:
		err = s.request(h)
	case iscsi.OpLoginReq:
		return fmt.Errorf("%w: login in full feature phase", ErrProtocol)
	default:
		return s.reject(h, iscsi.RejectUnsupported)
	}
	if err != nil || h.Immediate() {
		return err
	}
	return s.takeEarly()
}

// takeEarly handles the PDUs whose turn has come now.
func (s *session) takeEarly() error {
	for {
		s.mu.Lock()
		if len(s.window.early) == 0 {
			s.mu.Unlock()
			return nil
		}
		r, ok := s.window.next()
		if ok && r != nil && r.task != nil {
			s.handling = r.task
		}
		s.mu.Unlock()
		switch {
		case !ok:
			return nil
		case r == nil:
		case r.task != nil:
			s.accept(r.task, r.task.pushing)
			s.proceed(r.task)
		default:
			s.earlyData -= len(r.data)
			if err := s.handle(&r.head, r.data); err != nil {
				return err
			}
		}
	}
}

// request takes a PDU that is numbered by CmdSN and is no SCSI command.
func (s *session) request(h *iscsi.BHS) error {
	n := s.reader.Pending()
	v := vNow
	s.mu.Lock()
	if !h.Immediate() {
		v = s.window.arrive(h.CmdSN())
	}
	s.mu.Unlock()
	if v == vIgnore {
		return s.reader.Discard()
	}
	if v == vEarly && (n > maxEarlyData || s.earlyData+n > maxAllEarly) {
		return fmt.Errorf("%w: %s out of order with %d bytes", ErrProtocol, h.Opcode(), n)
	}
	var data []byte
	if n > 0 {
		data = make([]byte, n)
		if err := s.reader.ReadData(data); err != nil {
			return err
		}
	}
	if v == vEarly {
		s.earlyData += n
		s.mu.Lock()
		s.window.early[h.CmdSN()] = &request{head: *h, data: data}
		s.mu.Unlock()
		return nil
	}
	return s.handle(h, data)
}

// handle carries out a request whose turn has come. Its place in the window is free again before the answer is sent.
func (s *session) handle(h *iscsi.BHS, data []byte) error {
	if !h.Immediate() {
		s.mu.Lock()
		s.window.release()
		s.mu.Unlock()
	}
	switch h.Opcode() {
	case iscsi.OpNopOut:
		s.nopOut(h, data)
		return nil
	case iscsi.OpTaskReq:
		return s.manage(h)
	case iscsi.OpTextReq:
		return s.textRequest(h, data)
	default:
		return s.logout(h)
	}
}

// nopOut answers a ping. A NOP-Out without a task tag is itself an answer to one of ours: that it came is all it says.
func (s *session) nopOut(h *iscsi.BHS, data []byte) {
	if h.ITT() == iscsi.NoTag {
		return
	}
	a := new(iscsi.BHS)
	a.Init(iscsi.OpNopIn, iscsi.FlagFinal)
	a.SetLUN(h.LUN())
	a.SetITT(h.ITT())
	a.SetTTT(iscsi.NoTag)
	s.answer(a, data[:min(len(data), s.params.MaxSend)])
}

// reject refuses a PDU and throws its data away.
func (s *session) reject(h *iscsi.BHS, reason byte) error {
	head := append([]byte(nil), h[:]...)
	if err := s.reader.Discard(); err != nil {
		return err
	}
	s.rejectHeader(head, reason)
	return nil
}

func (s *session) rejectHeader(head []byte, reason byte) {
	a := new(iscsi.BHS)
	a.Init(iscsi.OpReject, iscsi.FlagFinal)
	a.SetResponse(reason)
	a.SetITT(iscsi.NoTag)
	s.answer(a, head)
}

// logout ends the session before it is answered (invariant 4). Its error is what the end of the session is then about.
func (s *session) logout(h *iscsi.BHS) error {
	a := new(iscsi.BHS)
	a.Init(iscsi.OpLogoutResp, iscsi.FlagFinal)
	a.SetITT(h.ITT())
	switch reason := h.LogoutReason(); {
	case reason == iscsi.LogoutConnection && h.CID() != s.cid:
		a.SetResponse(iscsi.LogoutNoCID)
	case reason == iscsi.LogoutRecovery:
		a.SetResponse(iscsi.LogoutNoRecovery)
	case reason > iscsi.LogoutRecovery:
		return s.rejectNow(h, iscsi.RejectInvalidField)
	default:
		s.end(ErrLogout)
		s.mu.Lock()
		s.push(item{kind: itemAnswer, head: a, last: true})
		s.mu.Unlock()
		return ErrLogout
	}
	s.answer(a, nil)
	return nil
}

// rejectNow is reject for a PDU whose data was taken already.
func (s *session) rejectNow(h *iscsi.BHS, reason byte) error {
	s.rejectHeader(append([]byte(nil), h[:]...), reason)
	return nil
}

// manage carries out a task management function (RFC 7143 11.5). The tasks concerned have been stopped, in the sense of
// invariant 4, before it is answered.
func (s *session) manage(h *iscsi.BHS) error {
	f := Function(h.TaskFunc())
	a := new(iscsi.BHS)
	a.Init(iscsi.OpTaskResp, iscsi.FlagFinal)
	a.SetITT(h.ITT())
	if s.nexus == nil || f < AbortTask || f > TaskReassign {
		a.SetResponse(byte(FunctionRejected))
		s.answer(a, nil)
		return nil
	}
	r := ReassignNotSupported
	var then func(func(Response))
	if f != TaskReassign {
		r, then = s.carryOut(Management{Function: f, LUN: LUN(h[8:16])}, h)
	}
	switch {
	case f == TargetColdReset:
		return s.coldReset(a, r, then)
	case then == nil:
		a.SetResponse(byte(r))
		s.answer(a, nil)
		return nil
	}
	if !s.place(1) {
		return nil
	}
	then(func(r Response) {
		a.SetResponse(byte(r))
		s.mu.Lock()
		s.push(item{kind: itemAnswer, slots: 1, head: a})
		s.mu.Unlock()
	})
	return nil
}

// coldReset answers a TARGET COLD RESET, after which all sessions with the target end. Nothing more is read before it is over.
func (s *session) coldReset(a *iscsi.BHS, r Response, then func(func(Response))) error {
	if then != nil {
		over := make(chan Response, 1)
		then(func(r Response) { over <- r })
		select {
		case r = <-over:
		case <-s.dead:
			return ErrReset
		}
	}
	a.SetResponse(byte(r))
	if r != FunctionComplete {
		s.answer(a, nil)
		return nil
	}
	s.srv.dropTarget(s, ErrReset)
	s.mu.Lock()
	s.push(item{kind: itemAnswer, head: a, last: true})
	s.mu.Unlock()
	return ErrReset
}

// carryOut returns the response, or what has it if that may take a while.
func (s *session) carryOut(m Management, h *iscsi.BHS) (r Response, then func(func(Response))) {
	s.exec.Lock()
	r, units, then := s.nexus.Manage(m)
	s.exec.Unlock()
	if r != FunctionComplete {
		return r, nil
	}
	switch m.Function {
	case AbortTask:
		return s.abortTask(m, h), then
	case AbortTaskSet, ClearTaskSet:
		s.stop(func(t *Task) bool { return t.LUN == m.LUN })
		s.srv.stopUnits(units)
	case LogicalUnitReset, TargetWarmReset, TargetColdReset:
		s.srv.stopUnits(units)
	}
	return r, then
}

// abortTask stops the task that is referred to. If it has not come yet, it never will.
func (s *session) abortTask(m Management, h *iscsi.BHS) Response {
	tag := h.RefTag()
	if s.stop(func(t *Task) bool { return t.Tag == tag && t.LUN == m.LUN }) > 0 {
		return FunctionComplete
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tasks[tag]; t != nil && t.stage == ended {
		return TaskDoesNotExist // its response is on its way
	}
	if iscsi.SNLess(h.RefCmdSN(), h.CmdSN()) && s.window.skip(h.RefCmdSN()) {
		return FunctionComplete
	}
	return TaskDoesNotExist
}

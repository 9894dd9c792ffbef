package initiator

import (
	"context"
	"fmt"

	"pmsapp/internal/iscsi"
)

// TaskError is the target's refusal of a task management function. It is an ErrTask.
type TaskError struct{ Response byte } // RFC 7143, 11.6.1

func (e *TaskError) Error() string { return fmt.Sprintf("%v: response %d", ErrTask, e.Response) }

// Is makes errors.Is(e, ErrTask) true.
func (e *TaskError) Is(t error) bool { return t == ErrTask }

// Abort asks the target to abort c (ABORT TASK). When it returns nil, c has ended, by the abort with ErrAborted or
// otherwise, or does as soon as its buffers are not being sent any more. It must not be called from a Done.
func (s *Session) Abort(ctx context.Context, c *Command) error {
	s.mu.Lock()
	switch c.state {
	case statePending:
		s.end(c, ErrAborted)
		s.mu.Unlock()
		c.Done(c)
		return nil
	case stateIdle, stateEnded:
		s.mu.Unlock()
		return nil
	}
	var h iscsi.BHS
	h.Init(iscsi.OpTaskReq, iscsi.FlagFinal|iscsi.TaskAbort)
	h.SetLUN(c.LUN)
	h.SetRefTag(c.itt)
	h.SetRefCmdSN(c.cmdSN)
	return s.manage(ctx, h)
}

// LUReset resets a logical unit (LOGICAL UNIT RESET). When it returns nil, all commands for that LUN that the target had
// have ended, with ErrAborted those that it did not answer.
func (s *Session) LUReset(ctx context.Context, lun uint64) error {
	return s.function(ctx, iscsi.TaskLUReset, lun)
}

// AbortTaskSet aborts all commands of this session for a LUN (ABORT TASK SET).
func (s *Session) AbortTaskSet(ctx context.Context, lun uint64) error {
	return s.function(ctx, iscsi.TaskAbortSet, lun)
}

// Function asks for any other task management function for a LUN, by its number (RFC 7143, 11.5.1).
func (s *Session) Function(ctx context.Context, function byte, lun uint64) error {
	return s.function(ctx, function, lun)
}

func (s *Session) function(ctx context.Context, function byte, lun uint64) error {
	var h iscsi.BHS
	h.Init(iscsi.OpTaskReq, iscsi.FlagFinal|function)
	h.SetLUN(lun)
	h.SetRefTag(iscsi.NoTag)
	s.mu.Lock()
	return s.manage(ctx, h)
}

// manage sends a request and waits for the answer. It is called with the lock held and gives it back.
func (s *Session) manage(ctx context.Context, h iscsi.BHS) error {
	r, err := s.ask(ctx, controlPDU{bhs: h})
	if err != nil {
		return err
	}
	if taskSucceeded(&h, &r.bhs) {
		return nil
	}
	return &TaskError{Response: r.bhs.Response()}
}

// taskSucceeded tells whether what was asked for is so now. A task to be aborted that the target does not know will not
// be executed any more either: what comes before it in the order of CmdSN has come.
func taskSucceeded(request, response *iscsi.BHS) bool {
	return response.Response() == iscsi.TaskDone ||
		request.TaskFunc() == iscsi.TaskAbort && response.Response() == iscsi.TaskNoTask
}

// taskResponse ends the commands that a task management function has ended, and tells who asked for it. It is called by
// the reader with the lock held and gives it back.
func (s *Session) taskResponse(h *iscsi.BHS) error {
	w, ok := s.waiters[h.ITT()]
	if !ok || w.bhs.Opcode() != iscsi.OpTaskReq {
		s.mu.Unlock()
		return protocolError("task management response for unknown task %#x", h.ITT())
	}
	delete(s.waiters, h.ITT())
	var ended list
	if taskSucceeded(&w.bhs, h) {
		for i := range s.slots {
			if c := s.slots[i].cmd; c != nil && concerns(&w.bhs, c) && s.end(c, ErrAborted) {
				ended.push(c)
			}
		}
	}
	s.mu.Unlock()
	ended.finish()
	w.ch <- reply{bhs: *h}
	return nil
}

// concerns tells whether a task management request ends c: of those with the target, what was sent before the request.
func concerns(h *iscsi.BHS, c *Command) bool {
	switch h.TaskFunc() {
	case iscsi.TaskAbort:
		return c.itt == h.RefTag()
	case iscsi.TaskAbortSet, iscsi.TaskClearSet, iscsi.TaskLUReset:
		return c.LUN == h.LUN() && iscsi.SNLess(c.cmdSN, h.CmdSN())
	case iscsi.TaskWarmReset, iscsi.TaskColdReset:
		return iscsi.SNLess(c.cmdSN, h.CmdSN())
	}
	return false
}

// ask sends a request of the session's own and waits for its answer. A request without a tag gets one. It is called with
// the lock held and gives it back.
func (s *Session) ask(ctx context.Context, p controlPDU) (reply, error) {
	err := s.err
	switch {
	case err != nil:
	case s.loggingOut:
		err = ErrClosed
	case len(s.waiters) >= maxControl/2:
		err = ErrQueueFull
	}
	if err != nil {
		s.mu.Unlock()
		return reply{}, err
	}
	if p.bhs.ITT() == 0 {
		p.bhs.SetITT(s.newTag())
	}
	w := &waiter{bhs: p.bhs, ch: make(chan reply, 1)}
	s.waiters[p.bhs.ITT()] = w
	s.sendControl(p)
	s.mu.Unlock()
	select {
	case r := <-w.ch:
		return r, r.err
	case <-ctx.Done():
		return reply{}, ctx.Err() // the tag stays taken until the answer comes: it is still the target's
	}
}

func (s *Session) newTag() uint32 {
	for {
		if s.lastTag++; s.lastTag > tagLast {
			s.lastTag = tagFirst
		}
		if _, taken := s.waiters[s.lastTag]; !taken {
			return s.lastTag
		}
	}
}

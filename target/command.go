package target

import (
	"fmt"
	"slices"

	"pmsapp/internal/block"
	"pmsapp/internal/iscsi"
)

// command takes a SCSI Command PDU. An error ends the session.
func (s *session) command(h *iscsi.BHS) error {
	n := s.reader.Pending()
	switch {
	case n == 0:
	case !h.Has(iscsi.FlagWrite):
		return fmt.Errorf("%w: data with a command that writes nothing", ErrProtocol)
	case !s.params.ImmediateData:
		return fmt.Errorf("%w: immediate data, which was not agreed to", ErrProtocol)
	case n > s.params.FirstBurst || uint32(n) > h.EDTL():
		return fmt.Errorf("%w: %d bytes of immediate data", ErrProtocol, n)
	}

	s.mu.Lock()
	s.notice(h)
	v := vNow
	if !h.Immediate() {
		v = s.window.arrive(h.CmdSN())
	}
	if v == vIgnore {
		s.mu.Unlock()
		return s.reader.Discard()
	}
	if reason := s.refuse(h); reason != 0 {
		if v == vNow && !h.Immediate() {
			s.window.release()
		} else if v == vEarly {
			s.window.early[h.CmdSN()] = nil
		}
		s.mu.Unlock()
		return s.reject(h, reason)
	}
	t := s.newTask()
	cdb, bidi, err := iscsi.CDB(t.cdb[:0], h, s.reader.AHS())
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	t.begin(s, h, cdb, bidi)
	s.order++
	t.order = s.order
	if t.Attr == Ordered {
		s.ordered++
	}
	s.tasks[t.Tag] = t
	s.handling = t
	if t.immediate {
		s.immediate++
	}
	if v == vEarly {
		s.window.early[t.cmdSN] = &request{task: t}
		if n > 0 || t.pushing {
			s.holdBurst(t, t.ExpOut)
		}
	}
	s.mu.Unlock()

	if v == vNow {
		s.accept(t, n > 0 || t.pushing)
	}
	if n > 0 {
		if err := s.data(t, n); err != nil {
			return err
		}
	}
	s.proceed(t)
	return nil
}

// refuse returns the reason for which a command cannot be taken, 0 if there is none. Called with mu.
func (s *session) refuse(h *iscsi.BHS) byte {
	if _, dup := s.tasks[h.ITT()]; dup || h.ITT() == iscsi.NoTag || s.nexus == nil {
		return iscsi.RejectProtocol
	}
	if h.Immediate() && s.immediate >= maxImmediate {
		return iscsi.RejectImmediate
	}
	return 0
}

// accept shows a task to the nexus and gives it memory. unasked says that data comes without being asked for. The reader
// calls it, with the task in hand, in CmdSN order.
func (s *session) accept(t *Task, unasked bool) {
	s.exec.Lock()
	defer s.exec.Unlock()
	// The nexus is asked even for a task that was stopped just now: proceed cancels it.
	w := s.nexus.Accept(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	t.stage = collecting
	w.Out = min(max(w.Out, 0), t.ExpOut, s.srv.cfg.MaxData)
	w.In = min(max(w.In, 0), s.srv.cfg.MaxData)
	t.Accepted = w
	switch {
	case t.full || t.firstBurst != nil: // it came early
	case len(s.starved) == 0 && s.afford(t):
		t.admit()
	case unasked:
		s.holdBurst(t, w.Out)
	}
}

// holdBurst gives a task that has not got its memory a buffer for the data that comes unasked. Called with mu.
func (s *session) holdBurst(t *Task, most int64) {
	n := min(most, int64(s.params.FirstBurst))
	if !s.srv.budget.takeSmall(s, n) {
		t.full = true
		return
	}
	t.small = n
	t.firstBurst = block.Get(int(n))
}

// afford takes what a task needs from the budget. What it has got for its first burst it gets back: the data moves over
// before anybody else can have it. Called with mu.
func (s *session) afford(t *Task) bool {
	b := s.srv.budget
	need := min(t.Accepted.Out+t.Accepted.In, s.srv.cfg.MaxData)
	if need > int64(s.srv.cfg.FirstBurst) {
		if !b.takeLarge(s, s.charged, need) {
			return false
		}
		b.give(t.small, 0)
		t.small, t.large = 0, need
		s.charged += need
		return true
	}
	if need > t.small && !b.takeSmall(s, need-t.small) {
		return false
	}
	t.small = max(t.small, need)
	return true
}

// starve makes a task wait for memory. Called with mu.
func (s *session) starve(t *Task) {
	s.starved = append(s.starved, t)
	s.srv.budget.await(s)
	s.kick() // some may have come back before the session was known to wait
}

// data reads the next n bytes of the PDU's data segment, the next of the task's in order. What the nexus does not want
// is thrown away. The reader calls it, with the task in hand.
func (s *session) data(t *Task, n int) error {
	part := t.room()
	part = part[:min(n, len(part))]
	if err := s.reader.ReadData(part); err != nil {
		return err
	}
	if err := s.reader.Skip(); err != nil {
		return err
	}
	s.mu.Lock() // the watchman looks at it
	t.got += int64(n)
	t.asked = max(t.asked, t.got)
	s.mu.Unlock()
	return nil
}

// proceed takes the task in hand one step further after data has come, and puts it out of hand: it is executed, asks for
// more data, or waits for it, or for memory.
func (s *session) proceed(t *Task) {
	s.exec.Lock()
	defer s.exec.Unlock()
	s.mu.Lock()
	s.handling = nil
	if t.stopped {
		s.mu.Unlock()
		s.discard(t)
		return
	}
	if t.stage == collecting && t.full {
		s.mu.Unlock()
		s.refuseTask(t, statusTaskSetFull, nil)
		return
	}
	if t.stage != collecting || t.pushing && t.missing() > 0 {
		s.mu.Unlock()
		return
	}
	if !t.admitted {
		if len(s.starved) > 0 || !s.afford(t) {
			s.starve(t)
			s.mu.Unlock()
			return
		}
		t.admit()
	}
	ready := s.solicit(t)
	if ready {
		s.lend(t)
	}
	s.mu.Unlock()
	if ready {
		s.nexus.Execute(t)
	}
}

// solicit asks for data that is missing; if nothing is, the task is ready and counts as executing. Called with mu.
func (s *session) solicit(t *Task) (ready bool) {
	if t.missing() <= 0 {
		if s.ordered > 0 && s.mustWait(t) {
			s.barred = append(s.barred, t)
			return false
		}
		t.stage = executing
		return true
	}
	if t.r2ts == 0 {
		t.from, t.asked = t.got, t.got
	}
	for t.asked < t.Accepted.Out && int(t.r2ts-t.filled) < s.params.MaxR2T {
		n := min(t.Accepted.Out-t.asked, int64(s.params.MaxBurst))
		if t.r2ts == t.filled {
			t.seqLeft, t.dataSN = n, 0
		}
		s.push(item{kind: itemR2T, lun: t.LUN, itt: t.Tag, sn: t.r2ts, off: uint32(t.asked), count: uint32(n)})
		t.r2ts++
		t.asked += n
	}
	return false
}

// mustWait tells whether the ORDERED attribute of a task, or of an earlier one, keeps it from being executed yet (SAM-5
// 8.6): per session, as the task set is (control mode page, TST). Called with mu.
func (s *session) mustWait(t *Task) bool {
	if t.Attr == HeadOfQueue {
		return false
	}
	for _, u := range s.tasks {
		if u.order < t.order && u.stage != ended && u.LUN == t.LUN && (t.Attr == Ordered || u.Attr == Ordered) {
			return true
		}
	}
	return false
}

// pump goes on with the tasks that wait for earlier ones or for memory, as far as they can.
func (s *session) pump() {
	s.exec.Lock()
	defer s.exec.Unlock()
	for s.pumpBarred() {
	}
	for {
		s.mu.Lock()
		if len(s.starved) == 0 || s.closed {
			s.mu.Unlock()
			return
		}
		s.srv.budget.await(s)
		if !s.afford(s.starved[0]) {
			s.mu.Unlock()
			return
		}
		t := s.starved[0]
		s.starved = s.starved[1:]
		t.admit()
		ready := s.solicit(t)
		s.mu.Unlock()
		if ready {
			s.nexus.Execute(t)
		}
	}
}

// pumpBarred executes one task that need not wait for earlier ones any more. Called with exec.
func (s *session) pumpBarred() bool {
	s.mu.Lock()
	for i, t := range s.barred {
		if s.closed || s.mustWait(t) {
			continue
		}
		s.barred = slices.Delete(s.barred, i, i+1)
		t.stage = executing
		s.mu.Unlock()
		s.nexus.Execute(t)
		return true
	}
	s.mu.Unlock()
	return false
}

// dataOut takes a Data-Out PDU. Data that may not come now fails the task; an error ends the session.
func (s *session) dataOut(h *iscsi.BHS) error {
	s.mu.Lock()
	t := s.tasks[h.ITT()]
	if t == nil || !t.Write || t.stage > collecting {
		s.mu.Unlock()
		return s.reader.Discard() // of a task that was aborted, ignored, refused, or answered early
	}
	s.handling = t
	n := s.reader.Pending()
	err := s.checkDataOut(t, h, int64(n))
	if err != nil && t.stage == collecting {
		s.handling = nil
		s.mu.Unlock()
		s.srv.log.Info("task failed", "initiator", s.login.Initiator, "itt", t.Tag, "err", err)
		s.failTask(t)
		return s.reader.Discard()
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.data(t, n); err != nil {
		return err
	}
	s.mu.Lock()
	t.dataSN++
	switch {
	case t.pushing:
		t.pushing = !h.Final()
	default:
		if t.seqLeft -= int64(n); t.seqLeft == 0 {
			t.filled++
			start := t.from + int64(t.filled)*int64(s.params.MaxBurst)
			t.seqLeft, t.dataSN = min(t.Accepted.Out-start, int64(s.params.MaxBurst)), 0
		}
	}
	s.mu.Unlock()
	s.proceed(t)
	return nil
}

// failTask ends a task whose data came wrongly, without executing it. What comes of its data later is thrown away.
func (s *session) failTask(t *Task) {
	s.exec.Lock()
	defer s.exec.Unlock()
	s.mu.Lock()
	wrong := t.stopped || t.stage != collecting
	s.mu.Unlock()
	if !wrong {
		// ABORTED COMMAND, NOT ENOUGH UNSOLICITED DATA: what RFC 7143 11.4.7.2 has for data in the wrong amount.
		s.refuseTask(t, statusCheckCondition, []byte{0x70, 0, 0x0b, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0c, 0x0d, 0, 0, 0, 0})
	}
}

// refuseTask answers a collecting task without executing it. Called with exec.
func (s *session) refuseTask(t *Task, status byte, sense []byte) {
	s.nexus.Cancel(t)
	t.Status, t.Sense = status, append(t.SenseBuf[:0], sense...)
	s.mu.Lock()
	t.stage = ended
	s.passed(t)
	same := func(u *Task) bool { return u == t }
	s.starved, s.barred = slices.DeleteFunc(s.starved, same), slices.DeleteFunc(s.barred, same)
	s.push(item{kind: itemTask, task: t})
	s.mu.Unlock()
}

// checkDataOut checks a Data-Out of the task in hand against what may come next. As DataPDUInOrder and
// DataSequenceInOrder are Yes, there is only one thing that may. Called with mu.
func (s *session) checkDataOut(t *Task, h *iscsi.BHS, n int64) error {
	bad := func(what string) error {
		return fmt.Errorf("%w: Data-Out with %s", ErrProtocol, what)
	}
	end := t.got + n
	if int64(h.Offset()) != t.got {
		return bad("an offset out of order")
	}
	if h.DataSN() != t.dataSN {
		return bad("a DataSN out of order")
	}
	if t.pushing {
		if h.TTT() != iscsi.NoTag {
			return bad("a transfer tag, where unsolicited data must come")
		}
		if end > min(t.ExpOut, int64(s.params.FirstBurst)) {
			return bad("more unsolicited data than FirstBurstLength or the command allow")
		}
		return nil
	}
	if t.r2ts == t.filled {
		return bad("data that nobody asked for")
	}
	if h.TTT() != t.filled {
		return bad("another transfer tag than the R2T's")
	}
	if n > t.seqLeft || h.Final() != (n == t.seqLeft) {
		return bad("more or less data than the R2T asked for")
	}
	return nil
}

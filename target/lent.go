package target

import (
	"errors"
	"os"

	"pmsapp/internal/iscsi"
)

// A session whose initiator has one command under way at a time costs most by handing it from goroutine to goroutine: from the
// reader to a worker of the disk, and from that to the writer. So while commands come one by one, the reader carries them out and
// answers them itself (block.Lent). DESIGN.md, "The reader that is lent", says why that is safe.

const (
	// fewCalm is how many commands in a row have to come alone before the reader is lent. Each time that one comes while it is, which
	// then waits for a disk that is none of its business, it takes moreCalm times as many, up to mostCalm; so few of them ever wait.
	fewCalm, moreCalm, mostCalm = 16, 8, 1 << 14
	// smallAnswer bounds the data that the reader sends.
	smallAnswer = 64 << 10
)

// errSuperseded ends a goroutine that was a session's reader and is not any more.
var errSuperseded = errors.New("target: another goroutine reads")

// notice counts the commands that come alone: when everything before was answered, and the initiator has seen the answer. Called with mu.
func (s *session) notice(h *iscsi.BHS) {
	if len(s.tasks) == 0 && len(s.queue) == 0 && h.ExpStatSN() == s.statSN {
		if s.calm++; s.calm > 2*mostCalm {
			s.calm, s.need = mostCalm, fewCalm
		}
		return
	}
	if s.calm >= s.need {
		s.need = min(s.need*moreCalm, mostCalm)
	}
	s.calm = 0
}

// lend lends the reader to a task that is about to be executed, if it is all that the session has to do. Called with mu.
func (s *session) lend(t *Task) {
	if s.calm < s.need || len(s.tasks) != 1 || len(s.window.early) > 0 || len(s.queue) > 0 || s.reader.Buffered() > 0 {
		return
	}
	s.helps, s.attended = true, true
	s.lent.Open()
	t.Lent = &s.lent
}

// help carries out what the task needs that the reader was lent to, and answers it if it has ended. It returns false if another goroutine
// has become the reader meanwhile: then nothing of the session is this one's any more.
func (s *session) help() bool {
	s.helps = false
	s.lends++
	n := s.lends // which is another reader's when Run returns, perhaps
	s.inline.Store(n)
	select {
	case <-s.dead: // drop has not seen n, perhaps
		s.supersede(n)
	default:
	}
	s.lent.Run()
	if !s.inline.CompareAndSwap(n, 0) {
		return false
	}
	s.out.now()
	return true
}

// supersede makes another goroutine the reader, if it is still carrying out what it was when n was its number.
func (s *session) supersede(n uint64) {
	if n == 0 || !s.inline.CompareAndSwap(n, 0) {
		return
	}
	s.mu.Lock()
	s.attended, s.calm = false, 0
	s.mu.Unlock()
	s.signal() // there may be answers that the writer was not told of
	go s.srv.carryOn(s, nil)
}

// now sends the answer to a command if that is all there is to be sent, as far as the connection takes it at once; the writer does the rest.
func (o *sender) now() {
	s := o.s
	s.mu.Lock()
	s.attended = false
	n, small := len(s.queue), false
	if n == 1 {
		it := &s.queue[0]
		small = it.kind == itemTask && len(it.task.DataIn) <= smallAnswer
	}
	s.mu.Unlock()
	switch {
	case n == 0:
		return
	case !small || o.raw == nil || !o.mu.TryLock():
		s.signal()
		return
	}
	err := o.try()
	o.mu.Unlock()
	if err != nil {
		o.failed(err)
	}
}

// try takes what is queued and sends it without waiting. Called with mu.
func (o *sender) try() error {
	if len(o.left) > 0 {
		o.s.signal()
		return nil
	}
	o.batch = o.take(o.batch)
	for i := range o.batch {
		if err := o.add(&o.batch[i]); err != nil {
			o.settle(o.batch)
			return err
		}
	}
	done, err := o.w.TryFlush(o.raw)
	if err == nil && !done {
		o.left, o.batch = o.batch, nil
		o.s.signal()
		return nil
	}
	o.settle(o.batch)
	return err
}

// goOn sends what the reader has left. Called with mu.
func (o *sender) goOn() error {
	o.bound(o.left)
	err := o.w.Flush()
	o.settle(o.left)
	o.left = nil
	return err
}

// abandon frees what the reader has left, when the writer has ended: nobody sends it any more.
func (o *sender) abandon() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settle(o.left)
	o.left = nil
}

// failed ends the session: the connection is of no use any more.
func (o *sender) failed(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) && !o.s.parting.Load() {
		err = ErrStalled
	}
	o.s.drop(err)
	o.s.conn.Close() // if it was dropped before: half a PDU may be out
}

// answers counts the items that take a StatSN.
func answers(batch []item) (n uint32) {
	for i := range batch {
		if k := batch[i].kind; k == itemTask || k == itemAnswer && !batch[i].quiet {
			n++
		}
	}
	return n
}

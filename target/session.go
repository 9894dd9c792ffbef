package target

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/iscsi"
)

const (
	maxImmediate = 16      // immediate commands of a session under way
	maxControl   = 64      // answers to other PDUs than commands that wait to be sent
	controlData  = 1 << 10 // bytes of data in such an answer that take a further place
	maxFree      = 32      // tasks kept for reuse beyond those in use
)

// session is a logged-in connection: with MaxConnections=1 the two are one. Two goroutines serve it: the reader, which
// owns it (it is the goroutine of the connection), and the writer.
//
// Locks: exec, then mu. Whoever moves a task towards the nexus holds exec from the check that it was not stopped to the
// nexus's return; so whoever has stopped tasks under exec knows that they have reached the nexus or never will
// (invariant 4). Done takes mu only, and so may be called within Execute.
type session struct {
	srv     *Server
	conn    net.Conn
	login   Login
	port    port
	cid     uint16
	tsih    uint16
	since   time.Time
	params  iscsi.Params
	nexus   Nexus // nil in a discovery session
	trusted bool  // Opened.Trusted

	reader *iscsi.Reader
	done   func(*Task)
	text   textState
	// earlyData is the reader's: bytes of the requests that came before their turn.
	earlyData int

	exec sync.Mutex // serialises the calls of nexus
	over bool       // guarded by exec: the nexus was ended

	mu        sync.Mutex
	window    window
	tasks     map[uint32]*Task // by ITT: those that can still be answered or aborted
	handling  *Task            // the one that the reader has in hand; nobody else frees it
	starved   []*Task          // accepted, all unsolicited data is there, waiting for memory; oldest first
	barred    []*Task          // complete, waiting for earlier ones (mustWait); oldest first
	order     uint64           // of the last task
	ordered   int              // tasks with the attribute ORDERED that have not ended
	charged   int64            // taken from the budget for large commands
	immediate int              // immediate commands among tasks
	queue     []item           // to be sent
	free      []*Task
	sentMax   uint32 // the last MaxCmdSN sent
	closed    bool   // nothing is answered any more
	cause     error  // why the session ends; set once
	running   bool   // reader and writer are at it
	bye       bool   // the initiator is told before the connection ends
	statSN    uint32 // of the next answer, when what was taken from queue is sent
	attended  bool   // the reader looks at queue before it waits: the writer need not be woken

	wake    chan struct{} // of size 1: the writer has something to do
	control chan struct{} // of size maxControl: places for control answers in queue, by their number and their data
	dead    chan struct{} // closed when the session is to end
	gone    chan struct{} // closed when it has ended: invariant 4 holds for all its tasks
	waits   bool          // guarded by budget.mu

	unacked unacked

	out    *sender
	silent chan struct{} // closed when the writer has gone
	lent   block.Lent    // the reader
	calm   int           // commands in a row that came alone
	need   int           // how many of them the reader is lent after
	lends  uint64        // the reader's: how often it was lent
	helps  bool          // the reader's: it is lent
	inline atomic.Uint64 // lends while the reader carries something out, else 0: who sets it to 0 is the reader
	inSeen uint64        // the watchman's: inline when it looked last

	heard  atomic.Uint64 // PDUs received
	watch  watch         // the server's watchman's
	asked  atomic.Bool   // the initiator was asked to log out
	opened atomic.Bool   // the provider has made the nexus
	pumps  atomic.Bool   // memory may have come back
	// parting says that the end of the session bounds what is still sent.
	parting atomic.Bool
}

// kick makes the writer look after the tasks that wait for memory.
func (s *session) kick() {
	s.pumps.Store(true)
	s.signal()
}

func (s *session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// stop ends the tasks that match: they will not be executed if they were not yet, and not be answered. It returns how
// many there were. When it returns, every one that was executed was submitted (its range is kept), and none other will.
func (s *session) stop(match func(*Task) bool) (n int) {
	s.exec.Lock()
	defer s.exec.Unlock()
	var cancel []*Task
	var stops []func() // of tasks that may be in use for other commands when mu is given up
	s.mu.Lock()
	for itt, t := range s.tasks {
		if t.stage == ended || !match(t) {
			continue
		}
		n++
		delete(s.tasks, itt)
		t.stopped = true
		s.passed(t)
		if t.immediate {
			s.immediate--
		}
		if t.stage == early {
			s.window.early[t.cmdSN] = nil // its turn will come, and pass
		}
		if t.stage == executing && t.Stop != nil {
			stops = append(stops, t.Stop)
		}
		if t.stage == executing || t == s.handling {
			continue // Done, or the reader, frees it
		}
		cancel = append(cancel, t)
	}
	gone := func(t *Task) bool { return t.stopped }
	s.starved, s.barred = slices.DeleteFunc(s.starved, gone), slices.DeleteFunc(s.barred, gone)
	s.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	for _, t := range cancel {
		s.discard(t)
	}
	return n
}

// passed lets the tasks go on that wait for one that has ended. Called with mu.
func (s *session) passed(t *Task) {
	if t.Attr == Ordered {
		s.ordered--
	}
	if len(s.barred) > 0 {
		s.kick()
	}
}

// discard frees a task that was stopped before it was executed. Called with exec.
func (s *session) discard(t *Task) {
	if t.stage == collecting && !s.over {
		s.nexus.Cancel(t)
	}
	s.mu.Lock()
	if t.stage == early {
		t.free() // its place in the window is released when its turn has come
		s.refund(t)
	} else {
		s.release(t)
	}
	s.mu.Unlock()
}

// release frees a task that was accepted and gets no answer. Called with mu.
func (s *session) release(t *Task) {
	if !t.immediate {
		s.window.release()
		if s.sentMax+1 == s.window.exp && s.window.max != s.sentMax && !s.closed {
			s.sentMax = s.window.max
			s.push(item{kind: itemWindow}) // the initiator can send nothing before it is told
		}
	}
	s.recycle(t)
}

// recycle frees a task that was accepted, and keeps it for the next command. Called with mu.
func (s *session) recycle(t *Task) {
	t.free()
	s.refund(t)
	if !s.closed && len(s.free) < maxFree+s.window.size {
		s.free = append(s.free, t)
	}
}

// refund returns what a task took from the budget. Called with mu.
func (s *session) refund(t *Task) {
	if t.small > 0 || t.large > 0 {
		s.charged -= t.large
		s.srv.budget.give(t.small, t.large)
		t.small, t.large = 0, 0
	}
}

// newTask returns a task to be begun. Called with mu.
func (s *session) newTask() *Task {
	if n := len(s.free); n > 0 {
		t := s.free[n-1]
		s.free[n-1] = nil
		s.free = s.free[:n-1]
		return t
	}
	return &Task{Done: s.done}
}

// finish is Task.Done.
func (s *session) finish(t *Task) {
	if t.Drop != nil {
		s.drop(t.Drop)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.stopped || s.closed || t.Drop != nil {
		if !t.stopped {
			s.passed(t)
			delete(s.tasks, t.Tag)
			if t.immediate {
				s.immediate--
			}
		}
		s.release(t)
		return
	}
	t.stage = ended
	s.passed(t)
	s.push(item{kind: itemTask, task: t})
}

// end stops everything and ends the nexus. After it invariant 4 holds for all tasks of the session. The reader calls it,
// once or twice; nothing is accepted or executed afterwards.
func (s *session) end(cause error) {
	s.stop(func(*Task) bool { return true })
	s.exec.Lock()
	first := !s.over
	s.over = true
	s.exec.Unlock()
	if first && s.nexus != nil {
		s.nexus.End(cause)
	}
}

// close is end, and the last of the session: no answer is sent after it.
func (s *session) close(cause error) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end(cause)
	s.srv.budget.forget(s)
	s.mu.Lock()
	s.starved, s.barred, s.free, s.queue = nil, nil, nil, s.dropQueue()
	s.mu.Unlock()
}

// dropQueue frees what waits to be sent. Called with mu.
func (s *session) dropQueue() []item {
	for _, it := range s.queue {
		if it.task != nil && it.kind == itemTask {
			s.recycle(it.task)
		}
	}
	return nil
}

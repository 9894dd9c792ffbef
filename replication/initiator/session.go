package initiator

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"pmsapp/internal/iscsi"
)

// Session is one connection with one target in full feature phase. It is safe for concurrent use.
type Session struct {
	cfg    Config
	log    *slog.Logger
	conn   net.Conn
	params iscsi.Params
	keys   []iscsi.Pair
	tsih   uint16
	r      *iscsi.Reader // the reader's alone
	w      *iscsi.Writer // the writer's alone
	begun  time.Time     // times are kept as durations since then
	kick   chan struct{} // has room for one: wakes the watcher
	done   chan struct{} // closed when everything has ended

	mu   sync.Mutex // guards what follows, and the private part of commands
	cond *sync.Cond // the writer waits on it

	err       error // why the session has died; nothing is begun any more
	draining  error // why nothing new is accepted, although what is under way goes on
	cmdSN     uint32
	expCmdSN  uint32
	maxCmdSN  uint32
	expStatSN uint32

	slots   []slot
	free    []uint16
	pending list // commands that wait for the target's window
	bursts  list // commands that owe the target data
	control []controlPDU
	queued  int // commands in pending and slots
	sent    int // commands in slots
	corked  bool

	waiters map[uint32]*waiter // of task management and text requests, by ITT
	lastTag uint32

	lastRecv    time.Duration // when the last PDU came
	activeSince time.Duration // when sent became other than 0
	placed      time.Duration // when a command was last sent
	probed      time.Duration // when the probe under way was sent, or 0
	resumed     time.Duration // when this machine last came back from a pause, or 0
	loggingOut  bool          // a logout was sent
}

// slot is where a command is that the target has. gen makes tags differ from those of the slot's earlier commands.
type slot struct {
	cmd *Command
	gen uint16
}

// controlPDU is a PDU other than a command or its data, sent before those.
type controlPDU struct {
	bhs  iscsi.BHS
	data []byte
}

// waiter is a request of the session's own that waits for its answer.
type waiter struct {
	bhs iscsi.BHS // as it was sent, or before that as it was asked for
	ch  chan reply
}

// reply is what a waiter gets.
type reply struct {
	bhs  iscsi.BHS
	data []byte
	err  error
}

const (
	// Tags above those of commands. Commands have the generation in the upper half, which is never ffffh.
	tagNoop   = 0xffff0001
	tagLogout = 0xffff0002
	tagFirst  = 0xffff1000
	tagLast   = 0xfffffff0

	maxControl = 64
	maxSlots   = 0xffff
)

// Submit begins c. If the session has died, c ends at once with the cause.
func (s *Session) Submit(c *Command) {
	if err := c.check(); err != nil {
		c.Err = err
		if c.Done != nil {
			c.Done(c)
		}
		return
	}
	c.reset()
	s.mu.Lock()
	err := s.err
	switch {
	case err != nil:
	case s.draining != nil:
		err = s.draining
	case s.queued >= s.cfg.Queue:
		err = ErrQueueFull
	}
	if err != nil {
		s.mu.Unlock()
		c.Err = err
		c.Done(c)
		return
	}
	s.queued++
	c.state, c.moved = statePending, s.now()
	s.pending.push(c)
	if !s.corked {
		s.cond.Signal()
	}
	s.mu.Unlock()
}

// Params returns what was agreed at login.
func (s *Session) Params() iscsi.Params { return s.params }

// Keys returns the vendor keys, the alias and the portal group that the target sent at login.
func (s *Session) Keys() []iscsi.Pair { return s.keys }

// TSIH returns the target's part of the session's identity.
func (s *Session) TSIH() uint16 { return s.tsih }

// Done is closed when the session has died and all its commands have ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err tells why the session has died, or nil.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the session at once, without a logout. It does not wait: Done tells the end.
func (s *Session) Close() { s.die(ErrClosed) }

// die ends the session, if it lives, with the given cause. The watcher does the rest.
func (s *Session) die(cause error) {
	s.mu.Lock()
	s.dieLocked(cause)
	s.mu.Unlock()
}

func (s *Session) dieLocked(cause error) {
	if s.err != nil {
		return
	}
	s.err = cause
	s.cond.Broadcast()
	s.kickLocked()
	// Not later: closing is what ends a system call of reader or writer.
	s.conn.Close()
}

func (s *Session) kickLocked() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *Session) now() time.Duration { return time.Since(s.begun) }

// place puts a pending command into a slot and gives it a tag.
func (s *Session) place(c *Command) {
	var i uint16
	if n := len(s.free); n > 0 {
		i, s.free = s.free[n-1], s.free[:n-1]
	} else {
		i = uint16(len(s.slots))
		s.slots = append(s.slots, slot{})
	}
	sl := &s.slots[i]
	sl.cmd = c
	if sl.gen++; sl.gen == 0xffff {
		sl.gen = 0
	}
	c.itt = uint32(sl.gen)<<16 | uint32(i)
	c.state = stateSent
	c.moved = s.now()
	s.placed = c.moved
	if s.sent == 0 {
		s.activeSince = c.moved
	}
	s.sent++
}

// lookup returns the command of a tag that the target has, or nil.
func (s *Session) lookup(itt uint32) *Command {
	i := int(itt & 0xffff)
	if i >= len(s.slots) {
		return nil
	}
	if c := s.slots[i].cmd; c != nil && c.itt == itt {
		return c
	}
	return nil
}

// end takes a command out of the session. It returns true if Done is to be called now, by the caller and without the
// lock; otherwise the writer does it when it no longer needs the command's buffers.
func (s *Session) end(c *Command, err error) bool {
	c.Err = err
	switch c.state {
	case statePending:
		s.pending.remove(c)
	case stateData:
		s.bursts.remove(c)
		s.vacate(c)
	case stateSent:
		s.vacate(c)
	}
	s.queued--
	if s.draining != nil && s.sent == 0 {
		s.kickLocked()
	}
	if c.refs > 0 {
		c.state = stateEnded
		return false
	}
	c.state = stateIdle
	return true
}

func (s *Session) vacate(c *Command) {
	i := uint16(c.itt)
	s.slots[i].cmd = nil
	s.free = append(s.free, i)
	s.sent--
}

// sendControl queues a PDU of the session's own, always an immediate one.
func (s *Session) sendControl(p controlPDU) {
	if len(s.control) >= maxControl {
		s.dieLocked(fmt.Errorf("%d PDUs to answer at once: %w", maxControl, ErrProtocol))
		return
	}
	p.bhs.SetImmediate()
	s.control = append(s.control, p)
	s.cond.Signal()
}

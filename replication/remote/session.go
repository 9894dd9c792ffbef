package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"pmsapp/replication/initiator"
	"pmsapp/replication/peer"
)

const (
	// maxLarge is how many commands whose answer has no fixed size, or whose payload needs several commands, are under way
	// at once; the others wait.
	maxLarge = 16
	// maxPatient is how many patient commands are under way at once; the others wait. They may hang, as long as they like: so
	// they have places of their own, and stay far below the target's window and a pool's workers, which others need too.
	maxPatient = 16
	// firstAnswer and nextAnswer are the bytes of Data-In for the beginning and for each further part of an answer.
	firstAnswer = 128 << 10
	nextAnswer  = 1 << 20
)

// errShort is returned when a node answers GOOD for less than all the data.
var errShort = errors.New("remote: data are missing")

// Session is the leader's end of a session with a node; it is a peer.Session. Open makes it.
type Session struct {
	in     *initiator.Session
	epoch  peer.Epoch
	fenced peer.Fenced
	large  chan struct{} // has room for maxLarge
	slow   chan struct{} // has room for maxPatient
	done   chan struct{}

	ops sync.Pool // of *op

	mu    sync.Mutex // guards what follows
	err   error      // why the session has died
	tasks sync.WaitGroup
}

// op is a command of fixed size under way.
type op struct {
	cmd  initiator.Command
	cdb  [cdbLen]byte
	s    *Session
	call *peer.Call
}

func newSession(in *initiator.Session, e peer.Epoch) *Session {
	s := &Session{in: in, epoch: e, large: make(chan struct{}, maxLarge), slow: make(chan struct{}, maxPatient), done: make(chan struct{})}
	s.ops.New = func() any {
		o := &op{s: s}
		o.cmd.Done, o.cmd.Owner = answered, o
		return o
	}
	return s
}

// start fences and then starts the goroutine that sees the session end. Without a fence there is no session.
func (s *Session) start(ctx context.Context) error {
	go func() {
		<-s.in.Done()
		s.die(s.in.Err())
		s.tasks.Wait()
		close(s.done)
	}()
	f, err := s.askFenced(ctx, actFence)
	if err != nil {
		s.in.Close()
		<-s.done
		return err
	}
	s.fenced = f
	return nil
}

// Submit begins c (peer.Session).
func (s *Session) Submit(c *peer.Call) {
	c.Answer = peer.Answer{}
	act, ok := actionOf(c.Kind)
	switch {
	case !ok:
		c.Err = fmt.Errorf("kind %d: %w", c.Kind, peer.ErrInvalid)
	case act == actRead || act == actWrite:
		if int64(len(c.Data)) != c.Len || c.Len == 0 || c.Len > MaxTransfer {
			c.Err = fmt.Errorf("%d bytes of data for %d: %w", len(c.Data), c.Len, peer.ErrInvalid)
		}
	case act == actZero || act == actConfirm || act == actFlush || act == actReserve:
	default:
		if !s.spawn(func() { s.submitLarge(act, c) }) {
			c.Err = s.Err()
			break
		}
		return
	}
	if c.Err != nil {
		c.Done(c)
		return
	}
	o := s.ops.Get().(*op)
	o.call = c
	q := requestOf(act, c)
	q.encode(&o.cdb)
	o.cmd.CDB = o.cdb[:]
	switch act {
	case actRead:
		o.cmd.DataIn = c.Data
	case actWrite:
		o.cmd.DataOut = c.Data
	}
	s.in.Submit(&o.cmd)
}

func requestOf(act action, c *peer.Call) request {
	q := request{act: act, volume: c.Volume, off: c.Off, length: c.Len, seq: uint64(c.Seq), durable: uint64(c.Durable), proved: c.Proved, volatile: c.Volatile}
	if act == actDelete {
		q.seq, q.durable = binary.BigEndian.Uint64(c.Spec.Pool[:]), binary.BigEndian.Uint64(c.Spec.Pool[8:])
	}
	return q
}

// answered takes the answer to a command of fixed size.
func answered(cmd *initiator.Command) {
	o := cmd.Owner.(*op)
	s, c := o.s, o.call
	err := s.outcome(cmd)
	if err == nil && (cmd.Received != len(cmd.DataIn) || cmd.Residual != 0) {
		err = s.dead(errShort) // GOOD, but not for all of the data: not to be taken for an acknowledgement
	}
	o.call, cmd.DataIn, cmd.DataOut = nil, nil, nil
	s.ops.Put(o)
	c.Err = err
	c.Done(c)
}

// outcome is the error of a command that has ended. An answer that is not understood ends the session: what the node did
// is not known then, and that is what ErrLost means.
func (s *Session) outcome(cmd *initiator.Command) error {
	switch {
	case cmd.Err != nil:
		return s.dead(cmd.Err)
	case cmd.Status == initiator.StatusGood:
		return nil
	case cmd.Status == initiator.StatusCheckCondition:
		err := decodeSense(cmd.Sense)
		if errors.Is(err, peer.ErrEpoch) || errors.Is(err, peer.ErrLost) || err == errSense {
			return s.dead(err)
		}
		return err
	}
	return s.dead(fmt.Errorf("status %#x: %w", cmd.Status, errSense))
}

// die records why the session has died, if it has not, and ends it. The error is an ErrLost or an ErrEpoch.
func (s *Session) die(cause error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = cause
		if !errors.Is(cause, peer.ErrEpoch) && !errors.Is(cause, peer.ErrLost) {
			s.err = fmt.Errorf("%w: %w", peer.ErrLost, cause)
		}
	}
	s.mu.Unlock()
	s.in.Close()
}

func (s *Session) dead(cause error) error {
	s.die(cause)
	return s.Err()
}

// Fenced is the node's answer to FENCE (peer.Session).
func (s *Session) Fenced() peer.Fenced { return s.fenced }

// Poll asks again (peer.Session).
func (s *Session) Poll(ctx context.Context) (peer.Fenced, error) { return s.askFenced(ctx, actPoll) }

// Done is closed when the session has died and its calls have ended (peer.Session).
func (s *Session) Done() <-chan struct{} { return s.done }

// Err tells why the session has died: an ErrLost or an ErrEpoch (peer.Session).
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the session (peer.Session). It does not wait.
func (s *Session) Close() { s.die(initiator.ErrClosed) }

// spawn runs f in a goroutine that the session's end waits for. It returns false if the session has died.
func (s *Session) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	s.tasks.Go(f)
	return true
}

// places is where a command waits for its turn.
func (s *Session) places(a action) chan struct{} {
	if patient(a) {
		return s.slow
	}
	return s.large
}

// patient tells which commands may take as long as they do: they make or free files, which no guest waits for. All others that
// hang end the session, so that a member whose disk hangs is not waited for although its node answers.
func patient(a action) bool { return a == actCreate || a == actReset || a == actDelete || a == actGrow }

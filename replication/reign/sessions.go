package reign

import (
	"context"
	"errors"
	"fmt"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// link is the session with a node, or the attempt to open it. One at a time per node; all mirrors share it.
type link struct {
	attempt uint64
	epoch   peer.Epoch
	cancel  context.CancelFunc
	session peer.Session  // nil while it is being opened, and after it was lost
	settled chan struct{} // closed when the attempt has ended
	gone    chan struct{} // closed when Core knows that the session has died, or wants it no more
	err     error         // of an attempt that failed
}

// openSession begins an attempt. The lock is held.
func (r *Reign) openSession(e OpenSession) {
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.OpenTimeout)
	l := &link{attempt: e.Attempt, epoch: e.Epoch, cancel: cancel, settled: make(chan struct{}), gone: make(chan struct{})}
	r.links[e.Node] = l
	r.wg.Go(func() {
		defer cancel()
		s, err := r.d.Dialer.Open(ctx, e.Node, e.Epoch)
		r.mu.Lock()
		if r.links[e.Node] != l || r.closed { // given up meanwhile
			r.mu.Unlock()
			if err == nil {
				s.Close()
			}
			return
		}
		if err != nil {
			l.err = err
			close(l.settled)
			r.stepLocked(Failed{Attempt: e.Attempt, Err: err})
			r.mu.Unlock()
			return
		}
		// Core looks at the fence's answer before anybody may use the session.
		l.session = s
		r.stepLocked(Opened{Attempt: e.Attempt, Fenced: s.Fenced()})
		close(l.settled)
		r.mu.Unlock()
		r.watch(e, l, s)
	})
}

// watch waits for the end of a session.
func (r *Reign) watch(e OpenSession, l *link, s peer.Session) {
	select {
	case <-s.Done():
	case <-r.ctx.Done():
		<-s.Done() // Close of Reign closes it
	}
	r.mu.Lock()
	mine := r.links[e.Node] == l
	if mine {
		l.session, l.err = nil, peer.ErrLost
		r.stepLocked(Lost{Attempt: e.Attempt, Err: s.Err()})
		close(l.gone)
	}
	r.mu.Unlock()
	if mine {
		s.Close() // what it holds is given back; it is dead already
	}
}

// closeSession ends a session or an attempt. The lock is held.
func (r *Reign) closeSession(e CloseSession) {
	l := r.links[e.Node]
	if l == nil || l.attempt != e.Attempt {
		return
	}
	delete(r.links, e.Node)
	l.cancel()
	l.err = peer.ErrLost
	close(l.gone)
	if l.session == nil {
		close(l.settled)
		return
	}
	r.wg.Go(l.session.Close)
	l.session = nil
}

func (r *Reign) poll(e Poll) {
	s := r.session(e.Node)
	r.wg.Go(func() {
		if s == nil {
			r.step(Polled{Attempt: e.Attempt, Err: peer.ErrLost})
			return
		}
		ctx, cancel := context.WithTimeout(r.ctx, r.cfg.OpenTimeout)
		defer cancel()
		f, err := s.Poll(ctx)
		r.step(Polled{Attempt: e.Attempt, Fenced: f, Err: err})
	})
}

// session is the newest session with a node, or nil. The lock is held.
func (r *Reign) session(n ids.Node) peer.Session {
	if l := r.links[n]; l != nil {
		return l.session
	}
	return nil
}

// command sends one to a node. A Create that is given up for its time may be executed all the same; others are never
// given up while its session lives, or one that comes late could meet what was made since.
func (r *Reign) command(e Command) {
	s := r.session(e.Node)
	r.wg.Go(func() {
		if s == nil {
			r.step(CommandDone{ID: e.ID, Err: peer.ErrLost})
			return
		}
		ctx, cancel := r.ctx, context.CancelFunc(func() {})
		if e.C.Kind == peer.Create {
			ctx, cancel = context.WithTimeout(r.ctx, r.cfg.CallTimeout)
		}
		defer cancel()
		done := make(chan struct{})
		call := &peer.Call{Command: e.C, Done: func(*peer.Call) { close(done) }}
		s.Submit(call)
		select {
		case <-done:
			r.step(CommandDone{ID: e.ID, Err: call.Err, Answer: call.Answer})
		case <-ctx.Done():
			r.step(CommandDone{ID: e.ID, Err: fmt.Errorf("%w: %w", peer.ErrLost, context.Cause(ctx))})
		}
	})
}

// lease gives the sessions of one epoch to a mirror.
type lease struct {
	r     *Reign
	epoch peer.Epoch
}

// Session returns the newest session with a node; see mirror.Sessions. Core opens a new one by itself as soon as one is
// lost, and then at its own pace: an attempt that is under way is waited for, and between two the last error is the answer.
func (s *lease) Session(ctx context.Context, n ids.Node) (peer.Session, error) {
	for {
		s.r.mu.Lock()
		l := s.r.links[n]
		if l == nil || l.epoch != s.epoch {
			s.r.mu.Unlock()
			return nil, peer.ErrLost
		}
		session, err, settled := l.session, l.err, l.settled
		s.r.mu.Unlock()
		wait := settled
		if session != nil {
			select {
			case <-session.Done():
				wait = l.gone // watch is about to find out, and Core to open another
			default:
				return session, nil
			}
		} else if err != nil {
			return nil, errors.Join(peer.ErrLost, err)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

package target

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pmsapp/internal/iscsi"
)

// register makes the session of a login. An earlier session of the same initiator port has ended, in the sense of
// invariant 4, when it returns. What it returns is in the server's tables, so no other login can make the same one.
func (s *Server) register(l *loggingIn, n iscsi.Names) (*session, error) {
	p := port{strings.ToLower(n.Initiator), strings.ToLower(n.Target), n.ISID, l.login.Group}
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, ErrUnavailable
		}
		var old *session
		if n.TSIH != 0 {
			// A connection for a session that exists: there is only one, so it takes the place of the one that is there
			// (RFC 7143 6.3.4). At error recovery level 0 no task survives that, so neither need the session.
			old = s.tsihs[n.TSIH]
			if old == nil || old.port != p || n.Discovery {
				s.mu.Unlock()
				return nil, &Refusal{Status: iscsi.LoginNoSession, Why: fmt.Sprintf("there is no session %04xh", n.TSIH)}
			}
			if old.cid != n.CID {
				s.mu.Unlock()
				return nil, &Refusal{Status: iscsi.LoginTooManyConns, Why: "a session has one connection"}
			}
		} else if !n.Discovery {
			old = s.ports[p]
		}
		if old == nil {
			se, err := s.add(l, n, p)
			s.mu.Unlock()
			return se, err
		}
		s.mu.Unlock()
		if err := l.reinstate(old); err != nil {
			return nil, err
		}
		n.TSIH = 0 // the one that was named has ended
	}
}

// reinstate ends a session and waits for it, as long as a login may take.
func (l *loggingIn) reinstate(old *session) error {
	old.drop(ErrReinstated)
	timer := time.NewTimer(time.Until(l.deadline))
	defer timer.Stop()
	select {
	case <-old.gone:
		return nil
	case <-timer.C:
	case <-l.srv.quit:
	}
	return &Refusal{Status: iscsi.LoginUnavailable, Why: "the commands of the session before have not ended yet"}
}

// add makes a session. Called with mu.
func (s *Server) add(l *loggingIn, n iscsi.Names, p port) (*session, error) {
	discovering := 0
	if n.Discovery { // anybody may: not with all places
		discovering = len(s.list(func(se *session) bool { return se.login.Discovery }))
	}
	if len(s.sessions) >= s.cfg.Sessions || discovering > s.cfg.Sessions/4 {
		return nil, ErrOutOfResource
	}
	first := l.firstCmdSN()
	se := &session{srv: s, conn: l.conn, login: l.login, port: p, cid: n.CID, since: time.Now(), params: l.pure.Params(),
		reader: l.reader, window: newWindow(first, s.cfg.Queue), tasks: make(map[uint32]*Task), wake: make(chan struct{}, 1),
		control: make(chan struct{}, maxControl), dead: make(chan struct{}), gone: make(chan struct{})}
	se.sentMax = se.window.max
	se.done = se.finish
	for {
		if s.nextTSIH++; s.nextTSIH != 0 && s.tsihs[s.nextTSIH] == nil {
			break
		}
	}
	se.tsih = s.nextTSIH
	s.tsihs[se.tsih] = se
	s.sessions[se] = struct{}{}
	if !n.Discovery {
		s.ports[p] = se
	}
	return se, nil
}

// remove takes a session that has ended out of the tables.
func (s *Server) remove(se *session) {
	s.mu.Lock()
	delete(s.sessions, se)
	delete(s.tsihs, se.tsih)
	if s.ports[se.port] == se {
		delete(s.ports, se.port)
	}
	s.mu.Unlock()
	close(se.gone)
}

// abandon ends a session whose login came to nothing after it was registered.
func (s *Server) abandon(se *session, cause error) {
	se.mu.Lock()
	if se.cause == nil {
		se.cause = cause
		close(se.dead)
	}
	se.mu.Unlock()
	se.close(cause)
	s.remove(se)
}

// stopUnits stops the tasks of all sessions that are for one of the units.
func (s *Server) stopUnits(units []any) {
	s.mu.Lock()
	all := s.list(func(se *session) bool { return se.opened.Load() && se.nexus != nil })
	s.mu.Unlock()
	for _, se := range all {
		se.stop(func(t *Task) bool { return slices.Contains(units, se.nexus.Unit(t.LUN)) })
	}
}

// dropTarget ends all sessions with the target of one of them, but not that one, which ends itself.
func (s *Server) dropTarget(of *session, cause error) {
	s.mu.Lock()
	all := s.list(func(se *session) bool {
		return se != of && se.opened.Load() && se.port.target == of.port.target && !se.login.Discovery
	})
	s.mu.Unlock()
	for _, se := range all {
		se.drop(cause)
	}
}

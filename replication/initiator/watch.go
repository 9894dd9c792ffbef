package initiator

import (
	"context"
	"time"

	"pmsapp/internal/iscsi"
)

// path is what the watcher decides upon, all times since the session began.
type path struct {
	now, lastRecv, activeSince time.Duration
	probed                     time.Duration // when the probe under way was sent, 0 if none
	active                     bool          // commands are with the target
	oldest                     time.Duration // since when nothing has come for one of them; with waits
	waits                      bool          // there is one that Timeouts.Command counts for
}

// verdict is what to do about a path: die of err, probe it, or look again at next.
type verdict struct {
	err   error
	probe bool
	next  time.Duration // 0: when something happens
}

// judge is the decision about a path (ARCHITECTURE.md, "Timeouts"). An active path is dead when nothing came for the
// recovery timeout. A silent one, idle or active, is probed, and dead when the probe is not answered: a target that holds I/O
// answers probes, and is not left for it. With a command timeout, a path is dead
// too when one command hangs while the rest goes on. It is pure.
func judge(t Timeouts, p path) verdict {
	var v verdict
	at := func(d time.Duration) {
		if v.next == 0 || d < v.next {
			v.next = d
		}
	}
	if p.probed != 0 {
		due := p.probed + t.NoopTimeout
		if p.now >= due {
			return verdict{err: ErrNoopTimeout}
		}
		at(due)
	}
	if t.Recovery > 0 {
		if p.active {
			due := max(p.lastRecv, p.activeSince) + t.Recovery
			if p.now >= due {
				return verdict{err: ErrRecoveryTimeout}
			}
			at(due)
		} else {
			at(p.now + t.Recovery) // it may become active at any time
		}
	}
	if t.Command > 0 {
		if p.waits {
			due := p.oldest + t.Command
			if p.now >= due {
				return verdict{err: ErrCommandTimeout}
			}
			at(due)
		} else {
			at(p.now + t.Command) // a command may come at any time
		}
	}
	if t.NoopInterval > 0 && p.probed == 0 {
		due := p.lastRecv + t.NoopInterval
		if p.now >= due {
			v.probe = true
			at(p.now + t.NoopTimeout)
			return v
		}
		at(max(due, p.now+t.NoopInterval/4))
	}
	return v
}

// lateness is by how much the watcher may wake too late before that is taken for a pause of this machine, during which
// answers could not be read: then the timeouts begin anew.
const lateness = 500 * time.Millisecond

// watch looks after the path until the session has died.
func (s *Session) watch() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var planned time.Duration
	var drainUntil time.Duration
	for {
		select {
		case <-timer.C:
		case <-s.kick:
		}
		s.mu.Lock()
		if s.err != nil {
			s.mu.Unlock()
			return
		}
		now := s.now()
		if planned > 0 && now > planned+lateness {
			s.lastRecv, s.resumed = now, now
			if s.probed != 0 {
				s.probed = now
			}
		}
		p := path{now: now, lastRecv: s.lastRecv, activeSince: s.activeSince, probed: s.probed, active: s.sent > 0}
		p.oldest, p.waits = s.oldest()
		v := judge(s.cfg.Timeouts, p)
		if v.probe {
			s.probed = max(now, 1)
			var p controlPDU
			p.bhs.Init(iscsi.OpNopOut, iscsi.FlagFinal)
			p.bhs.SetITT(tagNoop)
			p.bhs.SetTTT(iscsi.NoTag)
			s.sendControl(p)
		}
		if s.draining != nil && v.err == nil {
			if drainUntil == 0 {
				drainUntil = now + s.cfg.Timeouts.Logout
			}
			s.drain(now >= drainUntil)
			if v.next == 0 || drainUntil < v.next {
				v.next = drainUntil
			}
		}
		if v.err != nil {
			s.dieLocked(v.err)
		}
		planned = v.next
		s.mu.Unlock()
		timer.Stop()
		if planned > 0 {
			timer.Reset(planned - now)
		}
	}
}

// oldest tells since when nothing has come for some command that the target has and that is not patient; false if it has
// none. One that waits at this end counts from when a command was last sent: a window that lets nothing through is a target
// that hangs, be it filled by patient commands only. What this machine slept through does not count.
func (s *Session) oldest() (since time.Duration, ok bool) {
	if s.cfg.Timeouts.Command == 0 {
		return 0, false
	}
	for i := range s.slots {
		if c := s.slots[i].cmd; c != nil && !c.Patient && (!ok || c.moved < since) {
			since, ok = c.moved, true
		}
	}
	if s.draining == nil { // a logout sends no more of them, and has a time of its own
		for c := s.pending.head; c != nil; c = c.next {
			if c.Patient {
				continue
			}
			if at := max(c.moved, s.placed); !ok || at < since {
				since, ok = at, true
			}
			break // those behind it came later
		}
	}
	return max(since, s.resumed), ok
}

// drain goes on with a logout: the request when no command is with the target any more, the end when the time for it is up.
// The reader takes the answer.
func (s *Session) drain(late bool) {
	switch {
	case late:
		s.dieLocked(s.draining)
	case !s.loggingOut && s.sent == 0:
		s.loggingOut = true
		var p controlPDU
		p.bhs.Init(iscsi.OpLogoutReq, iscsi.FlagFinal|iscsi.LogoutSession)
		p.bhs.SetITT(tagLogout)
		s.sendControl(p)
	}
}

// Logout ends the session in order: new commands are refused, those with the target are waited for, then it logs out. It
// returns when the session has ended, after the logout timeout at the latest, or when ctx ends, which closes at once.
func (s *Session) Logout(ctx context.Context) {
	s.mu.Lock()
	if s.draining == nil {
		s.draining = ErrClosed
	}
	s.kickLocked()
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		s.Close()
		<-s.done
	case <-s.done:
	}
}

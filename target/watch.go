package target

import (
	"syscall"
	"time"

	"pmsapp/internal/iscsi"
)

// tick is how often the watchman looks at the sessions: a fraction of the shortest time that it has to keep.
const tick = 100 * time.Millisecond

// watch is what the watchman remembers of a session.
type watch struct {
	heard  uint64    // PDUs received when it looked last
	since  time.Time // when that number was new
	probed time.Time // when a probe was sent that nothing has come after; zero if none
}

// verdictOfSilence decides what to do about a session that was last heard at w.since. It is pure.
func (w *watch) step(now time.Time, heard uint64, t *Tunables) (probe, dead bool) {
	if heard != w.heard || w.since.IsZero() {
		*w = watch{heard: heard, since: now}
		return false, false
	}
	if !w.probed.IsZero() {
		return false, now.Sub(w.probed) >= t.NoopTimeout
	}
	if t.NoopInterval > 0 && now.Sub(w.since) >= t.NoopInterval {
		w.probed = now
		return true, false
	}
	return false, false
}

// stall is how long an initiator may take nothing of what is sent to it, or send nothing of what it was asked for, however much else it
// says: what it holds of the memory for data is not its own for ever. 0: as long as it likes.
func (t *Tunables) stall() time.Duration {
	if t.NoopInterval == 0 {
		return 0
	}
	return 2 * (t.NoopInterval + t.NoopTimeout)
}

// slowest is the rate at which an initiator has to take data at least, in bytes per second.
const slowest = 16 << 20

// withholds tells whether the initiator has sent nothing for a while of the data of a write that has its memory and was asked for.
func (s *session) withholds(now time.Time, limit time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		if t.stage != collecting || t.small+t.large == 0 || t.missing() <= 0 || t.r2ts == t.filled && !t.pushing {
			continue
		}
		if t.seen.IsZero() || t.got != t.gotThen {
			t.seen, t.gotThen = now, t.got
		} else if now.Sub(t.seen) >= limit {
			return true
		}
	}
	return false
}

// watchAll is the watchman: the goroutine that probes silent initiators by NOP-In, and ends the sessions of dead ones.
func (s *Server) watchAll() {
	defer s.work.Done()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var swept time.Time
	for {
		select {
		case <-s.quit:
			return
		case <-ticker.C:
		}
		t, now := s.tunables.Load(), time.Now()
		s.clock.Store(int64(now.Sub(s.begin)))
		s.mu.Lock()
		all := s.list(func(se *session) bool { return se.opened.Load() })
		s.mu.Unlock()
		limit := t.stall()
		sweep := limit > 0 && now.Sub(swept) >= min(limit/4, time.Second)
		if sweep {
			swept = now
		}
		for _, se := range all {
			if sweep && se.withholds(now, limit) {
				se.drop(ErrStalled)
				continue
			}
			if n := se.inline.Load(); n != 0 && n == se.inSeen {
				se.supersede(n)
			} else {
				se.inSeen = n
			}
			probe, dead := se.watch.step(now, se.heard.Load(), t)
			if dead {
				se.drop(ErrIdle)
			} else if probe {
				se.probe()
			}
		}
	}
}

// probe sends a NOP-In that the initiator must answer. There is one at a time, so its tag can always be the same.
func (s *session) probe() {
	a := new(iscsi.BHS)
	a.Init(iscsi.OpNopIn, iscsi.FlagFinal)
	a.SetITT(iscsi.NoTag)
	a.SetTTT(1)
	s.mu.Lock()
	s.push(item{kind: itemAnswer, head: a, quiet: true})
	s.mu.Unlock()
}

// askLogout asks the initiator by an asynchronous message to log out within a time.
func (s *session) askLogout(within time.Duration) {
	if !s.opened.Load() || s.asked.Swap(true) {
		return
	}
	a := new(iscsi.BHS)
	a.Init(iscsi.OpAsync, iscsi.FlagFinal)
	a.SetITT(iscsi.NoTag)
	a.SetAsyncEvent(iscsi.AsyncLogoutRequest, 0)
	a.SetAsyncParam(3, uint16(min(within/time.Second, 1<<16-1)))
	s.mu.Lock()
	s.push(item{kind: itemAnswer, head: a})
	s.mu.Unlock()
}

// run serves the session until it is over, and returns why; everything of it has ended then. Or it returns errSuperseded: another goroutine
// does that. first: the writer begins.
func (s *session) run(first *loggingIn) error {
	if first != nil {
		s.begin(first)
	}
	err := s.receive()
	if err == errSuperseded {
		return err
	}
	sent := s.silent
	if err == ErrLogout || err == ErrReset {
		// The last answer is queued and ends the writer.
		s.parting.Store(true)
		s.conn.SetWriteDeadline(time.Now().Add(s.srv.tunables.Load().LoginTimeout))
		select {
		case <-sent:
		case <-s.dead:
		}
	}
	s.drop(err)
	<-sent
	s.out.abandon()
	s.letGo()
	s.close(s.cause)
	s.srv.remove(s)
	return s.cause
}

// begin starts the writer.
func (s *session) begin(l *loggingIn) {
	o := &sender{s: s, w: l.writer, statSN: l.statSN}
	if c, ok := s.conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			o.raw = raw
		}
	}
	s.out, s.silent = o, make(chan struct{})
	s.mu.Lock()
	s.running, s.statSN, s.need = true, l.statSN, fewCalm
	s.mu.Unlock()
	go func() {
		defer close(s.silent)
		o.run()
	}()
}

// letGo puts the task that the reader had in hand when it ended where the others are.
func (s *session) letGo() {
	s.mu.Lock()
	t := s.handling
	s.handling = nil
	s.mu.Unlock()
	if t != nil && t.stopped {
		s.exec.Lock()
		s.discard(t)
		s.exec.Unlock()
	}
}

package sim

import "time"

// Proc is a process: what happens in it happens only while it is alive and not paused. A killed Proc never lives again; a
// restart is a new one.
type Proc struct {
	Name string

	w      *World
	dead   bool
	paused bool
	frozen bool          // paused with a clock that stands still
	since  time.Duration // of the pause
	lag    time.Duration // how far its clock is behind the world's
	wait   []*Timer      // due while paused
}

// Proc starts a process.
func (w *World) Proc(name string) *Proc { return &Proc{Name: name, w: w} }

// Alive tells whether it was not killed.
func (p *Proc) Alive() bool { return !p.dead }

// Running tells whether it is alive and not paused.
func (p *Proc) Running() bool { return !p.dead && !p.paused }

// Now is the process's own clock: the world's, less the pauses in which it stood still.
func (p *Proc) Now() time.Duration {
	if p.frozen {
		return p.since - p.lag
	}
	return p.w.now - p.lag
}

// Kill ends the process; none of its events runs any more.
func (p *Proc) Kill() {
	p.dead = true
	p.wait = nil
}

// Pause stops the process. With frozen its clock stands still, as that of a suspended virtual machine does.
func (p *Proc) Pause(frozen bool) {
	if p.dead || p.paused {
		return
	}
	p.paused, p.frozen, p.since = true, frozen, p.w.now
}

// Resume lets a paused process go on: what was due meanwhile happens now, arrivals in their order, timers in theirs, but
// nobody knows how the two mix.
func (p *Proc) Resume() {
	if p.dead || !p.paused {
		return
	}
	if p.frozen {
		p.lag += p.w.now - p.since
	}
	p.paused, p.frozen = false, false
	wait := p.wait
	p.wait = nil
	late := time.Duration(0)
	if p.w.Rand.Chance(0.5) {
		late = p.w.Rand.Between(0, 20*time.Millisecond)
	}
	for _, t := range wait {
		if t.fn == nil {
			continue
		}
		t.at = p.w.now
		if t.timer {
			t.at += late
		}
		p.w.push(t)
	}
}

// After runs fn in the process when its clock has gone on by d.
func (p *Proc) After(d time.Duration, fn func()) *Timer {
	d = max(d, 0)
	return p.w.push(&Timer{at: p.w.now + d, fn: fn, proc: p, timer: d > 0, local: p.Now() + d})
}

// Deliver runs fn in the process d from now by the world's clock: an arrival from outside.
func (p *Proc) Deliver(d time.Duration, fn func()) *Timer {
	return p.w.push(&Timer{at: p.w.now + max(d, 0), fn: fn, proc: p})
}

// due tells whether t may run now; if not it is dropped, kept for the resumption, or put off.
func (p *Proc) due(t *Timer) bool {
	switch {
	case p.dead:
		return false
	case p.paused:
		p.wait = append(p.wait, t)
		return false
	case t.local > p.Now():
		t.at = p.w.now + t.local - p.Now()
		p.w.push(t)
		return false
	}
	return true
}

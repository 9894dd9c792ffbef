package throttle

import (
	"context"
	"sync"
	"time"
)

// Throttle is a mirror.Budget.
type Throttle struct {
	settings func() Settings
	start    time.Time
	guests   histogram
	turn     chan struct{} // held by who waits for its bytes: first come, first served

	mu   sync.Mutex // guards pace
	pace *pace
}

// New makes one. settings is asked often, and must not block.
func New(settings func() Settings) *Throttle {
	return &Throttle{settings: settings, start: time.Now(), turn: make(chan struct{}, 1), pace: newPace(0)}
}

// Guest says how long a client's I/O took.
func (t *Throttle) Guest(d time.Duration) { t.guests.add(d) }

// poll bounds how long a change of the settings goes unnoticed.
const poll = 100 * time.Millisecond

// Wait returns when n more bytes may be copied, or with ctx's error.
func (t *Throttle) Wait(ctx context.Context, n int64) error {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-t.turn }()
	for {
		wait := t.take(n)
		if wait == 0 {
			return nil
		}
		timer := time.NewTimer(min(wait, poll))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (t *Throttle) take(n int64) time.Duration {
	s, now := t.settings(), time.Since(t.start)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pace.over(now) {
		count, p99 := t.guests.drain()
		t.pace.look(now, count, p99, s)
	}
	return t.pace.take(now, n, s)
}

// State is what a Throttle does.
type State struct {
	Settings Settings
	Rate     int64         // the bytes in a second that it gives at most now; 0: as many as there are
	GuestP99 time.Duration // of client I/O beside copies, in the last half second; 0: hardly any, or nobody copies
}

// State tells it.
func (t *Throttle) State() State {
	s, now := t.settings(), time.Since(t.start)
	t.mu.Lock()
	defer t.mu.Unlock()
	out := State{Settings: s}
	if r := t.pace.now(s); r < most {
		out.Rate = int64(r)
	}
	if now-t.pace.since < 2*window {
		out.GuestP99 = t.pace.p99
	}
	return out
}

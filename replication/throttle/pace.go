package throttle

import (
	"math"
	"time"
)

// Settings are what a Throttle goes by. They may change at any time.
type Settings struct {
	// GuestP99 is the 99th percentile of client I/O above which copies become slower.
	GuestP99 time.Duration
	// Floor is the bytes in a second that are copied however slow client I/O is.
	Floor int64
	// Limit is the most bytes in a second; 0: none. It counts more than Floor.
	Limit int64
	// Paused stops all copies.
	Paused bool
}

const (
	// window is how often the guests are looked at, and the shortest time between two changes of the rate.
	window = 500 * time.Millisecond
	// fewest is of how many I/Os in a window a percentile is believed. With fewer, guests are idle enough.
	fewest = 20
	// most is as good as no bound, in bytes in a second.
	most = 64 << 30
	// slower, faster and idle are by how much the rate changes after a window.
	slower, faster, idle = 0.6, 1.25, 2
	// burst is for how long what was not used may be used later.
	burst = 50 * time.Millisecond
)

// pace says when the next copy may begin. Times are of one clock that does not go back.
type pace struct {
	rate   float64 // bytes in a second that the guests allow
	tokens float64 // bytes that may be copied now; below 0: a debt
	at     time.Duration
	since  time.Duration // when the window began
	used   int64         // bytes in it
	p99    time.Duration // of the last window in which there were enough; 0 if there were not
}

func newPace(now time.Duration) *pace { return &pace{rate: most, at: now, since: now} }

// bytes in a second that count now.
func (p *pace) now(s Settings) float64 {
	r := max(p.rate, float64(s.Floor))
	if s.Limit > 0 {
		r = min(r, float64(s.Limit))
	}
	return max(r, 1)
}

// take grants n bytes, or says how long to wait before it is asked again.
func (p *pace) take(now time.Duration, n int64, s Settings) (wait time.Duration) {
	r := p.now(s)
	p.tokens = min(p.tokens+r*(now-p.at).Seconds(), r*burst.Seconds())
	p.at = now
	if s.Paused {
		p.tokens = min(p.tokens, 0)
		return window
	}
	if p.tokens < 0 {
		return time.Duration(math.Ceil(-p.tokens / r * float64(time.Second)))
	}
	p.tokens -= float64(n)
	p.used += n
	return 0
}

// over says whether a window is over.
func (p *pace) over(now time.Duration) bool { return now-p.since >= window }

// look ends a window in which the guests had count I/Os with that 99th percentile.
func (p *pace) look(now time.Duration, count int64, p99 time.Duration, s Settings) {
	took := now - p.since
	used := float64(p.used) / took.Seconds()
	p.since, p.used, p.p99 = now, 0, 0
	if took > 2*window {
		return // nobody copied: it says nothing about copies
	}
	if count < fewest {
		p.rate = min(p.rate*idle, most)
		return
	}
	p.p99 = p99
	switch {
	case p99 > s.GuestP99: // from what was copied, not from what might have been
		p.rate = max(min(p.rate, used)*slower, float64(s.Floor), 1)
	case p99 <= s.GuestP99*3/4 && used >= p.now(s)/2:
		p.rate = min(p.rate*faster, most)
	}
}

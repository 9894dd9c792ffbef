package mirror

import (
	"errors"
	"time"
)

// ErrSlow is why a member leaves whose writes take far longer than those of all others: its disk is dying, or its path is.
// Guests wait for the slowest member (1), so that one such disk is as slow as all. It is judged only against the others, by
// the same writes over the same time: what slows all of them removes nobody.
var ErrSlow = errors.New("its writes take far longer than the other members'")

// slowLeast is how many writes a window must have to be judged.
const slowLeast = 32

// speed is what a member's writes took in the window under way.
type speed struct {
	n     int
	sum   time.Duration
	worse int // windows in a row in which it was far slower than all others
}

// timed notes what a member's write took.
func (c *Core) timed(i int, took time.Duration) {
	if c.members.single() || !c.members.has(i) {
		return
	}
	s := &c.slots[i].speed
	s.n++
	s.sum += took
	if c.now < c.slowAt {
		return
	}
	if c.slowAt != 0 {
		c.judgeSpeeds()
	}
	c.slowAt = c.now + c.t.SlowWindow
	for j := range c.slots {
		s := &c.slots[j].speed
		s.n, s.sum = 0, 0
	}
}

// judgeSpeeds ends a window. At most one member leaves, and only while all others are sound.
func (c *Core) judgeSpeeds() {
	slowest, most, next := -1, time.Duration(0), time.Duration(0)
	for i := range c.slots {
		if !c.members.has(i) {
			continue
		}
		s := &c.slots[i].speed
		if s.n < slowLeast || c.sound(c.members) != c.members {
			slowest = -1
			break
		}
		switch mean := s.sum / time.Duration(s.n); {
		case slowest < 0:
			slowest, most = i, mean
		case mean > most:
			slowest, most, next = i, mean, most
		default:
			next = max(next, mean)
		}
	}
	far := slowest >= 0 && most >= c.t.Slow && most >= slowFactor*next
	for i := range c.slots {
		if s := &c.slots[i].speed; far && i == slowest {
			s.worse++
		} else {
			s.worse = 0
		}
	}
	if far && c.slots[slowest].speed.worse >= slowWindows {
		c.slots[slowest].speed.worse = 0
		c.report(Notice{Code: MemberSlow, Node: c.slots[slowest].node, Err: ErrSlow})
		c.fail(slowest, ErrSlow)
	}
}

const (
	slowFactor  = 8 // times the mean of the slowest of the others
	slowWindows = 3 // in a row
)

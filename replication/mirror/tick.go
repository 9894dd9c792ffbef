package mirror

import (
	"time"

	"pmsapp/internal/block"
)

// reportHold is how old a request must be before it is told that I/O is held.
const reportHold = time.Second

// Tick says that it is now. Time never goes back. It is cheap where nothing is due, and is called before any other
// method when time has passed, so that deadlines count from the present.
func (c *Core) Tick(now time.Duration) {
	if now <= c.now {
		return
	}
	due, ok := c.Next() // as of the last Tick, so that nothing that fell between is missed
	c.now = now
	if c.ended || !ok || due > now {
		return
	}
	for i := range c.slots {
		s := &c.slots[i]
		if c.wanted(i) && !s.up && !s.trying && now >= s.tryAt {
			c.reconnect(i)
		}
	}
	c.expire()
	c.tellHolding()
	c.run()
}

// wanted says whether a session with the slot's node is needed.
func (c *Core) wanted(i int) bool {
	s := &c.slots[i]
	return s.used && !s.gone && (i == 0 || c.concerned().has(i))
}

// Next says when Tick is wanted at the latest; false if only after another event.
func (c *Core) Next() (time.Duration, bool) {
	const never = time.Duration(1<<63 - 1)
	at := never
	if c.ended {
		return 0, false
	}
	for q := c.reqs.head; q != nil; q = q.next {
		if q.r != nil && !q.expired {
			at = q.deadline
			if !c.holding && c.now-(q.deadline-c.t.Hold) < reportHold {
				at = min(at, q.deadline-c.t.Hold+reportHold)
			}
			break
		}
	}
	if c.holding {
		at = min(at, c.holdAt)
	}
	for i := range c.slots {
		s := &c.slots[i]
		if !c.wanted(i) || s.up {
			continue
		}
		if !s.trying {
			at = min(at, s.tryAt)
		}
		if c.members.has(i) && !c.members.single() && !c.prop.active {
			for _, g := range [2]time.Duration{c.t.Grace, c.t.LastGrace} {
				if t := s.lostAt + g; t > c.now {
					at = min(at, t)
				}
			}
		}
	}
	if c.prop.active && !c.prop.sent {
		at = min(at, c.prop.at)
	}
	if c.hot.tail != nil && c.mayClear() {
		at = min(at, max(c.hot.tail.last+c.cooling.pause, c.clearing.next))
	}
	if t, ok := c.tellNext(); ok {
		at = min(at, t)
	}
	if t, ok := c.cacheNext(); ok {
		at = min(at, t)
	}
	if c.retryAt > c.now {
		at = min(at, c.retryAt)
	}
	if c.scrub != nil && c.scrub.at > c.now {
		at = min(at, c.scrub.at)
	}
	return at, at != never
}

// expire ends the requests that were held for too long (5).
func (c *Core) expire() {
	for q := c.reqs.head; q != nil; {
		next := q.next
		if q.r != nil && !q.expired {
			if q.deadline > c.now {
				return
			}
			c.endRequest(q, block.ErrHeld)
		}
		q = next
	}
}

// tellHolding reports the beginning and the end of a hold that lasts.
func (c *Core) tellHolding() {
	var oldest *request
	for q := c.reqs.head; q != nil; q = q.next {
		if q.r != nil && q.r != &c.cache.own && q.state != late {
			oldest = q
			break
		}
	}
	old := oldest != nil && c.now-(oldest.deadline-c.t.Hold) >= reportHold
	err := c.obstacle()
	c.holdAt = c.now + reportHold
	switch {
	case old && err != nil && (!c.holding || err == errLacking && !c.toldLacking): // which an admin has to know
		c.holding, c.toldLacking = true, err == errLacking
		c.report(Notice{Code: Holding, Err: err})
	case c.holding && (!old || err == nil):
		c.holding, c.toldLacking = false, false
		c.report(Notice{Code: Resumed})
	}
}

package mirror

import "pmsapp/replication/peer"

// confirms are what a slot's node has confirmed (11). Requests are known by the number of their arrival.
type confirms struct {
	asking    bool   // a Confirm is under way
	begun     uint64 // the highest arrival when it was sent
	confirmed uint64 // the highest arrival that a Confirm begun after it has covered
	wantedTo  uint64 // the highest arrival that wants one
	waiters   *request
}

// confirmers are the nodes whose confirmation an answer needs: those of the members, and the leader's own.
func (c *Core) confirmers() mask { return c.union() | bit(0) }

// wantConfirms asks for the confirmations of a read beside the read itself.
func (c *Core) wantConfirms(q *request) {
	need := c.confirmers()
	if from := c.sources(c.members); from != 0 {
		need &^= bit(lowest(from)) // it answers the read
	}
	for i := range c.slots {
		if need.has(i) {
			c.wantConfirm(i, q.arrival)
		}
	}
}

func (c *Core) wantConfirm(i int, arrival uint64) {
	s := &c.slots[i]
	if s.wantedTo < arrival {
		s.wantedTo = arrival
		c.pumpConfirm(i)
	}
}

// pumpConfirm begins the next exchange with a node, if somebody needs one and none is under way: many share it.
func (c *Core) pumpConfirm(i int) {
	s := &c.slots[i]
	if s.asking || !s.up || s.gone || s.wantedTo <= s.confirmed || c.ended {
		return
	}
	s.asking, s.begun = true, c.arrival
	c.send(i, forConfirm, peer.Confirm)
}

func (c *Core) confirmAnswered(k *call, o outcome) {
	i := int(k.slot)
	s := &c.slots[i]
	s.asking = false
	if o != fine {
		if o != lost { // a node that cannot say so is as good as gone
			c.lose(i, k.Err)
		}
		c.pumpConfirm(i)
		return
	}
	s.confirmed = max(s.confirmed, s.begun)
	for q := c.takeWaiters(s); q != nil; {
		next := q.wnext
		c.settle(q)
		q = next
	}
	c.pumpConfirm(i)
}

// confirmed says whether every node that has to has confirmed since q arrived. If not, q waits for one of them.
func (c *Core) confirmed(q *request) bool {
	need := c.confirmers() &^ q.own
	waitFor := -1
	for i := range c.slots {
		if need.has(i) && c.slots[i].confirmed < q.arrival {
			c.wantConfirm(i, q.arrival)
			waitFor = i
		}
	}
	if waitFor < 0 {
		return true
	}
	q.wnext = c.slots[waitFor].waiters
	c.slots[waitFor].waiters = q
	return false
}

func (c *Core) takeWaiters(s *slot) *request {
	q := s.waiters
	s.waiters = nil
	return q
}

func (c *Core) forgetWaiter(q *request) {
	for i := range c.slots {
		for at := &c.slots[i].waiters; *at != nil; at = &(*at).wnext {
			if *at == q {
				*at = q.wnext
				return
			}
		}
	}
}

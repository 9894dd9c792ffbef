package reign

import (
	"fmt"
	"time"

	"pmsapp/internal/ids"
)

// probation is the time in which the replicas of a pool are not brought back: its disk was far slower than the others, and
// would hold the guests up again. A new leader knows nothing of it and finds out for itself.
type probation struct {
	pace
	last time.Duration // when it was removed last
}

// probation says until when a pool is on probation, 0 if it is not.
func (n *node) probation(p ids.Pool, now time.Duration) time.Duration {
	if s := n.slow[p]; s != nil && now < s.next {
		return s.next
	}
	return 0
}

// memberSlow puts the pool of a member that a mirror removes for its slowness on probation, before it has left.
func (c *Core) memberSlow(ev MemberSlow) {
	if c.mirrorOf(ev.Volume, ev.Epoch) == nil {
		return
	}
	n, tv := c.r.nodes[ev.Node], c.byID[ev.Volume]
	if n == nil || tv == nil {
		return
	}
	for _, p := range tv.Replicas {
		if p.Node != ev.Node {
			continue
		}
		s := n.slow[p.Pool]
		switch {
		case s == nil:
			s = new(probation)
			if n.slow == nil {
				n.slow = make(map[ids.Pool]*probation)
			}
			n.slow[p.Pool] = s
		case c.now < s.next: // another volume of the same pool
			return
		case c.now-s.last > c.cfg.ProbationMax:
			s.wait = 0
		}
		s.last = c.now
		s.later(c.now, c.cfg.ProbationMin, c.cfg.ProbationMax)
		c.tell(DiskError, tv.ID, ev.Node, fmt.Sprintf("the disk of volume %s on node %s is far slower than the others': its replicas leave, and are on probation for %v",
			tv.Name, c.nodeName(ev.Node), s.wait))
	}
}

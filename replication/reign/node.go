package reign

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// node is a storage node during one reign.
type node struct {
	id      ids.Node
	expect  []ids.Pool // by the catalog
	attempt uint64     // of the session, or of the attempt under way; 0 if none
	up      bool
	retry   pace
	since   time.Duration // since when it is not up; if it is, since when it was not before
	err     string
	down    bool               // its machine answered that nothing listens there: as good as a suspicion
	pools   map[ids.Pool]*pool // what the newest session's fence said
	listed  []ids.Pool         // keys of pools, in the order in which they came
	seen    map[ids.Pool]bool  // pools that were fenced before in this reign: they must have its epoch ever after
	polling bool
	asking  bool // a Poll is wanted, whatever is known
	poll    pace
	resync  ids.Volume // the one that runs to it; zero if none
	slow    map[ids.Pool]*probation
}

// pool is a pool as its node's fence described it.
type pool struct {
	peer.FencedPool
	replicas map[ids.Volume]peer.FencedReplica
	order    []ids.Volume
}

// adoptNodes follows the catalog's list of nodes.
func (c *Core) adoptNodes() {
	r := c.r
	there := make(map[ids.Node]bool, len(c.view.Nodes))
	for i := range c.view.Nodes {
		x := &c.view.Nodes[i]
		if x.Witness {
			continue
		}
		there[x.ID] = true
		n := r.nodes[x.ID]
		if n == nil {
			n = &node{id: x.ID, since: c.now, seen: make(map[ids.Pool]bool)}
			r.nodes[x.ID] = n
			r.order = append(r.order, n)
		}
		if len(n.expect) != len(x.Pools) {
			n.asking, n.poll = true, pace{} // a new pool: ask at once
		}
		n.expect = x.Pools
	}
	sortNodes(r.order)
	kept := r.order[:0]
	for _, n := range r.order {
		if there[n.id] {
			kept = append(kept, n)
			continue
		}
		if n.attempt != 0 {
			c.emit(CloseSession{Attempt: n.attempt, Node: n.id})
		}
		delete(r.nodes, n.id)
	}
	r.order = kept
}

// driveNodes opens the sessions that are due, for ever while leading, and polls those whose pools are not all fenced.
func (c *Core) driveNodes() {
	for _, n := range c.r.order {
		switch {
		case n.attempt == 0 && c.now >= n.retry.next:
			n.attempt = c.id()
			c.emit(OpenSession{Attempt: n.attempt, Node: n.id, Epoch: c.r.epoch})
		case n.attempt == 0:
			c.at(n.retry.next)
		case n.up && !n.polling:
			c.drivePoll(n)
		}
	}
}

func (c *Core) drivePoll(n *node) {
	lo, hi := never, c.cfg.RetryMax
	if n.asking {
		lo = c.cfg.PollBusy
	}
	for _, id := range n.listed {
		if n.pools[id].Busy {
			lo = c.cfg.PollBusy
		}
	}
	for _, id := range n.expect {
		if n.pools[id] == nil && lo == never {
			lo, hi = c.cfg.PollAbsent, c.cfg.PollAbsent
		}
	}
	switch {
	case lo == never:
	case c.now < n.poll.next:
		c.at(n.poll.next)
	default:
		n.poll.later(c.now, lo, max(lo, hi))
		n.polling, n.asking = true, false
		c.emit(Poll{Attempt: n.attempt, Node: n.id})
	}
}

// holder finds the node of a session.
func (c *Core) holder(attempt uint64) *node {
	if c.r != nil {
		for _, n := range c.r.order {
			if n.attempt == attempt {
				return n
			}
		}
	}
	return nil
}

func (c *Core) opened(ev Opened) {
	n := c.holder(ev.Attempt)
	if n == nil {
		return // given up: the shell closes it
	}
	n.up, n.err, n.down, n.retry, n.polling, n.poll = true, "", false, pace{}, false, pace{}
	n.pools, n.listed = make(map[ids.Pool]*pool), nil
	n.asking, n.poll.next = false, c.now+c.cfg.PollBusy
	if c.merge(n, ev.Fenced) {
		c.tell(NodeFenced, ids.Volume{}, n.id, fmt.Sprintf("node %s is fenced under epoch %d", c.nodeName(n.id), c.r.epoch))
		c.tellLeftovers(n)
	}
}

func (c *Core) polled(ev Polled) {
	n := c.holder(ev.Attempt)
	if n == nil || !n.up {
		return
	}
	n.polling = false
	if ev.Err != nil {
		return // Lost follows if the session has died
	}
	if c.merge(n, ev.Fenced) {
		c.tellLeftovers(n)
	}
}

// merge takes a node's answer. It adds to what this session said before and takes nothing away: an answer to Poll may be
// older than a replica that was created meanwhile. It is false if the reign is over by it.
func (c *Core) merge(n *node, f peer.Fenced) bool {
	r := c.r
	for i := range f.Pools {
		p := &f.Pools[i]
		switch {
		case p.Previous > r.epoch: // it was absent while others reigned
			c.refusedBy(n.id, p.Previous)
			return false
		case p.Reverted, n.seen[p.Pool] && !p.Busy && !n.fencedNow(p.Pool) && p.Previous != r.epoch:
			c.distrust(n.id, p.Pool)
			return false
		}
	}
	for i := range f.Pools {
		fp := f.Pools[i]
		p := n.pools[fp.Pool]
		if p == nil {
			p = &pool{replicas: make(map[ids.Volume]peer.FencedReplica, len(fp.Replicas))}
			n.pools[fp.Pool] = p
			n.listed = append(n.listed, fp.Pool)
		}
		p.FencedPool = fp
		for _, rep := range fp.Replicas {
			p.put(rep)
		}
		if fp.Busy {
			continue
		}
		n.seen[fp.Pool] = true
	}
	c.touch()
	return true
}

// fencedNow tells whether the session that is open fenced the pool already. What it had accepted before that fence is then no
// news: every answer to Poll repeats it.
func (n *node) fencedNow(id ids.Pool) bool {
	p := n.pools[id]
	return p != nil && !p.Busy
}

// distrust is for a pool that was fenced in this reign before and does not know of it: it was reverted. That it will know
// this epoch after this fence proves nothing. Judging its replicas is for a new reign.
func (c *Core) distrust(n ids.Node, p ids.Pool) {
	const most = 64
	es := append(c.distrusted[p], c.r.epoch)
	c.distrusted[p] = es[max(0, len(es)-most):]
	c.tell(MemberStale, ids.Volume{}, n, fmt.Sprintf("pool %s of node %s has lost epoch %d: it was reverted", p, c.nodeName(n), c.r.epoch))
	c.endReign("a pool was reverted")
}

func (p *pool) put(rep peer.FencedReplica) {
	if _, ok := p.replicas[rep.Spec.Volume]; !ok {
		p.order = append(p.order, rep.Spec.Volume)
	}
	p.replicas[rep.Spec.Volume] = rep
}

func (c *Core) failed(ev Failed) {
	n := c.holder(ev.Attempt)
	if n == nil {
		return
	}
	n.attempt = 0
	n.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
	first := n.err == ""
	n.err, n.down = errText(ev.Err), errors.Is(ev.Err, syscall.ECONNREFUSED)
	if c.outbid(n, ev.Err) {
		return
	}
	if first {
		c.tell(NodeUnreachable, ids.Volume{}, n.id, fmt.Sprintf("node %s cannot be reached: %s", c.nodeName(n.id), n.err))
	}
	c.touch()
}

func (c *Core) lost(ev Lost) {
	n := c.holder(ev.Attempt)
	if n == nil {
		return
	}
	n.attempt, n.up, n.polling = 0, false, false
	n.since, n.retry = c.now, pace{}
	n.err = errText(ev.Err)
	if c.outbid(n, ev.Err) {
		return
	}
	c.tell(NodeUnreachable, ids.Volume{}, n.id, fmt.Sprintf("the session with node %s is lost: %s", c.nodeName(n.id), n.err))
	c.touch()
}

// outbid takes over anew if err says that the node knows a higher epoch. If it does not say which, the next attempt to open
// a session tells.
func (c *Core) outbid(n *node, err error) bool {
	var e *peer.EpochError
	if !errors.As(err, &e) || e.Accepted == 0 {
		return false
	}
	c.refusedBy(n.id, e.Accepted)
	return true
}

// alive tries a node again at once that gossip sees again.
func (c *Core) alive(id ids.Node) {
	if c.r != nil {
		if n := c.r.nodes[id]; n != nil && n.attempt == 0 {
			n.retry = pace{}
		}
	}
}

// deadline is when the members on a node that are not fenced may be removed (invariant 7).
func (c *Core) deadline(id ids.Node) time.Duration {
	since, down := c.r.began, false
	if n := c.r.nodes[id]; n != nil {
		since, down = n.since, n.down
	}
	if down || c.suspected[id] {
		return since + c.cfg.SuspectGrace
	}
	return since + c.cfg.Grace
}

// fencedPool is the pool at a place if it is fenced: its session is up, and no command of a lower epoch may touch it.
func (c *Core) fencedPool(p truth.Place) *pool {
	n := c.r.nodes[p.Node]
	if n == nil || !n.up || n.pools[p.Pool] == nil || n.pools[p.Pool].Busy {
		return nil
	}
	return n.pools[p.Pool]
}

func errText(err error) string {
	if err == nil {
		return "the session ended"
	}
	return err.Error()
}

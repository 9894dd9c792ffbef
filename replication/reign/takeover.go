package reign

import (
	"errors"
	"fmt"
	"slices"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// driveTakeOver proposes a take-over if none is under way or done (invariant 6).
func (c *Core) driveTakeOver() {
	if r := c.r; r != nil && (r.applied || r.proposal != 0) {
		return
	}
	if c.now < c.again.next {
		c.at(c.again.next)
		return
	}
	if c.tries++; c.tries > 2 { // the first may be refused for an epoch that nobody could know: the second comes at once
		c.again.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
	}
	c.known++
	c.r = &reign{
		epoch: c.known, proposal: c.id(), judgeAt: never, resyncAt: never, placesAt: never,
		nodes: make(map[ids.Node]*node), vols: make(map[ids.Volume]*vol, len(c.view.Volumes)),
		removal: removal{pools: make(map[ids.Pool]bool)},
		expels:  make(map[uint64]*vol), commands: make(map[uint64]command), retired: make(map[ids.Volume]bool),
		asked: make(map[uint64]func(Decided)), cleaning: make(map[cleanKey]*cleaning),
	}
	c.emit(Propose{ID: c.r.proposal, P: truth.TakeOver{Node: c.self, Epoch: c.r.epoch}})
}

// checkApplied begins to fence once the view shows our take-over: committed, and applied here with all before it.
func (c *Core) checkApplied() {
	r := c.r
	switch {
	case c.view.Epoch == r.epoch && c.view.Leader == c.self:
		r.applied, r.began, r.proposal = true, c.now, 0
		c.tell(TookOver, ids.Volume{}, c.self, fmt.Sprintf("took over under epoch %d, %s", r.epoch, count(len(c.view.Volumes), "volume")))
		c.adopt()
	case c.view.Epoch >= r.epoch:
		c.r = nil // outbid
	}
}

// takeOverDecided is the end of the proposal, if the view did not show it before. When its outcome is unknown, the view may
// show it yet: it is used then. Otherwise, after a while, a higher one is proposed; both may be applied, in this order only.
func (c *Core) takeOverDecided(err error) {
	c.r.proposal = 0
	if err == nil || errors.Is(err, truth.ErrUnknown) {
		c.again.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
		return
	}
	c.noteRejection(err)
	c.r = nil
}

// noteRejection remembers the epoch for which a proposal was rejected, and tells whether it was for its epoch.
func (c *Core) noteRejection(err error) bool {
	var rej *truth.Rejection
	if errors.As(err, &rej) {
		c.known = max(c.known, rej.Epoch)
		return rej.Why == truth.WrongEpoch
	}
	return false
}

// endReign closes all mirrors, then all sessions, and answers whoever waits. Its epoch is used no more. As long as this node
// leads, the next reign begins as soon as the pace allows.
func (c *Core) endReign(why string) {
	r := c.r
	if r == nil {
		return
	}
	c.r = nil
	if r.applied && c.now >= r.began+4*c.cfg.RetryMax {
		c.again, c.tries = pace{}, 0
	}
	for _, v := range r.list {
		if v.hasMirror() {
			c.emit(CloseMirror{Volume: v.id, Cause: why})
		}
	}
	for _, n := range r.order {
		if n.attempt != 0 {
			c.emit(CloseSession{Attempt: n.attempt, Node: n.id})
		}
	}
	c.endAdmin(r, why)
}

// refusedBy says that a node, or one of its pools, knows a higher epoch: it can be used only under one above (invariant 6).
func (c *Core) refusedBy(n ids.Node, accepted peer.Epoch) {
	c.known = max(c.known, accepted)
	c.tell(Refused, ids.Volume{}, n, fmt.Sprintf("node %s knows epoch %d, this reign's is %d", c.nodeName(n), accepted, c.r.epoch))
	c.endReign("a higher epoch is known")
}

// decided gives the end of a proposal to whoever made it. Those of former reigns are only heard for their view.
func (c *Core) decided(ev Decided) {
	r := c.r
	if r == nil {
		c.noteRejection(ev.Err)
		return
	}
	v := r.expels[ev.ID]
	switch {
	case ev.ID == r.proposal && !r.applied:
		c.takeOverDecided(ev.Err)
		return
	case v == nil && ev.ID != r.removal.id && ev.ID != r.served.id && r.asked[ev.ID] == nil:
		return
	case c.noteRejection(ev.Err):
		c.endReign("the catalog has another epoch")
		return
	}
	c.touch()
	switch {
	case v != nil:
		delete(r.expels, ev.ID)
		c.expelled(v, ev)
	case r.asked[ev.ID] != nil:
		end := r.asked[ev.ID]
		delete(r.asked, ev.ID)
		end(ev)
	case ev.ID == r.removal.id:
		c.removalDecided(ev)
	default:
		c.servedDecided(ev)
	}
}

func sortNodes(ns []*node) {
	slices.SortFunc(ns, func(a, b *node) int { return slices.Compare(a.id[:], b.id[:]) })
}

package reign

import (
	"errors"
	"fmt"

	"pmsapp/internal/ids"
	"pmsapp/replication/truth"
)

// removal is the RemoveUnfenced under way, or whose outcome is unknown. At most one is under way.
type removal struct {
	id    uint64
	named int               // pools that the one under way names for removal
	pools map[ids.Pool]bool // that it names for removal, and those of earlier ones of unknown outcome
	retry pace
}

// contested tells whether a RemoveUnfenced that is not decided yet names a member of v: it counts as not fenced.
func (c *Core) contested(v *truth.Volume) bool {
	for _, m := range v.InSync {
		if c.r.removal.pools[m.Pool] {
			return true
		}
	}
	return false
}

// removeUnfenced takes the members whose grace is over out of all sets, by one command (invariant 7). A pool that a mirror
// uses is not named in it: its sets are the mirrors' to change. There the other volumes' members leave one by one.
func (c *Core) removeUnfenced(p *plan) {
	m := &c.r.removal
	if m.id != 0 || (len(p.overdue) == 0 && len(m.pools) == 0) {
		return
	}
	if c.now < m.retry.next {
		c.soon(m.retry.next)
		return
	}
	remove, order := make(map[ids.Pool]bool), []ids.Pool(nil)
	for _, e := range p.overdue {
		switch {
		case p.inUse[e.member.Pool] || allSpared(e.helpers, p.waiting):
			c.planExpulsion(e, p)
		case !remove[e.member.Pool] && !allSpared(e.helpers, p.spared):
			remove[e.member.Pool] = true
			order = append(order, e.member.Pool)
		}
	}
	if len(order) == 0 && len(m.pools) == 0 {
		return
	}
	// With an unknown one before it, this one is proposed even if it names nobody: once it is decided, so is that one.
	cmd := truth.RemoveUnfenced{Epoch: c.r.epoch, Remove: order, Reason: "not fenced"}
	for _, n := range c.r.order {
		for _, id := range n.listed {
			if n.up && !n.pools[id].Busy && !p.spared[id] && !remove[id] {
				cmd.Fenced = append(cmd.Fenced, id)
			}
		}
	}
	for _, id := range order {
		m.pools[id] = true
	}
	m.id, m.named = c.id(), len(order)
	c.emit(Propose{ID: m.id, P: cmd})
}

// allSpared tells whether no good member may be named as fenced now. It is a matter of a removal that is under way.
func allSpared(helpers []truth.Place, spared map[ids.Pool]bool) bool {
	for _, h := range helpers {
		if !spared[h.Pool] {
			return false
		}
	}
	return true
}

func (c *Core) removalDecided(ev Decided) {
	m := &c.r.removal
	m.id = 0
	if errors.Is(ev.Err, truth.ErrUnknown) {
		m.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
		return
	}
	clear(m.pools)
	if ev.Err != nil {
		m.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
		return
	}
	m.retry = pace{}
	if m.named > 0 {
		c.tell(MembersRemoved, ids.Volume{}, ids.Node{}, fmt.Sprintf(
			"%d pools that could not be fenced were removed from the in-sync sets; %d volumes have no other member", m.named, len(ev.Outcome.Left)))
	}
}

// expel proposes the removal of single members. The state machine rejects it for any other version of the set, and for the
// last member.
func (c *Core) expel(p *plan) {
	r := c.r
	for _, e := range p.expel {
		if len(r.expels) >= c.cfg.Removals {
			return // the end of one of them comes back here
		}
		if e.v.proposal != 0 {
			continue // two of its members are overdue: one after the other
		}
		e.v.expulsion, e.v.proposal = e, c.id()
		r.expels[e.v.proposal] = e.v
		c.emit(Propose{ID: e.v.proposal, P: truth.RemoveMember{
			Epoch: r.epoch, Volume: e.v.id, Version: e.version, Node: e.member.Node, Reason: e.why,
		}})
	}
}

func (c *Core) expelled(v *vol, ev Decided) {
	v.proposal = 0
	v.doubt = errors.Is(ev.Err, truth.ErrUnknown)
	if ev.Err != nil {
		v.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
		return
	}
	v.retry = pace{}
	c.tell(v.expulsion.kind, v.id, v.expulsion.member.Node, fmt.Sprintf(
		"the replica on node %s was removed from the in-sync set: %s", c.nodeName(v.expulsion.member.Node), v.expulsion.why))
}

package sim

import (
	"fmt"
	"slices"
	"time"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// space is the free space that an admin sees: there is enough everywhere.
func (c *Cluster) space() (out []reign.Space) {
	for _, x := range c.nodes {
		for _, p := range x.pools {
			out = append(out, reign.Space{Node: x.id(), Pool: p.id, Free: 1 << 40})
		}
	}
	return out
}

// startChanges has an admin add, remove and move replicas, in some of the runs.
func (c *Cluster) startChanges() {
	if c.w.Rand.Chance(0.5) {
		return
	}
	pace := []time.Duration{300 * time.Millisecond, 2 * time.Second, 5 * time.Second}[c.w.Rand.Intn(3)]
	grows, drains := c.w.Rand.Chance(0.7), c.w.Rand.Chance(0.5)
	var change func()
	change = func() {
		if c.calmed {
			return
		}
		if drains && c.w.Rand.Chance(0.2) {
			c.drain()
		} else if grows && c.w.Rand.Chance(0.3) {
			c.grow()
		} else {
			c.changeReplicas()
		}
		c.w.After(c.w.Rand.Between(pace/4, pace), change)
	}
	c.w.After(c.w.Rand.Between(0, 2*pace), change)
}

// changeReplicas asks the leader of the moment for one change, sensible or not.
func (c *Cluster) changeReplicas() {
	l, vol := c.leader(), c.w.Rand.Intn(len(c.vols))
	v := c.trueVolume(vol)
	node := func() ids.Node { return c.nodes[c.w.Rand.Intn(len(c.nodes))].id() }
	kind, from, to := c.w.Rand.Intn(3), node(), node()
	if l == nil || v == nil {
		return
	}
	if kind != 0 && c.w.Rand.Chance(0.8) { // one that is there
		from = v.Replicas[c.w.Rand.Intn(len(v.Replicas))].Node
	}
	if c.w.Rand.Chance(0.5) {
		to = ids.Node{}
	}
	ev, what := func(id uint64) reign.Event {
		return reign.RemoveReplica{Request: id, Volume: v.ID, Node: from, Why: truth.WhyAsked}
	}, "removal"
	if kind < 2 {
		req := reign.AddReplica{Volume: v.ID, Node: to, Space: c.space(), Why: truth.WhyAsked}
		if what = "addition"; kind == 1 {
			req.Instead, what = from, "move"
		}
		ev = func(id uint64) reign.Event { req.Request = id; return req }
	}
	l.proc.After(0, func() {
		l.reign.ask(func(err error) {
			c.trace(l.host, "%s of a replica of volume %d, from %s to %s: %v", what, vol, c.nameOf(from), c.nameOf(to), err)
			if err == nil {
				c.stats[what+"s of replicas"]++
			}
		}, ev)
	})
}

// grow asks the leader of the moment for a larger volume.
func (c *Cluster) grow() {
	l, vol := c.leader(), c.w.Rand.Intn(len(c.vols))
	v := c.trueVolume(vol)
	size := c.vols[vol].Size + 4096*int64(1+c.w.Rand.Intn(3*region/4096))
	if l == nil || v == nil || v.Size > 3*c.vols[vol].Size {
		return
	}
	size += v.Size - c.vols[vol].Size
	l.proc.After(0, func() {
		l.reign.ask(func(err error) {
			c.trace(l.host, "volume %d is to have %d bytes: %v", vol, size, err)
			if err == nil {
				c.stats["volumes that grew"]++
			}
		}, func(id uint64) reign.Event { return reign.ResizeVolume{Request: id, Volume: v.ID, Size: size} })
	})
}

// drain has a node drained for a while.
func (c *Cluster) drain() {
	n := c.nodes[c.w.Rand.Intn(len(c.nodes))]
	if n.witness {
		return
	}
	c.setDrain(n, true)
	c.after(500*time.Millisecond, 8*time.Second, func() { c.setDrain(n, false) })
}

func (c *Cluster) setDrain(n *node, on bool) {
	l := c.leader()
	if l == nil {
		return
	}
	b := catalog.SetDrain{Node: n.id(), On: on}
	if c.w.Rand.Chance(0.3) {
		b.Pool = n.pools[0].id
	}
	c.stats["nodes or pools drained, or not any more"]++
	l.propose(b, func(truth.Outcome, error) {})
}

// undrain ends what is left of drains when the faults are over.
func (c *Cluster) undrain() {
	l := c.leader()
	for i := range c.truth.view.Nodes {
		if n := &c.truth.view.Nodes[i]; l != nil && len(n.Draining) > 0 {
			l.propose(catalog.SetDrain{Node: n.ID}, func(truth.Outcome, error) {})
			for _, p := range n.Pools {
				l.propose(catalog.SetDrain{Node: n.ID, Pool: p}, func(truth.Outcome, error) {})
			}
		}
	}
	c.w.After(time.Second, c.undrain)
}

// blocks is how many a volume has.
func (c *Cluster) blocks(vol int) int {
	if v := c.trueVolume(vol); v != nil {
		return int(v.Size / blockSize)
	}
	return c.plan.blocks
}

// checkSizes checks that every member has the size that the catalog says, or lost it with its pool. One that was adopted although it is smaller is
// made larger after the next fence, and may be smaller until the volume is served: until then nobody reads it.
func (c *Cluster) checkSizes() {
	for vol := range c.vols {
		v := c.trueVolume(vol)
		if v == nil {
			continue
		}
		for _, p := range v.InSync {
			short := v.Adopted.Short && v.Adopted.Pool == p.Pool && v.LastServed == 0
			if r := c.replicaAt(p, vol); r != nil && r.spec.Size < v.Size && !short && !c.isTainted(p.Pool, vol) {
				c.fail("invariant 15: volume %d has %d bytes, and in-sync member %s has %d", vol, v.Size, c.nameOf(p.Node), r.spec.Size)
				return
			}
		}
	}
}

// retires tells whether p has a member leave that is well. One that names version 0 only asks what became of it.
func retires(p truth.Proposal) bool {
	r, ok := p.(truth.RemoveMember)
	return ok && r.Reason == mirror.ErrRetired.Error() && r.Version != 0
}

// checkRetired checks that the members that are left when one leaves that was well have not been dead since before that was wanted, or its
// outcome was unknown (1).
func (m *mirrorShell) checkRetired(p truth.Proposal) {
	if !retires(p) {
		return
	}
	r, c := p.(truth.RemoveMember), m.n.c
	c.stats["members that retire"]++
	for _, x := range m.core.Status().Members {
		h, ok := m.n.hostOf(x.Node)
		if x.Node == r.Node || !ok {
			continue
		}
		if n := c.nodes[h]; !n.proc.Alive() && n.died < m.wished {
			c.fail("invariant 1: %s leaves volume %d, and %s, which is left, has been dead since %v, before that was wanted at %v", c.nameOf(r.Node), m.vol,
				c.nameOf(x.Node), n.died, m.wished)
			return
		}
	}
}

// leftBehind names a replica that is where the catalog has none; those of pools that were reverted do not count.
func (c *Cluster) leftBehind() string {
	for vol := range c.vols {
		v := c.trueVolume(vol)
		if v == nil {
			continue
		}
		for _, n := range c.nodes {
			for _, p := range n.pools {
				at := truth.Place{Node: n.id(), Pool: p.id}
				if p.replicas[v.ID] != nil && !p.reverted && !slices.Contains(v.Replicas, at) {
					return fmt.Sprintf("%s holds a replica of volume %d that was removed", c.hostName(n.host), vol)
				}
			}
		}
	}
	return ""
}

// breakCommand may answer a command of a reign by itself.
func (r *reignShell) breakCommand(e reign.Command) bool {
	c := r.n.c
	if e.C.Kind == peer.Grow && c.breaks(BreakGrow) && c.w.Rand.Chance(0.3) {
		r.later(func() { r.step(reign.CommandDone{ID: e.ID}) })
		return true
	}
	if e.C.Kind != peer.Delete || c.volIndex(e.C.Volume) < 0 || c.trueVolume(c.volIndex(e.C.Volume)) == nil {
		return false
	}
	switch {
	case c.breaks(BreakLeftBehind):
	case c.breaks(BreakDeleteLate):
		if s := r.newest[e.Node]; s != nil {
			r.n.proc.After(c.w.Rand.Between(0, time.Second), func() {
				s.submit(&peer.Call{Command: e.C, Done: func(*peer.Call) {}})
			})
		}
	default:
		return false
	}
	r.later(func() { r.step(reign.CommandDone{ID: e.ID}) })
	return true
}

// breakRetired deletes a replica that is to leave as soon as that is decided.
func (n *node) breakRetired(p any, err error) {
	b, ok := p.(truth.RetireReplica)
	if !ok || err != nil || !n.c.breaks(BreakDeleteEarly) {
		return
	}
	if h, ok := n.hostOf(b.Node); ok {
		for _, pool := range n.c.nodes[h].pools {
			delete(pool.replicas, b.Volume)
		}
	}
}

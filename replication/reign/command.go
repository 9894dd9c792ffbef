package reign

import (
	"fmt"
	"slices"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// command is a Create, Reset, Grow, Delete or ReadMap under way, and what it is for.
type command struct {
	kind  peer.Kind
	place truth.Place
	id    ids.Volume
	vol   *vol       // Reset, Grow
	reset *resync    // Reset, Grow
	make  *creation  // Create
	clear *vol       // Delete, before a replica is added
	clean *cleaning  // Delete, of what is left of one
	grow  *vol       // Grow, of a member
	round uint64     // likewise
	short *vol       // Grow, of a replica that was adopted
	ask   *knowledge // ReadMap
	sweep *vol       // Delete, of one that is in the way
}

func (c *Core) command(p truth.Place, pc peer.Command, cmd command) (id uint64) {
	cmd.kind, cmd.place, cmd.id = pc.Kind, p, pc.Volume
	if pc.Kind == peer.Delete {
		pc.Spec.Pool = p.Pool
	}
	id = c.id()
	c.r.commands[id] = cmd
	c.emit(Command{ID: id, Node: p.Node, C: pc})
	return id
}

func (c *Core) commandDone(ev CommandDone) {
	if c.r == nil {
		return
	}
	cmd, ok := c.r.commands[ev.ID]
	if !ok {
		return
	}
	delete(c.r.commands, ev.ID)
	if cmd.kind == peer.Delete && ev.Err == nil {
		c.deleted(cmd.place, cmd.id)
	}
	switch {
	case cmd.kind == peer.Reset:
		c.resetDone(cmd, ev.Err)
	case cmd.kind == peer.Create:
		c.createDone(cmd, ev.Err)
	case cmd.kind == peer.Grow && cmd.reset != nil:
		c.catchUp(cmd, ev.Err)
	case cmd.ask != nil:
		c.replicaSaid(cmd, ev)
	case cmd.sweep != nil:
		c.swept(cmd, ev.Err)
	case cmd.short != nil:
		c.adoptedGrown(cmd, ev.Err)
	case cmd.grow != nil:
		c.growDone(cmd, ev.Err)
	case cmd.clear != nil:
		c.cleared(cmd.clear, ev.Err)
	case cmd.clean != nil:
		c.cleaned(cmd.clean, ev.Err)
	}
}

// deleted notes that a replica is no longer there.
func (c *Core) deleted(at truth.Place, v ids.Volume) {
	if n := c.r.nodes[at.Node]; n != nil && n.pools[at.Pool] != nil {
		p := n.pools[at.Pool]
		delete(p.replicas, v)
		p.order = slices.DeleteFunc(p.order, func(o ids.Volume) bool { return o == v })
	}
}

// created notes a replica that was made since the fence: empty, clean, and known to be there. A session that was opened
// since has reported it.
func (c *Core) created(p truth.Place, s peer.Spec) peer.FencedReplica {
	rep := peer.FencedReplica{Spec: s}
	if n := c.r.nodes[p.Node]; n != nil && n.pools[p.Pool] != nil {
		n.pools[p.Pool].put(rep)
	}
	return rep
}

// tellLeftovers deals with the replicas that the catalog does not list: those of volumes whose deletion is known are
// removed, the others are left alone and told of (invariant 15: a creation whose outcome is unknown looks the same).
func (c *Core) tellLeftovers(n *node) {
	told := 0
	c.eachLeftover(n, func(p truth.Place, v ids.Volume, deleted bool) {
		if deleted {
			c.command(p, peer.Command{Kind: peer.Delete, Volume: v}, command{})
		} else if told++; told <= 8 {
			c.tell(Leftover, v, n.id, fmt.Sprintf(
				"node %s holds a replica of volume %s that the catalog does not list; it is left alone", c.nodeName(n.id), v))
		}
	})
}

func (c *Core) eachLeftover(n *node, f func(p truth.Place, v ids.Volume, deleted bool)) {
	if !n.up {
		return
	}
	for _, id := range n.listed {
		if n.pools[id].Busy {
			continue
		}
		for _, v := range n.pools[id].order {
			p := truth.Place{Node: n.id, Pool: id}
			tv := c.byID[v]
			if (tv != nil && (tv.Foreign || c.isStranger(tv, p) || slices.Contains(tv.Replicas, p) || slices.Contains(tv.Gone, p))) || c.isMaking(v) || c.kept(v) {
				continue
			}
			f(p, v, tv == nil && slices.Contains(c.view.Deleted, v))
		}
	}
}

func (c *Core) isMaking(v ids.Volume) bool {
	for _, m := range c.r.making {
		if m.volume.ID == v {
			return true
		}
	}
	return false
}

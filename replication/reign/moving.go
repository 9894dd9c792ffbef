package reign

import (
	"fmt"
	"slices"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/truth"
)

// moving is what Core knows of the moves that it begins by itself: of replicas that are lost, and away from nodes and pools that
// are being emptied. It outlives reigns, or a pool that stays away would never be away for long.
type moving struct {
	away    map[ids.Pool]time.Duration // since when a pool with replicas is out of reach
	space   []Space
	asked   bool // for space
	spaced  time.Duration
	known   bool                // space was told
	nowhere map[ids.Volume]bool // told that no other node has space for it
	left    map[ids.Node]int    // replicas on nodes that are drained, when it was told last
	hand    pace                // hand-overs because this node is drained
}

func newMoving() moving {
	return moving{away: make(map[ids.Pool]time.Duration), nowhere: make(map[ids.Volume]bool), left: make(map[ids.Node]int)}
}

// spaceAge is how long an answer about free space is good for.
const spaceAge = 10 * time.Second

func (c *Core) spaced(ev Spaced) {
	a := &c.auto
	a.asked, a.known, a.space, a.spaced = false, true, slices.Clone(ev.Space), c.now
	if c.r != nil {
		c.r.placesDue = true
	}
}

// drains tells whether the replicas at a place are to move to other nodes.
func (c *Core) drains(p truth.Place) bool {
	for i := range c.view.Nodes {
		if n := &c.view.Nodes[i]; n.ID == p.Node {
			return slices.Contains(n.Draining, p.Pool)
		}
	}
	return false
}

// isDrained tells whether a node is not to lead because it is being drained.
func (c *Core) isDrained(id ids.Node) bool {
	for i := range c.view.Nodes {
		if n := &c.view.Nodes[i]; n.ID == id {
			return n.Leaves
		}
	}
	return false
}

// planMoves wishes for the moves that are due, and calls off those that are needed no more. A bounded number is under way.
func (c *Core) planMoves() {
	c.noteAway()
	under := 0
	for i := range c.view.Volumes {
		tv := &c.view.Volumes[i]
		for _, l := range tv.Leaving {
			if l.Why != truth.WhyAsked && !tv.Leaves(l.Node) {
				under++
			}
		}
		if w := c.r.vols[tv.ID].change.wish; w != nil && w.request == 0 && !w.place.Pool.IsZero() {
			under++
		}
	}
	for i := range c.view.Volumes {
		tv := &c.view.Volumes[i]
		v := c.r.vols[tv.ID]
		if v.stage != open || v.change.wish != nil || v.growth != nil {
			continue
		}
		if c.now < v.change.retry.next {
			c.placesBy(v.change.retry.next)
			continue
		}
		if len(tv.Leaving) > 0 {
			c.callOff(v, tv)
			continue
		}
		if under < c.cfg.Replacements && c.moveOne(v, tv) {
			under++
		}
	}
	c.tellDrained()
	c.handFromDrained()
}

// noteAway remembers since when pools with replicas are out of reach.
func (c *Core) noteAway() {
	there := make(map[ids.Pool]bool)
	for i := range c.view.Volumes {
		for _, p := range c.view.Volumes[i].Replicas {
			if there[p.Pool] {
				continue
			}
			there[p.Pool] = true
			if _, known := c.auto.away[p.Pool]; c.fencedPool(p) != nil {
				delete(c.auto.away, p.Pool)
			} else if !known {
				c.auto.away[p.Pool] = c.now
			}
		}
	}
	for p := range c.auto.away {
		if !there[p] {
			delete(c.auto.away, p)
		}
	}
}

// isLost tells whether a place has been out of reach for so long that its replica is to be made anew elsewhere.
func (c *Core) isLost(p truth.Place) bool {
	since, away := c.auto.away[p.Pool]
	if !away || c.cfg.ReplaceAfter == 0 {
		return false
	}
	if due := since + c.cfg.ReplaceAfter; c.now < due {
		c.placesBy(due)
		return false
	}
	return true
}

// moveOne wishes for a move of one of a volume's replicas, if one is due and there is a node for it. A place must have room for
// all of the volume: a pool that a move fills would stop the volumes that are there.
func (c *Core) moveOne(v *vol, tv *truth.Volume) bool {
	for _, p := range tv.Replicas {
		why := ""
		switch {
		case !holds(tv.InSync, p.Node) && c.isLost(p):
			why = truth.WhyLost
		case c.drains(p):
			why = truth.WhyDrain
		default:
			continue
		}
		a := &c.auto
		if !a.known || c.now >= a.spaced+spaceAge {
			if !a.asked {
				a.asked = true
				c.emit(AskSpace{})
			}
			return false // its end comes back here
		}
		place, ok := c.bestPlace(tv, a.space, func(s Space) bool { return s.Free >= tv.Size })
		if !ok {
			if !a.nowhere[tv.ID] {
				a.nowhere[tv.ID] = true
				c.tell(ReplicaStuck, tv.ID, p.Node, fmt.Sprintf("the replica of volume %s on node %s cannot be moved: no other node without one is reachable, is not being drained, and has %d bytes free",
					tv.Name, c.nodeName(p.Node), tv.Size))
			}
			c.placesBy(a.spaced + spaceAge)
			continue
		}
		delete(a.nowhere, tv.ID)
		for i := range a.space { // what is on its way there is not free for another
			if a.space[i].Node == place.Node && a.space[i].Pool == place.Pool {
				a.space[i].Free -= tv.Size
			}
		}
		if why == truth.WhyLost {
			c.tell(ReplicaLost, tv.ID, p.Node, fmt.Sprintf("the replica of volume %s on node %s is out of reach for %v: it is made anew on node %s",
				tv.Name, c.nodeName(p.Node), c.cfg.ReplaceAfter, c.nodeName(place.Node)))
		}
		v.change.wish = &wish{place: place, instead: p.Node, why: why}
		return true
	}
	return false
}

// callOff ends a move that Core began and that is needed no more, or cannot be done: the new replica goes, the old one stays.
func (c *Core) callOff(v *vol, tv *truth.Volume) {
	for _, l := range tv.Leaving {
		if l.Why == truth.WhyAsked || l.For.IsZero() || holds(tv.InSync, l.For) {
			continue
		}
		from, to := placeOf(tv, l.Node), placeOf(tv, l.For)
		back := l.Why == truth.WhyLost && c.fencedPool(from) != nil
		stays := l.Why == truth.WhyDrain && !c.drains(from)
		if back || stays || c.isLost(to) || c.drains(to) {
			v.change.wish = &wish{node: l.For, why: truth.WhyAsked}
			return
		}
	}
}

func placeOf(tv *truth.Volume, n ids.Node) truth.Place {
	for _, p := range tv.Replicas {
		if p.Node == n {
			return p
		}
	}
	return truth.Place{}
}

// tellDrained tells when nothing is left on a node that is drained.
func (c *Core) tellDrained() {
	for i := range c.view.Nodes {
		n := &c.view.Nodes[i]
		left := 0
		for k := range c.view.Volumes {
			if holds(c.view.Volumes[k].Replicas, n.ID) {
				left++
			}
		}
		before, told := c.auto.left[n.ID]
		if !n.Leaves {
			delete(c.auto.left, n.ID)
			continue
		}
		if left == 0 && (!told || before > 0) {
			c.tell(NodeDrained, ids.Volume{}, n.ID, fmt.Sprintf("node %s holds no replica any more", n.Name))
		}
		c.auto.left[n.ID] = left
	}
}

// handFromDrained hands over if this node is being drained and another one is not.
func (c *Core) handFromDrained() {
	r := c.r
	if !c.isDrained(c.self) || r.handing != nil || len(r.making) > 0 || len(r.deleting) > 0 {
		return
	}
	var ask []ids.Node
	for _, n := range c.others() {
		if !c.isDrained(n) {
			ask = append(ask, n)
		}
	}
	if len(ask) == 0 {
		return
	}
	if h := &c.auto.hand; c.now < h.next {
		c.placesBy(h.next)
		return
	}
	c.auto.hand.later(c.now, c.cfg.YieldMin, c.cfg.YieldMax)
	r.handing = &handing{asked: c.now, until: c.now + reportWait}
	c.ask(ask)
	c.at(r.handing.until)
}

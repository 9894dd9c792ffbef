package reign

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// wish is somebody's request to change the replicas of a volume. One at a time of each volume.
type wish struct {
	request uint64      // 0: nobody waits
	place   truth.Place // of the replica to add; zero: node is to leave
	instead ids.Node    // who leaves when the new one is in sync
	node    ids.Node
	why     string
	busy    bool // what is left of an old replica at the new one's node is being deleted
	tries   int
}

// change is what is under way to change the places of a volume's replicas.
type change struct {
	wish    *wish
	asked   bool // a proposal is under way
	retry   pace
	retires ids.Node      // the member of which its mirror was told last that it is to leave
	retired time.Duration // and when
}

// cleaning is a place in Gone that is being emptied.
type cleaning struct {
	busy  bool // a Delete or a ForgetReplica is under way
	retry pace
}

type cleanKey struct {
	volume ids.Volume
	place  truth.Place
}

const (
	// retireEvery is how often a mirror is told again of a member that is to leave, as long as that is so.
	retireEvery = time.Second
	// maxWishTries bounds the proposals for one wish that are rejected because the set has changed meanwhile.
	maxWishTries = 10
)

// addReplica begins to give a volume a replica.
func (c *Core) addReplica(ev AddReplica) {
	w, err := c.mayAdd(&ev)
	if err != nil || w == nil {
		c.emit(Reply{Request: ev.Request, Err: err})
		return
	}
	c.r.vols[ev.Volume].change.wish = w
	c.r.placesDue = true
}

// mayAdd checks a request and finds the place; nil without an error says that it was carried out before.
func (c *Core) mayAdd(ev *AddReplica) (*wish, error) {
	tv, err := c.changeable(ev.Volume)
	if err != nil {
		return nil, err
	}
	staying := len(tv.Replicas) - len(tv.Leaving)
	if l, ok := tv.LeaveOf(ev.Instead); ok {
		if !l.For.IsZero() && (ev.Node.IsZero() || ev.Node == l.For) {
			return nil, nil
		}
		return nil, fmt.Errorf("%w: the replica on node %s leaves already", ErrBusy, c.nodeName(ev.Instead))
	}
	switch {
	case ev.Instead.IsZero() && (!ev.Node.IsZero() && holds(tv.Replicas, ev.Node) || ev.Copies > 0 && staying >= ev.Copies):
		return nil, nil
	case !ev.Instead.IsZero() && !holds(tv.Replicas, ev.Instead):
		return nil, fmt.Errorf("%w: node %s has no replica of %s", ErrUnknownVolume, c.nodeName(ev.Instead), tv.Name)
	case ev.Instead.IsZero() && staying >= maxReplicas:
		return nil, fmt.Errorf("%w: %s has %d replicas, no more are allowed", ErrInvalid, tv.Name, maxReplicas)
	case len(tv.Replicas) > maxReplicas:
		return nil, fmt.Errorf("%w: another replica of %s is on its way out", ErrBusy, tv.Name)
	case !ev.Node.IsZero() && holds(tv.Replicas, ev.Node):
		return nil, fmt.Errorf("%w: node %s has a replica of %s", ErrInvalid, c.nodeName(ev.Node), tv.Name)
	case !ev.Node.IsZero() && c.beingCleaned(tv, ev.Node):
		return nil, fmt.Errorf("%w: the former replica of %s on node %s is not deleted yet", ErrBusy, tv.Name, c.nodeName(ev.Node))
	}
	tight := false
	place, ok := c.bestPlace(tv, ev.Space, func(s Space) bool {
		will := s.Free > 0 && (ev.Node.IsZero() || s.Node == ev.Node) && (ev.Pool.IsZero() || s.Pool == ev.Pool)
		tight = tight || will && s.Tight
		return will && !s.Tight
	})
	if !ok && tight {
		return nil, ErrPromised
	}
	if n := c.r.nodes[ev.Node]; !ok && n != nil && c.unwelcome(tv, n) {
		return nil, fmt.Errorf("%w: node %s holds a replica of %s of another lineage", ErrInvalid, c.nodeName(n.id), tv.Name)
	}
	if !ok {
		return nil, fmt.Errorf("%w: no node that was meant is reachable, is not being drained, has none of it, and has a pool with space", ErrNoPlace)
	}
	return &wish{request: ev.Request, place: place, instead: ev.Instead, why: ev.Why}, nil
}

// maxReplicas bounds those of a volume that are to stay.
const maxReplicas = 3

// changeable finds a volume whose replicas may be changed here and now (invariant 17).
func (c *Core) changeable(id ids.Volume) (*truth.Volume, error) {
	tv := c.byID[id]
	switch {
	case c.r == nil || !c.r.applied:
		return nil, ErrNotLeading
	case tv == nil:
		return nil, ErrUnknownVolume
	case c.r.handing != nil || c.r.vols[id].stage > open || c.r.vols[id].change.wish != nil || c.r.vols[id].growth != nil:
		return nil, ErrBusy
	case c.r.vols[id].stage < open:
		return nil, fmt.Errorf("%w: %s", ErrNotServed, c.r.vols[id].reason)
	}
	return tv, nil
}

// bestPlace is the fenced pool with the most free space, of those that will do, on a node on which nothing of the volume is.
func (c *Core) bestPlace(tv *truth.Volume, space []Space, will func(Space) bool) (best truth.Place, found bool) {
	var free int64
	for _, n := range c.r.order {
		if holds(tv.Replicas, n.id) || c.beingCleaned(tv, n.id) || c.unwelcome(tv, n) {
			continue
		}
		for _, s := range space {
			p := truth.Place{Node: n.id, Pool: s.Pool}
			if s.Node == n.id && !slices.Contains(tv.Gone, p) && !c.drains(p) && slices.Contains(n.expect, s.Pool) && c.fencedPool(p) != nil && will(s) && (!found || s.Free > free) {
				best, free, found = p, s.Free, true
			}
		}
	}
	return best, found
}

// unwelcome tells whether a node has a replica of another lineage, which is not given up unless somebody says so (clearPlace).
func (c *Core) unwelcome(tv *truth.Volume, n *node) bool {
	return slices.ContainsFunc(n.listed, func(id ids.Pool) bool {
		rep, there := n.pools[id].replicas[tv.ID]
		return there && !n.pools[id].Busy && !rep.Foreign && rep.Spec.Lineage != tv.Lineage
	})
}

// beingCleaned tells whether a former replica on a node is about to be deleted. One whose disk is away is not waited for: that
// may have been lost for good.
func (c *Core) beingCleaned(tv *truth.Volume, n ids.Node) bool {
	for _, p := range tv.Gone {
		if p.Node == n && (c.r.nodes[n] == nil || !c.r.nodes[n].up || c.r.nodes[n].pools[p.Pool] != nil) {
			return true
		}
	}
	return false
}

// removeReplica begins to take a replica from a volume.
func (c *Core) removeReplica(ev RemoveReplica) {
	tv, err := c.changeable(ev.Volume)
	switch {
	case err != nil:
	case !holds(tv.Replicas, ev.Node) && holds(tv.Gone, ev.Node) || tv.Leaves(ev.Node): // a repeated request
		c.emit(Reply{Request: ev.Request})
		return
	case !holds(tv.Replicas, ev.Node):
		err = ErrUnknownVolume
	case !slices.ContainsFunc(tv.InSync, func(p truth.Place) bool { return p.Node != ev.Node && !tv.Leaves(p.Node) }):
		err = fmt.Errorf("%w: %s", ErrLast, tv.Name)
	default:
		c.r.vols[ev.Volume].change.wish = &wish{request: ev.Request, node: ev.Node, why: ev.Why}
		c.r.placesDue = true
		return
	}
	c.emit(Reply{Request: ev.Request, Err: err})
}

// driveReplicas does the next step of every change of places.
func (c *Core) driveReplicas() {
	r := c.r
	if r.handing != nil {
		return
	}
	if !r.placesDue && c.now < r.placesAt {
		c.at(r.placesAt)
		return
	}
	r.placesDue, r.placesAt = false, never
	if c.planMoves(); r.handing != nil {
		return
	}
	for i := range c.view.Volumes {
		tv := &c.view.Volumes[i]
		for _, p := range tv.Gone {
			c.cleanPlace(tv, p)
		}
		v := r.vols[tv.ID]
		c.sweepStrangers(tv, v)
		c.followSize(v, tv)
		c.followDurability(v, tv)
		if v.stage == open && v.growth != nil {
			c.driveGrowth(v, tv)
			continue
		}
		if v.stage == open && !v.change.asked && (v.change.wish != nil || len(tv.Leaving) > 0) {
			c.changePlaces(v, tv)
		}
	}
	c.at(r.placesAt)
}

func (c *Core) changePlaces(v *vol, tv *truth.Volume) {
	ch := &v.change
	if c.now < ch.retry.next {
		c.placesBy(ch.retry.next)
		return
	}
	if ch.wish != nil {
		if c.grant(v, tv); ch.wish != nil {
			return
		}
	}
	for _, l := range tv.Leaving {
		if tv.Leaves(l.Node) && c.leave(v, tv, l) {
			return
		}
	}
}

func (c *Core) placesBy(t time.Duration) { c.r.placesAt = min(c.r.placesAt, t) }

// grant proposes what a wish is for, unless the view shows it already.
func (c *Core) grant(v *vol, tv *truth.Volume) {
	w := v.change.wish
	switch {
	case w.busy:
	case w.place.Pool.IsZero():
		if !holds(tv.Replicas, w.node) || tv.Leaves(w.node) {
			c.granted(v, nil)
			return
		}
		c.proposeChange(v, truth.RetireReplica{Epoch: c.r.epoch, Volume: v.id, Version: tv.Version, Node: w.node, Why: w.why})
	case slices.Contains(tv.Replicas, w.place):
		c.granted(v, nil)
	case c.fencedPool(w.place) == nil:
		c.granted(v, fmt.Errorf("%w: node %s went away", ErrNoPlace, c.nodeName(w.place.Node)))
	default:
		if !c.clearPlace(v, tv) {
			c.proposeChange(v, truth.AddReplica{
				Epoch: c.r.epoch, Volume: v.id, Version: tv.Version, Place: w.place, Instead: w.instead, Why: w.why})
		}
	}
}

// clearPlace deletes what the catalog does not list of the volume on the node that is to have a replica: it must never be taken
// for the new one.
func (c *Core) clearPlace(v *vol, tv *truth.Volume) (begun bool) {
	w := v.change.wish
	n := c.r.nodes[w.place.Node]
	for _, id := range n.listed {
		rep, there := n.pools[id].replicas[v.id]
		if !there || n.pools[id].Busy {
			continue
		}
		if !rep.Foreign && rep.Spec.Lineage != tv.Lineage {
			c.granted(v, fmt.Errorf("%w: node %s holds a replica of %s of another lineage", ErrInvalid, c.nodeName(n.id), tv.Name))
			return true
		}
		w.busy = true
		c.command(truth.Place{Node: n.id, Pool: id}, peer.Command{Kind: peer.Delete, Volume: v.id}, command{clear: v})
		return true
	}
	return false
}

// cleared goes on with the wish whose place had something left.
func (c *Core) cleared(v *vol, err error) {
	if w := v.change.wish; w != nil {
		w.busy = false
		if err != nil {
			c.granted(v, fmt.Errorf("delete what is left of an old replica on node %s: %w", c.nodeName(w.place.Node), err))
		}
	}
	c.r.placesDue = true
}

// granted ends a wish.
func (c *Core) granted(v *vol, err error) {
	w := v.change.wish
	v.change.wish, c.r.placesDue = nil, true
	if w.request == 0 && err != nil { // it will be wished for again
		v.change.retry.later(c.now, resyncMin, resyncMax)
	}
	if w.request != 0 {
		c.emit(Reply{Request: w.request, Err: err})
	}
}

func (c *Core) proposeChange(v *vol, p truth.Proposal) {
	v.change.asked = true
	c.propose(p, func(ev Decided) { c.changeDecided(v, p, ev.Err) })
}

// propose proposes p; end is called with its end, if this reign lives until then.
func (c *Core) propose(p truth.Proposal, end func(Decided)) {
	id := c.id()
	c.r.asked[id] = end
	c.emit(Propose{ID: id, P: p})
}

func (c *Core) changeDecided(v *vol, p truth.Proposal, err error) {
	ch := &v.change
	ch.asked = false
	var rej *truth.Rejection
	switch {
	case err == nil:
		ch.retry = pace{}
		c.tellChange(v, p)
		if ch.wish != nil {
			c.granted(v, nil)
		}
		return
	case errors.As(err, &rej) && rej.Why == truth.LastMember:
		err = fmt.Errorf("%w: %w", ErrLast, err)
	case errors.Is(err, truth.ErrUnknown), errors.As(err, &rej) && rej.Why == truth.WrongVersion:
		if w := ch.wish; w == nil || w.tries < maxWishTries {
			if w != nil {
				w.tries++
			}
			ch.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax) // then the view tells what became of it
			return
		}
		err = fmt.Errorf("%w: %w", ErrBusy, err)
	}
	ch.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
	if ch.wish != nil {
		c.granted(v, err)
	}
}

func (c *Core) tellChange(v *vol, p truth.Proposal) {
	name := c.volumeName(v.id)
	switch p := p.(type) {
	case truth.AddReplica:
		text := fmt.Sprintf("volume %s gets a replica on node %s", name, c.nodeName(p.Place.Node))
		if !p.Instead.IsZero() {
			text += " instead of that on node " + c.nodeName(p.Instead)
		}
		c.tell(ReplicaAdded, v.id, p.Place.Node, text)
	case truth.RetireReplica:
		c.tell(ReplicaLeaves, v.id, p.Node, fmt.Sprintf("the replica of volume %s on node %s is to leave", name, c.nodeName(p.Node)))
	case truth.DropReplica:
		c.tell(ReplicaRemoved, v.id, p.Node, fmt.Sprintf("the replica of volume %s on node %s is none any more", name, c.nodeName(p.Node)))
	}
}

func (c *Core) volumeName(id ids.Volume) string {
	if tv := c.byID[id]; tv != nil {
		return tv.Name
	}
	return id.String()
}

// leave does the next step for a replica that is to leave now. It tells whether something was proposed.
func (c *Core) leave(v *vol, tv *truth.Volume, l truth.Leave) bool {
	ch := &v.change
	if holds(tv.InSync, l.Node) { // shrink first: the mirror's part (invariant 2)
		if ch.retires != l.Node || c.now >= ch.retired+retireEvery {
			ch.retires, ch.retired = l.Node, c.now
			set := make([]ids.Node, len(tv.InSync))
			for i, p := range tv.InSync {
				set[i] = p.Node
			}
			c.emit(RetireMember{Volume: v.id, Node: l.Node, Set: set})
		}
		c.placesBy(ch.retired + retireEvery)
		return false
	}
	if slices.Contains(v.uses, l.Node) {
		// The mirror does not know yet that its removal is committed, and may read from it: nothing is deleted before it does.
		return false
	}
	if rs := v.resyncOf(l.Node); rs != nil && rs.running {
		c.emit(StopResync{Volume: v.id, Node: l.Node})
		c.placesBy(c.now + retireEvery)
		return false // its end comes back here
	}
	c.proposeChange(v, truth.DropReplica{Epoch: c.r.epoch, Volume: v.id, Version: tv.Version, Node: l.Node})
	return true
}

// cleanPlace deletes what is left of a replica that has left, when its node is there, and then forgets the place. The fence's
// answer, or Delete's, under this epoch is what proves that nothing is there.
func (c *Core) cleanPlace(tv *truth.Volume, p truth.Place) {
	pl := c.fencedPool(p)
	if pl == nil {
		return
	}
	key := cleanKey{tv.ID, p}
	k := c.r.cleaning[key]
	if k == nil {
		k = &cleaning{}
		c.r.cleaning[key] = k
	}
	if k.busy {
		return
	}
	if c.now < k.retry.next {
		c.placesBy(k.retry.next)
		return
	}
	k.busy = true
	if _, there := pl.replicas[tv.ID]; there {
		c.command(p, peer.Command{Kind: peer.Delete, Volume: tv.ID}, command{clean: k})
		return
	}
	name := tv.Name
	c.propose(truth.ForgetReplica{Epoch: c.r.epoch, Volume: tv.ID, Place: p}, func(ev Decided) {
		if c.cleaned(k, ev.Err); ev.Err == nil {
			delete(c.r.cleaning, key)
			c.tell(ReplicaDeleted, tv.ID, p.Node, fmt.Sprintf("what was left of volume %s on node %s is deleted", name, c.nodeName(p.Node)))
		}
	})
}

// cleaned notes the end of a step.
func (c *Core) cleaned(k *cleaning, err error) {
	k.busy, c.r.placesDue, c.r.judgeDue = false, true, true
	if err == nil {
		k.retry = pace{}
	} else {
		k.retry.later(c.now, c.cfg.RetryMin, resyncMax)
	}
}

// parting tells whether a replica that is not in sync needs no resync: it leaves, and what it waits for can be made.
func (c *Core) parting(tv *truth.Volume, n ids.Node) bool {
	l, ok := tv.LeaveOf(n)
	if !ok {
		return false
	}
	if l.For.IsZero() {
		return true
	}
	for _, p := range tv.Replicas {
		if p.Node == l.For {
			return holds(tv.InSync, l.For) || c.fencedPool(p) != nil
		}
	}
	return false
}

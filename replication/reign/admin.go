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

// creation is a volume in the making (invariant 15).
type creation struct {
	request uint64
	volume  truth.Volume
	waiting int // replicas not answered
	made    []truth.Place
	err     error // of the first replica that could not be made
	asked   bool  // ProposeCreate is under way
	retry   pace
}

// deletion is a volume on its way out (invariant 17).
type deletion struct {
	request uint64
	v       *vol
	name    string
	version uint64        // of the set whose I/O is drained
	until   time.Duration // of the drain
	asked   bool          // ProposeDelete is under way
	retry   pace
	// unserved: it had no mirror in this reign, so there is nothing to drain, and what its fence said stays true if it is not deleted.
	unserved bool
}

// createVolume makes the replicas. What can be seen to be wrong is refused before anything is made.
func (c *Core) createVolume(ev CreateVolume) {
	v := ev.Volume
	if err := c.mayCreate(&ev); err != nil {
		c.emit(Reply{Request: ev.Request, Err: err})
		return
	}
	if tv := c.byID[v.ID]; tv != nil { // a repeated request: it was created
		c.emit(Reply{Request: ev.Request, Volume: *tv})
		return
	}
	places, err := c.choose(&ev)
	if err != nil {
		c.emit(Reply{Request: ev.Request, Err: err})
		return
	}
	v.Replicas, v.InSync = places, slices.Clone(places)
	m := &creation{request: ev.Request, volume: v, waiting: len(places)}
	c.r.making = append(c.r.making, m)
	for _, p := range places {
		c.command(p, peer.Command{Kind: peer.Create, Volume: v.ID, Spec: specOf(&v, p)}, command{make: m})
	}
}

func (c *Core) mayCreate(ev *CreateVolume) error {
	v := &ev.Volume
	copies := ev.Copies
	if copies == 0 {
		copies = len(ev.On)
	}
	switch {
	case c.r == nil || !c.r.applied:
		return ErrNotLeading
	case c.r.handing != nil || c.isMaking(v.ID):
		return ErrBusy
	case v.ID.IsZero() || v.Lineage.IsZero() || v.Size <= 0:
		return fmt.Errorf("%w: a volume needs an id, a lineage and a size", ErrInvalid)
	case copies < 1 || copies > 3 || len(ev.On) > 0 && len(ev.On) != copies:
		return fmt.Errorf("%w: a volume has 1 to 3 replicas, on as many nodes", ErrInvalid)
	}
	ev.Copies = copies
	return nil
}

// choose finds distinct nodes: those that were named, or those with the most free space in one fenced pool.
func (c *Core) choose(ev *CreateVolume) ([]truth.Place, error) {
	best, tight := make([]Space, 0, len(c.r.order)), 0
	for _, n := range c.r.order {
		if len(ev.On) > 0 && !slices.Contains(ev.On, n.id) {
			continue
		}
		top, full := Space{Free: -1}, false
		for _, s := range ev.Space {
			p := truth.Place{Node: n.id, Pool: s.Pool}
			if s.Node != n.id || !slices.Contains(n.expect, s.Pool) || c.fencedPool(p) == nil || c.drains(p) || s.Free <= top.Free {
				continue
			}
			if s.Tight {
				full = true
				continue
			}
			top = s
		}
		if top.Free > 0 {
			best = append(best, top)
		} else if full {
			tight++
		}
	}
	slices.SortStableFunc(best, func(a, b Space) int { // stable: of equals the lower node id
		switch {
		case a.Free > b.Free:
			return -1
		case a.Free < b.Free:
			return 1
		}
		return 0
	})
	if len(best) < ev.Copies && len(best)+tight >= ev.Copies {
		return nil, fmt.Errorf("%w: %d of the %d nodes that are needed", ErrPromised, tight, ev.Copies)
	}
	if len(best) < ev.Copies {
		return nil, fmt.Errorf("%w: %d of the %d that are needed are reachable and have space", ErrNoPlace, len(best), ev.Copies)
	}
	places := make([]truth.Place, ev.Copies)
	for i := range places {
		places[i] = truth.Place{Node: best[i].Node, Pool: best[i].Pool}
	}
	return places, nil
}

// createDone counts a replica; when all are there, the creation is proposed: not before.
func (c *Core) createDone(cmd command, err error) {
	m := cmd.make
	m.waiting--
	if err == nil {
		c.created(cmd.place, specOf(&m.volume, cmd.place))
		m.made = append(m.made, cmd.place)
	} else if m.err == nil {
		m.err = fmt.Errorf("create the replica on node %s: %w", c.nodeName(cmd.place.Node), err)
	}
	switch {
	case m.waiting > 0:
	case m.err != nil: // nothing was proposed: nobody can know the volume
		c.undo(m, m.err)
	default:
		m.asked = true
		c.emit(ProposeCreate{Epoch: c.r.epoch, Volume: m.volume})
	}
}

// undo removes the replicas of a volume of which it is known that it was not created.
func (c *Core) undo(m *creation, err error) {
	c.forget(m)
	for _, p := range m.made {
		c.command(p, peer.Command{Kind: peer.Delete, Volume: m.volume.ID}, command{})
	}
	c.emit(Reply{Request: m.request, Err: err})
}

func (c *Core) forget(m *creation) {
	c.r.making = slices.DeleteFunc(c.r.making, func(x *creation) bool { return x == m })
}

// volumeDecided is the end of a creation's or a deletion's proposal.
func (c *Core) volumeDecided(ev VolumeDecided) {
	if c.r == nil || c.r.epoch != ev.Epoch {
		return
	}
	for _, m := range c.r.making {
		if m.volume.ID == ev.Volume && m.asked {
			c.creationDecided(m, ev.Err)
			return
		}
	}
	for _, d := range c.r.deleting {
		if d.v.id == ev.Volume && d.asked {
			c.deletionDecided(d, ev.Err)
			return
		}
	}
}

func (c *Core) creationDecided(m *creation, err error) {
	m.asked = false
	tv := c.byID[m.volume.ID]
	switch {
	case tv != nil: // by this proposal or by one before it whose outcome was unknown
		c.forget(m)
		c.tell(VolumeCreated, tv.ID, ids.Node{}, fmt.Sprintf("volume %s with %s", tv.Name, count(len(tv.Replicas), "replica")))
		c.emit(Reply{Request: m.request, Volume: *tv})
	case err == nil || errors.Is(err, truth.ErrUnknown):
		m.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax) // the replicas stay
	case c.noteRejection(err): // another epoch: who knows what its leader does
		c.endReign("the catalog has another epoch")
	default: // decided, and with it all that we proposed before: the volume does not exist
		c.undo(m, err)
	}
}

// deleteVolume drains a volume that is served here. One that waits for replicas that may never come back has nothing to drain.
func (c *Core) deleteVolume(ev DeleteVolume) {
	reply := Reply{Request: ev.Request}
	tv := c.byID[ev.Volume]
	switch {
	case c.r == nil || !c.r.applied:
		reply.Err = ErrNotLeading
	case tv == nil && (slices.Contains(c.view.Deleted, ev.Volume) || c.kept(ev.Volume)): // a repeated request
	case tv == nil:
		reply.Err = ErrUnknownVolume
	case c.r.handing != nil || c.r.vols[ev.Volume].stage > open:
		reply.Err = ErrBusy
	case c.r.vols[ev.Volume].waits():
		v := c.r.vols[ev.Volume]
		v.stage, v.state, v.reason = ended, Draining, "it is being deleted" // nobody judges or serves it meanwhile
		c.r.deleting = append(c.r.deleting, &deletion{request: ev.Request, v: v, name: tv.Name, version: tv.Version, unserved: true})
		return
	case c.r.vols[ev.Volume].stage < open:
		reply.Err = fmt.Errorf("%w: %s", ErrNotServed, c.r.vols[ev.Volume].reason)
	default:
		v := c.r.vols[ev.Volume]
		v.stage, v.state, v.reason = draining, Draining, "it is being deleted"
		c.r.deleting = append(c.r.deleting, &deletion{
			request: ev.Request, v: v, name: tv.Name, version: tv.Version, until: c.now + c.cfg.DrainTimeout,
		})
		c.emit(DrainMirror{Volume: v.id})
		return
	}
	c.emit(reply)
}

// waits tells whether a volume has been judged in this reign, and nobody whom it needs can be reached, or is good.
func (v *vol) waits() bool { return v.stage == idle && (v.state == Waits || v.state == NeedsForce) }

// drop ends a deletion without success. The mirror is drained, or half so, and goes on only after a new fence.
func (c *Core) drop(d *deletion, err error) {
	c.r.deleting = slices.DeleteFunc(c.r.deleting, func(x *deletion) bool { return x == d })
	c.emit(Reply{Request: d.request, Err: err})
	if d.unserved { // it never was more than idle: it is judged again
		d.v.stage, d.v.state = idle, TakingOver
		c.touch()
		return
	}
	c.endReign("the deletion of a volume was given up")
}

func (c *Core) deletionDecided(d *deletion, err error) {
	d.asked = false
	switch {
	case c.byID[d.v.id] == nil: // adopting that view has closed the mirror, and begun to remove the replicas
		c.r.deleting = slices.DeleteFunc(c.r.deleting, func(x *deletion) bool { return x == d })
		what := "volume " + d.name + " was deleted"
		if c.kept(d.v.id) {
			what += "; it is in the trash"
		}
		c.tell(VolumeDeleted, d.v.id, ids.Node{}, what)
		c.emit(Reply{Request: d.request})
	case err == nil || errors.Is(err, truth.ErrUnknown):
		d.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
	default:
		c.noteRejection(err)
		c.drop(d, err)
	}
}

// driveAdmin repeats proposals whose outcome is unknown, and ends drains that take too long.
func (c *Core) driveAdmin() {
	r := c.r
	for _, m := range r.making {
		if m.asked || m.waiting > 0 {
			continue
		}
		if c.now < m.retry.next {
			c.at(m.retry.next)
			continue
		}
		m.asked = true
		c.emit(ProposeCreate{Epoch: r.epoch, Volume: m.volume})
	}
	for _, d := range r.deleting {
		switch {
		case d.v.stage == draining && c.now >= d.until:
			c.drop(d, fmt.Errorf("%w: volume %s", ErrTimeout, d.v.id))
			return
		case d.v.stage == draining:
			c.at(d.until)
		case d.asked || d.v.stage != drained && !d.unserved:
		case c.now < d.retry.next:
			c.at(d.retry.next)
		default:
			d.asked = true
			c.emit(ProposeDelete{Epoch: r.epoch, Volume: d.v.id, Version: d.version})
		}
	}
	if r.handing != nil {
		c.driveHanding(r.handing)
	}
}

// mirrorDrained goes on with what the drain was for.
func (c *Core) mirrorDrained(ev MirrorDrained) {
	v := c.mirrorOf(ev.Volume, ev.Epoch)
	if v == nil || v.stage != draining {
		return
	}
	for _, d := range c.r.deleting {
		if d.v != v {
			continue
		}
		if ev.Err != nil {
			c.drop(d, fmt.Errorf("%w: %w", ErrTimeout, ev.Err))
			return
		}
		v.stage = drained
	}
	if h := c.r.handing; h != nil {
		c.drainedFor(h, v, ev.Err)
	}
}

// endAdmin answers all who wait when a reign ends. What was begun may have been done: the requests may be repeated.
func (c *Core) endAdmin(r *reign, why string) {
	err := fmt.Errorf("%w under epoch %d: %s; the outcome is not known", ErrNotLeading, r.epoch, why)
	for _, m := range r.making {
		c.emit(Reply{Request: m.request, Err: err})
	}
	for _, d := range r.deleting {
		c.emit(Reply{Request: d.request, Err: err})
	}
	c.endForcing(r, err)
	for _, v := range r.list {
		if w := v.change.wish; w != nil && w.request != 0 {
			c.emit(Reply{Request: w.request, Err: err})
		}
		if v.growth != nil {
			c.emit(Reply{Request: v.growth.request, Err: err})
		}
	}
	if h := r.handing; h != nil && h.request != 0 {
		if h.sent && !c.leading {
			err = nil
		}
		c.emit(Reply{Request: h.request, Err: err})
	}
}

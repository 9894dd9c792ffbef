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

// growth is a volume on its way to another size: every in-sync replica first, durably, then the catalog, then the mirror.
type growth struct {
	request uint64
	size    int64
	until   time.Duration // members that are away are waited for until then
	version uint64        // of the set that was told; 0: none
	round   uint64        // answers to an earlier one do not count
	waiting int           // members that have not answered
	asked   bool          // the proposal is under way
	retry   pace
	err     error // of a member
}

// resizeVolume begins to make a volume larger.
func (c *Core) resizeVolume(ev ResizeVolume) {
	tv, err := c.changeable(ev.Volume)
	switch {
	case err != nil:
	case ev.Size == tv.Size: // a repeated request
		c.emit(Reply{Request: ev.Request})
		return
	case ev.Size < tv.Size:
		err = fmt.Errorf("%w: %s has %d bytes, and only becomes larger", ErrInvalid, tv.Name, tv.Size)
	default:
		c.r.vols[ev.Volume].growth = &growth{request: ev.Request, size: ev.Size, until: c.now + c.cfg.DrainTimeout}
		c.r.placesDue = true
		return
	}
	c.emit(Reply{Request: ev.Request, Err: err})
}

// driveGrowth does the next step of a growth. While there is one no replica is brought back, so that none joins with the old size.
func (c *Core) driveGrowth(v *vol, tv *truth.Volume) {
	g := v.growth
	switch {
	case tv.Size >= g.size: // by this proposal or one before it whose outcome was unknown
		c.grown(v, nil)
	case g.asked || g.waiting > 0:
	case c.now < g.retry.next:
		c.placesBy(g.retry.next)
	case v.resyncing():
		for _, rs := range v.resyncs {
			if rs.running {
				c.emit(StopResync{Volume: v.id, Node: rs.node})
			}
		}
		g.retry.next = c.now + retireEvery
		c.placesBy(g.retry.next) // its end comes back here too
	case g.version != tv.Version || g.err != nil:
		c.growMembers(v, tv)
	default:
		g.asked = true
		p := truth.ResizeVolume{Epoch: c.r.epoch, Volume: v.id, Version: tv.Version, Size: g.size}
		c.propose(p, func(ev Decided) {
			if v.growth == g { // otherwise the view has shown it
				c.resizeDecided(v, ev.Err)
			}
		})
	}
}

// growMembers has every in-sync replica made larger.
func (c *Core) growMembers(v *vol, tv *truth.Volume) {
	g := v.growth
	for _, p := range tv.InSync {
		if c.fencedPool(p) != nil {
			continue
		}
		if c.now >= g.until {
			c.grown(v, fmt.Errorf("%w: node %s is away", ErrTimeout, c.nodeName(p.Node)))
			return
		}
		g.retry.next = min(c.now+c.cfg.RetryMax, g.until)
		c.placesBy(g.retry.next)
		return
	}
	g.version, g.err, g.waiting = tv.Version, nil, len(tv.InSync)
	g.round++
	for _, p := range tv.InSync {
		_, rep, _ := c.look(tv, p)
		spec := grown(tv, p, rep)
		spec.Size = g.size
		c.command(p, peer.Command{Kind: peer.Grow, Volume: v.id, Spec: spec}, command{grow: v, round: g.round})
	}
}

// growDone counts a member that was told. One that was lost meanwhile leaves the set or comes back.
func (c *Core) growDone(cmd command, err error) {
	v := cmd.grow
	g := v.growth
	if err == nil && g != nil {
		c.noteSize(cmd.place, v.id, g.size)
	}
	if g == nil || cmd.round != g.round || g.waiting == 0 {
		return
	}
	g.waiting--
	if err != nil && g.err == nil {
		g.err = fmt.Errorf("make the replica on node %s larger: %w", c.nodeName(cmd.place.Node), err)
	}
	c.r.placesDue = true
	if g.waiting > 0 || g.err == nil {
		return
	}
	lost := errors.Is(g.err, peer.ErrLost) || errors.Is(g.err, peer.ErrNoReplica)
	if !lost || c.now >= g.until {
		c.grown(v, g.err)
		return
	}
	g.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
}

func (c *Core) resizeDecided(v *vol, err error) {
	g := v.growth
	g.asked = false
	var rej *truth.Rejection
	switch {
	case err == nil:
		c.r.placesDue = true // the view shows it
	case errors.Is(err, truth.ErrUnknown), errors.As(err, &rej) && rej.Why == truth.WrongVersion:
		g.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
	default:
		c.grown(v, err)
	}
}

// grown ends a growth.
func (c *Core) grown(v *vol, err error) {
	g := v.growth
	if v.growth = nil; err == nil {
		c.tell(VolumeGrown, v.id, ids.Node{}, fmt.Sprintf("volume %s has %d bytes", c.volumeName(v.id), g.size))
	}
	c.r.placesDue, c.r.resyncDue = true, true
	c.emit(Reply{Request: g.request, Err: err})
}

// followSize has an open mirror take the size that the catalog has: all members have it. One that the mirror takes for a member though
// it has left may not have it; the mirror will learn that (MirrorSet).
func (c *Core) followSize(v *vol, tv *truth.Volume) {
	gone := func(n ids.Node) bool { return !holds(tv.InSync, n) }
	if v.stage == open && v.size < tv.Size && !slices.ContainsFunc(v.uses, gone) {
		v.size = tv.Size
		c.emit(ResizeMirror{Volume: *tv})
	}
}

// noteSize notes that a replica is as large as that.
func (c *Core) noteSize(at truth.Place, id ids.Volume, size int64) {
	if p := c.fencedPool(at); p != nil {
		if rep, ok := p.replicas[id]; ok && rep.Spec.Size < size {
			rep.Spec.Size = size
			p.replicas[id] = rep
		}
	}
}

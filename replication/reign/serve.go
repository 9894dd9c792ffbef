package reign

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// batch is the Served under way. At most one is: what becomes ready meanwhile goes into the next.
type batch struct {
	id    uint64
	vols  []*vol
	retry pace
}

// serve commits the epoch as the last served of the volumes that are ready (invariant 7).
func (c *Core) serve(p *plan) {
	b := &c.r.served
	if b.id != 0 || len(p.ready) == 0 {
		return
	}
	if c.now < b.retry.next {
		c.soon(b.retry.next)
		return
	}
	b.id, b.vols = c.id(), p.ready[:min(len(p.ready), c.cfg.Batch)]
	cmd := truth.Served{Epoch: c.r.epoch}
	for _, v := range b.vols {
		v.stage = proposed
		cmd.Volumes = append(cmd.Volumes, truth.VolumeVersion{Volume: v.id, Version: v.version, Lost: v.lost})
	}
	c.emit(Propose{ID: b.id, P: cmd})
}

func (c *Core) servedDecided(ev Decided) {
	b := &c.r.served
	vols := b.vols
	b.id, b.vols = 0, nil
	if ev.Err != nil {
		b.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
	} else {
		b.retry = pace{}
	}
	left := make(map[ids.Volume]bool, len(ev.Outcome.Left))
	for _, id := range ev.Outcome.Left {
		left[id] = true
	}
	n := 0
	for _, v := range vols {
		if v.stage != proposed {
			continue // deleted meanwhile
		}
		tv := c.byID[v.id]
		// Whatever the outcome says, it is the view that counts: this epoch is on record for the very set that was judged.
		if ev.Err != nil || left[v.id] || tv.Version != v.version || tv.LastServed != c.r.epoch || c.r.handing != nil {
			v.stage = idle
			continue
		}
		v.stage, v.state, v.reason = opening, Opening, ""
		v.places, v.size = tv.Replicas, tv.Size
		v.uses = v.uses[:0]
		for _, m := range v.members {
			v.uses = append(v.uses, m.Place.Node)
		}
		vol := *tv
		v.told = c.durability(tv)
		vol.Memory = v.told.memory
		if tv.Losses != v.losses {
			c.tell(UnflushedLost, v.id, ids.Node{}, "no replica of volume "+tv.Name+" has the incarnation under which it acknowledged from memory: "+
				"what was not flushed may be lost")
		}
		c.emit(OpenMirror{Epoch: c.r.epoch, Volume: vol, Members: append([]Member(nil), v.members...), Prior: v.prior})
		n++
	}
	if n > 0 {
		c.tell(VolumeServed, ids.Volume{}, c.self, fmt.Sprintf("%s served under epoch %d", count(n, "volume"), c.r.epoch))
	}
}

// mirrorOf finds the volume that an event of a mirror is about, if the mirror is of this reign.
func (c *Core) mirrorOf(id ids.Volume, e peer.Epoch) *vol {
	if c.r == nil || c.r.epoch != e {
		return nil
	}
	if v := c.r.vols[id]; v != nil && v.hasMirror() {
		return v
	}
	return nil
}

func (c *Core) mirrorOpened(ev MirrorOpened) {
	v := c.mirrorOf(ev.Volume, ev.Epoch)
	if v == nil || v.stage != opening {
		return
	}
	v.stage, v.state, v.reason = open, Serving, ""
	c.r.resyncDue, c.r.placesDue = true, true
	if c.r.handing != nil {
		c.drainFor(c.r.handing, v)
	}
}

// mirrorSet follows what a mirror takes for its members: it may learn of a committed removal later than the view does.
func (c *Core) mirrorSet(ev MirrorSet) {
	v := c.mirrorOf(ev.Volume, ev.Epoch)
	if v == nil {
		return
	}
	v.uses = slices.DeleteFunc(v.uses, func(n ids.Node) bool { return n == ev.Node })
	if ev.Member {
		v.uses = append(v.uses, ev.Node)
	}
	c.r.placesDue = true
}

func (c *Core) mirrorHolds(ev MirrorHolds) {
	v := c.mirrorOf(ev.Volume, ev.Epoch)
	if v == nil {
		return
	}
	why := ev.Why
	if away := c.away(v.id); why != "" && away != "" {
		why += "; waiting for " + away
	}
	v.holds = why
	text := "I/O goes on"
	if why != "" {
		text = "I/O is held: " + why
	}
	c.tell(VolumeHolds, v.id, ids.Node{}, text)
	if v.stage == open {
		v.state, v.reason = Serving, ""
		if why != "" {
			v.state, v.reason = Holding, why
		}
	}
}

// away names the nodes with in-sync members to which there is no session.
func (c *Core) away(id ids.Volume) string {
	var names []string
	for i := range c.view.Volumes {
		if tv := &c.view.Volumes[i]; tv.ID == id {
			for _, p := range tv.InSync {
				if n := c.r.nodes[p.Node]; n == nil || !n.up {
					names = append(names, "node "+c.nodeName(p.Node))
				}
			}
		}
	}
	return strings.Join(names, ", ")
}

// maxEndings is how often mirrors of one volume may end by themselves within endingsAge under one leadership before it is left alone until
// the first of them is that old: it must not take the others with it again and again, nor be gone for good.
const (
	maxEndings = 3
	endingsAge = 10 * time.Minute
)

// mirrorEnded takes over anew: only a new fence can say what the replicas are now.
func (c *Core) mirrorEnded(ev MirrorEnded) {
	v := c.mirrorOf(ev.Volume, ev.Epoch)
	if v == nil {
		return
	}
	v.stage, v.state, v.reason = ended, Waits, fmt.Sprintf("its mirror ended: %v", ev.Err)
	if errors.Is(ev.Err, mirror.ErrFlush) {
		c.through[v.id] = true // so that the next failure is that of a write, and not of all of them
	}
	if !errors.Is(ev.Err, peer.ErrEpoch) && !errors.Is(ev.Err, truth.ErrRejected) && !errors.Is(ev.Err, mirror.ErrFlush) &&
		!errors.Is(ev.Err, mirror.ErrIncarnation) {
		if again := c.countEnding(v.id); again > c.now {
			v.reason += fmt.Sprintf("; it is the %dth time in %v, and it is tried again in %v", maxEndings+1, (c.now - again + endingsAge).Round(time.Second), (again - c.now).Round(time.Second))
			c.tell(VolumeWaits, v.id, ids.Node{}, v.reason)
			if c.r.again == 0 || again < c.r.again {
				c.r.again = again
			}
			return
		}
	}
	c.tell(VolumeWaits, v.id, ids.Node{}, v.reason)
	c.endReign(v.reason)
}

// countEnding says when a volume whose mirror has just ended by itself may be taken over again.
func (c *Core) countEnding(id ids.Volume) time.Duration {
	times := slices.DeleteFunc(c.endings[id], func(t time.Duration) bool { return c.now-t >= endingsAge })
	times = append(times, c.now)
	c.endings[id] = times
	if len(times) <= maxEndings {
		return c.now
	}
	return times[0] + endingsAge
}

// driveEnded takes over anew when it is time to try a volume again that was left alone.
func (c *Core) driveEnded() {
	switch {
	case c.r.again == 0:
	case c.now < c.r.again:
		c.at(c.r.again)
	default:
		c.endReign("a volume whose mirror ended again and again is tried once more")
	}
}

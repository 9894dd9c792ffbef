package reign

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// The one way to accept loss: a volume whose in-sync set is out of reach goes on with a replica that an admin names. See DESIGN.md,
// "Force".

// forcing is a ForceVolume that is proposed.
type forcing struct {
	request uint64
	volume  ids.Volume
	lineage ids.Lineage
}

// Candidate is what is known of a replica that may be adopted.
type Candidate struct {
	Place  truth.Place
	InSync bool // by the catalog
	Fenced bool // it obeys this leader: nobody else can serve it any more
	// Epoch is the newest that its pool had accepted before this reign, Seq the highest mark that it ever had. 0 if not known.
	Epoch  peer.Epoch
	Seq    peer.Seq
	Behind truth.Behind // if it is not InSync
	Size   int64        // bytes; 0 if not known. It may be less than the volume's: what is behind will read as zeros
	Active int          // regions in which writes were under way, or not yet known to be everywhere
	// Reverted says that its pool does not know the epoch under which the volume was last served with it: it was put back to a state before.
	Reverted bool
	Why      string // it cannot be adopted; empty if it can
	// Restored says that the volume is as a backup has it. InSync is what that says then, and Behind is not known, but the lineage that the
	// replica is of another lineage than the backup has it in (Other: an older or a newer one), and what the replicas say of each other: which have
	// it on record as not in sync (DoubtedBy), whether one of them has what it lacks (Lacks), which were in sync with it to the end (With), and
	// which it has on record as in sync, that nobody has found (Missing).
	Restored, Other, Lacks   bool
	Silent                   bool // it was found, and did not say what it knows
	DoubtedBy, With, Missing []truth.Place
}

// Complete tells whether the replica is a copy of some moment: of now, of when it left the in-sync set, or of when it was put back to. After a
// restore nobody knows; one that another has on record as not in sync is taken for none.
func (k *Candidate) Complete() bool {
	return k.Restored && !k.Lacks && !k.Silent && len(k.DoubtedBy) == 0 || !k.Restored && (k.InSync || k.Behind.Complete())
}

// Candidates describes the replicas of a volume, and why it cannot be forced: ErrNotLeading, ErrUnknownVolume, ErrEarly or ErrServed.
func (c *Core) Candidates(id ids.Volume) ([]Candidate, error) {
	tv, err := c.mayForce(id)
	if tv == nil {
		return nil, err
	}
	var out []Candidate
	if tv.Foreign {
		for _, p := range c.placesOf(tv) {
			out = append(out, c.foreignCandidate(tv, p))
		}
		return out, err
	}
	for _, p := range tv.Replicas {
		k := Candidate{Place: p, InSync: holds(tv.InSync, p.Node)}
		k.Behind, _ = tv.BehindIn(p.Pool)
		last := tv.LastServed
		if !k.InSync {
			last = k.Behind.Epoch
		}
		rep, why := c.adoptable(tv, p)
		if pl := c.fencedPool(p); pl != nil {
			k.Fenced, k.Seq, k.Size, k.Active = true, rep.Seq, rep.Spec.Size, rep.Active
			k.Reverted = last != 0 && last != c.r.epoch && !peer.Has(pl.Accepted, last)
			if n := len(pl.Accepted); n > 0 {
				k.Epoch = pl.Accepted[n-1].Hi
			}
		}
		k.Why = why
		out = append(out, k)
	}
	return out, err
}

// mayForce tells why a volume cannot be forced now.
func (c *Core) mayForce(id ids.Volume) (*truth.Volume, error) {
	if c.r == nil || !c.r.applied {
		return nil, ErrNotLeading
	}
	tv := c.byID[id]
	if tv == nil {
		return nil, ErrUnknownVolume
	}
	switch v := c.r.vols[id]; {
	case c.isForcing(id):
		return tv, fmt.Errorf("%w: volume %s is being forced", ErrBusy, tv.Name)
	case v.stage == ended:
		return tv, fmt.Errorf("%w: volume %s: %s", ErrEarly, tv.Name, v.reason)
	case v.stage == open && c.outOfReach(tv):
	case v.stage > idle:
		return tv, fmt.Errorf("%w: volume %s", ErrServed, tv.Name)
	case v.asking(c.now):
		return tv, fmt.Errorf("%w: volume %s: its replicas are being asked what they know of each other", ErrEarly, tv.Name)
	case tv.Foreign && c.fencing():
		return tv, fmt.Errorf("%w: volume %s: nodes are being fenced that may have its replicas", ErrEarly, tv.Name)
	case c.r.handing != nil || v.growing || v.state != Waits && v.state != NeedsForce:
		return tv, fmt.Errorf("%w: volume %s: %s", ErrEarly, tv.Name, v.reason)
	}
	return tv, nil
}

// forcePatience is how long after a take-over nodes and pools are waited for, at most, before a volume that was restored may be forced.
const forcePatience = 5 * time.Second

// fencing tells whether there is a node, or a pool, that is not fenced and whose grace is not over.
func (c *Core) fencing() bool {
	return c.now < c.r.began+forcePatience && slices.ContainsFunc(c.r.order, func(n *node) bool {
		whole := n.up && !slices.ContainsFunc(n.expect, func(p ids.Pool) bool { return n.pools[p] == nil || n.pools[p].Busy })
		return !whole && c.now < c.deadline(n.id)
	})
}

// outOfReach tells whether no in-sync member of a volume that has what was acknowledged can be reached, each for longer than its grace: those
// that restarted may lack what they had in memory only. Its mirror may be open: it holds what comes, or nothing came.
func (c *Core) outOfReach(tv *truth.Volume) bool {
	away := false
	for _, p := range tv.InSync {
		if pl := c.fencedPool(p); pl != nil {
			if !isRestarted(tv, p.Pool, pl.replicas[tv.ID].Incarnation) {
				return false
			}
			continue
		}
		if c.now < c.deadline(p.Node) {
			return false
		}
		away = true
	}
	return away
}

// adoptable tells why a replica cannot be adopted. That it is stale, or smaller than the volume, does not matter: that is what force is for.
func (c *Core) adoptable(tv *truth.Volume, p truth.Place) (peer.FencedReplica, string) {
	k, rep, why := c.look(tv, p)
	switch k {
	case unfenced:
		return rep, "its node or pool cannot be reached"
	case foreign:
		return rep, why
	}
	return rep, ""
}

func (c *Core) forceVolume(ev ForceVolume) {
	reply := func(err error) { c.emit(Reply{Request: ev.Request, Err: err}) }
	tv, err := c.mayForce(ev.Volume)
	switch {
	case tv != nil && tv.Lineage == ev.Lineage: // a repeated request
		reply(nil)
		return
	case err != nil:
		reply(err)
		return
	case ev.Lineage.IsZero():
		reply(fmt.Errorf("%w: a lineage is needed", ErrInvalid))
		return
	case tv.Foreign:
		if err := c.forceForeign(tv, ev); err != nil {
			reply(err)
		}
		return
	}
	for _, p := range tv.Replicas {
		if p.Node != ev.Node || !ev.Pool.IsZero() && p.Pool != ev.Pool {
			continue
		}
		rep, why := c.adoptable(tv, p)
		if why != "" {
			reply(fmt.Errorf("%w: the replica on node %s: %s", ErrUnusable, c.nodeName(p.Node), why))
			return
		}
		if b, behind := tv.BehindIn(p.Pool); behind && !b.Complete() && !ev.Incomplete {
			reply(fmt.Errorf("%w: the replica on node %s", ErrIncomplete, c.nodeName(p.Node)))
			return
		}
		c.closeToForce(c.r.vols[tv.ID])
		c.r.forcing = append(c.r.forcing, forcing{ev.Request, tv.ID, ev.Lineage})
		c.propose(truth.Force{Epoch: c.r.epoch, Volume: tv.ID, Version: tv.Version, Place: p, From: rep.Spec.Lineage, Lineage: ev.Lineage,
			Incomplete: ev.Incomplete, Short: rep.Spec.Size < tv.Size}, func(d Decided) { c.forceDecided(ev, d.Err) })
		return
	}
	reply(ErrUnknownVolume)
}

// closeToForce ends the mirror of a volume, if it has one that waits for its members. Should they come back now, it must acknowledge nothing
// any more that the force, when it is applied, would lose. A mirror is not opened again but by another reign.
func (c *Core) closeToForce(v *vol) {
	if !v.hasMirror() {
		return
	}
	c.emit(CloseMirror{Volume: v.id, Cause: "the volume is being forced"})
	v.stage, v.state, v.reason = ended, Waits, "it is being forced"
	for _, rs := range v.resyncs {
		c.endResync(v, rs, mirror.ErrStopped)
	}
}

func (c *Core) isForcing(id ids.Volume) bool {
	return slices.ContainsFunc(c.r.forcing, func(f forcing) bool { return f.volume == id })
}

// forceDecided is the end of one that was not applied: with one that was, the reign has ended.
func (c *Core) forceDecided(ev ForceVolume, err error) {
	for i, f := range c.r.forcing {
		if f.request != ev.Request {
			continue
		}
		c.r.forcing = append(c.r.forcing[:i:i], c.r.forcing[i+1:]...)
		if err == nil || errors.Is(err, truth.ErrUnknown) {
			err = fmt.Errorf("%w: the outcome is not known", truth.ErrUnknown)
		}
		c.emit(Reply{Request: ev.Request, Err: err})
		if v := c.r.vols[ev.Volume]; v != nil && v.stage == ended {
			c.endReign("a volume was closed to be forced, and was not")
		}
		return
	}
}

// endForcing answers when a reign ends: a volume that was forced ends it, so that it is fenced and judged anew.
func (c *Core) endForcing(r *reign, err error) {
	told := make(map[ids.Lineage]bool)
	for _, f := range r.forcing {
		if tv := c.byID[f.volume]; tv != nil && tv.Lineage == f.lineage {
			if !told[f.lineage] {
				told[f.lineage] = true
				c.tell(VolumeForced, f.volume, ids.Node{}, fmt.Sprintf("volume %s goes on with the replica on %s: what that lacks is lost; its other replicas are copied anew",
					tv.Name, c.nodeName(tv.InSync[0].Node)))
			}
			c.emit(Reply{Request: f.request})
			continue
		}
		c.emit(Reply{Request: f.request, Err: err})
	}
}

// growAdopted has a replica that was adopted although it is smaller than its volume made as large, with zeros, before the volume is
// served. It tells whether that is to be waited for.
func (c *Core) growAdopted(tv *truth.Volume, v *vol, j *judgement) bool {
	i := slices.IndexFunc(tv.InSync, func(p truth.Place) bool { return c.adoptedShort(tv, p) })
	if i < 0 || j.reps[i].Spec.Size >= tv.Size {
		return false
	}
	switch {
	case v.growing:
	case c.now < v.retry.next:
		c.soon(v.retry.next)
	default:
		v.growing = true
		v.state, v.reason = TakingOver, "the replica that was adopted is made as large as the volume"
		p := tv.InSync[i]
		c.command(p, peer.Command{Kind: peer.Grow, Volume: v.id, Spec: grown(tv, p, j.reps[i])}, command{short: v})
	}
	return true
}

func (c *Core) adoptedGrown(cmd command, err error) {
	v, tv := cmd.short, c.byID[cmd.id]
	v.growing = false
	switch {
	case tv == nil:
	case err != nil:
		v.retry.later(c.now, c.cfg.RetryMin, c.cfg.RetryMax)
		v.state, v.reason = Waits, fmt.Sprintf("the replica that was adopted cannot be made as large as the volume: %v", err)
	default:
		c.noteSize(cmd.place, tv.ID, tv.Size)
	}
	c.r.judgeDue = true
}

package reign

import (
	"errors"
	"fmt"

	"pmsapp/internal/ids"
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
	Epoch peer.Epoch
	Seq   peer.Seq
	Why   string // it cannot be adopted; empty if it can
}

// Candidates describes the replicas of a volume, and why it cannot be forced: ErrNotLeading, ErrUnknownVolume, ErrEarly or ErrServed.
func (c *Core) Candidates(id ids.Volume) ([]Candidate, error) {
	tv, err := c.mayForce(id)
	if tv == nil {
		return nil, err
	}
	var out []Candidate
	for _, p := range tv.Replicas {
		k := Candidate{Place: p, InSync: holds(tv.InSync, p.Node)}
		rep, why := c.adoptable(tv, p)
		if pl := c.fencedPool(p); pl != nil {
			k.Fenced, k.Seq = true, rep.Seq
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
	case v.stage == open && c.outOfReach(tv):
	case v.stage > idle:
		return tv, fmt.Errorf("%w: volume %s", ErrServed, tv.Name)
	case c.r.handing != nil || v.state != Waits && v.state != NeedsForce:
		return tv, fmt.Errorf("%w: volume %s: %s", ErrEarly, tv.Name, v.reason)
	}
	return tv, nil
}

// outOfReach tells whether no in-sync member of a volume can be reached, each for longer than its grace. Its mirror may be open: it holds
// what comes, or nothing came.
func (c *Core) outOfReach(tv *truth.Volume) bool {
	for _, p := range tv.InSync {
		if c.fencedPool(p) != nil || c.now < c.deadline(p.Node) {
			return false
		}
	}
	return true
}

// adoptable tells why a replica cannot be adopted. That it is stale does not matter: that is what force is for.
func (c *Core) adoptable(tv *truth.Volume, p truth.Place) (peer.FencedReplica, string) {
	v := *tv
	v.LastServed = 0
	k, rep, why := c.look(&v, p)
	if k == unfenced {
		why = "its node or pool cannot be reached"
	}
	return rep, why
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
	}
	for _, p := range tv.Replicas {
		if p.Node != ev.Node {
			continue
		}
		rep, why := c.adoptable(tv, p)
		if why != "" {
			reply(fmt.Errorf("%w: the replica on node %s: %s", ErrUnusable, c.nodeName(p.Node), why))
			return
		}
		c.r.forcing = append(c.r.forcing, forcing{ev.Request, tv.ID, ev.Lineage})
		c.propose(truth.Force{Epoch: c.r.epoch, Volume: tv.ID, Version: tv.Version, Place: p, From: rep.Spec.Lineage, Lineage: ev.Lineage},
			func(d Decided) { c.forceDecided(ev, d.Err) })
		return
	}
	reply(ErrUnknownVolume)
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

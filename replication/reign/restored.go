package reign

import (
	"fmt"
	"slices"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// A volume of a catalog that was restored waits for volume force. What its replicas know of each other is asked meanwhile, so that whoever
// chooses one is told which are newer. See DESIGN.md, "After a restore".

// knowledge is what a replica of such a volume says of itself and of the others.
type knowledge struct {
	place truth.Place
	// asked names the question, whose answer is waited for until a moment; 0: it was answered, or cannot be.
	asked uint64
	until time.Duration
	// It is asked again under another session of its node, and when that has another number of replicas of the volume.
	attempt uint64
	among   int
	birth   ids.ID // zero if it has never answered
	known   []peer.Other
}

// askPatience is how long the answer of a replica is waited for before another may be adopted without it.
const askPatience = 2 * time.Second

// placesOf are the places of a volume's replicas; of one that was restored also all others where one is found, for the backup may know nothing
// of them.
func (c *Core) placesOf(tv *truth.Volume) []truth.Place {
	if !tv.Foreign {
		return tv.Replicas
	}
	out := slices.Clone(tv.Replicas)
	for _, n := range c.r.order {
		for _, id := range n.listed {
			p := truth.Place{Node: n.id, Pool: id}
			if pl := c.fencedPool(p); pl != nil && !slices.Contains(out, p) {
				if _, there := pl.replicas[tv.ID]; there {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

// askReplicas asks each replica of a volume that was restored what it knows, once in each session of its node.
func (c *Core) askReplicas(tv *truth.Volume, v *vol) {
	all := c.placesOf(tv)
	// A pool that is another node's by now is one place, and says again what it knows.
	v.knows = slices.DeleteFunc(v.knows, func(k *knowledge) bool {
		return slices.ContainsFunc(all, func(p truth.Place) bool { return p.Pool == k.place.Pool && p.Node != k.place.Node })
	})
	for _, p := range all {
		if k, _, _ := c.lookForeign(tv, p); k != good {
			continue
		}
		among := 0
		for _, q := range all {
			if pl := c.fencedPool(q); pl != nil && q.Node == p.Node {
				if _, there := pl.replicas[tv.ID]; there {
					among++
				}
			}
		}
		k := v.knowledgeOf(p)
		if k == nil {
			k = &knowledge{place: p}
			v.knows = append(v.knows, k)
		}
		if at := c.r.nodes[p.Node].attempt; k.attempt != at || k.among != among {
			k.attempt, k.among, k.until = at, among, c.now+askPatience
			k.asked = c.command(p, peer.Command{Kind: peer.ReadMap, Volume: v.id}, command{ask: k})
		}
	}
}

// replicaSaid takes an answer. After an error nothing is known of the replica; what it said before stays.
func (c *Core) replicaSaid(cmd command, ev CommandDone) {
	if k := cmd.ask; k.asked == ev.ID {
		if k.asked = 0; ev.Err == nil {
			k.birth, k.known = ev.Answer.Birth, ev.Answer.Known
		}
	}
}

func (v *vol) knowledgeOf(p truth.Place) *knowledge {
	for _, k := range v.knows {
		if k.place == p {
			return k
		}
	}
	return nil
}

// asking tells whether the answer of a replica is waited for.
func (v *vol) asking(now time.Duration) bool {
	return slices.ContainsFunc(v.knows, func(k *knowledge) bool { return k.asked != 0 && now < k.until })
}

// doubts tells whether a replica that was asked does not have on record that another is in sync with it: it says that it is absent, or has not heard
// of it as it was made. One that is in sync has all others that are on record so, and says that one is absent before the first write that it
// missed was acknowledged (invariant 12).
func (k *knowledge) doubts(o *knowledge) bool {
	return !slices.ContainsFunc(k.known, func(x peer.Other) bool { return !x.Absent && x.ID.Birth == o.birth })
}

// told tells whether a replica has answered the question.
func (k *knowledge) told() bool { return !k.birth.IsZero() }

// anySilent tells whether a replica at one of the places that was found has not answered: it failed to, or its node has two.
func (c *Core) anySilent(tv *truth.Volume, v *vol) bool {
	return slices.ContainsFunc(c.placesOf(tv), func(p truth.Place) bool { return c.silentAt(tv, v, p) })
}

func (c *Core) silentAt(tv *truth.Volume, v *vol, p truth.Place) bool {
	kind, _, _ := c.lookForeign(tv, p)
	k := v.knowledgeOf(p)
	return kind == good && (k == nil || !k.told())
}

// lacks tells whether another that was asked doubts a replica, which does not doubt that one: it lacks writes.
func (v *vol) lacks(me *knowledge) bool {
	return slices.ContainsFunc(v.knows, func(k *knowledge) bool { return k.told() && k != me && k.doubts(me) && !me.doubts(k) })
}

// said is what the replicas that were asked say of one.
type said struct {
	by    []truth.Place // they doubt it, and do not lack writes themselves
	lacks bool          // one of by does, and is not doubted in turn
	with  []truth.Place // they were in sync with it to the end
	// missing are those that it has on record as in sync, and that were not found: whether it was a member with them, or a copy from them that
	// had not ended, only they could tell.
	missing []truth.Place
}

func (v *vol) said(p truth.Place) (s said) {
	me := v.knowledgeOf(p)
	if me == nil || !me.told() {
		return s
	}
	s.lacks = v.lacks(me)
	for _, k := range v.knows {
		switch {
		case k == me || !k.told():
		case k.doubts(me) && !(me.doubts(k) && v.lacks(k)):
			s.by = append(s.by, k.place)
		case !k.doubts(me) && !me.doubts(k):
			s.with = append(s.with, k.place)
		}
	}
	for _, o := range me.known {
		if !o.Absent && !slices.ContainsFunc(v.knows, func(k *knowledge) bool { return k.birth == o.ID.Birth || !k.told() && k.place.Pool == o.ID.Pool }) {
			s.missing = append(s.missing, truth.Place{Node: o.ID.Node, Pool: o.ID.Pool})
		}
	}
	return s
}

// lookForeign judges a replica of a volume that was restored: whether it is whole. Its lineage may be any.
func (c *Core) lookForeign(tv *truth.Volume, p truth.Place) (verdict, peer.FencedReplica, string) {
	pl := c.fencedPool(p)
	if pl == nil {
		return unfenced, peer.FencedReplica{}, "its node or pool cannot be reached"
	}
	rep, ok := pl.replicas[tv.ID]
	switch {
	case !ok:
		return foreign, rep, "there is no replica in its pool"
	case rep.Foreign:
		return foreign, rep, "the replica is damaged, or of another cluster"
	case rep.Spec.Region != tv.Region:
		return foreign, rep, "the replica has regions of another size"
	}
	return good, rep, ""
}

// former is the newest of a pool's epochs below those that were given out since a restore; 0 if it is not known.
func former(accepted []peer.EpochRange, base peer.Epoch) (e peer.Epoch) {
	for _, r := range accepted {
		switch {
		case base == 0 || r.Hi < base:
			e = r.Hi
		case r.Lo < base: // the lowest were merged
			return 0
		}
	}
	return e
}

// foreignCandidate describes a replica of a volume that was restored.
func (c *Core) foreignCandidate(tv *truth.Volume, p truth.Place) Candidate {
	k := Candidate{Place: p, InSync: slices.Contains(tv.InSync, p), Restored: true}
	_, rep, why := c.lookForeign(tv, p)
	k.Why = why
	if pl := c.fencedPool(p); pl != nil {
		k.Fenced, k.Epoch = true, former(pl.Accepted, c.view.Base)
		k.Seq, k.Size, k.Active = rep.Seq, rep.Spec.Size, rep.Active
	}
	k.Silent = c.silentAt(tv, c.r.vols[tv.ID], p)
	k.Other = !rep.Spec.Lineage.IsZero() && !tv.Owns(p.Pool, rep.Spec.Lineage)
	s := c.r.vols[tv.ID].said(p)
	k.DoubtedBy, k.Lacks, k.With, k.Missing = s.by, s.lacks, s.with, s.missing
	return k
}

// forceForeign proposes that a volume that was restored goes on with the replica on a node.
func (c *Core) forceForeign(tv *truth.Volume, ev ForceVolume) error {
	var at, others []truth.Place
	var found peer.FencedReplica
	last := ""
	for _, p := range c.placesOf(tv) {
		k, rep, why := c.lookForeign(tv, p)
		if k == good && p.Node == ev.Node && (ev.Pool.IsZero() || p.Pool == ev.Pool) {
			at, found = append(at, p), rep
			continue
		}
		if p.Node == ev.Node {
			last = why
		}
		if rep.Spec.Volume == tv.ID && !slices.Contains(tv.Replicas, p) {
			others = append(others, p)
		}
	}
	v, doubted := c.r.vols[tv.ID], false
	if len(at) == 1 {
		s := v.said(at[0])
		doubted = s.lacks || len(s.by) > 0
	}
	switch {
	case len(at) == 0 && last != "":
		return fmt.Errorf("%w: the replica on node %s: %s", ErrUnusable, c.nodeName(ev.Node), last)
	case len(at) == 0:
		return fmt.Errorf("%w: there is none on node %s", ErrUnusable, c.nodeName(ev.Node))
	case len(at) > 1:
		return fmt.Errorf("%w: node %s has %d replicas: name the pool", ErrInvalid, c.nodeName(ev.Node), len(at))
	case doubted && !ev.Incomplete:
		return fmt.Errorf("%w: the replica on node %s: another has it on record as not in sync", ErrIncomplete, c.nodeName(ev.Node))
	case c.anySilent(tv, v) && !ev.Incomplete:
		return fmt.Errorf("%w: the replica on node %s: one that was found did not say what it knows", ErrIncomplete, c.nodeName(ev.Node))
	}
	f := truth.Force{Epoch: c.r.epoch, Volume: tv.ID, Version: tv.Version, Place: at[0], From: found.Spec.Lineage, Lineage: ev.Lineage,
		Incomplete: ev.Incomplete, Short: found.Spec.Size < tv.Size, Others: others}
	if found.Spec.Size > tv.Size { // it has grown since the backup
		f.Size = found.Spec.Size
	}
	c.r.forcing = append(c.r.forcing, forcing{ev.Request, tv.ID, ev.Lineage})
	c.propose(f, func(d Decided) { c.forceDecided(ev, d.Err) })
	return nil
}

// crowded tells whether the nodes of all members have another replica of the volume, which has to be deleted: until then they execute no
// command on either. Where one has not, that one serves. In a catalog that was never restored a place that a replica has left is always known, and nobody is waited for.
func (c *Core) crowded(tv *truth.Volume) bool {
	return c.view.Base != 0 && !tv.Foreign && !slices.ContainsFunc(tv.InSync, func(p truth.Place) bool { return len(c.strangers(tv, p)) == 0 })
}

// sayCrowded says so: that it waits, once a deletion has failed, so that it may be forced to another.
func (c *Core) sayCrowded(tv *truth.Volume, v *vol, p *plan) {
	failed := v.sweep != pace{}
	for _, q := range tv.Gone {
		if k := c.r.cleaning[cleanKey{tv.ID, q}]; k != nil && k.retry != (pace{}) {
			failed = true
		}
	}
	state := TakingOver
	if failed {
		state = Waits
	}
	v.say(p, state, fmt.Sprintf("node %s has two replicas of it, in two pools, and the other is to be deleted first", c.nodeName(tv.InSync[0].Node)))
}

// strangers are the places of other replicas on the node of one, which are in its way: those in Gone, and those that nobody had found when the volume
// was forced, of another lineage than it has now.
func (c *Core) strangers(tv *truth.Volume, p truth.Place) (out []truth.Place) {
	n := c.r.nodes[p.Node]
	if n == nil {
		return nil
	}
	for _, id := range n.listed {
		q := truth.Place{Node: p.Node, Pool: id}
		pl := c.fencedPool(q)
		if pl == nil || slices.Contains(tv.Replicas, q) {
			continue
		}
		rep, there := pl.replicas[tv.ID]
		if there && (slices.Contains(tv.Gone, q) || !tv.Owns(id, rep.Spec.Lineage)) {
			out = append(out, q)
		}
	}
	return out
}

// isStranger tells whether a replica is in the way, and is going to be deleted for that.
func (c *Core) isStranger(tv *truth.Volume, q truth.Place) bool {
	return holds(tv.InSync, q.Node) && c.crowded(tv) && slices.Contains(c.strangers(tv, q), q)
}

// sweepStrangers deletes those that are in the way of all members and that the catalog does not have in Gone.
func (c *Core) sweepStrangers(tv *truth.Volume, v *vol) {
	if !c.crowded(tv) {
		return
	}
	for _, p := range tv.InSync {
		for _, q := range c.strangers(tv, p) {
			if slices.Contains(tv.Gone, q) || c.isDeleting(q, tv.ID) {
				continue
			}
			if c.now < v.sweep.next {
				c.placesBy(v.sweep.next)
				return
			}
			c.command(q, peer.Command{Kind: peer.Delete, Volume: tv.ID}, command{sweep: v})
		}
	}
}

func (c *Core) swept(cmd command, err error) {
	v := cmd.sweep
	if err != nil {
		v.sweep.later(c.now, c.cfg.RetryMin, resyncMax)
	} else {
		v.sweep = pace{}
		c.tell(ReplicaDeleted, v.id, cmd.place.Node, fmt.Sprintf("another replica of the volume, of another history, was in pool %s of node %s, beside the one that it goes on with: it is deleted",
			cmd.place.Pool, c.nodeName(cmd.place.Node)))
	}
	c.r.judgeDue, c.r.placesDue = true, true
}

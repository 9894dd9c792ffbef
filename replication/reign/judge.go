package reign

import (
	"fmt"
	"slices"
	"strings"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// verdict is what a fence says about a replica (invariants 8 and 14).
type verdict uint8

const (
	unfenced verdict = iota
	good
	// restarted is a member that has every flushed write, and may lack others that it acknowledged (invariant 10).
	restarted
	stale
	foreign
)

// look judges a replica by itself: everything but the comparison with the other members.
func (c *Core) look(v *truth.Volume, p truth.Place) (verdict, peer.FencedReplica, string) {
	pl := c.fencedPool(p)
	if pl == nil {
		return unfenced, peer.FencedReplica{}, ""
	}
	rep, ok := pl.replicas[v.ID]
	switch {
	case !ok:
		return foreign, rep, "there is no replica in its pool"
	case rep.Foreign:
		return foreign, rep, "the replica is damaged, or of another cluster"
	case !v.Owns(p.Pool, rep.Spec.Lineage):
		return foreign, rep, "the replica is of another lineage"
	case rep.Spec.Region != v.Region:
		return foreign, rep, "the replica has regions of another size"
	case rep.Spec.Size < v.Size && !c.adoptedShort(v, p): // a larger one was made so before the catalog knew; what is beyond is zeros
		return stale, rep, "the replica has not the size that the volume has grown to"
	case v.LastServed != 0 && slices.Contains(c.distrusted[p.Pool], v.LastServed):
		return stale, rep, fmt.Sprintf("its pool was reverted under epoch %d, under which the volume was last served", v.LastServed)
	// Last served under our own epoch: by us, and then its members were judged before (DESIGN.md, "Previous").
	case v.LastServed != 0 && v.LastServed != c.r.epoch && !peer.Has(pl.Accepted, v.LastServed):
		return stale, rep, fmt.Sprintf("its pool does not know epoch %d, under which the volume was last served", v.LastServed)
	}
	return good, rep, ""
}

// adoptedShort tells whether a replica may be smaller than its volume: it was adopted so, and is made larger before it is served.
func (c *Core) adoptedShort(v *truth.Volume, p truth.Place) bool {
	return v.Adopted.Short && v.Adopted.Pool == p.Pool && v.LastServed == 0
}

// maxMembers is more than a volume ever has.
const maxMembers = 8

// judgement is the result for the in-sync members of a volume that has no mirror.
type judgement struct {
	tv       *truth.Volume
	verdicts [maxMembers]verdict
	whys     [maxMembers]string
	reps     [maxMembers]peer.FencedReplica
	count    [foreign + 1]int
}

// judge judges all in-sync members, at most maxMembers.
func (c *Core) judge(v *truth.Volume, j *judgement) {
	*j = judgement{tv: v}
	var durable peer.Seq
	for i, p := range v.InSync {
		j.verdicts[i], j.reps[i], j.whys[i] = c.look(v, p)
		if k := j.verdicts[i]; k == good || k == stale {
			durable = max(durable, knownDurable(v, &j.reps[i]))
		}
	}
	for i := range v.InSync {
		if j.verdicts[i] == good && j.reps[i].Seq < durable {
			j.verdicts[i] = stale
			j.whys[i] = fmt.Sprintf("it holds marks up to %d, and another member knows that all had %d", j.reps[i].Seq, durable)
		}
		if j.verdicts[i] == good && isRestarted(v, v.InSync[i].Pool, j.reps[i].Incarnation) {
			j.verdicts[i] = restarted
			j.whys[i] = "it has another incarnation than it had: it may lack what it had in memory only"
		}
		j.count[j.verdicts[i]]++
	}
}

// knownDurable is what a replica knows that all members had. An adopted one may have been a copy that had not ended: what all had beyond its own
// marks is of the history before the force, and nobody has to have it in this one, in which no member knows more than it has.
func knownDurable(v *truth.Volume, rep *peer.FencedReplica) peer.Seq {
	if rep.Spec.Lineage != v.Lineage {
		return min(rep.Durable, rep.Seq)
	}
	return rep.Durable
}

// isRestarted tells whether a member was volatile, under another incarnation than it has now.
func isRestarted(v *truth.Volume, p ids.Pool, now ids.ID) bool {
	for _, x := range v.Volatile {
		if x.Pool == p {
			return x.Incarnation != now
		}
	}
	return false
}

// bad is the number of members that are not what the catalog takes them for. Those that restarted are, unless another member
// has what they may lack.
func (j *judgement) bad() int {
	n := j.count[stale] + j.count[foreign]
	if j.count[good] > 0 {
		n += j.count[restarted]
	}
	return n
}

// isBad tells whether member i must not become the last one in place of another.
func (j *judgement) isBad(i int) bool {
	return j.verdicts[i] == stale || j.verdicts[i] == foreign || j.verdicts[i] == restarted
}

// awaited names the members that are not fenced, for people.
func (c *Core) awaited(j *judgement) string {
	var names []string
	for i, m := range j.tv.InSync {
		if j.verdicts[i] != unfenced {
			continue
		}
		s := "node " + c.nodeName(m.Node)
		if n := c.r.nodes[m.Node]; n != nil && n.up {
			if n.pools[m.Pool] == nil {
				s = "pool " + m.Pool.String() + " of " + s
			} else {
				s = "old commands in pool " + m.Pool.String() + " of " + s
			}
		}
		names = append(names, s)
	}
	return strings.Join(names, ", ")
}

// describe names the bad members and what is wrong with them.
func (c *Core) describe(j *judgement) string {
	var out []string
	for i, m := range j.tv.InSync {
		if j.isBad(i) {
			out = append(out, "node "+c.nodeName(m.Node)+": "+j.whys[i])
		}
	}
	return strings.Join(out, "; ")
}

// Usable returns the replica of v at place as the newest session of place.Node has it: for a mirror that wants to reach a
// member again. It is an ErrUnusable if there is no session, its pool is busy or absent, or the replica is missing,
// foreign or of another lineage. (A pool that was reverted ends the reign.)
func (c *Core) Usable(v truth.Volume, place truth.Place) (Member, error) {
	if c.r == nil || !c.r.applied {
		return Member{}, fmt.Errorf("%w: %w", ErrUnusable, ErrNotLeading)
	}
	v.LastServed = 0 // what it is now is the mirror's to judge: by its marks
	k, rep, why := c.look(&v, place)
	switch k {
	case good:
		return c.member(place, rep), nil
	case unfenced:
		why = "its node or pool is not fenced"
	}
	return Member{}, fmt.Errorf("%w: %s", ErrUnusable, why)
}

func (c *Core) member(p truth.Place, rep peer.FencedReplica) Member {
	return Member{Place: p, Replica: rep}
}

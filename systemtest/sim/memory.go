package sim

import (
	"encoding/binary"
	"slices"
	"time"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	simworld "pmsapp/internal/sim"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// cache is what a replica has in memory only: the sectors of its file that are dirty.
type cache struct {
	inc      ids.ID // its incarnation (10)
	volatile bool   // it has taken in writes that it need not have flushed
}

// renew gives a replica another incarnation. It is not drawn.
func (c *Cluster) renew(r *simReplica) {
	c.incarnations++
	r.inc, r.volatile = ids.ID{}, false
	binary.BigEndian.PutUint64(r.inc[:], c.incarnations)
}

// means tells whether a command is for the incarnation that its replica has.
func (s *storeSession) means(r *simReplica, c *peer.Command) bool {
	switch c.Kind {
	case peer.Create, peer.Delete, peer.Reset, peer.Grow:
		return true
	}
	if c.Kind == peer.ReadMap || s.known[c.Volume].IsZero() {
		s.known[c.Volume] = r.inc
	}
	return s.known[c.Volume] == r.inc || s.st.n.c.breaks(BreakRestarted)
}

// flush carries a Flush out, and what is to be done after it.
func (n *node) flush(pool *simPool, r *simReplica, step func(func()), end func(peer.Answer, []byte)) {
	inc, earlier, fl := r.inc, slices.Clone(n.flushes), r.data.Flush()
	n.flushes = append(n.flushes, fl)
	var done func()
	done = func() {
		if n.under(r, earlier) {
			step(done)
			return
		}
		n.flushes = slices.DeleteFunc(n.flushes, func(x *simworld.Flush) bool { return x == fl })
		if bad := n.c.w.Rand.Chance(pool.bad) || r.inc != inc; bad && n.c.breaks(BreakFlush) {
			fl.Failed(n.c.w.Rand) // and the next one finds nothing to do
		} else if bad {
			fl.Failed(n.c.w.Rand)
			n.lose(r)
			end(peer.Answer{Err: peer.ErrMedium}, nil)
			return
		} else {
			fl.Done()
			r.flushed()
		}
		end(peer.Answer{}, nil)
	}
	step(done)
}

// under tells whether one of the earlier flushes of a replica is under way: what it has taken up is not durable, and goes before what
// a later one has taken up.
func (n *node) under(r *simReplica, earlier []*simworld.Flush) bool {
	return slices.ContainsFunc(n.flushes, func(x *simworld.Flush) bool { return x.Of(r.data) && slices.Contains(earlier, x) })
}

// lose is a flush that failed: any of what was in memory only may be lost, also what other flushes were about to write.
func (n *node) lose(r *simReplica) {
	if !r.volatile {
		return
	}
	n.c.stats["flushes that failed and lost what was in memory"]++
	if n.store != nil {
		delete(n.store.keeps, r) // it is opened anew
	}
	for _, fl := range n.flushes {
		if fl.Of(r.data) {
			fl.Failed(n.c.w.Rand)
		}
	}
	r.data.Flush().Failed(n.c.w.Rand)
	r.data.Reload(0, r.data.Size())
	r.reloaded()
	n.c.renew(r)
}

// mayLack tells whether a member of a volume may lack what was acknowledged, by its incarnation.
func mayLack(v *truth.Volume, p truth.Place, r *simReplica) bool {
	return slices.ContainsFunc(v.Volatile, func(x truth.Volatile) bool { return x.Pool == p.Pool && x.Incarnation != r.inc })
}

// has is what a member has of a range: in memory, if that is what its acknowledgements mean.
func (r *simReplica) has(off, n int64) []byte {
	if r.volatile {
		return r.unflipped(r.data.Read(off, n), off, n)
	}
	return r.proper(off, n)
}

// noteLosses is told of each state of the catalog that is committed.
func (c *Cluster) noteLosses() {
	for vol := range c.volIDs {
		v := c.trueVolume(vol)
		if v == nil || v.Losses == c.losses[vol] {
			continue
		}
		c.losses[vol] = v.Losses
		c.stats["times that what was not flushed may be lost"]++
		at := c.hist.tick()
		c.hist.ops = append(c.hist.ops, &op{kind: opLoss, vol: vol, call: at, ret: at, at: c.w.Now()})
	}
}

// changeDurability has an admin change a volume's durability, now and then.
func (c *Cluster) changeDurability() {
	if !c.plan.toggles {
		return
	}
	c.w.After(c.w.Rand.Between(time.Second, 8*time.Second), func() {
		if l := c.leader(); l != nil && !c.calmed {
			vol := c.w.Rand.Intn(len(c.volIDs))
			if v := c.trueVolume(vol); v != nil {
				c.stats["changes of durability"]++
				l.propose(catalog.SetDurability{Volume: v.ID, Memory: !v.Memory}, func(truth.Outcome, error) {})
			}
		}
		c.changeDurability()
	})
}

// breakIncarnation is what a replica says of itself.
func (n *node) breakIncarnation(r *simReplica) ids.ID {
	if n.c.breaks(BreakRestarted) {
		return ids.ID{1}
	}
	return r.inc
}

// fencedAgain hands the reign a newer answer of a session.
func (r *reignShell) fencedAgain(s *session, f peer.Fenced) {
	for attempt, x := range r.sessions {
		if x == s {
			r.step(reign.Polled{Attempt: attempt, Fenced: f})
			return
		}
	}
}

package mirror

import (
	"errors"
	"slices"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// told is what a member, or the joiner, has on record of the volume's other replicas (12). DESIGN.md, "Missed".
type told struct {
	id     peer.ReplicaID // of itself; without a Birth it is on nobody's record
	rec    []peer.Other   // as it was answered last
	maybe  []peer.Other   // present ones that were sent since, and may be on record or not
	asking bool           // a Know is under way
}

// entries are what is, or may be, on record. A map may be gone if the replica was said to be present since.
func (t *told) entries() []peer.Other {
	if len(t.maybe) == 0 {
		return t.rec
	}
	out := slices.Clone(t.maybe)
	for _, e := range t.rec {
		if !slices.ContainsFunc(t.maybe, func(o peer.Other) bool { return o.ID == e.ID }) {
			out = append(out, e)
		}
	}
	return out
}

// sent notes the present ones of a list.
func (t *told) sent(list []peer.Other) {
	for _, e := range list {
		if !e.Absent && !slices.Contains(t.maybe, e) {
			t.maybe = append(t.maybe, e)
		}
	}
}

// evidence is what a replica has to show that left: otherwise it was put back to a state before it did.
type evidence struct {
	epoch peer.Epoch
	seq   peer.Seq
}

var (
	errRecording = errors.New("the members have not recorded yet who is absent")
	errChanged   = errors.New("mirror: a member left meanwhile")
)

// noteMap takes over what a replica says of itself and has on record.
func (c *Core) noteMap(i int, a *peer.Answer) {
	t := &c.slots[i].told
	t.id.Birth, t.rec = a.Birth, slices.Clone(a.Known)
	c.retell = true
}

// place remembers where a replica is.
func (c *Core) place(i int, p truth.Place) {
	c.slots[i].told.id = peer.ReplicaID{Node: p.Node, Pool: p.Pool}
	if !slices.Contains(c.places, p) {
		c.places = append(c.places, p)
	}
}

func (c *Core) isMember(n ids.Node) bool {
	i := c.slotOf(n)
	return i >= 0 && c.members.has(i)
}

// reckon finds out whether a member has a replica for present that is not. Until it has recorded that it is absent, no
// write is acknowledged and no mark cleared: one that the absent replica missed could be among them.
func (c *Core) reckon() {
	c.owing, c.retell = false, true
	for i := range c.slots {
		if !c.members.has(i) {
			continue
		}
		for _, e := range c.slots[i].told.entries() {
			c.owing = c.owing || !e.Absent && !c.isMember(e.ID.Node)
		}
	}
}

// toTell is what the node of a slot is to have on record.
func (c *Core) toTell(i int) []peer.Other {
	if i == c.joiner {
		return c.toTellJoiner()
	}
	t := &c.slots[i].told
	out := c.present(i, nil)
	absent := 0
	if c.rs != nil && c.rs.phase > mapping && !c.rs.id().Birth.IsZero() {
		out, absent = append(out, c.joinerOn(t.entries())), 1
	}
	for _, e := range t.entries() {
		// By pool: a machine that got another identity has its pools still, and is another replica to us.
		taken := slices.ContainsFunc(out, func(o peer.Other) bool { return o.ID.Pool == e.ID.Pool })
		if c.isMember(e.ID.Node) || taken || absent == peer.MaxAbsent || !slices.Contains(c.places, truth.Place{Node: e.ID.Node, Pool: e.ID.Pool}) {
			continue
		}
		absent++
		out = append(out, c.leaving(e))
	}
	return out
}

// present is the entries of the members but slot i; those that kept names as absent stay so.
func (c *Core) present(i int, kept []peer.Other) (out []peer.Other) {
	for j := range c.slots {
		id := c.slots[j].told.id
		if j == i || !c.members.has(j) || id.Birth.IsZero() {
			continue
		}
		e := peer.Other{ID: id}
		if k := slices.IndexFunc(kept, func(o peer.Other) bool { return o.ID == id }); k >= 0 {
			e = kept[k]
		}
		out = append(out, e)
	}
	return out
}

// leaving makes an entry one of an absent replica.
func (c *Core) leaving(e peer.Other) peer.Other {
	if !e.Absent {
		at, ok := c.left[e.ID.Node]
		if !ok {
			at = c.before
		}
		e.Absent, e.Epoch, e.Seq = true, at.epoch, at.seq
	}
	return e
}

// joinerOn is the entry of the joiner on a record: its map is kept if the joiner is what the map was begun for, and else
// begun anew with all regions.
func (c *Core) joinerOn(rec []peer.Other) peer.Other {
	id := c.rs.id()
	for _, e := range rec {
		if e.ID == id {
			// Later it shows what we have sent to it, which is no evidence of what it had.
			if e = c.leaving(e); c.rs.phase > recording || c.rs.shows(e, c.p.Epoch) {
				return e
			}
		}
	}
	return peer.Other{ID: id, Absent: true, All: true}
}

// toTellJoiner: it has to record for who is absent before it gets anything. Maps of its own are kept until it has joined.
func (c *Core) toTellJoiner() []peer.Other {
	t := &c.slots[c.joiner].told
	if c.rs.phase == mapping || t.id.Birth.IsZero() || c.owing {
		return t.rec
	}
	out := c.present(c.joiner, t.rec)
	for _, e := range c.slots[c.rs.relay].told.rec {
		if e.Absent && e.ID.Node != c.rs.node && !c.isMember(e.ID.Node) && len(out) < peer.MaxOthers {
			for _, own := range t.rec {
				if own.Absent && own.ID == e.ID {
					e.Epoch, e.Seq = max(e.Epoch, own.Epoch), max(e.Seq, own.Seq)
				}
			}
			out = append(out, e)
		}
	}
	return keepAbsent(out)
}

// keepAbsent leaves out those absent for whom there is no room: a map of a present replica first.
func keepAbsent(list []peer.Other) []peer.Other {
	n := 0
	for i := len(list) - 1; i >= 0; i-- {
		if !list[i].Absent {
			continue
		}
		if n++; n > peer.MaxAbsent {
			list = slices.Delete(list, i, i+1)
		}
	}
	return list
}

// known says whether a record says what it is to say.
func known(rec, want []peer.Other) bool {
	if len(rec) != len(want) {
		return false
	}
	for _, w := range want {
		if !slices.ContainsFunc(rec, func(r peer.Other) bool {
			return r.ID == w.ID && r.Absent == w.Absent && !w.All && w.Epoch <= r.Epoch && w.Seq <= r.Seq
		}) {
			return false
		}
	}
	return true
}

// pumpKnow tells the members, and the joiner, what they do not have on record.
func (c *Core) pumpKnow() {
	if !c.retell || !c.opened || c.now < c.tellAt {
		return
	}
	c.retell = false
	for i := range c.slots {
		s := &c.slots[i]
		if !c.concerned().has(i) || !s.up || s.told.asking {
			continue
		}
		if want := c.toTell(i); len(s.told.maybe) > 0 || !known(s.told.rec, want) {
			s.told.asking = true
			s.told.sent(want)
			c.send(i, forKnow, peer.Know).Others = want
		}
	}
}

// allTold says whether every member, and the joiner, has on record what it is to have.
func (c *Core) allTold() bool {
	for i := range c.slots {
		if t := &c.slots[i].told; c.concerned().has(i) && (t.asking || len(t.maybe) > 0 || !known(t.rec, c.toTell(i))) {
			return false
		}
	}
	return true
}

func (c *Core) knowAnswered(k *call, o outcome) {
	i := int(k.slot)
	s := &c.slots[i]
	if s.gone || !c.concerned().has(i) {
		s.told.asking = false
		return
	}
	s.told.asking, c.retell = false, true
	switch {
	case o == fine:
		was := s.told.rec
		s.told.maybe = nil
		s.told.rec = slices.Clone(k.Others)
		for j := range s.told.rec {
			e := &s.told.rec[j]
			for _, w := range was {
				if w.ID == e.ID && w.Absent && e.Absent && !e.All {
					e.Epoch, e.Seq = max(e.Epoch, w.Epoch), max(e.Seq, w.Seq)
				}
			}
			e.All = false
		}
		if c.owing {
			if c.reckon(); !c.owing {
				c.evaluate()
				c.rescan = true
			}
		}
	case o == lost: // it is told when it is back
	case i == c.joiner:
		c.abortResync(k.Err)
	default:
		c.report(Notice{Code: MediumError, Node: s.node, Err: k.Err})
		c.fail(i, peer.ErrMedium)
		c.tellAt = c.now + c.t.Retry
	}
}

// tellNext is when a Know that failed is tried again.
func (c *Core) tellNext() (time.Duration, bool) { return c.tellAt, c.retell && c.tellAt > c.now }

package mirror

import (
	"errors"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// slot is a node that the mirror deals with: the leader's own (always slot 0), a member, the joiner, or one that left
// while calls to it are still under way.
type slot struct {
	node ids.Node
	used bool
	gone bool // left; kept until its last call was answered
	out  int  // calls under way

	up         bool
	gen        uint32 // of the session: a loss of an older one is no news
	trying     bool   // an attempt to reach it is under way
	failedOnce bool   // an attempt failed since it was lost: no grace
	lostAt     time.Duration
	tryAt      time.Duration
	pause      time.Duration
	why        error // of the loss or the failure

	speed  speed
	failed bool // its disk failed a write that another member has: it must leave
	stale  bool // it came back without marks that it had, or restarted
	// restarted says that it may lack what it acknowledged and had not flushed: held was its incarnation. inc is what it has as
	// far as we know, held what the catalog lists: zero, if it may not acknowledge from memory.
	restarted bool
	inc, held ids.ID

	mapped bool // its active map was asked for
	known  bool // and answered
	told   told
	confirms
}

func (c *Core) newSlot(n ids.Node) int {
	for i := 1; i < maxSlots; i++ {
		if !c.slots[i].used {
			c.slots[i] = slot{node: n, used: true, up: true}
			return i
		}
	}
	return -1
}

// retire frees the slot of a node that left when its last call was answered.
func (c *Core) retire(s *slot) {
	if s.gone && s.out == 0 {
		*s = slot{}
	}
}

// union is the set before and the set after whatever change is pending (1).
func (c *Core) union() mask {
	if c.required {
		return c.members | bit(c.joiner)
	}
	return c.members
}

// targets are those that a write goes to: not the joiner, as long as the members may not have recorded what it has. What it
// records is evidence of that.
func (c *Core) targets() mask {
	if c.joiner >= 0 && c.rs.phase >= waitSent {
		return c.members | bit(c.joiner)
	}
	return c.members
}

// concerned are those with which the mirror deals.
func (c *Core) concerned() mask {
	if c.joiner >= 0 {
		return c.members | bit(c.joiner)
	}
	return c.members
}

// sound are the slots of m that are in reach and have failed no write.
func (c *Core) sound(m mask) mask {
	var r mask
	for i := range c.slots {
		if s := &c.slots[i]; m.has(i) && s.up && !s.failed {
			r |= bit(i)
		}
	}
	return r
}

func (c *Core) reached(m mask) mask {
	var r mask
	for i := range c.slots {
		if m.has(i) && c.slots[i].up {
			r |= bit(i)
		}
	}
	return r
}

// sources are the members of m to read from: those that are sound, else those in reach.
func (c *Core) sources(m mask) mask {
	if r := c.sound(m); r != 0 {
		return r
	}
	return c.reached(m)
}

func lowest(m mask) int {
	for i := range maxSlots {
		if m.has(i) {
			return i
		}
	}
	return -1
}

// Lost says that the session with a node has died, before or after its calls were answered with ErrLost. The caller does
// not report a session that Back has replaced.
func (c *Core) Lost(node ids.Node) {
	if i := c.slotOf(node); i >= 0 && c.slots[i].up && !c.ended {
		c.lose(i, peer.ErrLost)
	}
	c.run()
}

func (c *Core) lose(i int, why error) {
	s := &c.slots[i]
	s.up, s.lostAt, s.why, s.failedOnce, s.pause = false, c.now, why, false, 0
	if s.gone || c.ended {
		return
	}
	if i == c.joiner {
		c.abortResync(why)
		if c.joiner != i && i != 0 {
			return
		}
	}
	c.report(Notice{Code: MemberLost, Node: s.node, Err: why})
	if errors.Is(why, peer.ErrNoReplica) {
		// There is a session; another one would say the same. Ask again after a pause.
		s.failedOnce = true
		s.pause = c.t.Retry
		s.tryAt = c.now + s.pause
		return
	}
	c.reconnect(i)
}

func (c *Core) reconnect(i int) {
	s := &c.slots[i]
	if !s.trying {
		s.trying = true
		c.emit(Effect{Kind: Reconnect, Node: s.node})
	}
}

// Unreachable says that an attempt to reach a node failed. With peer.ErrEpoch the mirror ends.
func (c *Core) Unreachable(node ids.Node, err error) {
	if errors.Is(err, peer.ErrEpoch) {
		c.end(err, true)
	}
	if i := c.slotOf(node); i >= 0 && !c.ended {
		s := &c.slots[i]
		s.trying = false
		if !s.up {
			s.failedOnce, s.why = true, err
			s.pause = min(max(2*s.pause, c.t.Retry), 8*c.t.Retry)
			s.tryAt = c.now + s.pause
		}
	}
	c.run()
}

// Back says that there is a session of the same epoch with a node again, and what the replica's FencedReplica.Seq and
// Incarnation are in it (0 where the node holds none). The caller has seen that the pool is not busy and that the replica is not foreign;
// otherwise it is Unreachable with peer.ErrNoReplica.
func (c *Core) Back(node ids.Node, seq peer.Seq, inc ids.ID) {
	i := c.slotOf(node)
	if i < 0 || c.ended {
		c.run()
		return
	}
	s := &c.slots[i]
	s.trying = false
	if s.up {
		c.run()
		return
	}
	if c.union().has(i) && seq < c.durable {
		// Its commands were drained, but its disk is not what it was: not a byte of it is used (14).
		if !s.stale {
			c.report(Notice{Code: MediumError, Node: node, Err: ErrStale})
		}
		s.stale, s.failedOnce, s.why = true, true, ErrStale
		s.pause = 8 * c.t.Retry
		s.tryAt = c.now + s.pause
		c.run()
		return
	}
	was := s.inc
	if !c.sameIncarnation(i, inc) {
		c.run()
		return
	}
	s.up, s.stale, s.restarted, s.why = true, false, false, nil
	s.gen++
	c.report(Notice{Code: MemberBack, Node: node})
	if c.members.has(i) && was != inc && !was.IsZero() {
		c.readMap(i) // its session refuses everything that is for the former incarnation until then
	}
	c.resend(i)
	c.rescan = true
	c.run()
}

// NeedsReplica says whether Back of a node needs a replica of the volume there, and not only its confirmations.
func (c *Core) NeedsReplica(node ids.Node) bool {
	i := c.slotOf(node)
	return i >= 0 && c.concerned().has(i)
}

// resend sends again what a node has missed, and asks again what it was asked.
func (c *Core) resend(i int) {
	s := &c.slots[i]
	if !s.up {
		return
	}
	if c.members.has(i) && !c.opened && !s.mapped {
		c.readMap(i)
	}
	c.pumpConfirm(i)
	c.retell = true
	if s.failed {
		return
	}
	for q := c.reqs.head; q != nil; q = q.next {
		for p := q.parts.head; p != nil; p = p.next {
			if p.missed.has(i) && !p.acked && !q.expired { // else the data is the client's again
				c.sendWrite(p, i)
			}
		}
	}
}

// readMap asks a member for its active regions; the volume opens when all have answered (13).
func (c *Core) readMap(i int) {
	c.slots[i].mapped = true
	c.send(i, forMap, peer.ReadMap)
}

func (c *Core) mapAnswered(k *call, o outcome) {
	i := int(k.slot)
	if k.rs != nil {
		c.joinerMapped(k, o)
		return
	}
	s := &c.slots[i]
	if c.opened || s.gone || c.ended || !c.members.has(i) {
		return
	}
	switch o {
	case fine:
		if !c.sameIncarnation(i, k.Incarnation) {
			break
		}
		for _, r := range k.Active {
			c.foundActive(r)
		}
		c.noteMap(i, &k.Answer)
		s.known = true
	case lost:
		s.mapped = false
		if s.up { // a session since then
			c.readMap(i)
		}
	default:
		// A member that cannot read its map is of no use: it leaves, or is asked again if it is the last.
		s.mapped = false
		c.lose(i, peer.ErrNoReplica)
		s.why = k.Err
	}
	c.tryOpen()
}

func (c *Core) tryOpen() {
	if c.opened || c.ended {
		return
	}
	for i := range c.slots {
		if c.members.has(i) && !c.slots[i].known {
			return
		}
	}
	c.opened, c.rescan = true, true
	c.reckon()
	if n := c.backlog.n + c.demand.n; n > 0 {
		c.announced = true
		c.report(Notice{Code: ReconcileBegun, Count: n})
	}
}

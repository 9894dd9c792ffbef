package mirror

import (
	"errors"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// proposal is the one change of the set that is under way. It is active until its outcome is known.
type proposal struct {
	active  bool
	sent    bool // the shell has it; else it waits until at, to be repeated
	add     bool
	unknown bool // an earlier attempt may have been applied, or may yet be
	slot    int
	id      uint64
	at      time.Duration
	pause   time.Duration
	why     error
}

// noVersion is one that no set ever has: they begin at 1. A change that names it is rejected, and so tells what the set is: all that was
// proposed before it is decided then. It takes the place of the repetition of one that would not be proposed now: of a retirement, for those
// that are left may have died since they said that they were there, of a member that need not leave any more, and of a joiner that is lost.
const noVersion = 0

// adjust begins the change of the set that is due, if none is under way: a removal before a join, and one
// that has to be before one that is only wanted.
func (c *Core) adjust() {
	p := &c.prop
	if c.ended {
		return
	}
	if p.active {
		if !p.sent && c.now >= p.at {
			c.propose()
		}
		return
	}
	if i := c.mustLeave(); i >= 0 {
		*p = proposal{active: true, slot: i, id: p.id, why: c.slots[i].why}
		c.propose()
	} else if i := c.mayRetire(); i >= 0 && !c.draining {
		*p = proposal{active: true, slot: i, id: p.id, why: ErrRetired}
		c.retiring = retirement{}
		c.propose()
	} else if c.rs != nil && c.rs.phase == joining {
		if c.draining {
			c.abortResync(ErrStopped)
			return
		}
		if c.sound(bit(c.joiner)) == 0 { // lost while its join was proposed, which had no effect
			c.abortResync(c.slots[c.joiner].why)
			return
		}
		*p = proposal{active: true, add: true, slot: c.joiner, id: p.id}
		c.propose()
	}
}

// mustLeave chooses the member whose removal is to be proposed, or -1 (2). Somebody in reach must remain.
func (c *Core) mustLeave() int {
	if c.members.single() {
		return -1
	}
	up, sound := c.reached(c.members), c.sound(c.members)
	if sound != 0 {
		for i := maxSlots - 1; i >= 0; i-- {
			if s := &c.slots[i]; c.members.has(i) && !sound.has(i) && (s.failed || c.overdue(s, c.t.Grace)) {
				return i
			}
		}
		return -1
	}
	if up == 0 {
		return -1
	}
	// Those in reach have failed a write. Those out of reach may hold what is missing, so they get longer.
	for i := maxSlots - 1; i >= 0; i-- {
		if s := &c.slots[i]; c.members.has(i) && !s.up && (s.stale || c.now-s.lostAt >= c.t.LastGrace) {
			return i
		}
	}
	if up == c.members {
		for i := maxSlots - 1; i >= 0; i-- { // the leader's own goes last
			if c.members.has(i) {
				return i
			}
		}
	}
	return -1
}

func (c *Core) overdue(s *slot, grace time.Duration) bool {
	return !s.up && (s.failedOnce || c.now-s.lostAt >= grace)
}

func (c *Core) propose() {
	p := &c.prop
	c.proposals++
	p.id, p.sent = c.proposals, true
	node := c.slots[p.slot].node
	e := Effect{Kind: Propose, ID: p.id, Node: node}
	version := c.version
	if p.unknown && !c.wouldPropose() {
		version = noVersion
	}
	if p.add {
		e.Proposal = truth.AddMember{Epoch: c.p.Epoch, Volume: c.p.Volume.ID, Version: version, Node: node}
	} else {
		why := "it missed a write"
		if p.why != nil {
			why = p.why.Error()
		}
		e.Proposal = truth.RemoveMember{Epoch: c.p.Epoch, Volume: c.p.Volume.ID, Version: version, Node: node, Reason: why}
	}
	c.emit(e)
}

// wouldPropose tells whether the change that was proposed would be proposed now, too.
func (c *Core) wouldPropose() bool {
	p := &c.prop
	if p.add {
		return c.sound(bit(p.slot)) != 0
	}
	return p.why != ErrRetired && c.mustLeave() == p.slot
}

// Decided is the end of a proposal: err is nil, a *truth.Rejection or truth.ErrUnknown. Any other error is taken for the
// last.
func (c *Core) Decided(id uint64, out truth.Outcome, err error) {
	if r := &c.cache.record; id == r.id && r.sent {
		c.recordDecided(err)
		c.run()
		return
	}
	p := &c.prop
	if id != p.id || !p.sent {
		c.run()
		return
	}
	p.sent = false
	if c.ended {
		p.active = false
		c.run()
		return
	}
	var rej *truth.Rejection
	switch {
	case err == nil:
		p.active = false
		c.adopt(out.Version, out.InSync)
	case errors.As(err, &rej):
		p.active = false
		c.rejected(rej, err)
	default:
		if !p.unknown {
			c.report(Notice{Code: ProposalUnknown, Node: c.slots[p.slot].node, Err: err})
		}
		p.unknown = true
		p.pause = min(max(2*p.pause, c.t.Retry), 8*c.t.Retry)
		p.at = c.now + p.pause
	}
	c.run()
}

func (c *Core) rejected(rej *truth.Rejection, err error) {
	if rej.Why == truth.WrongEpoch || rej.Why == truth.NoSuchVolume || rej.Current.ID != c.p.Volume.ID {
		c.end(err, true)
		return
	}
	add := c.prop.add
	// Whatever was proposed before is decided too: it came before this one in the log. So Current is the truth.
	c.adopt(rej.Current.Version, rej.Current.InSync)
	if !c.ended && add && rej.Why == truth.NotAReplica {
		c.abortResync(err)
	}
}

// adopt makes the catalog's set ours.
func (c *Core) adopt(version uint64, set []truth.Place) {
	var now mask
	for _, pl := range set {
		i := c.slotOf(pl.Node)
		if i < 0 || !c.concerned().has(i) {
			// Nobody but us changes the set of a volume that we serve.
			c.end(ErrSet, true)
			return
		}
		now |= bit(i)
	}
	if now == 0 {
		c.end(ErrSet, true)
		return
	}
	c.version = version
	if c.joiner >= 0 && now.has(c.joiner) {
		c.join()
	}
	for i := range c.slots {
		if c.members.has(i) && !now.has(i) {
			c.dropMember(i)
			c.abortResync(errChanged) // the joiner does not record for it
		}
	}
	c.reckon()
	if c.members.single() {
		// The last one is used as it is: what it fails ends with ErrMedium.
		i := lowest(c.members)
		if s := &c.slots[i]; s.failed {
			s.failed = false
			c.resend(i)
		}
	}
	c.evaluate()
	c.rescan = true
	c.tryOpen()
}

func (c *Core) dropMember(i int) {
	s := &c.slots[i]
	c.report(Notice{Code: MemberRemoved, Node: s.node, Err: c.prop.why})
	c.members &^= bit(i)
	c.left[s.node] = evidence{c.p.Epoch, c.durable}
	c.reckon() // before any write is looked at again
	c.leave(i)
}

// leave forgets what was remembered of a slot that is no target any more. Its calls still come back.
func (c *Core) leave(i int) {
	s := &c.slots[i]
	m := bit(i)
	for q := c.reqs.head; q != nil; q = q.next {
		q.own &^= m
		for p := q.parts.head; p != nil; p = p.next {
			p.targets &^= m
			p.ok &^= m
			p.medium &^= m
			p.full &^= m
			p.missed &^= m
			p.tried &^= m
		}
	}
	s.failed, s.stale, s.mapped, s.known, s.speed, s.told = false, false, false, false, speed{}, told{}
	s.restarted, s.inc, s.held = false, ids.ID{}, ids.ID{}
	if i == 0 {
		// The leader's own node stays, for its confirmations. They are asked anew: own answers do not count any more.
		for w := c.takeWaiters(s); w != nil; {
			next := w.wnext
			c.settle(w)
			w = next
		}
		return
	}
	s.gone = true
	waiters := c.takeWaiters(s)
	c.retire(s)
	for w := waiters; w != nil; {
		next := w.wnext
		c.settle(w)
		w = next
	}
}

// evaluate looks at every write again after the set has changed.
func (c *Core) evaluate() {
	for q := c.reqs.head; q != nil; {
		next := q.next
		for p := q.parts.head; p != nil; {
			np := p.next
			if p.started && !q.reads() {
				c.evalWrite(p)
			}
			p = np
		}
		q = next
	}
}

// fail says that a member's disk failed a write that another has: it must leave, if it is not the last (2).
func (c *Core) fail(i int, why error) {
	s := &c.slots[i]
	if s.failed || c.members.single() || !c.members.has(i) {
		return
	}
	s.failed, s.why = true, why
}

// obstacle says what requests are waiting for, or nil.
func (c *Core) obstacle() error {
	switch {
	case c.ended:
		return c.cause
	case c.prop.active && c.prop.unknown:
		return truth.ErrUnknown
	case c.lacking():
		return errLacking
	case c.reached(c.members) == 0:
		return errUnreached
	case c.prop.active:
		return errChanging
	case !c.slots[0].up:
		return c.slots[0].why
	}
	for i := range c.slots {
		if s := &c.slots[i]; c.union().has(i) && !s.up {
			return peer.ErrLost
		}
	}
	if !c.opened {
		return errOpening
	}
	if c.owing {
		return errRecording
	}
	return nil
}

var (
	errUnreached = errors.New("no in-sync member is in reach")
	// errLacking is final until the member that is out of reach comes back: only an admin can do without it.
	errLacking = errors.New("a replica restarted, or failed to flush, with writes in memory that were not flushed, and the one that may have them " +
		"is out of reach (where it never comes back, pmsapp volume force goes on without those writes)")
	errChanging = errors.New("a change of the in-sync set is pending")
	errOpening  = errors.New("the members' active maps are not known yet")
)

package mirror

import (
	"errors"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// Causes of the end of a mirror whose durability is memory (invariant 10). What a reign does then: it judges the replicas anew.
var (
	// ErrIncarnation is the reason for removing a member that may lack what it acknowledged and had not flushed, and the cause of
	// the end when that is so of every member.
	ErrIncarnation = errors.New("mirror: the replica may have lost what was written to it and not flushed")
	// ErrFlush is the cause of the end when the last members could not flush: what was not durable may be lost on all of them.
	ErrFlush = errors.New("mirror: the disk failed to flush")
)

// cache is what a mirror knows of what was acknowledged and is not durable. DESIGN.md, "Memory".
//
// Flushes are numbered as they begin. One that has ended covers every write that was answered before it began.
type cache struct {
	memory bool   // the volume's durability
	ending bool   // nobody is to acknowledge from memory any more: the record is about to be empty
	begun  uint64 // the number of the last flush
	done   uint64 // the highest of those that have ended on every member
	need   uint64 // what was acknowledged is durable when this one has ended

	own    block.Request // the mirror's own flush
	under  bool          // it is under way
	soon   bool          // it is not to wait for its time
	at     time.Duration // its time
	wrote  time.Duration // when the last write that could be volatile came
	record record
}

// record is the proposal of which members are volatile. It is active until its outcome is known.
type record struct {
	active, sent bool
	id           uint64
	at, pause    time.Duration
	list         []truth.Volatile
	unsure       bool // the catalog may list who is not on our record
}

// recordIdle is how long after the last write a volume ceases to be volatile by the catalog. From then on a loss of power of
// all members loses nothing, and none of them is waited for.
const recordIdle = 30 * time.Second

// volatile says whether a member may acknowledge from memory: the catalog has its incarnation, and we intend no other.
func (c *Core) volatile(i int) bool {
	s := &c.slots[i]
	return c.cache.memory && !c.cache.ending && c.members.has(i) && !s.held.IsZero() && s.held == s.inc
}

// openCache takes over what the catalog says at the opening.
func (c *Core) openCache() {
	k := &c.cache
	k.memory = c.p.Volume.Memory
	k.at = c.t.FlushEvery
	for _, x := range c.p.Volume.Volatile {
		k.need, k.soon, k.record.unsure, k.wrote = 1, true, true, 1
		c.hold(x)
	}
}

// hold notes that the catalog lists a member; false, if there is no such one.
func (c *Core) hold(x truth.Volatile) bool {
	for i := range c.slots {
		if s := &c.slots[i]; c.members.has(i) && s.told.id.Pool == x.Pool && s.inc == x.Incarnation {
			s.held = x.Incarnation
			return true
		}
	}
	return false
}

// SetMemory says what the volume's durability is from now on.
func (c *Core) SetMemory(on bool) {
	c.cache.memory = on
	c.run()
}

// unflushed says whether something that was acknowledged may not be durable.
func (c *Core) unflushed() bool { return c.cache.need > c.cache.done }

// noteVolatile says that a write was answered that a member may have in memory only.
func (c *Core) noteVolatile(p *part) {
	k := &c.cache
	if !p.volatile {
		return
	}
	if !c.unflushed() {
		k.at = c.now + c.t.FlushEvery
	}
	k.need = k.begun + 1
	first, last := c.touched(p.off, p.len)
	for i := first; i <= last; i++ {
		if e := c.regions[i]; e != nil {
			e.need = k.need
		}
	}
}

// admitFlush makes a request one command to every member, or ends it if there is nothing to flush.
func (c *Core) admitFlush(q *request) {
	q.off, q.len, q.issued = 0, 0, 0
	q.state = running
	if !c.unflushed() {
		c.advance(q)
		return
	}
	p := c.newPart(q, 0, 0)
	if !c.tryPart(p) {
		c.park(p)
	}
}

// startFlush sends a flush to every member. A joiner has nothing that is not durable.
func (c *Core) startFlush(p *part) bool {
	if c.sound(c.members) == 0 && (c.reached(c.members) == 0 || !c.members.single()) {
		return false
	}
	c.cache.begun++
	p.flush, p.started, p.targets = c.cache.begun, true, c.members
	for i := range c.slots {
		if p.targets.has(i) {
			c.sendWrite(p, i)
		}
	}
	return true
}

// pumpFlush begins the mirror's own flush: when its time has come, and when somebody waits for it.
func (c *Core) pumpFlush() {
	k := &c.cache
	if !c.opened || k.under || !c.unflushed() {
		return
	}
	if !k.soon && c.now < k.at && !(c.draining && c.live == 0) {
		return
	}
	k.under, k.soon = true, false
	k.own = block.Request{Op: block.Flush}
	c.enter(&k.own)
}

// ownFlushed is the end of it.
func (c *Core) ownFlushed(err error) {
	k := &c.cache
	k.under = false
	k.at = c.now + c.t.FlushEvery
	if err != nil {
		k.at = c.now + c.t.Retry
	}
	c.rescan = true // what waits for regions to become clean
}

// inUse says whether members are to be volatile: writes come, or came a while ago.
func (c *Core) inUse() bool {
	k := &c.cache
	return k.memory && !c.draining && k.wrote > 0 && c.now < k.wrote+recordIdle
}

// pumpRecord brings the catalog's list of the volatile members up to date: before the first acknowledgement from memory, and
// when everything is durable and nobody writes. A member that is not on it gets every write durably.
func (c *Core) pumpRecord() {
	r := &c.cache.record
	if !c.opened {
		return
	}
	if r.active {
		if !r.sent && c.now >= r.at {
			c.proposeRecord()
		}
		return
	}
	held, missing := r.unsure, false
	for i := range c.slots {
		s := &c.slots[i]
		if !c.members.has(i) {
			continue
		}
		held = held || !s.held.IsZero()
		if !s.inc.IsZero() {
			missing = missing || s.held != s.inc
		}
	}
	c.cache.ending = !c.inUse()
	switch {
	case !c.cache.ending && missing:
		r.list = nil
		for i := range c.slots {
			if s := &c.slots[i]; c.members.has(i) && !s.inc.IsZero() {
				r.list = append(r.list, truth.Volatile{Pool: s.told.id.Pool, Incarnation: s.inc})
			}
		}
	case c.cache.ending && held:
		// From here on every write is durable when it is answered. What was answered before is flushed first.
		if c.unflushed() || c.volatileOut() {
			c.cache.soon = true
			return
		}
		c.endVolatile()
		r.list = nil
	default:
		return
	}
	r.active, r.pause = true, 0
	c.proposeRecord()
}

// endVolatile forgets who is on the record: all is durable, so that nothing is lost where one of them restarts.
func (c *Core) endVolatile() {
	for i := range c.slots {
		if s := &c.slots[i]; !s.held.IsZero() {
			s.held = ids.ID{}
			c.cache.record.unsure = true
		}
	}
}

// volatileOut says whether a write is under way that a member may have in memory only.
func (c *Core) volatileOut() bool {
	for q := c.reqs.head; q != nil; q = q.next {
		for p := q.parts.head; p != nil; p = p.next {
			if p.volatile {
				return true
			}
		}
	}
	return false
}

func (c *Core) proposeRecord() {
	r := &c.cache.record
	c.proposals++
	r.id, r.sent = c.proposals, true
	c.emit(Effect{Kind: Propose, ID: r.id, Proposal: truth.SetVolatile{Epoch: c.p.Epoch, Volume: c.p.Volume.ID, Members: r.list}})
}

// recordDecided is the end of such a proposal. One of unknown outcome is made again: until it is decided nobody relies on it.
func (c *Core) recordDecided(err error) {
	r := &c.cache.record
	r.sent = false
	var rej *truth.Rejection
	switch {
	case c.ended:
		r.active = false
	case err == nil:
		r.active, r.unsure = false, false
		for _, x := range r.list {
			r.unsure = !c.hold(x) || r.unsure
		}
		r.list = nil
	case errors.As(err, &rej):
		r.active = false
		c.end(err, true)
	default:
		r.pause = min(max(2*r.pause, c.t.Retry), 8*c.t.Retry)
		r.at, r.unsure = c.now+r.pause, true
	}
}

// sameIncarnation says whether a member is what the catalog has it for, after it was out of reach. If not, it may lack what it
// acknowledged, and leaves; when no member is what it was, only a new judgement helps.
func (c *Core) sameIncarnation(i int, now ids.ID) bool {
	s := &c.slots[i]
	if !c.members.has(i) || s.held.IsZero() || s.inc == now {
		s.inc = now
		return true
	}
	if !s.restarted {
		c.report(Notice{Code: MemberRestarted, Node: s.node, Err: ErrIncarnation})
	}
	s.restarted, s.stale, s.failedOnce, s.why = true, true, true, ErrIncarnation
	s.up = false
	s.pause = 8 * c.t.Retry
	s.tryAt = c.now + s.pause
	c.endIfAllRestarted(ErrIncarnation)
	return false
}

// flushFailed says that a member could not flush: it has another incarnation by now.
func (c *Core) flushFailed(i int) {
	s := &c.slots[i]
	if c.ended || s.gone || !c.members.has(i) || s.restarted {
		return
	}
	c.report(Notice{Code: MemberRestarted, Node: s.node, Err: ErrFlush})
	s.restarted, s.stale, s.failedOnce, s.up, s.why = true, true, true, false, ErrFlush
	s.lostAt = c.now
	s.pause = 8 * c.t.Retry
	s.tryAt = c.now + s.pause
	s.gen++ // what it answers yet is of the incarnation that it was
}

// endIfAllRestarted ends the mirror if no member has what was acknowledged and not flushed.
func (c *Core) endIfAllRestarted(why error) {
	some := false
	for i := range c.slots {
		if s := &c.slots[i]; c.members.has(i) {
			if !s.stale {
				return
			}
			some = some || s.restarted
		}
	}
	if some {
		c.end(why, true)
	}
}

// lacking says whether nobody in reach has what was acknowledged and not flushed, and somebody who is not may have it.
func (c *Core) lacking() bool {
	restarted, away := false, false
	for i := range c.slots {
		if s := &c.slots[i]; c.members.has(i) {
			restarted, away = restarted || s.restarted, away || !s.stale && !s.up
		}
	}
	return restarted && away && c.sound(c.members) == 0
}

// cacheNext is when the next step is due.
func (c *Core) cacheNext() (time.Duration, bool) {
	const never = time.Duration(1<<63 - 1)
	k, at := &c.cache, never
	if !c.opened {
		return 0, false
	}
	if c.unflushed() && !k.under {
		at = k.at
	}
	switch {
	case k.record.active && !k.record.sent:
		at = min(at, k.record.at)
	case !k.record.active && c.inUse():
		at = min(at, k.wrote+recordIdle)
	}
	return at, at != never
}

// peerKind is the command of a part that is no read.
func (p *part) peerKind() peer.Kind {
	switch {
	case p.flush != 0:
		return peer.Flush
	case p.q.op == zeroOp:
		return peer.Zero
	}
	return peer.Write
}

package mirror

import (
	"pmsapp/internal/block"
	"pmsapp/replication/peer"
)

// part is a piece of a request that is one command to a member.
type part struct {
	q        *request
	off, len int64
	data     []byte
	seq      peer.Seq
	durable  peer.Seq
	cohort   uint32
	started  bool // a write: sent, with marks; a read: sent at least once
	acked    bool // done for the client
	parked   bool
	volatile bool   // a write that a member may have in memory only
	flush    uint64 // its number; 0: it is no flush
	salvage  bool   // a read that every member failed: it is read block by block
	at       int64  // as far as that has got

	targets mask // where a write was to go
	ok      mask // who has it durably
	medium  mask // whose disk failed it
	full    mask // whose pool was full
	missed  mask // who has to be sent it (again)
	tried   mask // a read: who could not read it
	out     int  // calls under way that use the client's data
	outCopy int  // calls to the joiner that use a copy

	prev, next   *part // of the request
	pprev, pnext *part // in Core.parked
}

func (c *Core) newPart(q *request, off, n int64) *part {
	p := c.free.parts
	if p == nil {
		p = new(part)
	} else {
		c.free.parts = p.next
	}
	*p = part{q: q, off: off, len: n}
	q.parts.push(p)
	q.unacked++
	return p
}

// tryPart starts a part, or says that it cannot start now. It may end it.
func (c *Core) tryPart(p *part) bool {
	if !c.opened {
		return false
	}
	if p.q.op == block.Flush {
		return c.startFlush(p)
	}
	if !c.gate(p.off, p.len) {
		return false
	}
	if p.q.reads() {
		return c.startRead(p)
	}
	return c.startWrite(p)
}

func (c *Core) park(p *part) {
	if !p.parked {
		p.parked = true
		c.parked.push(p)
	}
}

// unpark tries again whatever is parked.
func (c *Core) unpark() {
	for n := c.parked.n; n > 0 && c.parked.head != nil; n-- {
		p := c.parked.head
		c.parked.remove(p)
		p.parked = false
		if !c.tryPart(p) {
			c.park(p)
		}
	}
	c.unparkCopies()
}

// startRead sends a read to a member that is in reach and has not failed it yet: the leader's own, if it is one (14).
func (c *Core) startRead(p *part) bool {
	if c.lost > 0 && p.q.op != mapOp && c.isLost(p.off, p.len, false) {
		c.failPart(p, block.ErrMedium)
		return true
	}
	left := c.members &^ p.tried
	if left == 0 {
		if !c.startSalvage(p) {
			c.failPart(p, block.ErrMedium)
		}
		return true
	}
	from := c.sources(left)
	if from == 0 {
		return false
	}
	i := lowest(from)
	p.started = true
	p.out++
	kind := peer.Read
	if p.q.op == mapOp {
		kind = peer.Extents
	}
	k := c.send(i, forPart, kind)
	k.part, k.Off, k.Len, k.Data = p, p.off, p.len, p.data
	k.Kept = true // copies, mends and scrubs ask the disk
	c.lend(k, p)
	return true
}

// startWrite marks the regions and sends a write to every target. Those out of reach get it later, or leave.
func (c *Core) startWrite(p *part) bool {
	if c.lost > 0 && c.isLost(p.off, p.len, true) {
		c.failPart(p, block.ErrMedium)
		return true
	}
	if c.sound(c.members) == 0 && (c.reached(c.members) == 0 || !c.members.single()) {
		return false
	}
	seq, ok := c.mark(p.off, p.len, true)
	if !ok {
		return false
	}
	p.seq, p.durable, p.started = seq, c.durable, true
	p.cohort = c.cohort
	c.writes++
	if c.cache.memory && !p.q.fua {
		c.cache.wrote = max(c.now, 1)
	}
	p.targets = c.targets()
	for i := range c.slots {
		if p.targets.has(i) {
			c.sendWrite(p, i)
		}
	}
	return true
}

// lend passes on who has brought the request, to the leader's own replica: others' nodes have goroutines of their own.
func (c *Core) lend(k *call, p *part) {
	if k.slot == 0 && p.q.r != nil {
		k.Lent = p.q.r.Lent
	}
}

// maxJoinBytes bounds the copies of data that are under way to a joiner; past it acknowledgements wait for it.
const maxJoinBytes = 8 << 20

func (c *Core) sendWrite(p *part, i int) {
	s := &c.slots[i]
	if !s.up || s.failed {
		p.missed |= bit(i)
		return
	}
	p.missed &^= bit(i)
	k := c.send(i, forPart, p.peerKind())
	k.part = p
	if p.flush != 0 {
		p.out++
		return
	}
	if k.Volatile = !p.q.fua && c.volatile(i); k.Volatile {
		p.volatile = true
	}
	k.part, k.Off, k.Len, k.Data = p, p.off, p.len, p.data
	k.Seq, k.Durable = p.seq, p.durable
	k.at = c.now
	if p.targets == bit(0) { // else others would wait for the goroutine to be sent theirs
		c.lend(k, p)
	}
	if i == c.joiner && !c.required && c.joinBytes+int64(len(p.data)) <= maxJoinBytes {
		// The client's answer does not wait for this one, and takes the data away.
		k.owned = true
		c.joinBytes += int64(len(p.data))
		if p.data != nil {
			k.Data = block.Get(len(p.data))
			copy(k.Data, p.data)
		}
		p.outCopy++
		return
	}
	k.MayRetain = p.q.r != nil && p.q.r.MayRetain && p.q.op == writeOp
	p.out++
}

func (c *Core) partAnswered(k *call, o outcome) {
	p, i := k.part, int(k.slot)
	if k.owned {
		p.outCopy--
		c.joinBytes -= int64(len(k.Data))
		block.Put(k.Data)
	} else {
		p.out--
		p.q.retained = p.q.retained || k.Retained
	}
	if o != lost && !c.slots[i].gone {
		p.q.own |= bit(i)
	}
	if p.q.reads() {
		c.readAnswered(p, i, o, k)
		return
	}
	if !p.targets.has(i) { // it left
		c.evalWrite(p)
		return
	}
	if i == c.joiner && o != fine && c.abortResync(k.Err) {
		return // which has looked at p
	}
	if o != lost && p.flush == 0 {
		c.timed(i, c.now-k.at)
	}
	switch o {
	case fine:
		p.ok |= bit(i)
	case lost:
		if s := &c.slots[i]; s.up && k.gen != s.gen && !p.acked && !p.q.expired && !c.ended {
			c.sendWrite(p, i)
		} else {
			p.missed |= bit(i)
		}
	case medium:
		p.medium |= bit(i)
		if p.flush != 0 {
			c.flushFailed(i)
		} else if !c.slots[i].held.IsZero() {
			c.lose(i, peer.ErrNoReplica) // is it the incarnation that it was?
		}
		c.report(Notice{Code: MediumError, Node: c.slots[i].node, Off: p.off, Err: k.Err})
	case full:
		p.full |= bit(i)
		c.report(Notice{Code: PoolFull, Node: c.slots[i].node, Off: p.off, Err: k.Err})
	}
	c.evalWrite(p)
}

// evalWrite looks whether a write that was sent is done (1), spoilt (4), or has to wait.
func (c *Core) evalWrite(p *part) {
	if p.acked {
		if p.outCopy == 0 {
			c.finishPart(p)
		}
		return
	}
	if p.out > 0 {
		return
	}
	union := c.union() & p.targets
	rest := union &^ (p.ok | p.medium | p.full)
	ok := p.ok & union
	if p.medium&union != 0 && p.medium&union != union { // another has it, or may come back and have it
		for i := range c.slots {
			if (p.medium & union).has(i) {
				c.fail(i, peer.ErrMedium)
			}
		}
	}
	switch {
	case c.ended:
		c.failPart(p, block.ErrEnded)
	case rest == 0 && ok == union && p.flush != 0:
		c.cache.done = max(c.cache.done, p.flush)
		c.ack(p)
	case rest == 0 && ok == 0 && p.flush != 0:
		c.failPart(p, block.ErrMedium)
		c.endIfAllRestarted(ErrFlush)
	case rest == 0 && ok == union && !c.owing:
		c.durable = max(c.durable, p.seq) // all of them have recorded it, or a higher one
		c.rewritten(p.off, p.len)
		c.ack(p)
	case p.q.expired:
		c.spoil(p)
		c.failPart(p, block.ErrHeld)
	case rest != 0 || ok == union:
	case p.full&union != 0:
		c.spoil(p)
		c.failPart(p, block.ErrNoSpace)
	case ok == 0:
		c.spoil(p)
		c.failPart(p, block.ErrMedium)
	}
}

// ack says that a part is done for the client.
func (c *Core) ack(p *part) {
	p.acked = true
	p.q.unacked--
	c.noteVolatile(p)
	if p.outCopy == 0 {
		c.finishPart(p)
	} else {
		c.advance(p.q)
	}
}

// failPart ends a part with an error, which is the request's.
func (c *Core) failPart(p *part, err error) {
	if p.q.err == nil {
		p.q.err = err
	}
	if !p.acked {
		c.ack(p)
	}
}

// finishPart forgets a part that nobody owes an answer.
func (c *Core) finishPart(p *part) {
	q := p.q
	if p.parked {
		c.parked.remove(p)
	}
	if p.started && !q.reads() && p.flush == 0 {
		c.noteVolatile(p)
		c.unmark(p.off, p.len)
		c.writes--
		if p.cohort != c.cohort {
			c.older--
		}
	}
	q.parts.remove(p)
	if q.more() && q.r != nil { // it makes progress: it is not held
		q.deadline = c.now + c.t.Hold
		c.reqs.remove(q)
		c.reqs.push(q)
	}
	*p = part{next: c.free.parts}
	c.free.parts = p
	c.advance(q)
}

// barrier makes all writes that were sent until now older; c.older counts those of them that are not over.
func (c *Core) barrier() {
	c.cohort++
	c.older = c.writes
}

func (c *Core) readAnswered(p *part, i int, o outcome, k *call) {
	switch {
	case c.ended:
		c.failPart(p, block.ErrEnded)
		return
	case p.salvage && !p.q.expired:
		if !c.salvaged(p, i, o) {
			c.park(p)
		}
		return
	case o == fine:
		if p.q.op == mapOp {
			p.q.found(k.Extents)
		}
		c.ack(p)
		return
	case o != lost:
		p.tried |= bit(i)
		c.report(Notice{Code: MediumError, Node: c.slots[i].node, Off: p.off, Len: p.len, Err: k.Err})
		if p.q.op != mapOp {
			c.wantMend(i, p.off, p.len)
		}
	}
	if p.q.expired {
		c.failPart(p, block.ErrHeld)
		return
	}
	if !c.startRead(p) {
		c.park(p)
	}
}

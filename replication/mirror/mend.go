package mirror

import (
	"pmsapp/internal/block"
	"pmsapp/replication/peer"
)

// mend makes a range of a member good that it could not read, from the other members: one block after the other is read from it,
// and where that fails, from another, and written (16). It is a copy: it holds its range alone from its first read to
// the answer of its last write (3), and keeps its regions from being reconciled, as a write under way does.
type mend struct {
	slot   int
	off    int64 // multiples of a block, and where the volume ends
	end    int64
	span   span
	marked bool
	seq    peer.Seq
	at     int64 // the block that is looked at
	step   mendStep
	buf    []byte
	tried  mask    // who cannot read it
	absent bool    // somebody could not be asked
	notice *Notice // of the blocks so far that have the same fate: it is told when that changes
}

type mendStep uint8

const (
	probing  mendStep = iota // is it bad?
	fetching                 // from another member
	storing
)

// maxMends bounds the ranges that wait; what is left out is found by the next read, or by scrub.
const maxMends = 64

// mendRange is a range of a member that could not be read.
type mendRange struct {
	slot     int
	off, end int64
}

// wantMend has a range of a member mended.
func (c *Core) wantMend(i int, off, n int64) {
	if c.ended || c.draining || !c.members.has(i) {
		return
	}
	step := c.compareBlock()
	off, end := off/step*step, min((off+n+step-1)/step*step, c.p.Volume.Size)
	for ; off < end; off += c.t.Chunk - off%c.t.Chunk {
		r := mendRange{i, off, min(end, off+c.t.Chunk-off%c.t.Chunk)}
		for _, o := range c.mends {
			if o.slot == i && o.off <= r.off && r.end <= o.end {
				r.end = r.off
			}
		}
		if m := c.mending; m != nil && m.slot == i && m.at <= r.off && r.end <= m.end {
			r.end = r.off
		}
		if r.end > r.off && len(c.mends) < maxMends {
			c.mends = append(c.mends, r)
		}
	}
}

// pumpMend begins the next one.
func (c *Core) pumpMend() {
	if c.draining {
		c.mends = nil
	}
	for c.mending == nil && len(c.mends) > 0 && c.opened {
		r := c.mends[0]
		c.mends = c.mends[1:]
		if !c.members.has(r.slot) {
			continue
		}
		c.arrival++
		phys := int64(c.p.Physical)
		m := &mend{slot: r.slot, off: r.off, end: r.end, at: r.off}
		m.span = span{lo: r.off &^ (phys - 1), hi: (r.end + phys - 1) &^ (phys - 1), alone: true, order: c.arrival, mend: m}
		c.mending = m
		c.order.enter(&m.span)
		if m.span.blockers == 0 {
			c.ready.push(&m.span)
		}
	}
}

// beginMend begins it, or begins it again after it had to wait for a reconciliation.
func (c *Core) beginMend(m *mend) {
	s := &c.slots[m.slot]
	if c.ended || c.draining || !c.members.has(m.slot) || !s.up || s.failed {
		c.endMend(m)
		return
	}
	if !c.gate(m.off, m.end-m.off) {
		c.mendWaits = true
		return
	}
	seq, ok := c.mark(m.off, m.end-m.off, false)
	if !ok {
		c.mendWaits = true
		return
	}
	m.marked, m.seq = true, seq
	m.buf = block.Get(int(c.compareBlock()))
	c.probe(m)
}

func (c *Core) unparkMend() {
	if c.mendWaits {
		c.mendWaits = false
		c.beginMend(c.mending)
	}
}

func (m *mend) len(c *Core) int64 { return min(c.compareBlock(), m.end-m.at) }

// probe looks at the next block.
func (c *Core) probe(m *mend) {
	if m.at >= m.end {
		c.endMend(m)
		return
	}
	m.step, m.tried, m.absent = probing, bit(m.slot), false
	c.mendCall(m, m.slot, peer.Read)
}

func (c *Core) mendCall(m *mend, i int, kind peer.Kind) {
	k := c.send(i, forMend, kind)
	k.mend, k.Off, k.Len = m, m.at, m.len(c)
	if kind != peer.Zero {
		k.Data = m.buf[:k.Len]
	}
	if kind != peer.Read {
		k.Seq, k.Durable = m.seq, c.durable
	}
}

func (c *Core) mendAnswered(k *call, o outcome) {
	m, i := k.mend, int(k.slot)
	if c.ended || !c.members.has(m.slot) || o == lost && i == m.slot {
		c.endMend(m)
		return
	}
	switch {
	case m.step == probing && o == fine:
		m.at += m.len(c)
		c.probe(m)
	case m.step == storing && o == fine:
		c.noteMend(m, Mended, nil)
		for j := range c.slots { // others that could not read it either; only now, or two of them would look at each other for ever
			if j != m.slot && m.tried.has(j) {
				c.wantMend(j, m.at, m.len(c))
			}
		}
		m.at += m.len(c)
		c.probe(m)
	case m.step == storing: // full, or the disk does not take it: a member that cannot hold its bytes leaves, if there is another
		c.noteMend(m, MendFailed, k.Err)
		if o == medium {
			c.fail(m.slot, peer.ErrMedium)
		}
		c.endMend(m)
	case m.step == fetching && o == fine:
		m.step = storing
		kind := peer.Write
		if allZero(m.buf[:m.len(c)]) {
			kind = peer.Zero
		}
		c.mendCall(m, m.slot, kind)
	case o == lost:
		m.tried |= bit(i)
		m.absent = true
		c.fetch(m)
	default:
		m.tried |= bit(i)
		c.fetch(m)
	}
}

// fetch asks the next of the other members for the block. They are in sync, and no write overlaps: what they have is right.
func (c *Core) fetch(m *mend) {
	m.step = fetching
	from := c.sound(c.members &^ m.tried)
	if from != 0 {
		c.mendCall(m, lowest(from), peer.Read)
		return
	}
	if !m.absent && c.members&^m.tried == 0 {
		c.noteMend(m, Unreadable, nil)
		// The others have been asked: they need not ask this one.
		c.mends = deleteMends(c.mends, m.at, m.at+m.len(c))
	}
	m.at += m.len(c)
	c.probe(m)
}

// noteMend tells what has become of the block at m.at.
func (c *Core) noteMend(m *mend, code NoticeCode, err error) {
	if c.scrub != nil {
		switch code {
		case Mended:
			c.scrub.rep.Mended += m.len(c)
		case Unreadable:
			c.scrub.rep.Unreadable += m.len(c)
		}
	}
	if n := m.notice; n != nil && n.Code == code && n.Off+n.Len == m.at {
		n.Len += m.len(c)
		return
	}
	c.tellMend(m)
	n := &Notice{Code: code, Node: c.slots[m.slot].node, Off: m.at, Len: m.len(c), Err: err}
	for i := range c.slots {
		if code == Unreadable && c.members.has(i) {
			n.Nodes = append(n.Nodes, c.slots[i].node)
		}
	}
	m.notice = n
}

func (c *Core) tellMend(m *mend) {
	if m.notice != nil {
		c.report(*m.notice)
		m.notice = nil
	}
}

// deleteMends leaves out what is within a range.
func deleteMends(l []mendRange, off, end int64) []mendRange {
	keep := l[:0]
	for _, r := range l {
		if r.off < off || r.end > end {
			keep = append(keep, r)
		}
	}
	return keep
}

// endMend lets go of the range.
func (c *Core) endMend(m *mend) {
	c.tellMend(m)
	if m.marked {
		c.unmark(m.off, m.end-m.off)
	}
	block.Put(m.buf)
	m.buf = nil
	c.mending, c.mendWaits = nil, false
	c.order.leave(&m.span, &c.ready)
	c.rescan = true
}

// startSalvage goes on with a read that every member has failed: block by block, each from a member that can read it. Only what
// nobody can read is a medium error (16). It tells whether it could begin.
func (c *Core) startSalvage(p *part) bool {
	if p.salvage || p.q.op == mapOp || c.members.single() || p.len <= c.compareBlock() {
		return false
	}
	p.salvage, p.at, p.tried = true, p.off, 0
	return c.salvageNext(p)
}

// salvageLen is how far the block goes that is read next.
func (c *Core) salvageLen(p *part) int64 {
	step := c.compareBlock()
	return min(step-p.at%step, p.off+p.len-p.at)
}

// salvageNext reads the next block from a member that has not failed it. It is false if there is none in reach.
func (c *Core) salvageNext(p *part) bool {
	left := c.members &^ p.tried
	if left == 0 {
		c.failPart(p, block.ErrMedium)
		return true
	}
	from := c.sources(left)
	if from == 0 {
		p.salvage, p.tried = false, 0 // all of it again, when somebody is back
		return false
	}
	p.out++
	k := c.send(lowest(from), forPart, peer.Read)
	n := c.salvageLen(p)
	k.part, k.Off, k.Len, k.Data = p, p.at, n, p.data[p.at-p.off:][:n]
	return true
}

// salvaged is the answer to salvageNext. It tells whether the part is not to be parked.
func (c *Core) salvaged(p *part, i int, o outcome) bool {
	switch o {
	case fine:
		p.at += c.salvageLen(p)
		p.tried = 0
		if p.at >= p.off+p.len {
			c.ack(p)
			return true
		}
	case lost:
		p.salvage, p.tried = false, 0
		return false
	default:
		p.tried |= bit(i)
	}
	return c.salvageNext(p)
}

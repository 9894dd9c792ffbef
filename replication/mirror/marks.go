package mirror

import (
	"time"

	"pmsapp/replication/peer"
)

// region is one that is active, or dirty, or both: it is marked on some member (12).
type region struct {
	idx    uint32
	seq    peer.Seq // at or above every mark of it
	writes int      // sent and not answered by all targets
	last   time.Duration
	need   uint64   // the flush that has to end before its mark may be cleared
	clear  peer.Seq // named by the Clear under way; 0 if none

	dirty   bool // may differ between members: nothing is answered that depends on it (13)
	full    mask // members that were full when it became dirty: they are the source (16)
	zeros   bool // zeros win
	at      int64
	copies  int  // chunks under way
	again   bool // a chunk failed: start over when none is under way
	retryAt time.Duration
	failure error   // why nobody could reconcile it the last time
	blocks  bool    // somewhere in it nobody could read a chunk: it is reconciled block by block
	lost    []int64 // where the blocks begin that no member can read: their range is a medium error, and the mark stays

	list       *regionList
	prev, next *region
}

// regionList is a list of regions. A region is in at most one.
type regionList struct {
	head, tail *region
	n          int
}

func (l *regionList) pushFront(e *region) {
	e.list, e.prev, e.next = l, nil, l.head
	if l.head == nil {
		l.tail = e
	} else {
		l.head.prev = e
	}
	l.head = e
	l.n++
}

func (l *regionList) pushBack(e *region) {
	e.list, e.prev, e.next = l, l.tail, nil
	if l.tail == nil {
		l.head = e
	} else {
		l.tail.next = e
	}
	l.tail = e
	l.n++
}

func (e *region) unlink() {
	l := e.list
	if l == nil {
		return
	}
	if e.prev == nil {
		l.head = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.tail = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.list, e.prev, e.next = nil, nil, nil
	l.n--
}

// touched are the regions of a range.
func (c *Core) touched(off, n int64) (first, last uint32) {
	return uint32(off / c.p.Volume.Region), uint32((off + n - 1) / c.p.Volume.Region)
}

func (c *Core) newRegion(idx uint32) *region {
	e := c.free.regions
	if e == nil {
		e = new(region)
	} else {
		c.free.regions = e.next
	}
	*e = region{idx: idx}
	c.regions[idx] = e
	return e
}

// mark makes the regions of a write active and returns the Seq that it carries: a fresh one if any of them is clean or
// being cleared, else the lowest of theirs. It fails when far too many regions are active already. client says whose write it is.
func (c *Core) mark(off, n int64, client bool) (peer.Seq, bool) {
	first, last := c.touched(off, n)
	fresh := false
	var seq peer.Seq
	for i := first; i <= last; i++ {
		e := c.regions[i]
		if e == nil || e.clear == e.seq {
			fresh = true
			break
		}
		if seq == 0 || e.seq < seq {
			seq = e.seq
		}
	}
	if fresh {
		if len(c.regions) >= 2*c.t.HotRegions && (c.clearing.out > 0 || c.cache.under) {
			return 0, false
		}
		c.seq++
		seq = c.seq
	}
	if client {
		c.cooling.write(c.now)
	}
	for i := first; i <= last; i++ {
		e := c.regions[i]
		if client && (e == nil || e.clear == e.seq) {
			c.cooling.mark(i, c.now, e != nil)
		}
		if e == nil {
			e = c.newRegion(i)
			c.hot.pushFront(e)
		} else if e.list == &c.hot && c.hot.head != e {
			e.unlink()
			c.hot.pushFront(e)
		}
		e.seq = max(e.seq, seq)
		e.writes++
		e.last = c.now
	}
	return seq, true
}

// unmark says that a write is over.
func (c *Core) unmark(off, n int64) {
	first, last := c.touched(off, n)
	for i := first; i <= last; i++ {
		c.regions[i].writes--
	}
}

// spoil makes the regions of a write dirty that ended other than acknowledged (4).
func (c *Core) spoil(p *part) {
	if p.flush != 0 {
		return
	}
	first, last := c.touched(p.off, p.len)
	for i := first; i <= last; i++ {
		e := c.regions[i]
		if p.full != 0 {
			e.full |= p.full & c.members
			e.zeros = e.zeros || !(p.full & c.members).single()
		}
		c.makeDirty(e)
	}
}

// clearBatch is the one Clear that is under way. Its list is used again.
type clearBatch struct {
	out  int
	list []peer.RegionSeq
	next time.Duration // when cooling is looked at again
}

const (
	maxClear   = 256
	drainClear = 4096                   // a hand-over is to be short
	clearPause = 200 * time.Millisecond // so that regions that cool one by one share a Clear
)

// mayClear says whether a Clear may be sent: not before the members have recorded who misses what is cleared, nor beside a
// DropMissed, which relies upon what is written meanwhile staying active.
func (c *Core) mayClear() bool { return c.clearing.out == 0 && c.opened && !c.owing && c.dropping == 0 }

// pumpClear clears marks that have cooled, that are too many, or, in a drain, all.
func (c *Core) pumpClear() {
	b := &c.clearing
	if c.hot.n == 0 || !c.mayClear() {
		return
	}
	n := 0
	switch {
	case c.draining && c.live == 0:
		n = drainClear
	case c.hot.n > c.t.HotRegions:
		n = min(maxClear, c.hot.n-c.t.HotRegions+c.t.HotRegions/16)
	case c.hot.tail.last+c.cooling.pause <= c.now && c.now >= b.next:
		b.next = c.now + clearPause
	default:
		return
	}
	b.list = b.list[:0]
	for e, looked := c.hot.tail, 0; e != nil && looked < n+maxClear && len(b.list) < max(n, maxClear); looked++ {
		prev := e.prev
		cool := e.last+c.cooling.pause <= c.now
		if len(b.list) >= n && !cool {
			break
		}
		if e.need > c.cache.done {
			c.cache.soon = true
		} else if e.writes == 0 && e.clear == 0 && !e.dirty {
			e.clear = e.seq
			e.unlink()
			b.list = append(b.list, peer.RegionSeq{Region: e.idx, Seq: e.seq})
		}
		e = prev
	}
	if len(b.list) == 0 {
		b.next = c.now + clearPause // all of them are being written to: Next must not name a time that has passed
		return
	}
	to := c.reached(c.targets())
	for i := range c.slots {
		if !to.has(i) {
			continue
		}
		list := b.list
		if i == c.joiner {
			list = c.rs.clearable(list)
		}
		if len(list) > 0 {
			b.out++
			k := c.send(i, forClear, peer.Clear)
			k.Regions, k.Durable = list, c.durable
		}
	}
	if b.out == 0 {
		c.cleared()
	}
}

// clearAnswered counts. A Clear is best effort: a mark that stays costs a comparison after the next take-over.
func (c *Core) clearAnswered(k *call) {
	if k.rs != nil { // of a new member's old marks
		return
	}
	if c.clearing.out--; c.clearing.out == 0 {
		c.cleared()
	}
}

func (c *Core) cleared() {
	for _, r := range c.clearing.list {
		e := c.regions[r.Region]
		if e == nil || e.clear == 0 {
			continue
		}
		e.clear = 0
		switch {
		case e.dirty: // it is in another list
		case len(e.lost) > 0: // it is in none
		case e.seq == r.Seq && e.writes == 0:
			delete(c.regions, e.idx)
			c.cooling.cleared(e.idx, c.now)
			*e = region{next: c.free.regions}
			c.free.regions = e
		case e.list == nil:
			c.hot.pushFront(e)
		}
	}
	c.clearing.list = c.clearing.list[:0]
	c.rescan = true
}

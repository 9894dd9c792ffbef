package mirror

import (
	"time"

	"pmsapp/replication/peer"
)

// foundActive makes a region dirty that a member has marked (13).
func (c *Core) foundActive(r peer.RegionSeq) {
	if int64(r.Region)*c.p.Volume.Region >= c.p.Volume.Size {
		return // not of this volume; harmless
	}
	e := c.regions[r.Region]
	if e == nil {
		e = c.newRegion(r.Region)
	}
	e.seq = max(e.seq, r.Seq, 1)
	e.need = c.cache.need // what a survivor of the last reign has of it may be in its memory only
	c.seq = max(c.seq, e.seq)
	c.makeDirty(e)
}

// makeDirty makes a region wait for its reconciliation.
func (c *Core) makeDirty(e *region) {
	e.again = e.copies > 0
	e.at = 0
	if e.dirty {
		return
	}
	e.dirty = true
	e.failure, e.retryAt, e.blocks = nil, 0, false
	c.found(e)
	e.unlink()
	c.backlog.pushBack(e)
}

// gate says whether no region of a range is dirty. Those that are go to the front.
func (c *Core) gate(off, n int64) bool {
	if c.demand.n+c.backlog.n == 0 {
		return true
	}
	free := true
	first, last := c.touched(off, n)
	for i := first; i <= last; i++ {
		if e := c.regions[i]; e != nil && e.dirty {
			free = false
			if e.list == &c.backlog {
				e.unlink()
				c.demand.pushBack(e)
			}
		}
	}
	return free
}

// pumpReconcile begins the next chunks: of regions that somebody waits for, then of the others. It needs every member in
// reach: only then is the fate of dead writes settled everywhere (4).
func (c *Core) pumpReconcile() {
	if !c.opened || c.demand.n+c.backlog.n == 0 {
		return
	}
	union := c.union()
	if c.sound(union) != union || c.prop.active && !c.prop.add {
		return
	}
	for c.copying < c.t.Reconcilers {
		alone := c.targets().single()
		e := c.nextDirty(alone)
		if e == nil {
			return
		}
		if alone {
			c.found(e)
			c.reconciled(e) // nothing to compare with
			continue
		}
		off := int64(e.idx)*c.p.Volume.Region + e.at
		n := min(c.t.Chunk, c.regionEnd(e)-off)
		if step := c.compareBlock(); e.blocks {
			n = min(step-off%step, n)
		}
		e.at += n
		e.copies++
		c.copying++
		k := &copier{kind: reconciling, reg: e, off: off, len: n, targets: c.targets(), seq: e.seq}
		c.readCopies(k, k.targets)
	}
}

func (c *Core) regionEnd(e *region) int64 {
	return min(int64(e.idx+1)*c.p.Volume.Region, c.p.Volume.Size)
}

func (c *Core) chunksLeft(e *region) bool {
	return int64(e.idx)*c.p.Volume.Region+e.at < c.regionEnd(e)
}

// nextDirty is the next region of which a chunk can be begun: no client's I/O in it is under way, nor a resync's copy.
func (c *Core) nextDirty(alone bool) *region {
	lists := [2]*regionList{&c.demand, &c.backlog}
	for _, l := range lists {
		if l == &c.backlog && c.draining {
			break
		}
		for e := l.head; e != nil; e = e.next {
			if alone && e.copies > 0 {
				continue // begun when there were others
			}
			if e.writes == 0 && !e.again && e.retryAt <= c.now && c.chunksLeft(e) && !c.copiedNow(e) && !c.readNow(e) {
				return e
			}
		}
	}
	return nil
}

// readNow says that a read of a region is under way that began before the region was dirty (3).
func (c *Core) readNow(e *region) bool {
	return c.order.any(int64(e.idx)*c.p.Volume.Region, c.regionEnd(e), func(s *span) bool {
		if s.req == nil {
			return false
		}
		for p := s.req.parts.head; p != nil; p = p.next {
			if first, last := c.touched(p.off, p.len); p.out > 0 && first <= e.idx && e.idx <= last {
				return true
			}
		}
		return false
	})
}

// chunkDone goes on with a region after a chunk; err is nil, errAgain, or why it cannot be done now.
func (c *Core) chunkDone(e *region, err error) {
	e.copies--
	c.copying--
	if c.ended {
		return
	}
	switch {
	case err == errAgain:
		e.again = true
	case err != nil:
		e.again = true
		e.failure = err
	}
	if e.copies > 0 {
		return
	}
	switch {
	case e.failure != nil:
		c.reconcileFailed(e)
	case e.again:
		e.again, e.at = false, 0
		c.found(e)
	case !c.chunksLeft(e):
		c.reconciled(e)
	}
}

// reconciled lets requests into a region again. Its mark is cleared soon.
func (c *Core) reconciled(e *region) {
	e.dirty, e.full, e.zeros, e.at, e.again = false, 0, false, 0, false
	e.unlink()
	e.last = c.now - c.t.CoolMost // whatever the pause is then
	if len(e.lost) > 0 {
		c.tellLost(e)
	} else if e.clear == 0 {
		c.hot.pushBack(e)
	}
	c.rescan = true
	if c.announced && c.demand.n+c.backlog.n == 0 {
		c.announced = false
		c.report(Notice{Code: ReconcileDone})
	}
}

// reconcilePause is how long a region is left alone that nobody could reconcile.
const reconcilePause = time.Second

// reconcileFailed ends what waits for a region that has no space. The region stays dirty.
func (c *Core) reconcileFailed(e *region) {
	err := e.failure
	c.report(Notice{Code: ReconcileFailed, Off: int64(e.idx) * c.p.Volume.Region, Err: err})
	e.failure, e.again, e.at = nil, false, 0
	c.found(e)
	e.retryAt = c.now + reconcilePause
	c.retryAt = e.retryAt
	e.unlink()
	c.backlog.pushBack(e)
	for n := c.parked.n; n > 0 && c.parked.head != nil; n-- {
		p := c.parked.head
		c.parked.remove(p)
		p.parked = false
		if first, last := c.touched(p.off, p.len); first <= e.idx && e.idx <= last {
			c.failPart(p, err)
		} else {
			c.park(p)
		}
	}
}

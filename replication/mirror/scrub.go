package mirror

import (
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// ScrubOrder says how to scrub.
type ScrubOrder struct {
	Rate    int64     // bytes of the volume in a second
	Now     time.Time // the clock of the report
	Request string    // the command that the scrub answers, "" if it begins by itself
}

// ScrubReport is what a scrub has found. Blocks are of 4096 bytes, or a largest physical block.
type ScrubReport struct {
	Began      time.Time // nothing was read before
	Ended      time.Time // nothing was read after; zero while it is under way
	Request    string    // as in ScrubOrder
	Bytes      int64     // read, over all replicas
	Mended     int64     // bytes that a replica could not read, or that differed from their checksums, and were written anew
	Unreadable int64     // bytes that no replica can read
	Differing  int64     // bytes that were proved on each replica and yet not the same; they were made equal
	Seconds    float64
	Stopped    error // why it ended before the end, or nil
}

// ScrubStatus is the progress of a scrub.
type ScrubStatus struct {
	Done   int64 // bytes looked at, of Total
	Total  int64
	Report ScrubReport // so far
}

// scrub reads what is allocated on every member, proves it, and compares the sums between them (16). One chunk at a time: its
// range is kept from writes meanwhile, as that of a resync's copy is. What a member cannot prove is mended, what
// differs between members makes its region dirty: the reconciliation compares the data and makes them equal.
type scrub struct {
	rate   int64 // bytes of the volume in a second
	cursor int64
	begin  int64 // of the window; the volume may have grown behind the one before
	end    int64
	asked  int
	failed bool
	chunks []bool
	chunk  *scrubChunk
	twice  int64         // where the chunk ended that was looked at again, after it was mended
	at     time.Duration // not before
	began  time.Duration
	rep    ScrubReport
}

type scrubChunk struct {
	sc       *scrub
	off, len int64
	span     span
	from     mask
	out      int
	lost     bool
	bad      bool
	sums     [maxSlots][]uint32
}

const (
	// scrubWindow is how far extents are looked up at a time.
	scrubWindow = 64 << 20
	scrubRetry  = time.Second
)

// StartScrub begins a scrub in the background. Scrubbed tells its end. It returns ErrBusy if one is under way, or in a drain.
func (c *Core) StartScrub(o ScrubOrder) error {
	if c.ended || c.draining || c.scrub != nil || o.Rate <= 0 {
		return ErrBusy
	}
	c.scrub = &scrub{rate: o.Rate, at: c.now, began: c.now, rep: ScrubReport{Began: o.Now, Request: o.Request}}
	c.run()
	return nil
}

// StopScrub ends it.
func (c *Core) StopScrub() {
	c.endScrub(ErrStopped)
	c.run()
}

func (c *Core) endScrub(why error) {
	sc := c.scrub
	if sc == nil {
		return
	}
	c.scrub = nil
	if k := c.scrubWaits; k != nil { // the next scrub's may wait, too
		c.scrubWaits = nil
		c.endChunk(k)
	}
	rep := c.scrubReport(sc)
	rep.Stopped, rep.Ended = why, rep.Began.Add(c.now-sc.began)
	if why == nil {
		c.scrubbed = &rep // never changed from here on
	}
	c.report(Notice{Code: Scrubbed, Scrub: &rep})
}

// pumpScrub does the next step.
func (c *Core) pumpScrub() {
	sc := c.scrub
	if sc == nil || !c.opened {
		return
	}
	if c.draining {
		c.endScrub(ErrStopped)
		return
	}
	// What was found is mended first: the list of ranges has a bound.
	if sc.chunk != nil || sc.asked > 0 || c.now < sc.at || c.mending != nil || len(c.mends) > 0 {
		return
	}
	for sc.cursor < sc.end {
		off := sc.cursor
		i := (off - sc.begin) / c.t.Chunk
		n := min(c.t.Chunk, sc.end-off)
		sc.cursor += n
		if sc.chunks[i] {
			if !c.may(ForScrub, n) {
				sc.cursor = off
				return
			}
			c.scrubRange(sc, off, n)
			return
		}
	}
	if sc.cursor >= c.p.Volume.Size {
		c.endScrub(nil)
		return
	}
	c.scrubLookUp(sc)
}

// scrubLookUp asks every member in reach what is allocated in the next window.
func (c *Core) scrubLookUp(sc *scrub) {
	from := c.sound(c.members)
	if from == 0 {
		sc.at = c.now + scrubRetry
		return
	}
	n := min(scrubWindow, c.p.Volume.Size-sc.cursor)
	sc.chunks = make([]bool, (n+c.t.Chunk-1)/c.t.Chunk)
	sc.failed = false
	for i := range c.slots {
		if from.has(i) {
			sc.asked++
			k := c.send(i, forScrub, peer.Extents)
			k.scrub, k.Off, k.Len = sc, sc.cursor, n
		}
	}
}

// scrubRange queues a chunk for its range.
func (c *Core) scrubRange(sc *scrub, off, n int64) {
	phys := int64(c.p.Physical)
	c.arrival++
	k := &scrubChunk{sc: sc, off: off, len: n}
	k.span = span{lo: off &^ (phys - 1), hi: (off + n + phys - 1) &^ (phys - 1), order: c.arrival, scrub: k}
	sc.chunk = k
	c.order.enter(&k.span)
	if k.span.blockers == 0 {
		c.ready.push(&k.span)
	}
}

// beginScrub reads a chunk, or waits for a reconciliation.
func (c *Core) beginScrub(k *scrubChunk) {
	if k.sc != c.scrub || c.ended {
		c.endChunk(k)
		return
	}
	if !c.gate(k.off, k.len) {
		c.scrubWaits = k
		return
	}
	k.from = c.sound(c.members)
	for i := range c.slots {
		if k.from.has(i) {
			k.out++
			p := c.send(i, forScrub, peer.Sums)
			p.scrub, p.Off, p.Len = k.sc, k.off, k.len
		}
	}
	if k.out == 0 {
		c.scrubAgain(k)
	}
}

func (c *Core) unparkScrub() {
	if k := c.scrubWaits; k != nil {
		c.scrubWaits = nil
		c.beginScrub(k)
	}
}

func (c *Core) scrubAnswered(p *call, o outcome) {
	sc, i := p.scrub, int(p.slot)
	if p.Kind == peer.Extents {
		c.scrubExtents(sc, p, o)
		return
	}
	k := sc.chunk
	k.out--
	switch {
	case o == lost || !c.members.has(i):
		k.lost = true
	case o != fine:
		c.report(Notice{Code: MediumError, Node: c.slots[i].node, Off: k.off, Len: k.len, Err: p.Err})
		c.wantMend(i, k.off, k.len)
		k.bad = true
	default:
		k.sums[i] = p.Sums
	}
	if k.out > 0 {
		return
	}
	if sc != c.scrub || c.ended {
		c.endChunk(k)
		return
	}
	if k.lost {
		c.scrubAgain(k)
		return
	}
	if end := k.off + k.len; k.bad && sc.twice != end { // what could not be proved was not compared
		sc.twice = end
		sc.cursor = k.off
		c.endChunk(k)
		return
	}
	sc.rep.Bytes += k.len * int64(count(k.from))
	c.compareSums(k)
	sc.at = c.now + time.Duration(float64(k.len)/float64(sc.rate)*float64(time.Second))
	c.endChunk(k)
}

func (c *Core) scrubExtents(sc *scrub, p *call, o outcome) {
	sc.asked--
	if o != fine {
		sc.failed = true
	}
	for _, x := range p.Extents {
		lo, hi := max(x.Off, p.Off), min(x.Off+x.Len, p.Off+p.Len)
		for at := (lo - p.Off) / c.t.Chunk; lo < hi && at*c.t.Chunk < hi-p.Off; at++ {
			sc.chunks[at] = true
		}
	}
	switch {
	case sc.asked > 0 || sc != c.scrub:
	case sc.failed:
		sc.at = c.now + scrubRetry
	default:
		sc.begin, sc.end = p.Off, p.Off+p.Len
	}
}

// scrubAgain does a chunk again later, with those who are in reach then.
func (c *Core) scrubAgain(k *scrubChunk) {
	k.sc.cursor = k.off
	k.sc.at = c.now + scrubRetry
	c.endChunk(k)
}

func (c *Core) endChunk(k *scrubChunk) {
	k.sc.chunk = nil
	c.order.leave(&k.span, &c.ready)
}

// compareSums looks for blocks that are proved on two members and not the same. No write of them was under way on any.
func (c *Core) compareSums(k *scrubChunk) {
	first := -1
	var nodes []ids.Node
	for i := range c.slots {
		if k.sums[i] == nil {
			continue
		}
		nodes = append(nodes, c.slots[i].node)
		if first < 0 {
			first = i
		}
	}
	if first < 0 {
		return
	}
	var n Notice
	var again []int64 // to be reconciled
	for b := range k.sums[first] {
		if at := k.off + int64(b)*sumBlock; c.lost > 0 && c.isLost(at, min(sumBlock, k.off+k.len-at), false) {
			again = append(again, at) // no member could read it, and they may well differ: now they can
			continue
		}
		differs := false
		for i := range c.slots {
			differs = differs || k.sums[i] != nil && (b >= len(k.sums[i]) || k.sums[i][b] != k.sums[first][b])
		}
		if !differs {
			continue
		}
		off := k.off + int64(b)*sumBlock
		end := min(off+sumBlock, k.off+k.len)
		k.sc.rep.Differing += end - off
		if n.Len == 0 {
			n = Notice{Code: Differ, Off: off, Nodes: nodes}
		}
		n.Len = end - n.Off
		again = append(again, off)
	}
	for _, off := range again {
		c.differs(off)
	}
	if n.Len > 0 {
		c.report(n)
	}
}

// sumBlock is what peer.Sums answers one sum for.
const sumBlock = 4096

// differs makes the region of a block dirty.
func (c *Core) differs(off int64) {
	idx, _ := c.touched(off, 1)
	e := c.regions[idx]
	if e == nil {
		e = c.newRegion(idx)
	}
	c.seq++
	e.seq = c.seq // a fresh one: what is copied is marked first (12)
	c.makeDirty(e)
}

func count(m mask) (n int) {
	for ; m != 0; m &= m - 1 {
		n++
	}
	return n
}

func (c *Core) scrubStatus() *ScrubStatus {
	sc := c.scrub
	if sc == nil {
		return nil
	}
	return &ScrubStatus{Done: sc.cursor, Total: c.p.Volume.Size, Report: c.scrubReport(sc)}
}

// scrubReport is the report so far.
func (c *Core) scrubReport(sc *scrub) ScrubReport {
	rep := sc.rep
	rep.Seconds = (c.now - sc.began).Seconds()
	return rep
}

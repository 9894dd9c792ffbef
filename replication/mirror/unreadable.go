package mirror

import (
	"fmt"
	"slices"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// piece is a part of a chunk that no member can read as a whole.
type piece struct{ off, len int64 }

// lostBlocks is what a resync has found that no member can read. It is the error with which it ends: the joiner may have something else
// there, which must not be read one day instead of an error. All the rest it has by then, and the members know that.
type lostBlocks struct {
	n       int64           // bytes
	first   int64           // of them
	regions map[uint32]bool // in which they are: they stay missed
}

func (l *lostBlocks) Error() string {
	return fmt.Sprintf("%d bytes that no replica can read, the first at %d; all else is copied, and it joins when they have been written anew", l.n, l.first)
}

func (l *lostBlocks) Is(t error) bool { return t == peer.ErrMedium }

// nobodyReads goes on behind a copy of which every member has failed a read: in blocks, so that only those are left out that are
// bad everywhere.
func (c *Core) nobodyReads(k *copier) {
	rs, step := k.rs, c.compareBlock()
	switch {
	case k.kind == sealing && k.off+k.len < min(c.p.Volume.Size, 64*step): // any block will do
		c.copyChunk(rs, sealing, k.off+k.len, min(step, c.p.Volume.Size-k.off-k.len))
	case k.kind == sealing:
		c.abortResync(peer.ErrMedium)
	case k.len > step:
		for at := k.off; at < k.off+k.len; {
			n := min(step-at%step, k.off+k.len-at)
			rs.pieces = append(rs.pieces, piece{at, n})
			at += n
		}
	default:
		if rs.lost.n == 0 {
			rs.lost.first, rs.lost.regions = k.off, map[uint32]bool{}
		}
		rs.lost.n += k.len
		first, last := c.touched(k.off, k.len)
		for r := first; r <= last; r++ {
			rs.lost.regions[r] = true
		}
	}
	c.copyDone(k, ErrStopped)
}

// nextPiece begins the copy of the next block of a chunk.
func (c *Core) nextPiece(rs *resync) {
	p := rs.pieces[0]
	rs.pieces = rs.pieces[1:]
	c.copyChunk(rs, resyncing, p.off, p.len)
}

// nobodyReconciles goes on behind a chunk of a dirty region of which every member has failed a read: the region is reconciled
// block by block, and a block that is bad everywhere is lost. A joiner may have something else there: it does not join.
func (c *Core) nobodyReconciles(k *copier) {
	e := k.reg
	if k.len > c.compareBlock() {
		e.blocks = true
		c.copyDone(k, errAgain)
		return
	}
	if c.joiner >= 0 {
		c.abortResync(peer.ErrMedium)
	}
	e.lost = append(e.lost, k.off)
	c.lost++
	c.copyDone(k, nil)
}

// tellLost names what is lost of a region that has been reconciled for the rest.
func (c *Core) tellLost(e *region) {
	slices.Sort(e.lost)
	var members []ids.Node
	for i := range c.slots {
		if c.members.has(i) {
			members = append(members, c.slots[i].node)
		}
	}
	step := c.compareBlock()
	for i := 0; i < len(e.lost); {
		n := Notice{Code: Unreadable, Node: members[0], Nodes: members, Off: e.lost[i]}
		for ; i < len(e.lost) && e.lost[i] == n.Off+n.Len; i++ {
			n.Len += min(step, c.p.Volume.Size-e.lost[i])
		}
		c.report(n)
	}
}

// isLost says whether a range touches a block that is lost; with partly, whether it touches but a part of one.
func (c *Core) isLost(off, n int64, partly bool) bool {
	step := c.compareBlock()
	first, last := c.touched(off, n)
	for i := first; i <= last; i++ {
		e := c.regions[i]
		if e == nil {
			continue
		}
		for _, at := range e.lost {
			end := min(at+step, c.p.Volume.Size)
			if off < end && at < off+n && (!partly || at < off || off+n < end) {
				return true
			}
		}
	}
	return false
}

// rewritten says that a write is on every member: what it covers is lost no longer.
func (c *Core) rewritten(off, n int64) {
	if c.lost == 0 {
		return
	}
	first, last := c.touched(off, n)
	for i := first; i <= last; i++ {
		e := c.regions[i]
		if len(e.lost) == 0 {
			continue
		}
		was := len(e.lost)
		e.lost = slices.DeleteFunc(e.lost, func(at int64) bool { return off <= at && at < off+n })
		c.lost -= was - len(e.lost)
		if len(e.lost) == 0 && e.list == nil && e.clear == 0 {
			c.hot.pushFront(e)
		}
	}
}

// found forgets what was lost of a region: it is looked at again.
func (c *Core) found(e *region) {
	c.lost -= len(e.lost)
	e.lost = nil
}

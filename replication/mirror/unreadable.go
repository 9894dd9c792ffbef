package mirror

import (
	"fmt"

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

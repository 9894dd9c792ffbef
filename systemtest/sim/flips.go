package sim

import (
	"bytes"
	"slices"

	"pmsapp/replication/truth"
)

// flips are the blocks of a replica in which bits have flipped. A checksum says so (invariant 16), or, in a region that was
// active when the process ended, only hints at it: then it may as well be an unfinished write.
type flips struct {
	blocks map[int64]*flip
	hinted map[span]int // reads that failed for a hint alone: the same again gets what there is
}

type span struct{ off, n int64 }

type flip struct {
	was, is []byte // a sector
	at      int64  // its offset
	void    bool   // the sum is void
	// under says that it was written over in memory only: no read sees it, but it is on the media, and a power loss may bring it back.
	under bool
}

func newFlips() flips { return flips{blocks: map[int64]*flip{}, hinted: map[span]int{}} }

// flipBits flips a bit of a block that an in-sync replica of the node has, and others have too. One volume and replica at a
// time: who holds the only good copy must not lose it.
func (c *Cluster) flipBits(n *node) {
	for _, p := range n.pools {
		vol := c.w.Rand.Intn(len(c.volIDs))
		v, r := c.trueVolume(vol), p.replicas[c.volIDs[vol]]
		if v == nil || r == nil || !memberPool(v, p.id) || len(v.InSync) < 2 || c.flipped(v, r) || c.joins() {
			continue
		}
		for _, w := range r.writing {
			if w > 0 {
				return // its flush knows the bytes already
			}
		}
		for range 1 + c.w.Rand.Intn(4) {
			b := int64(c.plan.hot[c.w.Rand.Intn(len(c.plan.hot))] + c.w.Rand.Intn(4))
			at := b*blockSize + 512*int64(c.w.Rand.Intn(blockSize/512))
			if b*blockSize >= v.Size || r.flips.blocks[b] != nil {
				continue
			}
			f := &flip{at: at, was: slices.Clone(r.data.Read(at, 512))}
			f.is = slices.Clone(f.was)
			f.is[c.w.Rand.Intn(512)] ^= 1 << c.w.Rand.Intn(8)
			r.flips.blocks[b] = f
			r.put(at, f.is)
			c.trace(n.host, "block %d of volume %d: a bit flips", b, vol)
			c.stats["bits that were flipped"]++
		}
		if len(r.marks) > 0 && c.w.Rand.Chance(0.3) { // and then nobody knows which sums are right
			for _, x := range c.nodes {
				c.crash(x, c.w.Rand.Chance(0.3))
			}
			return
		}
	}
}

// flipped tells whether another replica of the volume has flipped bits.
func (c *Cluster) flipped(v *truth.Volume, but *simReplica) bool {
	for _, n := range c.nodes {
		for _, p := range n.pools {
			if r := p.replicas[v.ID]; r != nil && r != but && len(r.flips.blocks) > 0 {
				return true
			}
		}
	}
	return false
}

// put changes bytes past everything.
func (r *simReplica) put(at int64, b []byte) {
	copy(r.data.Read(at, int64(len(b))), b)
	copy(r.data.Durable(at, int64(len(b))), b)
}

// within are the flipped blocks of a range.
func (r *simReplica) within(off, n int64) (out []int64) {
	for b := range r.flips.blocks {
		if b*blockSize < off+n && off < (b+1)*blockSize {
			out = append(out, b)
		}
	}
	slices.Sort(out)
	return out
}

// heal puts blocks right that still are as they were flipped.
func (r *simReplica) heal(blocks []int64) {
	for _, b := range blocks {
		f := r.flips.blocks[b]
		if bytes.Equal(r.data.Read(f.at, 512), f.is) {
			r.put(f.at, f.was)
		} else if r.stays(f) {
			copy(r.data.Durable(f.at, 512), f.was)
		}
		delete(r.flips.blocks, b)
	}
}

// stays tells whether a flip is on the media.
func (r *simReplica) stays(f *flip) bool { return bytes.Equal(r.data.Durable(f.at, 512), f.is) }

// voidSums is the end of the process: of active regions the sums only hint.
func (n *node) voidSums() {
	for _, p := range n.pools {
		for _, r := range p.replicas {
			clear(r.flips.hinted)
			for b, f := range r.flips.blocks {
				if r.marks[uint32(b*blockSize/r.spec.Region)] != 0 {
					f.void = true
				}
			}
		}
	}
}

// refuses tells whether a read is a medium error for its sums.
func (r *simReplica) refuses(c *Cluster, off, n int64, proved bool) bool {
	bad := slices.DeleteFunc(r.within(off, n), func(b int64) bool { return r.flips.blocks[b].under })
	if len(bad) == 0 || c.breaks(BreakSums) {
		return false
	}
	var void []int64
	for _, b := range bad {
		if !r.flips.blocks[b].void {
			return true
		}
		void = append(void, b)
	}
	at := span{off, n}
	switch {
	case proved && c.breaks(BreakHints):
	case proved:
		c.stats["reads that a hint refused"]++
		r.flips.hinted[at]++
		return true
	case r.flips.hinted[at] > 0:
		r.flips.hinted[at]--
	default:
		// A sole member, read without having been compared: nobody could tell. That damage is not simulated.
		r.heal(void)
	}
	return false
}

// written says that a command has written its range, durably or in memory only.
func (r *simReplica) written(off, n int64, volatile bool) {
	for _, b := range r.within(off, n) {
		switch {
		case b*blockSize < off || (b+1)*blockSize > off+n:
		case volatile:
			r.flips.blocks[b].under = true
		default:
			delete(r.flips.blocks, b)
		}
	}
}

// flushed says that a flush has ended well: what it has written over is gone.
func (r *simReplica) flushed() {
	for b, f := range r.flips.blocks {
		if f.under && !r.stays(f) {
			delete(r.flips.blocks, b)
		}
	}
}

// reloaded says that reads see what is on the media: flips that were under what was in memory come back with it. The sums there are of before
// the writes that were lost, or of after them, and fit the flipped bytes in neither case; the region is active, so they only hint.
func (r *simReplica) reloaded() {
	r.flushed()
	for _, f := range r.flips.blocks {
		f.void = f.void || f.under
		f.under = false
	}
}

// cleaned says that a region is clean: what was void in it is believed from then on.
func (r *simReplica) cleaned(region uint32) {
	for _, b := range r.within(int64(region)*r.spec.Region, r.spec.Region) {
		if r.flips.blocks[b].void {
			r.heal([]int64{b})
		}
	}
}

// healAll ends the fault.
func (c *Cluster) healAll() {
	for _, n := range c.nodes {
		for _, p := range n.pools {
			for _, r := range p.replicas {
				r.heal(r.within(0, r.spec.Size))
			}
		}
	}
}

// proper is the durable bytes of a range as if no bit had flipped.
func (r *simReplica) proper(off, n int64) []byte {
	return r.unflipped(r.data.Durable(off, n), off, n)
}

// unflipped is bytes of a range as if no bit had flipped.
func (r *simReplica) unflipped(b []byte, off, n int64) []byte {
	bad := r.within(off, n)
	if len(bad) == 0 {
		return b
	}
	b = slices.Clone(b)
	for _, i := range bad {
		if f := r.flips.blocks[i]; f.at >= off && f.at < off+n && bytes.Equal(b[f.at-off:f.at-off+512], f.is) {
			copy(b[f.at-off:], f.was)
		}
	}
	return b
}

// anyTainted tells whether a replica of the volume is of a pool that was reverted.
func (c *Cluster) anyTainted(vol int) bool {
	for t := range c.tainted {
		if t.vol == vol {
			return true
		}
	}
	return false
}

package mirror

import (
	"bytes"
	"time"

	"pmsapp/internal/block"
	"pmsapp/replication/peer"
)

// scan begins the chunks of a window, while the extents of the next one are looked up.
func (c *Core) scan(rs *resync) {
	for {
		for len(rs.pieces) > 0 {
			if len(rs.active) > 0 {
				return
			}
			c.nextPiece(rs)
		}
		if rs.now != nil && !c.scanWindow(rs, rs.now) {
			c.lookAhead(rs)
			return
		}
		c.lookAhead(rs)
		switch w := rs.next; {
		case w.base >= c.p.Volume.Size:
			rs.cursor = w.base
			if len(rs.active) > 0 {
				return
			}
			if rs.lost.n > 0 {
				c.abortResync(&rs.lost)
				return
			}
			// From here on every write waits for the joiner; those before, that did not, are waited for.
			rs.phase = waitAcked
			c.required = true
			c.barrier()
			c.rescan = true
			return
		case !w.known:
			return
		default:
			rs.cursor, rs.now, rs.next = w.base, w, nil
		}
	}
}

// scanWindow begins chunks, and tells whether all of the window's have begun.
func (c *Core) scanWindow(rs *resync, w *window) bool {
	for rs.cursor < w.end && c.mayCopy(rs) {
		is := w.chunks[(rs.cursor-w.base)/c.t.Chunk]
		n := min(c.t.Chunk, w.end-rs.cursor)
		off := rs.cursor
		if is != hole {
			if !c.may(ForResync, n) {
				return false
			}
			c.copyChunk(rs, resyncing, off, n).reserved = is == reserved
		}
		rs.cursor += n
		rs.looked += n
		rs.meter.add(c.now, rs.looked, rs.total)
	}
	return rs.cursor >= w.end
}

// A volume whose last request was less than busyAfter ago is about to have the next; after idleAfter it is idle.
const (
	busyAfter = 10 * time.Millisecond
	idleAfter = time.Second
)

// mayCopy: what copies have under way is what a client's next request waits behind.
func (c *Core) mayCopy(rs *resync) bool {
	most := c.t.Resyncers
	switch {
	case c.live > 0:
		most = 1
	case c.now-c.askedAt < busyAfter:
		most = min(most, 2)
	case c.now-c.askedAt < idleAfter:
		most = max(most/2, 1)
	}
	return len(rs.active) < most
}

// copyChunk queues a copy for its range.
func (c *Core) copyChunk(rs *resync, kind copyKind, off, n int64) *copier {
	k := &copier{kind: kind, rs: rs, off: off, len: n}
	rs.active = append(rs.active, k)
	phys := int64(c.p.Physical)
	c.arrival++
	// It reads what clients read, and writes what they do not: it keeps only writes away.
	k.span = span{lo: off &^ (phys - 1), hi: (off + n + phys - 1) &^ (phys - 1), order: c.arrival, copy: k}
	c.order.enter(&k.span)
	if k.span.blockers == 0 {
		c.ready.push(&k.span)
	}
	return k
}

// beginCopy begins, or begins again, a copy whose range is free.
func (c *Core) beginCopy(k *copier) {
	if k.rs != c.rs {
		c.copyDone(k, ErrStopped)
		return
	}
	from := c.sound(c.members &^ k.bad)
	if from == 0 && c.members&^k.bad == 0 {
		c.nobodyReads(k)
		return
	}
	if from == 0 || !c.gate(k.off, k.len) {
		c.waiting.push(k)
		return
	}
	k.lost, k.read, k.writing = 0, 0, false
	m := bit(lowest(from))
	if k.kind == resyncing && !k.rs.empty {
		m |= bit(k.rs.slot)
	}
	k.targets = m
	c.readCopies(k, m)
}

func (c *Core) unparkCopies() {
	k := c.waiting
	c.waiting = copierList{}
	for k.head != nil {
		c.beginCopy(k.pop())
	}
	c.unparkMend()
	c.unparkScrub()
}

func (c *Core) resyncRead(k *copier) {
	rs := k.rs
	if rs != c.rs {
		c.copyDone(k, ErrStopped)
		return
	}
	if k.lost.has(rs.slot) && c.abortResync(peer.ErrLost) {
		c.copyDone(k, ErrStopped)
		return
	}
	got := k.read & c.members
	if got == 0 {
		c.beginCopy(k) // from another member
		return
	}
	k.writing = true
	want := k.bufs[lowest(got)]
	have, known := k.bufs[rs.slot], !rs.empty && !k.bad.has(rs.slot) // what it cannot read is written anew
	if rs.empty {                                                    // there is nothing but zeros, and what was sent to it as well
		have, known = block.Get(len(want)), true
		clear(have)
	}
	if k.kind == sealing || k.reserved && allZero(want) { // which gives the space back
		known = false
	}
	if known && bytes.Equal(have, want) {
		if rs.empty {
			block.Put(have)
		}
		c.copyDone(k, nil)
		return
	}
	if !c.markCopy(k) {
		if rs.empty {
			block.Put(have)
		}
		c.waiting.push(k)
		return
	}
	c.writeDiffering(k, rs.slot, want, have, known)
	if rs.empty {
		block.Put(have)
	}
}

// markCopy gives a copy its Seq: like that of a write, and the seal's is always fresh.
func (c *Core) markCopy(k *copier) bool {
	seq, ok := c.mark(k.off, k.len, false)
	if !ok {
		return false
	}
	if k.kind == sealing {
		c.seq++
		seq = c.seq
		first, last := c.touched(k.off, k.len)
		for i := first; i <= last; i++ {
			c.regions[i].seq = seq
		}
	}
	k.seq = seq
	return true
}

func (c *Core) resyncWritten(k *copier) {
	rs := k.rs
	c.unmark(k.off, k.len)
	if rs != c.rs {
		c.copyDone(k, ErrStopped)
		return
	}
	rs.copied += k.copied
	if bad := k.lost | k.medium | k.full; bad != 0 {
		err := peer.ErrLost
		switch {
		case k.full != 0:
			err = peer.ErrNoSpace
		case k.medium != 0:
			err = peer.ErrMedium
		}
		c.abortResync(err)
		c.copyDone(k, ErrStopped)
		return
	}
	c.copyDone(k, nil)
}

// chunkCopied lets go of the range of a copy for the joiner.
func (c *Core) chunkCopied(k *copier, err error) {
	c.order.leave(&k.span, &c.ready)
	rs := k.rs
	for i, a := range rs.active {
		if a == k {
			rs.active = append(rs.active[:i], rs.active[i+1:]...)
			break
		}
	}
	if rs == c.rs && err == nil && k.kind == sealing {
		rs.phase = joining
	}
}

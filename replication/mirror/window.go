package mirror

import "pmsapp/replication/peer"

// window is a range of which a resync looks up what there is to copy. There are two: the one that is copied, and the next.
type window struct {
	base, end int64
	asked     int  // extents under way
	failed    bool // one of them: ask again
	known     bool
	chunks    []chunkIs
}

// chunkIs is what was found of a chunk.
type chunkIs uint8

const (
	hole     chunkIs = iota // on source and joiner
	data                    // to be looked at
	reserved                // data, and the joiner was told to reserve space for some of it
)

// lookAhead asks for the extents of the window after the one that is copied.
func (c *Core) lookAhead(rs *resync) {
	if rs.next == nil {
		at := int64(0)
		if rs.now != nil {
			at = rs.now.end
		}
		rs.next = new(window)
		rs.next.base, rs.next.end = c.nextWanted(rs, at, c.t.Window)
	}
	if w := rs.next; !w.known && w.asked == 0 && w.base < c.p.Volume.Size {
		c.lookUp(rs, w)
	}
}

// lookUp asks for the extents of a window; the answers come later. Short windows are read without asking.
func (c *Core) lookUp(rs *resync, w *window) {
	from := c.sound(c.members)
	if from == 0 || c.demand.n+c.backlog.n > 0 {
		return
	}
	n := w.end - w.base
	w.chunks = make([]chunkIs, (n+c.t.Chunk-1)/c.t.Chunk)
	w.failed = false
	if rs.want != nil && n < c.t.Lookup {
		for i := range w.chunks {
			w.chunks[i] = data
		}
		w.known = true
		return
	}
	ask := func(i int) {
		w.asked++
		k := c.send(i, forExtents, peer.Extents)
		k.rs, k.win, k.Off, k.Len = rs, w, w.base, n
	}
	ask(lowest(from))
	if !rs.empty {
		ask(rs.slot)
	}
}

func (c *Core) extentsAnswered(k *call, o outcome) {
	rs, w := k.rs, k.win
	w.asked--
	if rs != c.rs {
		return
	}
	if o != fine {
		if int(k.slot) == rs.slot {
			c.abortResync(k.Err)
			return
		}
		if o != lost { // another source, or the same: it is looked at as if it were full of data
			k.Extents = append(k.Extents[:0], peer.Extent{Off: k.Off, Len: k.Len})
		} else {
			w.failed = true
		}
	}
	for _, x := range k.Extents {
		lo, hi := max(x.Off, k.Off), min(x.Off+x.Len, k.Off+k.Len)
		is := data
		if o == fine && rs.empty && hi-lo >= c.t.Reserve {
			is = reserved
			r := c.send(rs.slot, forReserve, peer.Reserve)
			r.Off, r.Len = lo, hi-lo
		}
		for at := (lo - k.Off) / c.t.Chunk; lo < hi && at*c.t.Chunk < hi-k.Off; at++ {
			w.chunks[at] = max(w.chunks[at], is)
		}
	}
	w.known = w.asked == 0 && !w.failed
}

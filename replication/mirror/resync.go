package mirror

import (
	"bytes"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// resyncPhase is where a resync is.
type resyncPhase uint8

const (
	mapping   resyncPhase = iota + 1 // the joiner's marks are asked for
	waitSent                         // writes that were not sent to it are waited for
	scanning                         // chunk by chunk
	waitAcked                        // writes that were acknowledged without it are waited for
	stamping                         // the seal is written
	joining                          // AddMember is proposed, or will be
)

// resyncWindow is how far extents are looked up at a time.
const resyncWindow = 64 << 20

// resync brings the replica of one node into the in-sync set (15).
type resync struct {
	node  ids.Node
	slot  int
	empty bool
	phase resyncPhase
	old   []peer.RegionSeq // its marks of before

	cursor  int64 // everything before is equal, or being copied
	end     int64 // of the window
	asked   int   // extents under way
	failed  bool  // one of them: ask again
	src     int
	chunks  []bool // of the window: those to look at
	active  []*copier
	stamped bool

	granted, asking bool // of the budget
	copied          int64
	began           time.Duration
}

// StartResync begins to bring the replica of a node, which is not in the in-sync set and with which there is a session,
// into it. With empty the replica was made or reset under this epoch and reads as zeros.
func (c *Core) StartResync(node ids.Node, empty bool) error {
	i := c.slotOf(node)
	switch {
	case i >= 0 && c.members.has(i):
		return ErrMember
	case c.ended || c.draining || !c.opened || c.rs != nil:
		return ErrBusy
	case i > 0 || i == 0 && !c.slots[0].up:
		return ErrBusy
	}
	if s := &c.slots[0]; i == 0 && (s.out > 1 || s.out == 1 && !s.asking) {
		return ErrBusy // calls of its former life are still under way
	}
	for j := range c.slots {
		if c.slots[j].used && c.slots[j].node == node && c.slots[j].gone {
			return ErrBusy // likewise
		}
	}
	if i < 0 {
		if i = c.newSlot(node); i < 0 {
			return ErrBusy
		}
	}
	c.joiner = i
	c.rs = &resync{node: node, slot: i, empty: empty, phase: mapping, began: c.now}
	c.barrier()
	c.report(Notice{Code: ResyncBegun, Node: node})
	c.send(i, forMap, peer.ReadMap).rs = c.rs
	c.run()
	return nil
}

// StopResync ends the resync of a node, unless its joining is proposed already. ResyncDone tells the end.
func (c *Core) StopResync(node ids.Node) {
	if c.rs != nil && c.rs.node == node {
		c.abortResync(ErrStopped)
	}
	c.run()
}

// Granted is the answer to Ask.
func (c *Core) Granted() {
	if c.rs != nil {
		c.rs.asking, c.rs.granted = false, true
	}
	c.run()
}

// abortResync ends the resync, if there is one and its joining is not under way: from there on the joiner may be a member
// without our knowing, and leaves like one (1). It tells whether the joiner is none any more.
func (c *Core) abortResync(why error) bool {
	if c.rs == nil {
		return false
	}
	if c.prop.active && c.prop.add {
		return false
	}
	c.endResync(why)
	return true
}

func (c *Core) endResync(why error) {
	rs := c.rs
	c.rs, c.joiner, c.required = nil, -1, false
	c.emit(Effect{Kind: ResyncDone, Node: rs.node, Err: why})
	c.report(Notice{Code: ResyncAborted, Node: rs.node, Err: why})
	c.leave(rs.slot)
	c.evaluate()
	c.rescan = true // copies of it that wait
}

// join makes the joiner a member: the catalog has said so.
func (c *Core) join() {
	rs := c.rs
	s := &c.slots[rs.slot]
	c.members |= bit(rs.slot)
	s.known = true
	c.rs, c.joiner, c.required = nil, -1, false
	c.emit(Effect{Kind: ResyncDone, Node: rs.node})
	c.report(Notice{Code: MemberAdded, Node: rs.node})
	for old := rs.old; len(old) > 0; { // those that were marked anew since have a higher Seq, and stay
		n := min(len(old), maxClear)
		k := c.send(rs.slot, forClear, peer.Clear)
		k.rs, k.Regions = rs, old[:n]
		old = old[n:]
	}
}

func (c *Core) joinerMapped(k *call, o outcome) {
	rs := k.rs
	if rs != c.rs {
		return
	}
	if o != fine {
		c.abortResync(k.Err)
		return
	}
	rs.old = append(rs.old, k.Active...)
	for _, r := range rs.old {
		c.seq = max(c.seq, r.Seq) // so that its regions are marked anew by what is written now
	}
	rs.phase = waitSent
}

// pumpResync does the next step.
func (c *Core) pumpResync() {
	rs := c.rs
	if rs == nil || !c.opened {
		return
	}
	switch rs.phase {
	case waitSent:
		// What was not sent to the joiner is over, and members are equal: what is found now stays true.
		if c.older == 0 && c.demand.n+c.backlog.n == 0 {
			rs.phase = scanning
			c.scan(rs)
		}
	case scanning:
		c.scan(rs)
	case waitAcked:
		if c.older == 0 {
			rs.phase = stamping
			c.copyChunk(rs, sealing, 0, min(c.compareBlock(), c.p.Volume.Size))
		}
	}
}

// scan looks up the extents of the next window and begins its chunks.
func (c *Core) scan(rs *resync) {
	size := c.p.Volume.Size
	for {
		for rs.cursor < rs.end && c.mayCopy(rs) {
			i := int((rs.cursor - (rs.end-1)/resyncWindow*resyncWindow) / c.t.Chunk)
			n := min(c.t.Chunk, rs.end-rs.cursor)
			off := rs.cursor
			if rs.chunks[i] {
				if c.p.Tunables.Budgeted && !rs.granted {
					if !rs.asking {
						rs.asking = true
						c.emit(Effect{Kind: Ask, Node: rs.node, Bytes: n})
					}
					return
				}
				rs.granted = false
				c.copyChunk(rs, resyncing, off, n)
			}
			rs.cursor += n
		}
		if rs.cursor < rs.end || rs.asked > 0 {
			return
		}
		if rs.cursor >= size {
			if len(rs.active) == 0 {
				// From here on every write waits for the joiner; those before, that did not, are waited for.
				rs.phase = waitAcked
				c.required = true
				c.barrier()
				c.rescan = true
			}
			return
		}
		if !c.lookUp(rs) {
			return
		}
	}
}

func (c *Core) mayCopy(rs *resync) bool {
	if c.live > 0 {
		return len(rs.active) == 0
	}
	return len(rs.active) < c.t.Resyncers
}

// lookUp asks for the extents of the window at the cursor. The first answer comes later: it returns false.
func (c *Core) lookUp(rs *resync) bool {
	from := c.sound(c.members)
	if from == 0 || c.demand.n+c.backlog.n > 0 {
		return false
	}
	rs.src = lowest(from)
	n := min(resyncWindow, c.p.Volume.Size-rs.cursor)
	count := int((n + c.t.Chunk - 1) / c.t.Chunk)
	if cap(rs.chunks) < count {
		rs.chunks = make([]bool, count)
	}
	rs.chunks = rs.chunks[:count]
	clear(rs.chunks)
	rs.failed = false
	ask := func(i int) {
		rs.asked++
		k := c.send(i, forExtents, peer.Extents)
		k.rs, k.Off, k.Len = rs, rs.cursor, n
	}
	ask(rs.src)
	if !rs.empty {
		ask(rs.slot)
	}
	return false
}

func (c *Core) extentsAnswered(k *call, o outcome) {
	rs := k.rs
	rs.asked--
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
			rs.failed = true
		}
	}
	for _, x := range k.Extents {
		lo, hi := max(x.Off, k.Off), min(x.Off+x.Len, k.Off+k.Len)
		for at := (lo - k.Off) / c.t.Chunk; lo < hi && at*c.t.Chunk < hi-k.Off; at++ {
			rs.chunks[at] = true
		}
	}
	if rs.asked == 0 && !rs.failed {
		rs.end = k.Off + k.Len
	}
}

// copyChunk queues a copy for its range.
func (c *Core) copyChunk(rs *resync, kind copyKind, off, n int64) {
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
}

// beginCopy begins, or begins again, a copy whose range is free.
func (c *Core) beginCopy(k *copier) {
	if k.rs != c.rs {
		c.copyDone(k, ErrStopped)
		return
	}
	from := c.sound(c.members &^ k.bad)
	if from == 0 && c.members&^k.bad == 0 {
		c.abortResync(peer.ErrMedium)
		c.copyDone(k, ErrStopped)
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
}

func (c *Core) resyncRead(k *copier) {
	rs := k.rs
	if rs != c.rs {
		c.copyDone(k, ErrStopped)
		return
	}
	if (k.lost | k.bad).has(rs.slot) {
		if c.abortResync(peer.ErrMedium) {
			c.copyDone(k, ErrStopped)
			return
		}
	}
	got := k.read & c.members
	if got == 0 {
		c.beginCopy(k) // from another member
		return
	}
	k.writing = true
	want := k.bufs[lowest(got)]
	have, known := k.bufs[rs.slot], !rs.empty
	if rs.empty { // there is nothing but zeros, and what was sent to it as well
		have, known = block.Get(len(want)), true
		clear(have)
	}
	if k.kind == sealing {
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
	seq, ok := c.mark(k.off, k.len)
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

// copiedNow says whether a resync's copy is under way in a region.
func (c *Core) copiedNow(e *region) bool {
	if c.rs == nil {
		return false
	}
	for _, k := range c.rs.active {
		if first, last := c.touched(k.off, k.len); first <= e.idx && e.idx <= last && k.out > 0 {
			return true
		}
	}
	return false
}

func (c *Core) resyncStatus() *ResyncStatus {
	rs := c.rs
	if rs == nil {
		return nil
	}
	st := &ResyncStatus{Node: rs.node, Done: rs.cursor, Total: c.p.Volume.Size, Copied: rs.copied}
	st.Seconds = (c.now - rs.began).Seconds()
	st.ETA = -1
	if st.Done > 0 && st.Seconds > 0 {
		st.ETA = st.Seconds / float64(st.Done) * float64(st.Total-st.Done)
	}
	return st
}

// copierList is a FIFO of copies that cannot begin now.
type copierList struct{ head, tail *copier }

func (l *copierList) push(k *copier) {
	k.next = nil
	if l.tail == nil {
		l.head = k
	} else {
		l.tail.next = k
	}
	l.tail = k
}

func (l *copierList) pop() *copier {
	k := l.head
	if l.head = k.next; l.head == nil {
		l.tail = nil
	}
	k.next = nil
	return k
}

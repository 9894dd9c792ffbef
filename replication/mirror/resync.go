package mirror

import (
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// resyncPhase is where a resync is.
type resyncPhase uint8

const (
	mapping   resyncPhase = iota + 1 // the joiner's marks are asked for
	recording                        // the records of who is absent, and of what the joiner is, are waited for
	waitSent                         // writes that were not sent to it are waited for
	sweeping                         // missed maps are read
	scanning                         // chunk by chunk
	waitAcked                        // writes that were acknowledged without it are waited for
	stamping                         // the seal is written
	joining                          // AddMember is proposed, or will be
)

// resync brings the replica of one node into the in-sync set (15).
type resync struct {
	node  ids.Node
	slot  int
	empty bool
	phase resyncPhase
	old   []peer.RegionSeq // its marks of before
	had   map[uint32]bool  // their regions

	replica  peer.ReplicaID    // as it was made
	accepted []peer.EpochRange // by its pool, before the fence
	high     peer.Seq          // it has recorded this one
	relay    int               // the member whose maps of others it takes over
	sweep    sweep
	want     []uint64 // a bit for each region that is to be copied and of which the members have not been told; nil: all
	dropAt   time.Duration
	total    int64 // bytes to be looked at
	looked   int64 // of them

	cursor int64   // everything before is equal, or being copied
	now    *window // in which that is; nil before the first
	next   *window // the one after it; nil before it is asked for
	active []*copier

	pieces []piece // chunks that no member can read as a whole, in blocks
	lost   lostBlocks
	copied int64
	began  time.Duration
	meter  meter
}

// Joiner is a replica that is to enter the in-sync set.
type Joiner struct {
	truth.Place
	Empty    bool              // it was made or reset under this epoch and reads as zeros
	Accepted []peer.EpochRange // the epochs that its pool proves to have accepted (peer.FencedPool.Accepted)
}

// StartResync begins to bring a replica, which is not in the in-sync set and with whose node there is a session, into it.
func (c *Core) StartResync(j Joiner) error {
	node := j.Node
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
	for k := range c.slots {
		if c.slots[k].used && c.slots[k].node == node && c.slots[k].gone {
			return ErrBusy // likewise
		}
	}
	if i < 0 {
		if i = c.newSlot(node); i < 0 {
			return ErrBusy
		}
	}
	c.joiner = i
	c.place(i, j.Place)
	c.rs = &resync{node: node, slot: i, empty: j.Empty, phase: mapping, began: c.now, accepted: j.Accepted, relay: lowest(c.members)}
	if from := c.sources(c.members); from != 0 {
		c.rs.relay = lowest(from)
	}
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
func (c *Core) Granted(to Asker) {
	c.asking[to], c.granted[to] = false, true
	c.run()
}

// may says whether a copy of n bytes in the background may begin, and asks if not. What was granted is used by the next one,
// also if it is of another resync than that which asked.
func (c *Core) may(who Asker, n int64) bool {
	switch {
	case !c.p.Tunables.Budgeted:
	case c.granted[who]:
		c.granted[who] = false
	case c.asking[who]:
		return false
	default:
		c.asking[who] = true
		c.emit(Effect{Kind: Ask, Asker: who, Bytes: n})
		return false
	}
	return true
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
	rs, st := c.rs, c.resyncStatus()
	c.rs, c.joiner, c.required = nil, -1, false
	c.emit(Effect{Kind: ResyncDone, Node: rs.node, Resync: *st, Err: why})
	c.report(Notice{Code: ResyncAborted, Node: rs.node, Err: why})
	c.leave(rs.slot)
	c.reckon()
	c.evaluate()
	c.rescan = true // copies of it that wait
}

// join makes the joiner a member: the catalog has said so.
func (c *Core) join() {
	rs, st := c.rs, c.resyncStatus()
	s := &c.slots[rs.slot]
	c.members |= bit(rs.slot)
	s.known = true
	c.rs, c.joiner, c.required = nil, -1, false
	c.emit(Effect{Kind: ResyncDone, Node: rs.node, Resync: *st})
	c.report(Notice{Code: MemberAdded, Node: rs.node})
	for i, r := range rs.old {
		if c.regions[r.Region] == nil { // its marks may be of this resync, too
			rs.old[i].Seq = c.seq
		}
	}
	for old := rs.old; len(old) > 0; { // those that were marked anew since have a higher Seq, and stay
		n := min(len(old), maxClear)
		k := c.send(rs.slot, forClear, peer.Clear)
		k.rs, k.Regions, k.Durable = rs, old[:n], c.durable
		old = old[n:]
	}
}

// clearable leaves out the regions that the joiner had marked before: until it has joined its marks are all that says what it
// has and the members have not. A Clear is for marks that all targets know of.
func (rs *resync) clearable(list []peer.RegionSeq) (out []peer.RegionSeq) {
	for _, r := range list {
		if rs.phase > mapping && !rs.had[r.Region] {
			out = append(out, r)
		}
	}
	return out
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
	rs.had = make(map[uint32]bool, len(rs.old))
	for _, r := range rs.old {
		rs.had[r.Region] = true
		c.seq = max(c.seq, r.Seq) // so that its regions are marked anew by what is written now
	}
	c.slots[rs.slot].inc = k.Incarnation
	c.noteMap(rs.slot, &k.Answer)
	rs.replica, rs.high = c.slots[rs.slot].told.id, k.Highest
	if k.Highest != 0 {
		rs.empty = false // it was put back since it was made: this is another one
	}
	rs.phase = recording
}

// pumpResync does the next step.
func (c *Core) pumpResync() {
	rs := c.rs
	if rs == nil || !c.opened {
		return
	}
	switch rs.phase {
	case recording:
		if c.allTold() {
			rs.phase = waitSent
			c.barrier()
			c.pumpResync()
		}
	case waitSent:
		// What was not sent to the joiner is over, and members are equal: what is found now stays true.
		if c.older == 0 && c.demand.n+c.backlog.n == 0 && c.allTold() {
			c.beginSweep(rs)
			c.pumpSweep(rs)
		}
	case sweeping:
		c.pumpSweep(rs)
	case scanning:
		c.scan(rs)
		c.pumpDrop(rs)
	case waitAcked:
		if c.older == 0 {
			rs.phase = stamping
			c.copyChunk(rs, sealing, 0, min(c.compareBlock(), c.p.Volume.Size))
		}
	}
}

// copiedNow says whether a resync's copy, or a scrub's look, is under way in a region.
func (c *Core) copiedNow(e *region) bool {
	if c.scrub != nil && c.scrub.chunk != nil && c.scrub.chunk.out > 0 {
		k := c.scrub.chunk
		if first, last := c.touched(k.off, k.len); first <= e.idx && e.idx <= last {
			return true
		}
	}
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
	st := &ResyncStatus{Node: rs.node, Done: rs.looked, Total: rs.total, Copied: rs.copied, Seconds: (c.now - rs.began).Seconds(), ETA: -1}
	if rs.phase >= scanning {
		st.ETA = rs.meter.eta(c.now, rs.looked, rs.total)
		st.Expected = rs.meter.guess
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

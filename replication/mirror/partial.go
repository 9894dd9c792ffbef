package mirror

import (
	"math/bits"

	"pmsapp/replication/peer"
)

// sweepWindow is how many regions of a missed map are asked for at a time.
const sweepWindow = 1 << 18

// sweep is the reading of missed maps at the beginning of a resync, one after the other, window by window (15).
type sweep struct {
	tasks []sweepTask
	at    int64 // bytes of the first task that are done
	out   bool  // a call is under way
}

type sweepTask struct {
	slot  int        // who is asked
	of    peer.Other // whose map; with a zero Birth the slot's own
	relay bool       // it is added to the joiner's; else to what is copied
}

// id is the joiner as it was made.
func (rs *resync) id() peer.ReplicaID { return rs.replica }

// shows says whether the joiner has what a missed map of it relies upon (14): it may have been put back since it left. Under
// our own epoch we have fenced it, and its node would have told.
func (rs *resync) shows(e peer.Other, own peer.Epoch) bool {
	return (e.Epoch == 0 || e.Epoch == own || peer.Has(rs.accepted, e.Epoch)) && e.Seq <= rs.high
}

// beginSweep plans what is asked: first the relays, then what is to be copied.
func (c *Core) beginSweep(rs *resync) {
	rs.phase = sweeping
	if rs.replica.Birth.IsZero() {
		return // everything is copied
	}
	for _, e := range c.slots[rs.slot].told.rec {
		if e.Absent && !c.isMember(e.ID.Node) {
			rs.sweep.tasks = append(rs.sweep.tasks, sweepTask{slot: rs.relay, of: e, relay: true})
		}
	}
	for i := range c.slots {
		if c.members.has(i) {
			rs.sweep.tasks = append(rs.sweep.tasks, sweepTask{slot: i, of: peer.Other{ID: rs.replica}})
		}
	}
	rs.sweep.tasks = append(rs.sweep.tasks, sweepTask{slot: rs.slot})
	n := (c.p.Volume.Size + c.p.Volume.Region - 1) / c.p.Volume.Region
	rs.want = make([]uint64, (n+63)/64)
	for _, r := range rs.old {
		if int64(r.Region) < n {
			rs.want[r.Region/64] |= 1 << (r.Region % 64)
		}
	}
}

// pumpSweep asks for the next window.
func (c *Core) pumpSweep(rs *resync) {
	w := &rs.sweep
	if w.out {
		return
	}
	if len(w.tasks) == 0 {
		rs.phase = scanning
		rs.total = c.toLookAt(rs)
		c.scan(rs)
		return
	}
	t := w.tasks[0]
	w.out = true
	k := c.send(t.slot, forMissed, peer.ReadMissed)
	k.rs, k.Others = rs, []peer.Other{t.of}
	k.Off, k.Len = w.at, min(sweepWindow*c.p.Volume.Region, c.p.Volume.Size-w.at)
}

func (c *Core) missedAnswered(k *call, o outcome) {
	rs := k.rs
	if rs != c.rs {
		return
	}
	w := &rs.sweep
	t := w.tasks[0]
	w.out = false
	if o != fine {
		if o != lost && k.Kind == peer.ReadMissed && !t.of.ID.Birth.IsZero() {
			c.forgetRecord(t) // it has not what it said to have: the next attempt does without
		}
		c.abortResync(k.Err)
		return
	}
	if k.Kind == peer.ReadMissed && t.relay && len(k.Extents) > 0 {
		w.out = true
		add := c.send(rs.slot, forMissed, peer.AddMissed)
		add.rs, add.Others, add.Missed, add.Off, add.Len = rs, []peer.Other{t.of}, k.Extents, k.Off, k.Len
		return
	}
	if k.Kind == peer.ReadMissed && !t.relay {
		for _, x := range k.Extents {
			rs.add(x, c.p.Volume.Region)
		}
	}
	if w.at = k.Off + k.Len; w.at >= c.p.Volume.Size {
		w.at, w.tasks = 0, w.tasks[1:]
	}
}

// forgetRecord takes an entry for not being there.
func (c *Core) forgetRecord(t sweepTask) {
	rec := &c.slots[t.slot].told.rec
	for i := range *rec {
		if (*rec)[i].ID == t.of.ID {
			*rec = append((*rec)[:i:i], (*rec)[i+1:]...)
			break
		}
	}
	c.retell = true
}

// add makes regions wanted.
func (rs *resync) add(x peer.Extent, region int64) {
	for r := x.Off / region; r*region < x.Off+x.Len && r/64 < int64(len(rs.want)); r++ {
		rs.want[r/64] |= 1 << (r % 64)
	}
}

// toLookAt is the bytes that are to be looked at.
func (c *Core) toLookAt(rs *resync) int64 {
	if rs.want == nil {
		return c.p.Volume.Size
	}
	n, region := int64(0), c.p.Volume.Region
	for _, w := range rs.want {
		n += int64(bits.OnesCount64(w)) * region
	}
	if last := (c.p.Volume.Size - 1) / region; rs.want[last/64]&(1<<(last%64)) != 0 {
		n -= (last+1)*region - c.p.Volume.Size
	}
	return n
}

// nextWanted is the first byte at or after at that is to be looked at, and the end of its run, at most limit bytes on.
func (c *Core) nextWanted(rs *resync, at, limit int64) (from, to int64) {
	size, region := c.p.Volume.Size, c.p.Volume.Region
	if rs.want == nil || at >= size {
		return at, min(at+limit, size)
	}
	r, n := at/region, (size+region-1)/region
	for r < n {
		w := rs.want[r/64] >> (r % 64)
		if w != 0 {
			r += int64(bits.TrailingZeros64(w))
			break
		}
		r = (r/64 + 1) * 64
	}
	if r >= n {
		return size, size
	}
	from = max(at, r*region)
	for r < n && rs.want[r/64]&(1<<(r%64)) != 0 && r*region < from+limit {
		r++
	}
	return from, min(r*region, from+limit, size)
}

// maxDrop is of how many regions at a time the members learn that the joiner has them by now.
const maxDrop = 4096

// pumpDrop has the members take out of their maps what the joiner has by now, so that the next attempt begins where this one
// ends. What is active stays: the joiner has no part in its next write if it is lost. No Clear is sent until all answered.
func (c *Core) pumpDrop(rs *resync) {
	if rs.want == nil || c.dropping > 0 || c.now < rs.dropAt {
		return
	}
	rs.dropAt = c.now + c.t.Progress
	region := c.p.Volume.Region
	safe := rs.cursor
	for _, k := range rs.active {
		safe = min(safe, k.off)
	}
	for _, p := range rs.pieces {
		safe = min(safe, p.off)
	}
	var list []peer.Extent
	n, last := 0, uint32(safe/region)
	if safe >= c.p.Volume.Size {
		last = uint32((c.p.Volume.Size + region - 1) / region)
	}
	for r := uint32(0); r < last && n < maxDrop; r++ {
		if r%64 == 0 && rs.want[r/64] == 0 {
			r += 63
			continue
		}
		if rs.want[r/64]&(1<<(r%64)) == 0 || c.regions[r] != nil || rs.lost.regions[r] {
			continue
		}
		rs.want[r/64] &^= 1 << (r % 64)
		n++
		off := int64(r) * region
		if e := len(list) - 1; e >= 0 && list[e].Off+list[e].Len == off {
			list[e].Len += region
		} else {
			list = append(list, peer.Extent{Off: off, Len: region})
		}
	}
	if n == 0 {
		return
	}
	if e := &list[len(list)-1]; e.Off+e.Len > c.p.Volume.Size {
		e.Len = c.p.Volume.Size - e.Off
	}
	to := peer.Other{ID: rs.replica, Absent: true, Epoch: c.p.Epoch, Seq: rs.high}
	for i := range c.slots {
		if c.members.has(i) && c.slots[i].up {
			c.dropping++
			k := c.send(i, forDrop, peer.DropMissed)
			k.rs, k.Others, k.Missed = rs, []peer.Other{to}, list
		}
	}
}

func (c *Core) dropAnswered(k *call, o outcome) {
	c.dropping--
	s := &c.slots[k.slot]
	for i := range s.told.rec {
		if e := &s.told.rec[i]; o == fine && e.ID == k.Others[0].ID && e.Absent {
			e.Epoch, e.Seq = max(e.Epoch, k.Others[0].Epoch), max(e.Seq, k.Others[0].Seq)
		}
	}
}

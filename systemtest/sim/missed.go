package sim

import (
	"bytes"
	"slices"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// missed carries out what is about missed maps.
func (n *node) missed(r *simReplica, c *peer.Command) (a peer.Answer) {
	active := r.marks
	switch c.Kind {
	case peer.Know:
		if n.c.breaks(BreakMissedStart) {
			active = nil
		}
		a.Err = r.rec.Know(c.Others, active)
	case peer.ReadMissed:
		a.Extents, a.Err = r.rec.Missed(c, r.spec.Region, r.spec.Size, active)
		n.c.stats["missed maps read"]++
		if n.c.breaks(BreakOwnMarks) && c.Others[0].ID.Birth.IsZero() {
			a.Extents = nil
		}
	case peer.AddMissed:
		n.c.stats["missed maps handed on"]++
		if !n.c.breaks(BreakRelay) {
			a.Err = r.rec.Change(c, r.spec.Region, active)
		}
	default:
		a.Err = r.rec.Change(c, r.spec.Region, active)
	}
	return a
}

// checkJoined compares a replica that has joined with the other members: byte by byte, but for regions in which a write
// may be under way, which are marked.
func (c *Cluster) checkJoined(m *mirrorShell, id ids.Node) {
	v := c.trueVolume(m.vol)
	if v == nil {
		return
	}
	var mine *simReplica
	for _, p := range v.InSync {
		if p.Node == id {
			mine = c.replicaAt(p, m.vol)
			if mine != nil && !v.Owns(p.Pool, mine.spec.Lineage) {
				c.fail("the replica of volume %d on %s joined, and is of another lineage: it was not reset", m.vol, c.nameOf(id))
				return
			}
		}
	}
	if mine == nil {
		return
	}
	for _, p := range v.InSync {
		other := c.replicaAt(p, m.vol)
		if p.Node == id || other == nil {
			continue
		}
		size := min(mine.spec.Size, other.spec.Size, v.Size)
		for g := range uint32((size + region - 1) / region) {
			if mine.marks[g]|other.marks[g] != 0 || mine.writing[g]+other.writing[g] > 0 {
				continue
			}
			off := int64(g) * region
			n := min(region, size-off)
			if mine.flipped(off, n) || other.flipped(off, n) {
				continue
			}
			if !bytes.Equal(mine.data.Read(off, n), other.data.Read(off, n)) {
				c.fail("the replica of volume %d on %s joined, and differs from that on %s in region %d, which neither has marked",
					m.vol, c.nameOf(id), c.nameOf(p.Node), g)
				return
			}
		}
		c.stats["regions compared after a join"] += int(regionsOf(mine.spec))
	}
	c.checkAbsent(m.vol, v, mine, id)
}

// checkAbsent looks whether a replica that has joined knows of each absent one where its bytes differ (12): they may not be there any more from
// whom it could have learned that when the absent one comes back. One that is not of the volume's lineage any more is foreign: after a force all but
// the adopted one are reset before they are copied to, whatever maps say of them, and what was adopted may lack what they have (6).
func (c *Cluster) checkAbsent(vol int, v *truth.Volume, mine *simReplica, id ids.Node) {
	for _, e := range mine.rec.Others() {
		if !e.Absent || e.Seq == 0 { // nothing is relied upon
			continue
		}
		for _, n := range c.nodes {
			for _, pool := range n.pools {
				p := truth.Place{Node: n.id(), Pool: pool.id}
				absent := c.replicaAt(p, vol)
				if absent == nil || absent.rec.Birth != e.ID.Birth || !v.Owns(p.Pool, absent.spec.Lineage) || absent.seq < e.Seq || c.isTainted(p.Pool, vol) {
					continue
				}
				size := min(mine.spec.Size, absent.spec.Size, v.Size)
				for g := range uint32((size + region - 1) / region) {
					off := int64(g) * region
					n := min(region, size-off)
					if mine.rec.Misses(e.ID.Birth, g) || mine.marks[g]|absent.marks[g] != 0 || mine.writing[g]+absent.writing[g] > 0 || mine.flipped(off, n) || absent.flipped(off, n) {
						continue
					}
					if !bytes.Equal(mine.data.Read(off, n), absent.data.Read(off, n)) {
						c.fail("the replica of volume %d on %s joined, and does not know that the absent one on %s lacks region %d", vol, c.nameOf(id), c.nameOf(p.Node), g)
						return
					}
				}
			}
		}
	}
}

// flipped tells whether a bit has flipped in a range, which its checksum says.
func (r *simReplica) flipped(off, n int64) bool {
	for b := range r.flips.blocks {
		if b*blockSize >= off && b*blockSize < off+n {
			return true
		}
	}
	return false
}

// breakMissedClear lets a Clear take the region out of the missed maps.
func (n *node) breakMissedClear(r *simReplica, g uint32) {
	if !n.c.breaks(BreakMissedClear) {
		return
	}
	for _, e := range r.rec.Others() {
		if e.Absent {
			off := int64(g) * r.spec.Region
			r.rec.Change(&peer.Command{Kind: peer.DropMissed, Others: []peer.Other{{ID: e.ID}}, Missed: []peer.Extent{{Off: off, Len: min(r.spec.Region, r.spec.Size-off)}}},
				r.spec.Region, nil)
		}
	}
}

// breakReadMap changes what a replica says of itself.
func (n *node) breakReadMap(r *simReplica, a peer.Answer) peer.Answer {
	if n.c.breaks(BreakPutBack) {
		a.Highest = 1 << 20
	}
	if v := n.c.trueVolume(n.c.volIndex(r.spec.Volume)); n.c.breaks(BreakOwnMarks) && v != nil && !slices.ContainsFunc(v.InSync, func(p truth.Place) bool { return p.Node == n.id() }) {
		a.Active = nil
	}
	return a
}

// breakAccepted changes what a replica's pool proves.
func (n *node) breakAccepted(rs []peer.EpochRange) []peer.EpochRange {
	if n.c.breaks(BreakPutBack) {
		return []peer.EpochRange{{Lo: 1, Hi: 1 << 40}}
	}
	return rs
}

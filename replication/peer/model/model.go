// Package model is a replica's part in recording what absent replicas miss (peer.Know and its companions), written down as
// simply as possible: for the tests and simulations that stand in for nodes.
package model

import (
	"maps"
	"slices"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// Records is what a replica knows of itself and of the others.
type Records struct {
	Birth   ids.ID
	regions uint32
	others  []peer.Other
	missed  map[ids.ID]map[uint32]bool // by birth
}

// New is the records of a replica that was just made.
func New(birth ids.ID, regions uint32) *Records {
	return &Records{Birth: birth, regions: regions, missed: map[ids.ID]map[uint32]bool{}}
}

// Clone is a copy.
func (r *Records) Clone() *Records {
	c := &Records{Birth: r.Birth, regions: r.regions, others: slices.Clone(r.others), missed: map[ids.ID]map[uint32]bool{}}
	for b, m := range r.missed {
		c.missed[b] = maps.Clone(m)
	}
	return c
}

// Grown says that the replica has more regions.
func (r *Records) Grown(regions uint32) { r.regions = regions }

// Others is what is on record.
func (r *Records) Others() []peer.Other { return slices.Clone(r.others) }

// Know is peer.Know; active is the regions that are.
func (r *Records) Know(list []peer.Other, active map[uint32]peer.Seq) error {
	next := New(r.Birth, r.regions)
	for i, e := range list {
		if slices.ContainsFunc(list[:i], func(o peer.Other) bool { return o.ID.Birth == e.ID.Birth }) {
			return peer.ErrInvalid
		}
		if e.Absent {
			i := slices.IndexFunc(r.others, func(o peer.Other) bool { return o.ID.Birth == e.ID.Birth && o.Absent })
			m := map[uint32]bool{}
			switch {
			case e.All:
				for g := range r.regions {
					m[g] = true
				}
			case i >= 0:
				m = r.missed[e.ID.Birth]
				e.Epoch, e.Seq = max(e.Epoch, r.others[i].Epoch), max(e.Seq, r.others[i].Seq)
			default:
				for g := range active {
					m[g] = true
				}
			}
			e.All = false
			next.missed[e.ID.Birth] = m
		}
		next.others = append(next.others, e)
	}
	if len(list) > peer.MaxOthers || len(next.missed) > peer.MaxAbsent {
		return peer.ErrInvalid
	}
	*r = *next
	return nil
}

// Misses tells whether it is on record that a replica lacks something of a region.
func (r *Records) Misses(birth ids.ID, region uint32) bool { return r.missed[birth][region] }

// Marked says that a region becomes active.
func (r *Records) Marked(g uint32) {
	for _, m := range r.missed {
		m[g] = true
	}
}

// Missed answers peer.ReadMissed, for regions of the given size of a replica of size bytes.
func (r *Records) Missed(c *peer.Command, region, size int64, active map[uint32]peer.Seq) ([]peer.Extent, error) {
	has := map[uint32]bool{}
	if b := c.Others[0].ID.Birth; !b.IsZero() {
		if r.missed[b] == nil {
			return nil, peer.ErrInvalid
		}
		has = r.missed[b]
	} else {
		for g := range active {
			has[g] = true
		}
		for _, m := range r.missed {
			maps.Copy(has, m)
		}
	}
	var out []peer.Extent
	for _, g := range slices.Sorted(maps.Keys(has)) {
		if off := int64(g) * region; off >= c.Off && off < c.Off+c.Len {
			out = append(out, peer.Extent{Off: off, Len: min(region, size-off)})
		}
	}
	return out, nil
}

// Change is peer.AddMissed and peer.DropMissed.
func (r *Records) Change(c *peer.Command, region int64, active map[uint32]peer.Seq) error {
	to := c.Others[0]
	m := r.missed[to.ID.Birth]
	if m == nil {
		return peer.ErrInvalid
	}
	for i := range r.others {
		if e := &r.others[i]; c.Kind == peer.DropMissed && e.ID.Birth == to.ID.Birth {
			e.Epoch, e.Seq = max(e.Epoch, to.Epoch), max(e.Seq, to.Seq)
		}
	}
	for _, x := range c.Missed {
		for g := uint32(x.Off / region); int64(g)*region < x.Off+x.Len; g++ {
			if c.Kind == peer.AddMissed {
				m[g] = true
			} else if _, is := active[g]; !is {
				delete(m, g)
			}
		}
	}
	return nil
}

package replica

import (
	"fmt"

	"pmsapp/replication/peer"
)

// missedBits are the missed maps of a block's regions: for each map, 53 bits for each sector.
type missedBits [peer.MaxAbsent][mapSectors]uint64

// missedMap is one that is in use. Its bits are those of sectors that were written in its generation; of others it has all
// regions, or none but the active ones. So a map is begun and dropped by one write, of the record of the others.
type missedMap struct {
	gen uint64 // 0: not in use
	all bool
}

func (m *marks) gens() (g [peer.MaxAbsent]uint64) {
	for k := range m.maps {
		g[k] = m.maps[k].gen
	}
	return g
}

// miss records a region that becomes active in the maps in use; it goes with the flush that marks it (invariant 12).
func (m *marks) miss(b *markBlock, i uint32) {
	for k := range m.maps {
		if m.maps[k].gen != 0 {
			b.set(k, i)
		}
	}
}

func (b *markBlock) set(k int, i uint32) {
	if b.missed == nil {
		b.missed = new(missedBits)
	}
	b.missed[k][i/sectorRegions] |= 1 << (i % sectorRegions)
}

func (b *markBlock) misses(k int, i uint32) bool {
	return b.missed != nil && b.missed[k][i/sectorRegions]&(1<<(i%sectorRegions)) != 0
}

// beginMissed takes map k into use: with all regions, or those that are active.
func (m *marks) beginMissed(k int, to missedMap) {
	m.maps[k] = to
	for n := range m.blocks {
		b := &m.blocks[n]
		if to.all {
			for i := range m.inBlock(n) {
				b.set(k, i)
			}
			continue
		}
		for i, q := range b.seqs {
			if q != 0 {
				b.set(k, uint32(i))
			}
		}
	}
}

// endMissed forgets map k.
func (m *marks) endMissed(k int) {
	m.maps[k] = missedMap{}
	for n := range m.blocks {
		if b := &m.blocks[n]; b.missed != nil {
			b.missed[k] = [mapSectors]uint64{}
			if *b.missed == (missedBits{}) {
				b.missed = nil
			}
		}
	}
}

// inBlock is the number of regions of a block.
func (m *marks) inBlock(n int) uint32 { return min(perBlock, m.regions-uint32(n)*perBlock) }

// loadMissed takes the maps of a block over as it was read. What is active is missed: a map is begun without writing blocks.
func (m *marks) loadMissed(index uint32, s *mapState) {
	b := &m.blocks[index]
	for k, to := range m.maps {
		if to.gen == 0 {
			continue
		}
		for i := range m.inBlock(int(index)) {
			has := to.all
			if s.gens[k] == to.gen {
				has = s.missed[k][i/sectorRegions]&(1<<(i%sectorRegions)) != 0
			}
			if has || b.seqs != nil && b.seqs[i] != 0 {
				b.set(k, i)
			}
		}
	}
}

// missed returns the regions from first to last that a map has, or, with k below 0, those of all maps and the active ones; as
// bytes of a replica.
func (m *marks) missed(k int, first, last uint32, spec peer.Spec) (out []peer.Extent) {
	for r := first; r <= last; r++ {
		b, i := &m.blocks[r/perBlock], r%perBlock
		if b.missed == nil && (k >= 0 || b.active == 0) {
			r += perBlock - 1 - i
			continue
		}
		has := k >= 0 && b.misses(k, i)
		if k < 0 {
			has = b.seqs != nil && b.seqs[i] != 0
			for j := range m.maps {
				has = has || b.misses(j, i)
			}
		}
		if !has {
			continue
		}
		off := int64(r) * spec.Region
		n := min(spec.Region, spec.Size-off)
		if e := len(out) - 1; e >= 0 && out[e].Off+out[e].Len == off {
			out[e].Len += n
		} else {
			out = append(out, peer.Extent{Off: off, Len: n})
		}
	}
	return out
}

// addMissed and dropMissed change a map; the blocks that change are written with the next commit.
func (m *marks) addMissed(k int, first, last uint32) {
	for r := first; r <= last; r++ {
		if b, i := &m.blocks[r/perBlock], r%perBlock; !b.misses(k, i) {
			b.set(k, i)
			m.change(r / perBlock)
		}
	}
}

func (m *marks) dropMissed(k int, first, last uint32) {
	for r := first; r <= last; r++ {
		b, i := &m.blocks[r/perBlock], r%perBlock
		if b.misses(k, i) && (b.seqs == nil || b.seqs[i] == 0) {
			b.missed[k][i/sectorRegions] &^= 1 << (i % sectorRegions)
			m.change(r / perBlock)
		}
	}
}

// regionsIn checks an extent and returns its regions. One that ends within a region ends where the volume does, than which the replica may be
// larger: what lies behind is zeros everywhere.
func regionsIn(x peer.Extent, spec peer.Spec) (first, last uint32, err error) {
	if x.Off < 0 || x.Len <= 0 || x.Off%spec.Region != 0 || x.Len%512 != 0 || x.Off > spec.Size-x.Len {
		return 0, 0, fmt.Errorf("regions of %d bytes at %d of %d: %w", x.Len, x.Off, spec.Size, peer.ErrInvalid)
	}
	return uint32(x.Off / spec.Region), uint32((x.Off + x.Len - 1) / spec.Region), nil
}

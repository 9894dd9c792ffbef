package replica

import (
	"fmt"

	"pmsapp/internal/block"
	"pmsapp/replication/peer"
)

// marks is a replica's map: which regions are active, with the Seq of their mark (invariant 12). It is pure: replica.go does
// the writing. Only blocks in which something is active or under way take memory: 18 bytes for each of their regions.
type marks struct {
	regions uint32
	blocks  []markBlock
	changed []uint32 // blocks that differ from what was written last
	active  int
	maps    [peer.MaxAbsent]missedMap // of absent replicas (missed.go)
}

type markBlock struct {
	seqs    []peer.Seq // the newest state: 0 is clean. nil while all are clean and nothing is under way
	kept    []peer.Seq // at least this is on the disk, whatever write of the block is under way: it needs no flush
	writing []uint16   // commands in progress
	high    peer.Seq
	durable peer.Seq
	count   uint64 // the number of the last write
	next    uint64 // the number of the next one, if it is not count+1
	active  uint16 // regions that are active
	busy    uint32 // the sum of writing
	changed bool
	missed  *missedBits // nil: none. While a map is in use, an active region is in it
}

func newMarks(regions uint32) *marks {
	return &marks{regions: regions, blocks: make([]markBlock, (regions+perBlock-1)/perBlock)}
}

func regionsOf(s peer.Spec) uint32 { return uint32((s.Size + s.Region - 1) / s.Region) }

// mapSize is the size of the map's file.
func mapSize(s peer.Spec) int64 { return mapBlocks(s) + 2*blockSize }

// begin says that a write of the regions first to last is about to happen. It returns whether a flush of the map must come
// first. end is called when the write has ended, whatever its end.
func (m *marks) begin(first, last uint32, seq, durable peer.Seq) (flush bool) {
	for r := first; r <= last; r++ {
		n := r / perBlock
		b, i := &m.blocks[n], r%perBlock
		if b.seqs == nil {
			b.seqs, b.kept, b.writing = make([]peer.Seq, perBlock), make([]peer.Seq, perBlock), make([]uint16, perBlock)
		}
		b.writing[i]++
		b.busy++
		if b.kept[i] >= seq {
			continue
		}
		flush = true
		if b.seqs[i] >= seq {
			continue // on its way to the disk
		}
		if b.seqs[i] == 0 {
			m.active++
			b.active++
			m.miss(b, i)
		}
		b.seqs[i] = seq
		b.high, b.durable = max(b.high, seq), max(b.durable, durable)
		m.change(n)
	}
	return flush
}

func (m *marks) change(n uint32) {
	if !m.blocks[n].changed {
		m.blocks[n].changed = true
		m.changed = append(m.changed, n)
	}
}

func (m *marks) end(first, last uint32) {
	for r := first; r <= last; r++ {
		b := &m.blocks[r/perBlock]
		b.writing[r%perBlock]--
		b.busy--
	}
}

// clearable tells whether clear would make a region clean.
func (m *marks) clearable(c peer.RegionSeq) bool {
	if c.Region >= m.regions {
		return false
	}
	b, i := &m.blocks[c.Region/perBlock], c.Region%perBlock
	return b.seqs != nil && b.writing[i] == 0 && b.seqs[i] != 0 && b.seqs[i] <= c.Seq
}

// clear makes regions clean whose Seq is at or below the named one and that have no write in progress. With the mark goes the
// evidence that others had it: durable takes its place, in the same write.
func (m *marks) clear(list []peer.RegionSeq, durable peer.Seq) (flush bool) {
	for _, c := range list {
		if !m.clearable(c) {
			continue
		}
		n := c.Region / perBlock
		b, i := &m.blocks[n], c.Region%perBlock
		// The mark may go with any write of the block from here on: a command that comes next cannot rely on it.
		b.seqs[i], b.kept[i] = 0, 0
		b.durable = max(b.durable, durable)
		b.active--
		m.active--
		m.change(n)
		flush = true
	}
	return flush
}

// list returns the active regions.
func (m *marks) list() (out []peer.RegionSeq) {
	for n := range m.blocks {
		if m.blocks[n].active == 0 {
			continue
		}
		for i, s := range m.blocks[n].seqs {
			if s != 0 {
				out = append(out, peer.RegionSeq{Region: uint32(n*perBlock + i), Seq: s})
			}
		}
	}
	return out
}

// highest returns the highest Seq and Durable ever recorded.
func (m *marks) highest() (seq, durable peer.Seq) {
	for i := range m.blocks {
		seq, durable = max(seq, m.blocks[i].high), max(durable, m.blocks[i].durable)
	}
	return seq, durable
}

// markWrite is a block to be written to a slot.
type markWrite struct {
	block uint32
	at    int64  // in the map's file
	bytes []byte // from block.Get
	seqs  []peer.Seq
}

// take returns what is to be written. The writes must be durable before the next take.
func (m *marks) take() (out []markWrite) {
	for _, n := range m.changed {
		b := &m.blocks[n]
		b.changed = false
		prev := b.count
		b.count = max(b.next, b.count+1)
		w := markWrite{block: n, at: slotAt(n, b.count), bytes: block.Get(blockSize), seqs: append([]peer.Seq(nil), b.seqs...)}
		s := mapState{count: b.count, prev: prev, high: b.high, durable: b.durable, seqs: w.seqs, gens: m.gens()}
		if b.missed != nil {
			s.missed = *b.missed
		}
		encodeMap(w.bytes, n, s)
		out = append(out, w)
	}
	m.changed = m.changed[:0]
	return out
}

// wrote says that the writes of take are durable.
func (m *marks) wrote(list []markWrite) {
	for _, w := range list {
		b := &m.blocks[w.block]
		for i, s := range w.seqs {
			// If the region was cleared meanwhile, and perhaps marked anew with a lower Seq, then that is what will be there.
			b.kept[i] = min(s, b.seqs[i])
		}
		block.Put(w.bytes)
		if b.active == 0 && b.busy == 0 && !b.changed {
			b.seqs, b.kept, b.writing = nil, nil, nil
		}
	}
}

// load takes a block over from its two slots.
func (m *marks) load(index uint32, slots [2][]byte) error {
	s, err := readMap(index, slots)
	if err != nil {
		return err
	}
	b := markBlock{count: s.count, next: s.next, high: s.high, durable: s.durable}
	for i, q := range s.seqs {
		if q == 0 {
			continue
		}
		if index*perBlock+uint32(i) >= m.regions {
			return fmt.Errorf("%w: a mark beyond the end", ErrDamaged)
		}
		b.active++
	}
	if b.active > 0 {
		b.seqs, b.kept, b.writing = s.seqs, append([]peer.Seq(nil), s.seqs...), make([]uint16, perBlock)
		m.active += int(b.active)
	}
	m.blocks[index] = b
	m.loadMissed(index, &s)
	return nil
}

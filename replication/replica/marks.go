package replica

import (
	"encoding/binary"
	"fmt"

	"pmsapp/replication/peer"
)

// marks is a replica's map: which regions are active, with the Seq of their mark (invariant 12). It is pure: commit.go does
// the writing. The map is a row of blocks of perBlock regions; each has two slots on the disk, written in turn, so that a
// write that is torn leaves the state before it, which nobody was told has gone.
type marks struct {
	regions uint32
	blocks  []markBlock
	writing map[uint32]int // writes in progress, by region
	active  int
}

// perBlock is how many regions a block has: 4096 bytes but for the head, the fields and the checksum, 8 each.
const (
	markFields = 28 // index (4), count (8), high (8), durable (8)
	perBlock   = (blockSize - headSize - 4 - markFields) / 8
)

type markBlock struct {
	// seqs is the newest state: 0 is clean. nil while all are clean and were never otherwise.
	seqs []peer.Seq
	// kept is what is on the disk for certain: a region that is active there with a Seq needs no flush.
	kept    []peer.Seq
	high    peer.Seq // the highest Seq that a region ever had
	durable peer.Seq // the highest Durable that came with a mark
	count   uint64   // of writes; odd and even ones go to different slots
	dirty   bool     // differs from what was written last
}

func newMarks(regions uint32) *marks {
	return &marks{regions: regions, blocks: make([]markBlock, (regions+perBlock-1)/perBlock), writing: map[uint32]int{}}
}

func regionsOf(s peer.Spec) uint32 { return uint32((s.Size + s.Region - 1) / s.Region) }

// begin says that a write of the regions first to last is about to happen. It returns whether a flush of the map must come
// first. end is called when the write has ended, whatever its end.
func (m *marks) begin(first, last uint32, seq, durable peer.Seq) (flush bool) {
	for r := first; r <= last; r++ {
		m.writing[r]++
		b := &m.blocks[r/perBlock]
		i := r % perBlock
		if b.seqs == nil {
			b.seqs, b.kept = make([]peer.Seq, perBlock), make([]peer.Seq, perBlock)
		}
		if b.kept[i] != 0 && b.kept[i] >= seq && b.seqs[i] != 0 {
			continue
		}
		flush = true
		if b.seqs[i] >= seq && b.seqs[i] != 0 {
			continue // on its way to the disk
		}
		if b.seqs[i] == 0 {
			m.active++
		}
		b.seqs[i] = seq
		b.high, b.durable = max(b.high, seq), max(b.durable, durable)
		b.dirty = true
	}
	return flush
}

func (m *marks) end(first, last uint32) {
	for r := first; r <= last; r++ {
		if m.writing[r]--; m.writing[r] == 0 {
			delete(m.writing, r)
		}
	}
}

// clear makes regions clean whose Seq is at or below the named one and that have no write in progress.
func (m *marks) clear(list []peer.RegionSeq) (flush bool) {
	for _, c := range list {
		if c.Region >= m.regions || m.writing[c.Region] > 0 {
			continue
		}
		b := &m.blocks[c.Region/perBlock]
		i := c.Region % perBlock
		if b.seqs == nil || b.seqs[i] == 0 || b.seqs[i] > c.Seq {
			continue
		}
		b.seqs[i] = 0
		b.dirty, flush = true, true
		m.active--
	}
	return flush
}

// list returns the active regions.
func (m *marks) list() (out []peer.RegionSeq) {
	for n, b := range m.blocks {
		for i, s := range b.seqs {
			if s != 0 {
				out = append(out, peer.RegionSeq{Region: uint32(n*perBlock + i), Seq: s})
			}
		}
	}
	return out
}

// highest returns the highest Seq and Durable.
func (m *marks) highest() (seq, durable peer.Seq) {
	for i := range m.blocks {
		seq, durable = max(seq, m.blocks[i].high), max(durable, m.blocks[i].durable)
	}
	return seq, durable
}

// markWrite is a block to be written to a slot.
type markWrite struct {
	block uint32
	at    int64 // in the map's file
	bytes []byte
	seqs  []peer.Seq // the state that it holds
}

// take returns what is to be written, and counts it as written for the next take.
func (m *marks) take() (out []markWrite) {
	for i := range m.blocks {
		b := &m.blocks[i]
		if !b.dirty {
			continue
		}
		b.dirty = false
		b.count++
		out = append(out, markWrite{block: uint32(i), at: slotAt(uint32(i), b.count), bytes: b.encode(uint32(i)),
			seqs: append([]peer.Seq(nil), b.seqs...)})
	}
	return out
}

// wrote says that writes of take are durable.
func (m *marks) wrote(list []markWrite) {
	for _, w := range list {
		copy(m.blocks[w.block].kept, w.seqs)
	}
}

// slotAt is where a block's write goes.
func slotAt(block uint32, count uint64) int64 {
	return (2*int64(block) + int64(count%2)) * blockSize
}

// mapSize is the size of the map's file.
func (m *marks) mapSize() int64 { return 2 * blockSize * int64(len(m.blocks)) }

func (b *markBlock) encode(index uint32) []byte {
	c := make([]byte, 0, markFields+8*perBlock)
	c = binary.BigEndian.AppendUint32(c, index)
	c = binary.BigEndian.AppendUint64(c, b.count)
	c = binary.BigEndian.AppendUint64(c, uint64(b.high))
	c = binary.BigEndian.AppendUint64(c, uint64(b.durable))
	for _, s := range b.seqs {
		c = binary.BigEndian.AppendUint64(c, uint64(s))
	}
	return seal(magicMap, c)
}

// decodeMark reads a slot. A slot of zeros was never written: ok is false, and err nil.
func decodeMark(index uint32, raw []byte) (b markBlock, ok bool, err error) {
	if allZero(raw) {
		return b, false, nil
	}
	c, err := open(magicMap, raw)
	if err != nil {
		return b, false, err
	}
	if binary.BigEndian.Uint32(c) != index {
		return b, false, fmt.Errorf("%w: block %d of the map is at the place of %d", ErrDamaged, binary.BigEndian.Uint32(c), index)
	}
	b.count = binary.BigEndian.Uint64(c[4:])
	b.high, b.durable = peer.Seq(binary.BigEndian.Uint64(c[12:])), peer.Seq(binary.BigEndian.Uint64(c[20:]))
	b.seqs = make([]peer.Seq, perBlock)
	for i := range b.seqs {
		b.seqs[i] = peer.Seq(binary.BigEndian.Uint64(c[markFields+8*i:]))
		if b.seqs[i] > b.high {
			return b, false, fmt.Errorf("%w: a mark above the highest", ErrDamaged)
		}
	}
	return b, true, nil
}

// load takes a block over from its two slots: the newer one that is whole. One that is torn is as if it had not been
// written: whoever waited for it was not told. If both are damaged the replica is: its marks are not known any more.
func (m *marks) load(index uint32, slots [2][]byte) error {
	var best markBlock
	found, damaged := false, 0
	var last error
	for _, raw := range slots {
		b, ok, err := decodeMark(index, raw)
		switch {
		case err != nil:
			damaged++
			last = err
		case ok && (!found || b.count > best.count):
			best, found = b, true
		}
	}
	switch {
	case damaged == 2:
		return last
	case damaged == 1 && !found:
		return nil // the first write of all was torn: the block was clean before it, and the next write goes there again
	case !found:
		return nil
	}
	for i := range best.seqs {
		if r := index*perBlock + uint32(i); r >= m.regions && best.seqs[i] != 0 {
			return fmt.Errorf("%w: a mark beyond the end", ErrDamaged)
		}
		if best.seqs[i] != 0 {
			m.active++
		}
	}
	best.kept = append([]peer.Seq(nil), best.seqs...)
	m.blocks[index] = best
	return nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

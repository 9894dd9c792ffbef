package replica

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"pmsapp/replication/peer"
)

// A map is a row of blocks of 4096 bytes, each of which has two slots that are written in turn. A block is eight sectors of 512
// bytes, and each sector has its own checksum and the number of the write that it belongs to. So a write that was torn (each
// sector is of this write or of the one before it in the slot; nobody was told of it) is told apart from a block that was
// damaged later (a mark in it may have been relied upon). docs/FORMATS.md has the drawing.
const (
	mapVersion    = 2
	mapSector     = 512
	mapSectors    = blockSize / mapSector
	sectorHead    = 84
	sectorRegions = (mapSector - sectorHead - 4) / 8 // 53
	perBlock      = mapSectors * sectorRegions
)

// mapState is what a block of the map holds.
type mapState struct {
	count   uint64   // the number of the write; odd and even ones go to different slots
	prev    uint64   // the number of the state that it follows, in the other slot
	next    uint64   // read: the number of the next write
	high    peer.Seq // the highest Seq that a region of the block ever had
	durable peer.Seq // the highest Durable that came with a mark, or with a Clear of one
	seqs    []peer.Seq
	gens    [peer.MaxAbsent]uint64 // the generations of the missed maps that missed is of; 0: none
	missed  missedBits
}

// slotAt is where a block's write goes.
func slotAt(block uint32, count uint64) int64 {
	return (2*int64(block) + int64(count%2)) * blockSize
}

// encodeMap writes a block; nil seqs are all clean.
func encodeMap(b []byte, index uint32, m mapState) {
	clear(b)
	for n := range mapSectors {
		s := b[n*mapSector : (n+1)*mapSector]
		copy(s, magicMap)
		binary.BigEndian.PutUint32(s[8:], mapVersion)
		binary.BigEndian.PutUint32(s[12:], index)
		binary.BigEndian.PutUint32(s[16:], uint32(n))
		binary.BigEndian.PutUint64(s[20:], m.count)
		binary.BigEndian.PutUint64(s[28:], m.prev)
		binary.BigEndian.PutUint64(s[36:], uint64(m.high))
		binary.BigEndian.PutUint64(s[44:], uint64(m.durable))
		for k, g := range m.gens {
			binary.BigEndian.PutUint64(s[52+8*k:], g)
			binary.BigEndian.PutUint64(s[68+8*k:], m.missed[k][n])
		}
		if m.seqs != nil {
			for i, q := range m.seqs[n*sectorRegions : (n+1)*sectorRegions] {
				binary.BigEndian.PutUint64(s[sectorHead+8*i:], uint64(q))
			}
		}
		binary.BigEndian.PutUint32(s[mapSector-4:], crc32.Checksum(s[:mapSector-4], castagnoli()))
	}
}

// slotKind is what a slot was found to be.
type slotKind uint8

const (
	blank   slotKind = iota // never written
	whole                   // one write, all of it
	torn                    // part of a write, the rest of the slot as it was before
	damaged                 // anything else
)

// readSlot judges a slot of a block. count is that of the newest write of which it has a sector.
func readSlot(index uint32, b []byte) (kind slotKind, m mapState, err error) {
	if allZero(b) {
		return blank, m, nil
	}
	const n = mapSectors
	var counts [n]uint64 // 0: never written
	m.seqs = make([]peer.Seq, perBlock)
	kind = whole
	for i := range n {
		s := b[i*mapSector : (i+1)*mapSector]
		if allZero(s) {
			continue
		}
		if err := checkSector(s, index, uint32(i)); err != nil {
			return damaged, m, err
		}
		counts[i] = binary.BigEndian.Uint64(s[20:])
		if counts[i] == 0 {
			return damaged, m, fmt.Errorf("%w: a write without a number", ErrDamaged)
		}
		if counts[i] >= m.count {
			m.count, m.prev = counts[i], binary.BigEndian.Uint64(s[28:])
			m.high, m.durable = peer.Seq(binary.BigEndian.Uint64(s[36:])), peer.Seq(binary.BigEndian.Uint64(s[44:]))
			m.gens = [peer.MaxAbsent]uint64{binary.BigEndian.Uint64(s[52:]), binary.BigEndian.Uint64(s[60:])}
		}
		for k := range m.missed {
			m.missed[k][i] = binary.BigEndian.Uint64(s[68+8*k:])
		}
		for k := range sectorRegions {
			m.seqs[i*sectorRegions+k] = peer.Seq(binary.BigEndian.Uint64(s[sectorHead+8*k:]))
		}
	}
	for _, c := range counts {
		if c != m.count {
			kind = torn
			if c != 0 && c%2 != m.count%2 {
				return damaged, m, fmt.Errorf("%w: writes %d and %d are in one slot of the map", ErrDamaged, c, m.count)
			}
		}
	}
	if kind == whole {
		for _, q := range m.seqs {
			if q > m.high {
				return damaged, m, fmt.Errorf("%w: a mark above the highest", ErrDamaged)
			}
		}
	}
	return kind, m, nil
}

func checkSector(s []byte, index, n uint32) error {
	switch {
	case string(s[:8]) != magicMap:
		return fmt.Errorf("%w: no %q", ErrDamaged, magicMap[:7])
	case crc32.Checksum(s[:mapSector-4], castagnoli()) != binary.BigEndian.Uint32(s[mapSector-4:]):
		return fmt.Errorf("%w: the checksum of %q differs", ErrDamaged, magicMap[:7])
	case binary.BigEndian.Uint32(s[8:]) != mapVersion:
		return fmt.Errorf("%w: %q has version %d, and this program knows %d", ErrVersion, magicMap[:7], binary.BigEndian.Uint32(s[8:]), version)
	case binary.BigEndian.Uint32(s[12:]) != index || binary.BigEndian.Uint32(s[16:]) != n:
		return fmt.Errorf("%w: sector %d of block %d of the map is at the place of %d of %d", ErrDamaged,
			binary.BigEndian.Uint32(s[16:]), binary.BigEndian.Uint32(s[12:]), n, index)
	}
	return nil
}

// readMap takes a block from its two slots. A crash leaves the last write that was flushed, whole, and beside it the one
// before it or a part of the one after it. Anything else is damage, and then the marks are not known. The number of a write
// that was torn is not used again: sectors of two attempts would look like one write.
func readMap(index uint32, slots [2][]byte) (m mapState, err error) {
	var kinds [2]slotKind
	var states [2]mapState
	for i, b := range slots {
		var err error
		if kinds[i], states[i], err = readSlot(index, b); err != nil {
			return m, err
		}
		if kinds[i] != blank && states[i].count%2 != uint64(i) {
			return m, fmt.Errorf("%w: write %d of the map is in slot %d", ErrDamaged, states[i].count, i)
		}
	}
	newer := 0
	if states[1].count > states[0].count {
		newer = 1
	}
	a, b := states[newer], states[1-newer]
	switch {
	case a.count == 0: // both are blank
		return mapState{next: 1}, nil
	case kinds[1-newer] == torn:
		return m, fmt.Errorf("%w: the older slot of a block of the map is a mixture", ErrDamaged)
	case kinds[newer] == torn:
		b.next = a.count + 2
		return b, nil
	case a.prev != b.count:
		return m, fmt.Errorf("%w: a block of the map has write %d, which follows %d, and write %d", ErrDamaged, a.count, a.prev, b.count)
	}
	a.next = a.count + 1
	return a, nil
}

func allZero(b []byte) bool {
	for len(b) >= 8 && binary.NativeEndian.Uint64(b) == 0 {
		b = b[8:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

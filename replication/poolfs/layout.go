package poolfs

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	blockSize = 4096
	version   = 1
	magic     = "PMSDISK\n"
	start     = 1 << 20 // of the first area: what is before it is left to other systems' signatures, and ours

	minUnit  = blockSize
	maxUnit  = 64 << 20
	maxUnits = 1<<32 - 2
)

// Layout is where things are on a device. The areas of the log come first, then the units, numbered from 0.
type Layout struct {
	Unit  int64  // bytes: what space is given out in
	Area  int64  // bytes of each of the two areas
	Data  int64  // where the units begin
	Units uint32 // how many there are
}

// NewLayout divides a device of size bytes into units, with areas in which everything can be written down however it is scattered
// (24 bytes for each unit), and room for base bytes of names and of log.
func NewLayout(size, unit, base int64) (Layout, error) {
	l := Layout{Unit: unit}
	n := max(size-start, 0) / unit
	l.Area = roundUp(base+24*n, unit)
	l.Data = roundUp(start+2*l.Area, unit)
	left := (size - l.Data) / unit
	if left < 1 {
		return l, fmt.Errorf("%w: it has %d bytes", ErrTooSmall, size)
	}
	l.Units = uint32(min(left, maxUnits))
	return l, l.check()
}

// Standard is the layout of a pool: units of 1 MiB, and 4 MiB of names and log, or 512 KiB on a device below 1 GiB.
func Standard(size int64) (Layout, error) {
	base := int64(4 << 20)
	if size < 1<<30 {
		base = 512 << 10
	}
	return NewLayout(size, 1<<20, base)
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

func (l Layout) check() error {
	switch {
	case l.Unit < minUnit || l.Unit > maxUnit || l.Unit&(l.Unit-1) != 0:
		return damaged("a unit of %d bytes", l.Unit)
	case l.Area < 16*sectorSize || l.Area%blockSize != 0 || l.Area > 1<<40 || l.Data%blockSize != 0 || l.Data < start+2*l.Area || l.Data > 1<<42:
		return damaged("areas of %d bytes, units from %d", l.Area, l.Data)
	case l.Units == 0 || l.Units > maxUnits:
		return damaged("%d units", l.Units)
	case l.room() <= 0:
		return damaged("areas of %d bytes for %d units", l.Area, l.Units)
	}
	return nil
}

func (l Layout) size() int64           { return l.Data + int64(l.Units)*l.Unit }
func (l Layout) unit(n uint32) int64   { return l.Data + int64(n)*l.Unit }
func (l Layout) area(i int) int64      { return start + int64(i)*l.Area }
func (l Layout) sectors() int          { return int(l.Area / sectorSize) }
func (l Layout) span(size int64) int64 { return (size + l.Unit - 1) / l.Unit }

// room is how many bytes of names may be written down: beside the worst that units need, and as much again for the log.
func (l Layout) room() int64 {
	return (int64(l.sectors())*payloadSize - int64(l.Units)*mapOpSize) / 2
}

// encode makes a superblock.
func (l Layout) encode() []byte {
	b := make([]byte, blockSize)
	copy(b, magic)
	binary.BigEndian.PutUint32(b[8:], version)
	binary.BigEndian.PutUint64(b[16:], uint64(l.Unit))
	binary.BigEndian.PutUint64(b[24:], uint64(l.Area))
	binary.BigEndian.PutUint64(b[32:], uint64(l.Data))
	binary.BigEndian.PutUint32(b[40:], l.Units)
	binary.BigEndian.PutUint32(b[blockSize-4:], crc(b[:blockSize-4]))
	return b
}

// decodeLayout reads a superblock of blockSize bytes.
func decodeLayout(b []byte) (l Layout, err error) {
	switch {
	case len(b) != blockSize || string(b[:8]) != magic:
		return l, damaged("no superblock")
	case crc(b[:blockSize-4]) != binary.BigEndian.Uint32(b[blockSize-4:]):
		return l, damaged("the checksum of the superblock differs")
	case binary.BigEndian.Uint32(b[8:]) != version:
		return l, fmt.Errorf("%w: version %d, and this program knows %d", ErrVersion, binary.BigEndian.Uint32(b[8:]), version)
	}
	l.Unit, l.Area = int64(binary.BigEndian.Uint64(b[16:])), int64(binary.BigEndian.Uint64(b[24:]))
	l.Data, l.Units = int64(binary.BigEndian.Uint64(b[32:])), binary.BigEndian.Uint32(b[40:])
	return l, l.check()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

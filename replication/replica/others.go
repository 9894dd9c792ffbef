package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// othersRecord is what a replica knows of the others of its volume, and of itself: behind the map, in two sectors that are
// written in turn. A sector is written as a whole or not at all (disk.go), so one that does not read is damaged, never torn:
// it may be the newer one, and then what is recorded of the others is not known. The replica forgets it then, and is another one to
// them (birth): full copies, never a wrong one. docs/FORMATS.md has the drawing.
type othersRecord struct {
	count  uint64 // of writes, from 1; odd and even ones go to different sectors
	birth  ids.ID
	others []otherEntry
}

// otherEntry is one of the others; with a map if it is absent.
type otherEntry struct {
	peer.Other        // All: what the map has of sectors that were not written in its generation
	slot       int    // of the map
	gen        uint64 // likewise
}

const (
	magicOthers = "PMSOTHR\n"
	entrySize   = 80
	entriesAt   = 40
)

func (o *othersRecord) encode() []byte {
	if len(o.others) > peer.MaxOthers {
		panic("replica: too many others")
	}
	b := make([]byte, blockSize)
	copy(b, magicOthers)
	binary.BigEndian.PutUint32(b[8:], version)
	binary.BigEndian.PutUint32(b[12:], uint32(len(o.others)))
	binary.BigEndian.PutUint64(b[16:], o.count)
	copy(b[24:], o.birth[:])
	for i, e := range o.others {
		p := b[entriesAt+i*entrySize:]
		copy(p, e.ID.Node[:])
		copy(p[16:], e.ID.Pool[:])
		copy(p[32:], e.ID.Birth[:])
		if e.Absent {
			p[48] = 1
		}
		if e.All {
			p[49] = 1
		}
		p[50] = byte(e.slot)
		binary.BigEndian.PutUint64(p[56:], uint64(e.Epoch))
		binary.BigEndian.PutUint64(p[64:], uint64(e.Seq))
		binary.BigEndian.PutUint64(p[72:], e.gen)
	}
	binary.BigEndian.PutUint32(b[mapSector-4:], crc32.Checksum(b[:mapSector-4], castagnoli()))
	return b
}

func decodeOthers(b []byte) (o othersRecord, err error) {
	if len(b) < mapSector || string(b[:8]) != magicOthers ||
		crc32.Checksum(b[:mapSector-4], castagnoli()) != binary.BigEndian.Uint32(b[mapSector-4:]) {
		return o, fmt.Errorf("%w: the record of the other replicas", ErrDamaged)
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != version {
		return o, fmt.Errorf("%w: %q has version %d, and this program knows %d", ErrVersion, magicOthers[:7], v, version)
	}
	n := binary.BigEndian.Uint32(b[12:])
	if n > peer.MaxOthers {
		return o, fmt.Errorf("%w: %d other replicas", ErrDamaged, n)
	}
	o.count = binary.BigEndian.Uint64(b[16:])
	copy(o.birth[:], b[24:])
	if o.count == 0 || o.birth.IsZero() {
		return o, fmt.Errorf("%w: a record of the other replicas without identity", ErrDamaged)
	}
	var used [peer.MaxAbsent]bool
	for i := range n {
		p := b[entriesAt+i*entrySize:]
		var e otherEntry
		copy(e.ID.Node[:], p)
		copy(e.ID.Pool[:], p[16:])
		copy(e.ID.Birth[:], p[32:])
		e.Absent, e.All, e.slot = p[48] == 1, p[49] == 1, int(p[50])
		e.Epoch, e.Seq = peer.Epoch(binary.BigEndian.Uint64(p[56:])), peer.Seq(binary.BigEndian.Uint64(p[64:]))
		e.gen = binary.BigEndian.Uint64(p[72:])
		if e.ID.Birth.IsZero() || e.slot >= peer.MaxAbsent || e.Absent != (e.gen != 0) || !e.Absent && (e.All || e.slot != 0) ||
			e.Absent && used[e.slot] {
			return o, fmt.Errorf("%w: entry %d of the record of the other replicas", ErrDamaged, i)
		}
		used[e.slot] = used[e.slot] || e.Absent
		o.others = append(o.others, e)
	}
	return o, nil
}

// readOthers takes the record from its two sectors. lost says that it was damaged, and is a new one.
func readOthers(slots [2][]byte) (o othersRecord, lost bool, err error) {
	for i, b := range slots {
		if allZero(b[:mapSector]) {
			continue
		}
		s, err := decodeOthers(b)
		switch {
		case errors.Is(err, ErrVersion):
			return o, false, err
		case err != nil || s.count%2 != uint64(i):
			lost = true
		case s.count > o.count:
			o = s
		}
	}
	if lost || o.count == 0 {
		return othersRecord{count: o.count + 1, birth: ids.New()}, true, nil
	}
	return o, false, nil
}

func (o *othersRecord) find(birth ids.ID) *otherEntry {
	for i := range o.others {
		if o.others[i].ID.Birth == birth {
			return &o.others[i]
		}
	}
	return nil
}

func (o *othersRecord) list() (out []peer.Other) {
	for _, e := range o.others {
		e.Other.All = false // of the map's beginning
		out = append(out, e.Other)
	}
	return out
}

// change says what the record is to be for a Know: first without what is dropped, then with what is begun. Maps are begun in
// slots that nothing of the first uses, with generations from gen.
func (o *othersRecord) change(list []peer.Other, gen func() uint64) (without, with []otherEntry, err error) {
	var used [peer.MaxAbsent]bool
	if len(list) > peer.MaxOthers {
		return nil, nil, fmt.Errorf("%d other replicas: %w", len(list), peer.ErrInvalid)
	}
	for i, x := range list {
		for _, y := range list[:i] {
			if x.ID.Birth == y.ID.Birth {
				return nil, nil, fmt.Errorf("a replica twice: %w", peer.ErrInvalid)
			}
		}
		if x.ID.Birth.IsZero() || x.All && !x.Absent {
			return nil, nil, fmt.Errorf("another replica: %w", peer.ErrInvalid)
		}
		was := o.find(x.ID.Birth)
		if was == nil || was.Absent && (!x.Absent || x.All) {
			continue
		}
		e := *was
		if e.Absent {
			e.Epoch, e.Seq = max(e.Epoch, x.Epoch), max(e.Seq, x.Seq)
			used[e.slot] = true
		}
		e.ID = x.ID
		without = append(without, e)
	}
	for _, x := range list {
		e := otherEntry{Other: x}
		for _, y := range without {
			if y.ID == x.ID {
				e = y
			}
		}
		if x.Absent && !e.Absent || x.Absent && e.gen == 0 {
			e.Other = x
			for e.slot = 0; e.slot < peer.MaxAbsent && used[e.slot]; e.slot++ {
			}
			if e.slot == peer.MaxAbsent {
				return nil, nil, fmt.Errorf("more than %d absent replicas: %w", peer.MaxAbsent, peer.ErrInvalid)
			}
			used[e.slot], e.gen = true, gen()
		}
		if !x.Absent {
			e = otherEntry{Other: peer.Other{ID: x.ID}}
		}
		with = append(with, e)
	}
	return without, with, nil
}

package filetree

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
)

// A snapshot of a tree is "PMSTREE" and 3 (8 bytes: magic and version), numbers as in codec.go, and the CRC-32C of all before
// it (4 bytes, big endian): docs/FORMATS.md. Version 1 had no locks, version 2 no states of them.
const (
	snapshotMagic   = "PMSTREE"
	snapshotVersion = 3
	snapshotHead    = len(snapshotMagic) + 1
)

// saver writes a snapshot; the first error sticks to w.
type saver struct {
	w   *bufio.Writer
	sum hash.Hash32
	b   []byte
}

func (s *saver) put(b []byte) {
	s.sum.Write(b)
	s.w.Write(b) // an error comes again at Flush
}

func (s *saver) uints(all ...uint64) {
	s.b = s.b[:0]
	for _, n := range all {
		s.b = putUint(s.b, n)
	}
	s.put(s.b)
}

func (s *saver) string(v string) {
	s.uints(uint64(len(v)))
	s.put([]byte(v))
}

// Save writes the tree.
func (t *Tree) Save(w io.Writer) error {
	s := &saver{w: bufio.NewWriterSize(w, 64<<10), sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	s.put(append([]byte(snapshotMagic), snapshotVersion))
	s.uints(uint64(t.size), uint64(t.gen), t.next, uint64(t.clock), uint64(t.ceil), t.seq)
	s.uints(uint64(t.inodes.n))
	for ino, n := range t.inodes.from(0) {
		s.uints(uint64(ino), uint64(n.Type), uint64(n.Mode), uint64(n.Gen), uint64(n.UID), uint64(n.GID), uint64(n.Nlink),
			uint64(n.Size), uint64(n.Used), uint64(n.Atime), uint64(n.Mtime), uint64(n.Ctime), n.Aux)
	}
	s.uints(uint64(t.texts.n))
	for ino, text := range t.texts.from(0) {
		s.uints(uint64(ino))
		s.string(text)
	}
	s.uints(uint64(t.entries.n))
	for k, d := range t.entries.from(entryKey{}) {
		s.uints(k.dir, k.cookie, d.ino)
		s.string(d.name)
	}
	s.uints(uint64(t.extents.n))
	for k, x := range t.extents.from(extentKey{}) {
		s.uints(k.ino, uint64(k.off), uint64(x.vol), uint64(x.len))
	}
	for _, set := range []*bmap[number, struct{}]{&t.orphans, &t.marks} {
		s.uints(uint64(set.n))
		for ino := range set.from(0) {
			s.uints(uint64(ino))
		}
	}
	s.uints(uint64(t.order.n))
	for seq, k := range t.order.from(0) {
		r, _ := t.replies.get(k)
		s.put(k[:])
		s.uints(uint64(seq), uint64(r.Status), r.Ino)
	}
	for _, sp := range []*space{&t.free, &t.ahead, &t.freed} {
		s.uints(uint64(sp.m.n))
		for off, n := range sp.m.from(0) {
			s.uints(uint64(off), uint64(n))
		}
	}
	t.saveLocks(s)
	s.w.Write(binary.BigEndian.AppendUint32(nil, s.sum.Sum32()))
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("writing a file tree: %w", err)
	}
	return nil
}

// Load reads what Save wrote. It returns ErrSnapshot. It relies on the checksum for what Check would find, which takes several
// times as long.
func Load(b []byte) (*Tree, error) {
	end := len(b) - 4
	switch {
	case end < snapshotHead || string(b[:len(snapshotMagic)]) != snapshotMagic || b[len(snapshotMagic)]-1 >= snapshotVersion:
		return nil, fmt.Errorf("%w: %d bytes, or another version", ErrSnapshot, len(b))
	case crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[end:]):
		return nil, fmt.Errorf("%w: the checksum differs", ErrSnapshot)
	}
	t := &Tree{by: new(edit)}
	s := &scanner{b: b[snapshotHead:end]}
	t.load(s)
	if version := b[len(snapshotMagic)]; version > 1 {
		t.loadLocks(s, version > 2)
	}
	t.by = nil
	if s.err != nil || len(s.b) != 0 {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, errShort)
	}
	if t.gen == 0 || t.next <= Root || t.order.n != t.replies.n {
		return nil, fmt.Errorf("%w: it is no tree", ErrSnapshot)
	}
	return t, nil
}

func (s *scanner) pos() int64 { return int64(s.uint(math.MaxInt64)) }

// each calls f as often as the number that follows says, until there is an error.
func (s *scanner) each(f func()) {
	for n := s.uint(math.MaxInt64); n > 0 && s.err == nil; n-- {
		f()
	}
}

func (t *Tree) load(s *scanner) {
	t.size, t.gen, t.next, t.clock, t.ceil = s.pos(), uint32(s.uint(math.MaxUint32)), s.uint(math.MaxInt64), s.pos(), s.pos()
	t.seq = s.uint(math.MaxInt64)
	s.each(func() {
		ino := s.uint(math.MaxInt64)
		t.putInode(ino, Inode{Type: Type(s.uint(255)), Mode: uint16(s.uint(0o7777)), Gen: uint32(s.uint(math.MaxUint32)),
			UID: uint32(s.uint(math.MaxUint32)), GID: uint32(s.uint(math.MaxUint32)), Nlink: uint32(s.uint(math.MaxUint32)),
			Size: s.pos(), Used: s.pos(), Atime: s.pos(), Mtime: s.pos(), Ctime: s.pos(), Aux: s.uint(math.MaxUint64)})
	})
	s.each(func() {
		ino := s.uint(math.MaxInt64)
		text := s.string(MaxTarget)
		t.texts.set(t.by, number(ino), text)
		t.meta += int64(len(text)) + 8
	})
	s.each(func() {
		dir, cookie, ino := s.uint(math.MaxInt64), s.uint(math.MaxInt64), s.uint(math.MaxInt64)
		t.putEntry(dir, cookie, s.string(MaxName), ino)
	})
	s.each(func() {
		ino, off := s.uint(math.MaxInt64), s.pos()
		t.extents.set(t.by, extentKey{ino, off}, extent{s.pos(), s.pos()})
		t.meta += metaExtent
	})
	for _, set := range []*bmap[number, struct{}]{&t.orphans, &t.marks} {
		s.each(func() {
			set.set(t.by, number(s.uint(math.MaxInt64)), struct{}{})
			t.meta += 8
		})
	}
	s.each(func() {
		var k Key
		copy(k[:], s.bytes(len(k)))
		seq := s.uint(math.MaxInt64)
		t.order.set(t.by, number(seq), k)
		t.replies.set(t.by, k, recorded{Reply{Status(s.uint(math.MaxUint32)), s.uint(math.MaxInt64)}, seq})
		t.meta += metaReply
	})
	for _, sp := range []*space{&t.free, &t.ahead, &t.freed} {
		s.each(func() {
			off, n := s.pos(), s.pos()
			sp.m.set(t.by, number(off), n)
			sp.sum += n
		})
	}
}

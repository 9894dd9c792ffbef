package filetree

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// batchVersion begins an encoded batch.
const batchVersion = 1

// Bounds of a batch. They keep a command under the catalog's limit, and a decoder's memory in proportion to its input.
const (
	MaxOps   = 1024
	MaxSpans = 4096 // of an op
	MaxBatch = 1 << 20
)

func putInt(b []byte, n int64) []byte     { return binary.AppendVarint(b, n) }
func putUint(b []byte, n uint64) []byte   { return binary.AppendUvarint(b, n) }
func putString(b []byte, s string) []byte { return append(putUint(b, uint64(len(s))), s...) }

// scanner reads what was put; after the first error everything is zero.
type scanner struct {
	b   []byte
	err error
}

var errShort = errors.New("it ends too early, or a number is out of range")

func (s *scanner) fail() {
	s.b = nil
	if s.err == nil {
		s.err = errShort
	}
}

func (s *scanner) int() int64 {
	n, l := binary.Varint(s.b)
	if l <= 0 {
		s.fail()
		return 0
	}
	s.b = s.b[l:]
	return n
}

func (s *scanner) uint(limit uint64) uint64 {
	n, l := binary.Uvarint(s.b)
	if l <= 0 || n > limit {
		s.fail()
		return 0
	}
	s.b = s.b[l:]
	return n
}

func (s *scanner) bytes(n int) []byte {
	if n > len(s.b) {
		s.fail()
		return make([]byte, n)
	}
	p := s.b[:n]
	s.b = s.b[n:]
	return p
}

// string reads one of at most limit bytes, which is small.
func (s *scanner) string(limit int) string {
	n := int(s.uint(uint64(limit)))
	if n == 0 {
		return ""
	}
	return string(s.bytes(n))
}

// Encode writes a batch (docs/FORMATS.md).
func (b Batch) Encode() []byte {
	out := []byte{batchVersion}
	out = putInt(out, b.Ceil)
	out = putUint(out, uint64(len(b.Ops)))
	for i := range b.Ops {
		out = b.Ops[i].encode(out)
	}
	return out
}

func (o *Op) encode(b []byte) []byte {
	guarded := byte(0)
	if o.Guarded {
		guarded = 1
	}
	b = append(b, byte(o.Kind), byte(o.How), byte(o.Type), guarded)
	b = putInt(putInt(b, o.Now), o.Guard)
	if o.Reply == (Key{}) {
		b = append(b, 0)
	} else {
		b = append(append(b, 1), o.Reply[:]...)
	}
	b = putUint(putUint(putUint(b, o.Ino), o.Dir), o.Dir2)
	b = putString(putString(b, o.Name), o.Name2)
	b = putInt(putUint(b, o.Aux), o.Size)
	b = append(b, byte(o.Set.Fields))
	b = putUint(putUint(putUint(b, uint64(o.Set.Mode)), uint64(o.Set.UID)), uint64(o.Set.GID))
	b = putInt(putInt(putInt(putInt(b, o.Set.Size), o.Set.Atime), o.Set.Mtime), o.Set.Ctime)
	b = putUint(b, uint64(len(o.Spans)))
	for _, s := range o.Spans {
		b = putInt(putInt(putInt(b, s.File), s.Vol), s.Len)
	}
	return b
}

// DecodeBatch reads a batch. It returns ErrBatch.
func DecodeBatch(b []byte) (Batch, error) {
	if len(b) == 0 || len(b) > MaxBatch || b[0] != batchVersion {
		return Batch{}, fmt.Errorf("%w: %d bytes, or another version", ErrBatch, len(b))
	}
	s := &scanner{b: b[1:]}
	var out Batch
	out.Ceil = s.int()
	n := s.uint(MaxOps)
	for range n {
		var o Op
		o.decode(s)
		if s.err != nil {
			break
		}
		if o.Kind == 0 || o.Kind >= kindEnd {
			return Batch{}, fmt.Errorf("%w: kind %d", ErrBatch, o.Kind)
		}
		out.Ops = append(out.Ops, o)
	}
	if s.err != nil || len(s.b) != 0 {
		return Batch{}, fmt.Errorf("%w: %w", ErrBatch, errors.Join(s.err, errShort))
	}
	return out, nil
}

func (o *Op) decode(s *scanner) {
	p := s.bytes(4)
	o.Kind, o.How, o.Type, o.Guarded = Kind(p[0]), How(p[1]), Type(p[2]), p[3] != 0
	if p[3] > 1 {
		s.fail()
	}
	o.Now, o.Guard = s.int(), s.int()
	if s.uint(1) == 1 {
		copy(o.Reply[:], s.bytes(len(o.Reply)))
	}
	o.Ino, o.Dir, o.Dir2 = s.uint(1<<63), s.uint(1<<63), s.uint(1<<63)
	o.Name, o.Name2 = s.string(4096), s.string(4096)
	o.Aux, o.Size = s.uint(1<<64-1), s.int()
	o.Set.Fields = Fields(s.bytes(1)[0])
	o.Set.Mode, o.Set.UID, o.Set.GID = uint16(s.uint(1<<16-1)), uint32(s.uint(1<<32-1)), uint32(s.uint(1<<32-1))
	o.Set.Size, o.Set.Atime, o.Set.Mtime, o.Set.Ctime = s.int(), s.int(), s.int(), s.int()
	n := s.uint(MaxSpans)
	for range n {
		sp := Span{s.int(), s.int(), s.int()}
		if s.err != nil {
			return
		}
		o.Spans = append(o.Spans, sp)
	}
}

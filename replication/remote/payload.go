package remote

import (
	"encoding/binary"
	"errors"
	"fmt"

	"pmsapp/replication/peer"
)

// errPayload is returned for Data-In or Data-Out that is not laid out as the package documentation says.
var errPayload = errors.New("remote: malformed payload")

const (
	payloadVersion = 1
	answerMagic    = "PMSA"
	answerHead     = 24
	specMagic      = "PMSS"
	specLen        = 72
	regionLen      = 12
	extentLen      = 16
	rangeLen       = 16
	poolLen        = 36
	replicaLen     = 104

	// maxBody bounds an answer: an active map of 16 million regions.
	maxBody = 192 << 20
	// maxRegions is how many regions one CLEAR names.
	maxRegions = 64 << 10
)

// answerHeader begins an answer.
type answerHeader struct {
	act    action
	length uint64 // of the body
	token  uint64
}

func (h answerHeader) append(b []byte) []byte {
	b = append(b, answerMagic...)
	b = binary.BigEndian.AppendUint16(b, payloadVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(h.act))
	b = binary.BigEndian.AppendUint64(b, h.length)
	return binary.BigEndian.AppendUint64(b, h.token)
}

func decodeAnswerHeader(b []byte, act action) (h answerHeader, body []byte, err error) {
	r := cursor{b: b}
	if string(r.take(4)) != answerMagic || r.u16() != payloadVersion {
		return h, nil, fmt.Errorf("no answer of this version: %w", errPayload)
	}
	h.act, h.length, h.token = action(r.u16()), r.u64(), r.u64()
	if r.bad || h.act != act || h.length > maxBody || uint64(len(r.b)) > h.length || uint64(len(r.b)) < h.length && h.token == 0 {
		return h, nil, fmt.Errorf("answer to %#x of %d bytes: %w", h.act, h.length, errPayload)
	}
	return h, r.b, nil
}

// cursor reads numbers one after the other; bad says that there were not enough bytes.
type cursor struct {
	b   []byte
	bad bool
}

func (r *cursor) take(n int) []byte {
	if n > len(r.b) {
		r.bad, r.b = true, nil
		return make([]byte, n)
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *cursor) u16() uint16           { return binary.BigEndian.Uint16(r.take(2)) }
func (r *cursor) u32() uint32           { return binary.BigEndian.Uint32(r.take(4)) }
func (r *cursor) u64() uint64           { return binary.BigEndian.Uint64(r.take(8)) }
func (r *cursor) id(p *[16]byte)        { copy(p[:], r.take(16)) }
func (r *cursor) size() (v int64)       { return r.nonNegative(int64(r.u64())) }
func (r *cursor) epoch() (e peer.Epoch) { return peer.Epoch(r.u64()) }

func (r *cursor) nonNegative(v int64) int64 {
	if v < 0 {
		r.bad = true
	}
	return v
}

// count reads the number of things that follow, of at least size bytes each.
func (r *cursor) count(size int) int {
	n := r.u32()
	if uint64(n)*uint64(size) > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

// spec reads what a Spec is made of.
func (r *cursor) spec() (s peer.Spec) {
	r.id((*[16]byte)(&s.Volume))
	r.id((*[16]byte)(&s.Lineage))
	r.id((*[16]byte)(&s.Pool))
	s.Size, s.Region = r.size(), r.size()
	return s
}

func appendSpecFields(b []byte, s *peer.Spec) []byte {
	b = append(b, s.Volume[:]...)
	b = append(b, s.Lineage[:]...)
	b = append(b, s.Pool[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Size))
	return binary.BigEndian.AppendUint64(b, uint64(s.Region))
}

func appendSpec(b []byte, s *peer.Spec) []byte {
	b = append(b, specMagic...)
	b = binary.BigEndian.AppendUint16(b, payloadVersion)
	b = append(b, 0, 0)
	return appendSpecFields(b, s)
}

func decodeSpec(b []byte) (s peer.Spec, err error) {
	r := cursor{b: b}
	if len(b) != specLen || string(r.take(4)) != specMagic || r.u16() != payloadVersion {
		return s, fmt.Errorf("spec: %w", errPayload)
	}
	r.take(2)
	s = r.spec()
	if r.bad {
		return s, fmt.Errorf("spec: %w", errPayload)
	}
	return s, nil
}

func appendRegions(b []byte, regions []peer.RegionSeq) []byte {
	for _, g := range regions {
		b = binary.BigEndian.AppendUint32(b, g.Region)
		b = binary.BigEndian.AppendUint64(b, uint64(g.Seq))
	}
	return b
}

func decodeRegions(b []byte) ([]peer.RegionSeq, error) {
	if len(b)%regionLen != 0 {
		return nil, fmt.Errorf("%d bytes of regions: %w", len(b), errPayload)
	}
	out := make([]peer.RegionSeq, len(b)/regionLen)
	for i := range out {
		p := b[i*regionLen:]
		out[i] = peer.RegionSeq{Region: binary.BigEndian.Uint32(p), Seq: peer.Seq(binary.BigEndian.Uint64(p[4:]))}
	}
	return out, nil
}

func appendExtents(b []byte, extents []peer.Extent) []byte {
	for _, e := range extents {
		b = binary.BigEndian.AppendUint64(b, uint64(e.Off))
		b = binary.BigEndian.AppendUint64(b, uint64(e.Len))
	}
	return b
}

// decodeExtents verifies that extents ascend, do not overlap, and lie within what was asked for: a hole that is data to the
// node must never be taken for one by mistake.
func decodeExtents(b []byte, off, length int64) ([]peer.Extent, error) {
	if len(b)%extentLen != 0 {
		return nil, fmt.Errorf("%d bytes of extents: %w", len(b), errPayload)
	}
	out := make([]peer.Extent, len(b)/extentLen)
	at := off
	for i := range out {
		r := cursor{b: b[i*extentLen:]}
		e := peer.Extent{Off: r.size(), Len: r.size()}
		if r.bad || e.Off < at || e.Len <= 0 || e.Len > off+length-e.Off {
			return nil, fmt.Errorf("extent of %d bytes at %d: %w", e.Len, e.Off, errPayload)
		}
		at = e.Off + e.Len
		out[i] = e
	}
	return out, nil
}

func appendSums(b []byte, sums []uint32) []byte {
	for _, x := range sums {
		b = binary.BigEndian.AppendUint32(b, x)
	}
	return b
}

// decodeSums verifies that there is one for each block of 4096 bytes.
func decodeSums(b []byte, length int64) ([]uint32, error) {
	if int64(len(b)) != 4*((length+4095)/4096) {
		return nil, fmt.Errorf("%d bytes of sums for %d of data: %w", len(b), length, errPayload)
	}
	out := make([]uint32, len(b)/4)
	for i := range out {
		out[i] = binary.BigEndian.Uint32(b[4*i:])
	}
	return out, nil
}

func appendFenced(b []byte, f *peer.Fenced) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(f.Highest))
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.Pools)))
	for i := range f.Pools {
		p := &f.Pools[i]
		b = append(b, p.Pool[:]...)
		b = appendFlags(b, p.Busy, p.Reverted)
		b = binary.BigEndian.AppendUint64(b, uint64(p.Previous))
		b = binary.BigEndian.AppendUint32(b, uint32(len(p.Accepted)))
		b = binary.BigEndian.AppendUint32(b, uint32(len(p.Replicas)))
		for _, r := range p.Accepted {
			b = binary.BigEndian.AppendUint64(b, uint64(r.Lo))
			b = binary.BigEndian.AppendUint64(b, uint64(r.Hi))
		}
		for j := range p.Replicas {
			r := &p.Replicas[j]
			b = appendSpecFields(b, &r.Spec)
			b = appendFlags(b, r.Foreign)
			b = append(b, r.Incarnation[:]...)
			b = binary.BigEndian.AppendUint64(b, uint64(r.Seq))
			b = binary.BigEndian.AppendUint64(b, uint64(r.Durable))
			b = binary.BigEndian.AppendUint32(b, uint32(r.Active))
		}
	}
	return b
}

// appendFlags appends 4 bytes, of which bit i is the i-th flag.
func appendFlags(b []byte, flags ...bool) []byte {
	var word uint32
	for i, set := range flags {
		if set {
			word |= 1 << i
		}
	}
	return binary.BigEndian.AppendUint32(b, word)
}

func decodeFenced(b []byte) (f peer.Fenced, err error) {
	r := cursor{b: b}
	f.Highest = r.epoch()
	f.Pools = make([]peer.FencedPool, r.count(poolLen))
	for i := range f.Pools {
		p := &f.Pools[i]
		r.id((*[16]byte)(&p.Pool))
		flags := r.u32()
		p.Busy, p.Reverted = flags&1 != 0, flags&2 != 0
		p.Previous = r.epoch()
		ranges, replicas := r.u32(), r.u32()
		if ranges > peer.MaxAccepted || uint64(ranges)*rangeLen+uint64(replicas)*replicaLen > uint64(len(r.b)) {
			return peer.Fenced{}, fmt.Errorf("pool with %d ranges and %d replicas: %w", ranges, replicas, errPayload)
		}
		p.Accepted = make([]peer.EpochRange, ranges)
		for j := range p.Accepted {
			p.Accepted[j] = peer.EpochRange{Lo: r.epoch(), Hi: r.epoch()}
		}
		p.Replicas = make([]peer.FencedReplica, replicas)
		for j := range p.Replicas {
			g := &p.Replicas[j]
			g.Spec = r.spec()
			g.Foreign = r.u32()&1 != 0
			r.id((*[16]byte)(&g.Incarnation))
			g.Seq, g.Durable = peer.Seq(r.u64()), peer.Seq(r.u64())
			g.Active = int(r.u32())
		}
	}
	if r.bad || len(r.b) > 0 {
		return peer.Fenced{}, fmt.Errorf("fence answer of %d bytes: %w", len(b), errPayload)
	}
	return f, nil
}

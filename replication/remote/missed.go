package remote

import (
	"encoding/binary"
	"fmt"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

const (
	otherLen = 72
	mapHead  = 44
	// maxMissed is how many extents one ADD MISSED or DROP MISSED names.
	maxMissed = 256 << 10
)

// nameBirth puts the birth of a replica where a command without a mark has room.
func (q *request) nameBirth(id ids.ID) {
	q.seq, q.durable = binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
}

func (q *request) birth() (id ids.ID) {
	binary.BigEndian.PutUint64(id[:8], q.seq)
	binary.BigEndian.PutUint64(id[8:], q.durable)
	return id
}

func appendOthers(b []byte, others []peer.Other) []byte {
	for i := range others {
		o := &others[i]
		b = append(b, o.ID.Node[:]...)
		b = append(b, o.ID.Pool[:]...)
		b = append(b, o.ID.Birth[:]...)
		b = appendFlags(b, o.Absent, o.All)
		b = append(b, 0, 0, 0, 0)
		b = binary.BigEndian.AppendUint64(b, uint64(o.Epoch))
		b = binary.BigEndian.AppendUint64(b, uint64(o.Seq))
	}
	return b
}

func (r *cursor) other() (o peer.Other) {
	r.id((*[16]byte)(&o.ID.Node))
	r.id((*[16]byte)(&o.ID.Pool))
	r.id((*[16]byte)(&o.ID.Birth))
	flags := r.u32()
	o.Absent, o.All = flags&1 != 0, flags&2 != 0
	r.take(4)
	o.Epoch, o.Seq = r.epoch(), peer.Seq(r.u64())
	return o
}

func decodeOthers(b []byte) ([]peer.Other, error) {
	if len(b)%otherLen != 0 || len(b) > peer.MaxOthers*otherLen {
		return nil, fmt.Errorf("%d bytes of other replicas: %w", len(b), errPayload)
	}
	r := cursor{b: b}
	out := make([]peer.Other, len(b)/otherLen)
	for i := range out {
		out[i] = r.other()
	}
	return out, nil
}

// decodeMissed is the payload of ADD MISSED and DROP MISSED. What the extents must be depends on the replica, which checks it.
func decodeMissed(b []byte) ([]peer.Other, []peer.Extent, error) {
	if len(b) < otherLen || len(b) > otherLen+maxMissed*extentLen {
		return nil, nil, fmt.Errorf("%d bytes of missed regions: %w", len(b), errPayload)
	}
	others, err := decodeOthers(b[:otherLen])
	if err != nil {
		return nil, nil, err
	}
	const top = 1 << 62
	extents, err := decodeExtents(b[otherLen:], 0, top)
	return others, extents, err
}

// appendMap is the body of an answer to READ MAP.
func appendMap(b []byte, a *peer.Answer) []byte {
	b = append(b, a.Birth[:]...)
	b = append(b, a.Incarnation[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(a.Highest))
	b = binary.BigEndian.AppendUint32(b, uint32(len(a.Known)))
	return appendRegions(appendOthers(b, a.Known), a.Active)
}

func decodeMap(b []byte, a *peer.Answer) (err error) {
	if len(b) < mapHead {
		return fmt.Errorf("map of %d bytes: %w", len(b), errPayload)
	}
	r := cursor{b: b}
	r.id((*[16]byte)(&a.Birth))
	r.id((*[16]byte)(&a.Incarnation))
	a.Highest = peer.Seq(r.u64())
	n := r.u32()
	if n > peer.MaxOthers || int(n)*otherLen > len(r.b) {
		return fmt.Errorf("%d other replicas: %w", n, errPayload)
	}
	if a.Known, err = decodeOthers(r.b[:n*otherLen]); err == nil {
		a.Active, err = decodeRegions(r.b[n*otherLen:])
	}
	return err
}

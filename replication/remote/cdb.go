package remote

import (
	"encoding/binary"
	"fmt"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

const (
	cdbLen       = 64
	cdbOpcode    = 0x7f
	cdbVersion   = 1
	flagProved   = 0x01 // of READ, in byte 3
	flagVolatile = 0x02 // of WRITE and ZERO

	// MaxTransfer is the most bytes of one READ or WRITE.
	MaxTransfer = 8 << 20
)

// action is a service action.
type action uint16

const (
	actFence   action = 0xf001
	actPoll    action = 0xf002
	actFetch   action = 0xf003
	actRead    action = 0xf010
	actWrite   action = 0xf011
	actZero    action = 0xf012
	actConfirm action = 0xf013
	actClear   action = 0xf014
	actReadMap action = 0xf015
	actExtents action = 0xf016
	actCreate  action = 0xf017
	actDelete  action = 0xf018
	actReset   action = 0xf019
	actSums    action = 0xf01a
	actGrow    action = 0xf01b

	actKnow       action = 0xf01c
	actReadMissed action = 0xf01d
	actAddMissed  action = 0xf01e
	actDropMissed action = 0xf01f
	actFlush      action = 0xf020
	actReserve    action = 0xf021
)

// actions of the kinds of peer.Command.
func actionOf(k peer.Kind) (action, bool) {
	if k < peer.Read || k > peer.Reserve {
		return 0, false
	}
	return actRead + action(k-peer.Read), true
}

func (a action) kind() peer.Kind { return peer.Read + peer.Kind(a-actRead) }

// request is a CDB decoded.
type request struct {
	act      action
	volume   ids.Volume
	off      int64
	length   int64
	seq      uint64
	durable  uint64
	proved   bool
	volatile bool
}

// encode writes the CDB.
func (q *request) encode(b *[cdbLen]byte) {
	*b = [cdbLen]byte{0: cdbOpcode, 2: cdbVersion, 7: cdbLen - 8}
	if q.proved {
		b[3] |= flagProved
	}
	if q.volatile {
		b[3] |= flagVolatile
	}
	binary.BigEndian.PutUint16(b[8:], uint16(q.act))
	copy(b[16:32], q.volume[:])
	binary.BigEndian.PutUint64(b[32:], uint64(q.off))
	binary.BigEndian.PutUint64(b[40:], uint64(q.length))
	binary.BigEndian.PutUint64(b[48:], q.seq)
	binary.BigEndian.PutUint64(b[56:], q.durable)
}

// decodeCDB reads a CDB. It returns errUnknown for one that is not of this package or of another version, and
// peer.ErrInvalid for one whose numbers cannot be right on any replica.
func decodeCDB(b []byte) (q request, err error) {
	if len(b) < cdbLen || b[0] != cdbOpcode || b[2] != cdbVersion || b[7] != cdbLen-8 {
		return q, errUnknown
	}
	q.act = action(binary.BigEndian.Uint16(b[8:]))
	if q.act < actFence || q.act > actFetch && q.act < actRead || q.act > actReserve {
		return q, errUnknown
	}
	q.proved, q.volatile = b[3]&flagProved != 0, b[3]&flagVolatile != 0
	copy(q.volume[:], b[16:32])
	off, length := binary.BigEndian.Uint64(b[32:]), binary.BigEndian.Uint64(b[40:])
	q.seq, q.durable = binary.BigEndian.Uint64(b[48:]), binary.BigEndian.Uint64(b[56:])
	const top = 1 << 62
	if off > top || length > top {
		return q, fmt.Errorf("offset %#x, length %#x: %w", off, length, peer.ErrInvalid)
	}
	q.off, q.length = int64(off), int64(length)
	switch q.act {
	case actRead, actWrite:
		if q.length == 0 || q.length > MaxTransfer || q.off%512 != 0 || q.length%512 != 0 {
			return q, fmt.Errorf("%d bytes at %d: %w", q.length, q.off, peer.ErrInvalid)
		}
	case actZero, actExtents, actSums, actReadMissed, actReserve:
		if q.off%512 != 0 || q.length%512 != 0 {
			return q, fmt.Errorf("%d bytes at %d: %w", q.length, q.off, peer.ErrInvalid)
		}
	}
	return q, nil
}

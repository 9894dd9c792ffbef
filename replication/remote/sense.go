package remote

import (
	"encoding/binary"
	"errors"

	"pmsapp/replication/peer"
)

// errUnknown is returned for a CDB that is not of this package.
var errUnknown = errors.New("remote: unknown command")

// errSequence is returned for a command that comes before FENCE, and for a second FENCE.
var errSequence = errors.New("remote: command sequence error")

// errSense is returned for sense data that no node sends.
var errSense = errors.New("remote: sense data not understood")

const senseLen = 26

// code is sense key, additional sense code and its qualifier.
type code struct{ key, asc, ascq byte }

var (
	codeNoSpace   = code{0x7, 0x27, 0x07}
	codeRead      = code{0x3, 0x11, 0x00}
	codeWrite     = code{0x3, 0x0c, 0x00}
	codeInvalid   = code{0x5, 0x24, 0x00}
	codeUnknown   = code{0x5, 0x20, 0x00}
	codeSequence  = code{0x5, 0x2c, 0x00}
	codeNoReplica = code{0x5, 0x80, 0x01}
	codeEpoch     = code{0xb, 0x80, 0x02}
	codeLost      = code{0xb, 0x80, 0x03}
)

// encodeSense puts the sense data of err into b. An error that is none of peer's is a medium error: it is certain that the
// command was not executed as it should have been, and nothing else is.
func encodeSense(b *[senseLen]byte, err error, act action) []byte {
	var c code
	var epoch *peer.EpochError
	var accepted peer.Epoch
	switch {
	case errors.Is(err, peer.ErrNoSpace):
		c = codeNoSpace
	case errors.Is(err, peer.ErrNoReplica):
		c = codeNoReplica
	case errors.Is(err, peer.ErrInvalid):
		c = codeInvalid
	case errors.Is(err, errUnknown):
		c = codeUnknown
	case errors.Is(err, errSequence):
		c = codeSequence
	case errors.Is(err, peer.ErrEpoch):
		c = codeEpoch
		if errors.As(err, &epoch) {
			accepted = epoch.Accepted
		}
	case errors.Is(err, peer.ErrLost):
		c = codeLost
	case act == actRead || act == actReadMap || act == actExtents || act == actSums || act == actReadMissed:
		c = codeRead
	default:
		c = codeWrite
	}
	*b = [senseLen]byte{0: 0x70, 2: c.key, 7: senseLen - 8, 12: c.asc, 13: c.ascq}
	binary.BigEndian.PutUint64(b[18:], uint64(accepted))
	return b[:]
}

// decodeSense gives the error back. What no node sends is errSense.
func decodeSense(b []byte) error {
	if len(b) < senseLen || b[0]&0x7f != 0x70 {
		return errSense
	}
	switch (code{b[2] & 0xf, b[12], b[13]}) {
	case codeNoSpace:
		return peer.ErrNoSpace
	case codeRead, codeWrite:
		return peer.ErrMedium
	case codeInvalid, codeUnknown, codeSequence:
		return peer.ErrInvalid
	case codeNoReplica:
		return peer.ErrNoReplica
	case codeEpoch:
		return &peer.EpochError{Accepted: peer.Epoch(binary.BigEndian.Uint64(b[18:]))}
	case codeLost:
		return peer.ErrLost
	}
	return errSense
}

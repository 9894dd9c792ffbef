package initiator

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// LUN returns the 8 bytes of a logical unit number below 16384 as a number (SAM-5 4.7: peripheral device addressing up to
// 255, flat space addressing above).
func LUN(n int) uint64 {
	if n > 255 {
		return uint64(0x4000|n&0x3fff) << 48
	}
	return uint64(n) << 48
}

// Sense is what sense data say.
type Sense struct{ Key, ASC, ASCQ byte }

// Sense keys (SPC-4 4.5.6).
const (
	KeyNotReady       = 0x2
	KeyMediumError    = 0x3
	KeyIllegalRequest = 0x5
	KeyUnitAttention  = 0x6
	KeyDataProtect    = 0x7
	KeyAborted        = 0xb
)

// ParseSense reads sense data of fixed or descriptor format. What is too short gives zeros.
func ParseSense(b []byte) (s Sense) {
	switch {
	case len(b) >= 3 && (b[0]&0x7f == 0x70 || b[0]&0x7f == 0x71):
		s.Key = b[2] & 0xf
		if len(b) >= 14 {
			s.ASC, s.ASCQ = b[12], b[13]
		}
	case len(b) >= 4 && (b[0]&0x7f == 0x72 || b[0]&0x7f == 0x73):
		s = Sense{b[1] & 0xf, b[2], b[3]}
	}
	return s
}

// ErrSCSI is returned when a target has refused a command for good; a *StatusError tells why.
var ErrSCSI = errors.New("initiator: the target refused a command")

// StatusError is the target's answer to a command that failed. It is an ErrSCSI.
type StatusError struct {
	Op     byte // the command's operation code
	Status byte
	Sense  Sense
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%v: operation %02xh, status %02xh, sense %x/%02x/%02x", ErrSCSI, e.Op, e.Status, e.Sense.Key, e.Sense.ASC, e.Sense.ASCQ)
}

// Is makes errors.Is(e, ErrSCSI) true.
func (e *StatusError) Is(t error) bool { return t == ErrSCSI }

// Operation codes (SPC-4, SBC-3).
const (
	opTestUnitReady   = 0x00
	opInquiry         = 0x12
	opReadCapacity10  = 0x25
	opSynchronize10   = 0x35
	opRead16          = 0x88
	opWrite16         = 0x8a
	opWriteSame16     = 0x93
	opServiceActionIn = 0x9e
)

func cdbInquiry(vpd bool, page byte, n int) []byte {
	c := make([]byte, 6)
	c[0] = opInquiry
	if vpd {
		c[1], c[2] = 1, page
	}
	binary.BigEndian.PutUint16(c[3:], uint16(n))
	return c
}

func cdbReadCapacity16(n int) []byte {
	c := make([]byte, 16)
	c[0], c[1] = opServiceActionIn, 0x10
	binary.BigEndian.PutUint32(c[10:], uint32(n))
	return c
}

// setCDB16 fills in a READ(16), WRITE(16) or WRITE SAME(16).
func setCDB16(c *[16]byte, op, flags byte, lba uint64, blocks uint32) {
	*c = [16]byte{0: op, 1: flags}
	binary.BigEndian.PutUint64(c[2:], lba)
	binary.BigEndian.PutUint32(c[10:], blocks)
}

// Geometry is the size of a logical unit.
type Geometry struct {
	Size     int64 // bytes
	Block    int   // bytes of a logical block
	Physical int   // bytes of a physical block
}

// parseCapacity16 reads the answer to READ CAPACITY(16).
func parseCapacity16(b []byte) (g Geometry, err error) {
	if len(b) < 14 {
		return g, fmt.Errorf("READ CAPACITY(16) of %d bytes: %w", len(b), ErrProtocol)
	}
	return geometry(binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), b[13]&0xf)
}

// parseCapacity10 reads the answer to READ CAPACITY(10).
func parseCapacity10(b []byte) (g Geometry, err error) {
	if len(b) < 8 {
		return g, fmt.Errorf("READ CAPACITY(10) of %d bytes: %w", len(b), ErrProtocol)
	}
	return geometry(uint64(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:]), 0)
}

func geometry(last uint64, block uint32, exponent byte) (g Geometry, err error) {
	if block < 512 || block > 65536 || block&(block-1) != 0 || last >= 1<<62/uint64(block) {
		return g, fmt.Errorf("capacity of %d blocks of %d bytes: %w", last, block, ErrProtocol)
	}
	return Geometry{Size: int64(last+1) * int64(block), Block: int(block), Physical: int(block) << exponent}, nil
}

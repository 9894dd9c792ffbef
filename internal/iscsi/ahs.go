package iscsi

import (
	"encoding/binary"
	"errors"
)

// MaxCDB is the longest CDB: 16 bytes in the BHS and the rest in an additional header segment (RFC 7143, 11.2.2.3;
// SPC-4 4.2.3, variable-length CDBs of up to 260 bytes).
const MaxCDB = 260

// Types of additional header segments.
const (
	ahsExtendedCDB = 1
	ahsBidiRead    = 2
)

// Errors of additional header segments.
var (
	// ErrAHS is returned when additional header segments do not fill their space exactly, or one has a wrong length.
	ErrAHS = errors.New("iscsi: malformed additional header segment")
	// ErrCDBLength is returned for a CDB longer than MaxCDB.
	ErrCDBLength = errors.New("iscsi: the CDB is too long")
)

// SetCDB puts cdb into a SCSI Command: its first 16 bytes into h, the rest as an extended CDB appended to ahs, which is
// returned (as it was if the CDB fits). It returns ErrCDBLength for a CDB over MaxCDB.
func SetCDB(h *BHS, ahs, cdb []byte) ([]byte, error) {
	if len(cdb) > MaxCDB {
		return ahs, ErrCDBLength
	}
	n := copy(h.CDB16(), cdb)
	clear(h.CDB16()[n:])
	if len(cdb) <= 16 {
		return ahs, nil
	}
	rest := cdb[16:]
	ahs = binary.BigEndian.AppendUint16(ahs, uint16(len(rest)+1))
	ahs = append(ahs, ahsExtendedCDB, 0)
	ahs = append(ahs, rest...)
	for len(ahs)%4 != 0 {
		ahs = append(ahs, 0)
	}
	return ahs, nil
}

// CDB appends the CDB of a SCSI Command to dst: the 16 bytes of h and, if ahs has one, the extended CDB. Other segments
// are passed over. bidi is the bidirectional read length, or 0 if there is none. It returns ErrAHS or ErrCDBLength.
func CDB(dst []byte, h *BHS, ahs []byte) (cdb []byte, bidi uint32, err error) {
	dst = append(dst, h.CDB16()...)
	extended := false
	for len(ahs) > 0 {
		if len(ahs) < 4 {
			return nil, 0, ErrAHS
		}
		// The length counts what follows the type: a reserved byte and the body.
		n := int(binary.BigEndian.Uint16(ahs))
		kind := ahs[2]
		size := pad4(3 + n)
		if n < 1 || size > len(ahs) {
			return nil, 0, ErrAHS
		}
		body := ahs[4 : 3+n]
		switch kind & 0x3f {
		case ahsExtendedCDB:
			if extended || len(body) == 0 {
				return nil, 0, ErrAHS
			}
			if len(body) > MaxCDB-16 {
				return nil, 0, ErrCDBLength
			}
			extended = true
			dst = append(dst, body...)
		case ahsBidiRead:
			if len(body) != 4 {
				return nil, 0, ErrAHS
			}
			bidi = binary.BigEndian.Uint32(body)
		}
		ahs = ahs[size:]
	}
	return dst, bidi, nil
}

func pad4(n int) int { return (n + 3) &^ 3 }

package scsi

import (
	"encoding/binary"
	"errors"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"pmsapp/internal/block"
	"pmsapp/target"
)

// sense is a sense key with its additional sense code and qualifier. The zero value is NO SENSE.
type sense struct {
	key byte
	asc uint16 // ASC in the high byte, ASCQ in the low one
	at  uint16 // the byte of the CDB that is wrong (FIELD POINTER), 0 if it is not told
	// segment is the number of the segment descriptor at which a copy was aborted (SPC-4 5.17.7.4).
	segment uint16
}

// Additional sense codes that gotgt has no name for (SPC-4 annex D).
const (
	ascStandby         = 0x040b // LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN STANDBY STATE
	ascSoftwareProtect = 0x2702 // LOGICAL UNIT SOFTWARE WRITE PROTECTED
	ascTransition      = 0x040a // LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION
	ascSpaceAllocation = 0x2707 // SPACE ALLOCATION FAILED WRITE PROTECT
	ascAccessChanged   = 0x2a06 // ASYMMETRIC ACCESS STATE CHANGED
	ascPowerOn         = 0x2901 // POWER ON OCCURRED
	ascModeChanged     = 0x2a01
	ascCapacityChanged = 0x2a09
	ascSoftThreshold   = 0x3807 // THIN PROVISIONING SOFT THRESHOLD REACHED
	ascThirdParty      = 0x0d01 // THIRD PARTY DEVICE FAILURE
	ascUnreachable     = 0x0d02 // COPY TARGET DEVICE NOT REACHABLE
	ascInexact         = 0x260a // UNEXPECTED INEXACT SEGMENT
	ascManyTargets     = 0x2606 // TOO MANY TARGET DESCRIPTORS
	ascTargetType      = 0x2607 // UNSUPPORTED TARGET DESCRIPTOR TYPE CODE
	ascManySegments    = 0x2608 // TOO MANY SEGMENT DESCRIPTORS
	ascSegmentType     = 0x2609 // UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE
	ascInlineData      = 0x260b // INLINE DATA LENGTH EXCEEDED
	ascResources       = 0x5503 // INSUFFICIENT RESOURCES
	ascInProgress      = 0x0016 // OPERATION IN PROGRESS
	ascCleared         = 0x2f00 // COMMANDS CLEARED BY ANOTHER INITIATOR
	ascBusReset        = 0x2903 // BUS DEVICE RESET FUNCTION OCCURRED
	ascInvalidMessage  = 0x4900
	ascInfoUnit        = 0x0e03 // INVALID FIELD IN COMMAND INFORMATION UNIT
)

func illegal(asc gotgt.SCSISubError) sense {
	return sense{key: gotgt.ILLEGAL_REQUEST, asc: uint16(asc)}
}

func invalidField() sense { return illegal(gotgt.ASC_INVALID_FIELD_IN_CDB) }

// invalidFieldAt says which byte of the CDB it is.
func invalidFieldAt(at uint16) sense {
	s := invalidField()
	s.at = at
	return s
}

func invalidParm() sense { return illegal(gotgt.ASC_INVALID_FIELD_IN_PARMS) }
func invalidOp() sense   { return illegal(gotgt.ASC_INVALID_OP_CODE) }
func writeProtected() sense {
	return sense{key: gotgt.DATA_PROTECT, asc: ascSoftwareProtect}
}
func miscompare() sense {
	return sense{key: gotgt.MISCOMPARE, asc: uint16(gotgt.ASC_MISCOMPARE_DURING_VERIFY_OPERATION)}
}
func standby() sense { return sense{key: gotgt.NOT_READY, asc: ascStandby} }

// transition is NOT READY while nobody serves the unit.
func transition() sense { return sense{key: gotgt.NOT_READY, asc: ascTransition} }

// fixed writes s as fixed-format sense data (SPC-4 4.5.3) and returns it. info goes into INFORMATION if valid.
func (s sense) fixed(b []byte, info uint32, valid bool) []byte {
	b = b[:18]
	clear(b)
	b[0] = 0x70
	if valid {
		b[0] |= 0x80
		binary.BigEndian.PutUint32(b[3:], info)
	}
	b[2] = s.key
	b[7] = 10
	binary.BigEndian.PutUint16(b[10:], s.segment)
	binary.BigEndian.PutUint16(b[12:], s.asc)
	if s.at > 0 {
		b[15] = 0xc0 // SKSV, C/D
		binary.BigEndian.PutUint16(b[16:], s.at)
	}
	return b
}

// descriptor writes s as descriptor-format sense data without descriptors (SPC-4 4.5.2).
func (s sense) descriptor(b []byte) []byte {
	b = b[:8]
	clear(b)
	b[0], b[1] = 0x72, s.key
	binary.BigEndian.PutUint16(b[2:], s.asc)
	return b
}

// check ends t with CHECK CONDITION. It does not call Done.
func check(t *target.Task, s sense) {
	t.Status = api.SAM_STAT_CHECK_CONDITION
	t.Sense = s.fixed(t.SenseBuf[:], 0, false)
	block.Put(t.DataIn)
	t.DataIn, t.Moved = nil, 0
}

// fail ends t for an error of the device. It does not call Done.
func fail(t *target.Task, err error, wrote bool) {
	switch {
	case errors.Is(err, block.ErrEnded):
		t.Drop = err // invariant 8: whoever brought it is dropped without an answer
	case errors.Is(err, block.ErrHeld):
		block.Put(t.DataIn)
		t.DataIn = nil
		t.Status = api.SAM_STAT_BUSY
	case errors.Is(err, block.ErrNoSpace):
		check(t, sense{key: gotgt.DATA_PROTECT, asc: ascSpaceAllocation})
	case errors.Is(err, block.ErrMedium) && wrote:
		check(t, sense{key: gotgt.MEDIUM_ERROR, asc: uint16(gotgt.ASC_WRITE_ERROR)})
	case errors.Is(err, block.ErrMedium):
		check(t, sense{key: gotgt.MEDIUM_ERROR, asc: uint16(gotgt.ASC_UNRECOVERED_READ)})
	case errors.Is(err, block.ErrRange):
		check(t, illegal(gotgt.ASC_LBA_OUT_OF_RANGE))
	default:
		check(t, sense{key: gotgt.HARDWARE_ERROR, asc: uint16(gotgt.ASC_INTERNAL_TGT_FAILURE)})
	}
}

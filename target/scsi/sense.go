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
}

// Additional sense codes that gotgt has no name for (SPC-4 annex D).
const (
	ascStandby         = 0x040b // LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN STANDBY STATE
	ascSpaceAllocation = 0x2707 // SPACE ALLOCATION FAILED WRITE PROTECT
	ascCapacityChanged = 0x2a09
	ascBusReset        = 0x2903 // BUS DEVICE RESET FUNCTION OCCURRED
	ascInvalidMessage  = 0x4900
	ascInfoUnit        = 0x0e03 // INVALID FIELD IN COMMAND INFORMATION UNIT
)

func illegal(asc gotgt.SCSISubError) sense { return sense{gotgt.ILLEGAL_REQUEST, uint16(asc)} }

func invalidField() sense { return illegal(gotgt.ASC_INVALID_FIELD_IN_CDB) }
func invalidParm() sense  { return illegal(gotgt.ASC_INVALID_FIELD_IN_PARMS) }
func invalidOp() sense    { return illegal(gotgt.ASC_INVALID_OP_CODE) }
func standby() sense      { return sense{gotgt.NOT_READY, ascStandby} }

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
	binary.BigEndian.PutUint16(b[12:], s.asc)
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
		check(t, sense{gotgt.DATA_PROTECT, ascSpaceAllocation})
	case errors.Is(err, block.ErrMedium) && wrote:
		check(t, sense{gotgt.MEDIUM_ERROR, uint16(gotgt.ASC_WRITE_ERROR)})
	case errors.Is(err, block.ErrMedium):
		check(t, sense{gotgt.MEDIUM_ERROR, uint16(gotgt.ASC_UNRECOVERED_READ)})
	case errors.Is(err, block.ErrRange):
		check(t, illegal(gotgt.ASC_LBA_OUT_OF_RANGE))
	default:
		check(t, sense{gotgt.HARDWARE_ERROR, uint16(gotgt.ASC_INTERNAL_TGT_FAILURE)})
	}
}

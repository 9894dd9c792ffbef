package scsi

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
)

// operation is a command that is implemented, with its CDB usage data (SPC-4 6.35.3): for each bit of the CDB, whether it
// is looked at. The first byte is the operation code.
type operation struct {
	usage  []byte
	action uint16 // service action
	has    bool   // there is one
}

// operations lists every command that is implemented, in the order of their codes.
func operations() []operation {
	plain := func(usage ...byte) operation { return operation{usage: usage} }
	action := func(sa uint16, usage ...byte) operation { return operation{usage: usage, action: sa, has: true} }
	const ff = 0xff
	return []operation{
		plain(opTestUnitReady, 0, 0, 0, 0, 4),
		plain(opRequestSense, 1, 0, 0, ff, 4),
		plain(opRead6, 0x1f, ff, ff, ff, 4),
		plain(opWrite6, 0x1f, ff, ff, ff, 4),
		plain(opReserve6, 0, 0, 0, 0, 4),
		plain(opRelease6, 0, 0, 0, 0, 4),
		plain(opInquiry, 1, ff, ff, ff, 4),
		plain(opModeSelect6, 0x10, 0, 0, ff, 4),
		plain(opModeSense6, 8, ff, ff, ff, 4),
		plain(opStartStop, 1, 0, 0x0f, 0xf7, 4),
		plain(opSendDiagnostic, ff, 0, ff, ff, 4),
		plain(opReadCapacity10, 0, ff, ff, ff, ff, 0, 0, 1, 4),
		plain(opRead10, 0xf8, ff, ff, ff, ff, 0, ff, ff, 4),
		plain(opWrite10, 0xf8, ff, ff, ff, ff, 0, ff, ff, 4),
		plain(opWriteVerify10, 0xf6, ff, ff, ff, ff, 0, ff, ff, 4),
		plain(opVerify10, 0xf6, ff, ff, ff, ff, 0, ff, ff, 4),
		plain(opPrefetch10, 2, ff, ff, ff, ff, 0, ff, ff, 4),
		plain(opSync10, 2, ff, ff, ff, ff, 0, ff, ff, 4),
		plain(opReadDefects10, 0, 0x1f, 0, 0, 0, 0, ff, ff, 4),
		plain(opWriteSame10, 0xfe, ff, ff, ff, ff, 0, ff, ff, 4),
		plain(opUnmap, 1, 0, 0, 0, 0, 0, ff, ff, 4),
		plain(opLogSense, 0, ff, ff, 0, ff, ff, ff, ff, 4),
		plain(opModeSelect10, 0x10, 0, 0, 0, 0, 0, ff, ff, 4),
		plain(opReserve10, 0, 0, 0, 0, 0, 0, 0, 0, 4),
		plain(opRelease10, 0, 0, 0, 0, 0, 0, 0, 0, 4),
		plain(opModeSense10, 0x18, ff, ff, 0, 0, 0, ff, ff, 4),
		action(0, opPersistentReserveIn, 0x1f, 0, 0, 0, 0, 0, ff, ff, 4),
		action(1, opPersistentReserveIn, 0x1f, 0, 0, 0, 0, 0, ff, ff, 4),
		action(2, opPersistentReserveIn, 0x1f, 0, 0, 0, 0, 0, ff, ff, 4),
		action(3, opPersistentReserveIn, 0x1f, 0, 0, 0, 0, 0, ff, ff, 4),
		action(0, opPersistentReserveOut, 0x1f, 0, 0, 0, ff, ff, ff, ff, 4),
		action(1, opPersistentReserveOut, 0x1f, ff, 0, 0, ff, ff, ff, ff, 4),
		action(2, opPersistentReserveOut, 0x1f, ff, 0, 0, ff, ff, ff, ff, 4),
		action(3, opPersistentReserveOut, 0x1f, 0, 0, 0, ff, ff, ff, ff, 4),
		action(4, opPersistentReserveOut, 0x1f, ff, 0, 0, ff, ff, ff, ff, 4),
		action(5, opPersistentReserveOut, 0x1f, ff, 0, 0, ff, ff, ff, ff, 4),
		action(6, opPersistentReserveOut, 0x1f, 0, 0, 0, ff, ff, ff, ff, 4),
		action(7, opPersistentReserveOut, 0x1f, 0, 0, 0, ff, ff, ff, ff, 4),
		action(0, opExtendedCopy, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, ff, ff, ff, ff, 0, 4),
		action(1, opExtendedCopy, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, ff, ff, ff, ff, 0, 4),
		action(saCopyStatus1, opCopyResults, 0x1f, ff, 0, 0, 0, 0, 0, 0, 0, ff, ff, ff, ff, 0, 4),
		action(saCopyOperating, opCopyResults, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, ff, ff, ff, ff, 0, 4),
		action(saCopyStatus4, opCopyResults, 0x1f, ff, ff, ff, ff, 0, 0, 0, 0, ff, ff, ff, ff, 0, 4),
		plain(opRead16, 0xf8, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opCompareWrite, 0xf8, ff, ff, ff, ff, ff, ff, ff, ff, 0, 0, 0, ff, 0, 4),
		plain(opWrite16, 0xf8, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opOrWrite, 0xf8, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opWriteVerify16, 0xf6, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opVerify16, 0xf6, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opPrefetch16, 2, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opSync16, 2, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opWriteSame16, 0xff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		action(saReadCapacity16, opServiceActionIn, 0x1f, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 1, 4),
		action(saLBAStatus, opServiceActionIn, 0x1f, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opReportLUNs, 0, ff, 0, 0, 0, ff, ff, ff, ff, 0, 4),
		action(saReportGroups, opMaintenanceIn, 0xff, 0, 0, 0, 0, ff, ff, ff, ff, 0, 4),
		action(saReportOperations, opMaintenanceIn, 0x1f, 0x87, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		action(saReportManagement, opMaintenanceIn, 0x1f, 0x80, 0, 0, 0, ff, ff, ff, ff, 0, 4),
		plain(opRead12, 0xf8, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opWrite12, 0xf8, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opWriteVerify12, 0xf6, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opVerify12, 0xf6, ff, ff, ff, ff, ff, ff, ff, ff, 0, 4),
		plain(opReadDefects12, 0x1f, 0, 0, 0, 0, ff, ff, ff, ff, 0, 4),
	}
}

// supported tells whether a command is implemented.
func supported(cdb []byte) bool {
	for _, o := range operations() {
		if o.usage[0] == cdb[0] && (!o.has || o.action == uint16(cdb[1]&0x1f)) {
			return true
		}
	}
	return false
}

func maintenanceIn(_ int, cmd *api.SCSICommand) api.SAMStat {
	switch cmd.SCB[1] & 0x1f {
	case saReportGroups:
		return reportGroups(cmd)
	case saReportOperations:
		return reportOperations(cmd)
	case saReportManagement:
		return reportManagement(cmd)
	}
	return refuse(cmd, invalidOp())
}

// reportManagement does REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36).
func reportManagement(cmd *api.SCSICommand) api.SAMStat {
	// ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET.
	b := []byte{0xda, 0, 0, 0}
	if cmd.SCB[2]&0x80 != 0 { // REPD
		b = append(b, make([]byte, 12)...)
		b[3] = 12
	}
	return answer(cmd, b, uint64(binary.BigEndian.Uint32(cmd.SCB[6:])))
}

// reportOperations does REPORT SUPPORTED OPERATION CODES (SPC-4 6.35).
func reportOperations(cmd *api.SCSICommand) api.SAMStat {
	cdb := cmd.SCB
	timeouts := cdb[2]&0x80 != 0
	code, sa := cdb[3], binary.BigEndian.Uint16(cdb[4:])
	allocation := uint64(binary.BigEndian.Uint32(cdb[6:]))
	how := cdb[2] & 0x07
	if how == 0 {
		return answer(cmd, allOperations(timeouts), allocation)
	}
	if how > 3 {
		return refuse(cmd, invalidFieldAt(2))
	}
	var found *operation
	for _, o := range operations() {
		if o.usage[0] != code {
			continue
		}
		// 1 asks by code alone, which must have no service actions; 2 by both, where it must; 3 by whichever it has.
		if how == 1 && o.has || how == 2 && !o.has {
			return refuse(cmd, invalidFieldAt(2))
		}
		if o.has && o.action != sa || !o.has && how == 3 && sa != 0 {
			continue
		}
		found = &o
	}
	return answer(cmd, oneOperation(found, timeouts), allocation)
}

// recommendedTimeout is in seconds: what is held for hold_timeout by default is answered before it.
const recommendedTimeout = 60

// timeoutsOf is a command timeouts descriptor (SPC-4 6.35.4); no nominal time is said.
func timeoutsOf() []byte { return []byte{0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, recommendedTimeout} }

func allOperations(timeouts bool) []byte {
	b := make([]byte, 4)
	for _, o := range operations() {
		d := make([]byte, 8)
		d[0] = o.usage[0]
		binary.BigEndian.PutUint16(d[2:], o.action)
		if o.has {
			d[5] |= 1
		}
		if timeouts {
			d[5] |= 2
		}
		binary.BigEndian.PutUint16(d[6:], uint16(len(o.usage)))
		b = append(b, d...)
		if timeouts {
			b = append(b, timeoutsOf()...)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func oneOperation(o *operation, timeouts bool) []byte {
	if o == nil {
		return []byte{0, 1, 0, 0} // not supported
	}
	b := []byte{0, 3, 0, byte(len(o.usage))} // supported, as a standard has it
	b = append(b, o.usage...)
	if o.has {
		b[5] = b[5]&^0x1f | byte(o.action) // usage data has the service action itself
	}
	if timeouts {
		b[1] |= 0x80
		b = append(b, timeoutsOf()...)
	}
	return b
}

package scsi

import (
	"encoding/binary"

	"pmsapp/target"
)

// kind is what a command does to blocks; 0 is a command that does nothing to them.
type kind uint8

const (
	kRead kind = iota + 1
	kWrite
	kWriteVerify
	kVerify
	kWriteSame
	kUnmap
	kSync
	kPrefetch
	kOr
	kCompareWrite
	kStatus
	kCopy
)

// Operation codes of the commands that move blocks (SBC-3 table 33), and of those with a special treatment.
const (
	opTestUnitReady    = 0x00
	opRequestSense     = 0x03
	opRead6            = 0x08
	opWrite6           = 0x0a
	opInquiry          = 0x12
	opModeSelect6      = 0x15
	opModeSense6       = 0x1a
	opStartStop        = 0x1b
	opSendDiagnostic   = 0x1d
	opReadCapacity10   = 0x25
	opRead10           = 0x28
	opWrite10          = 0x2a
	opWriteVerify10    = 0x2e
	opVerify10         = 0x2f
	opPrefetch10       = 0x34
	opSync10           = 0x35
	opReadDefects10    = 0x37
	opWriteSame10      = 0x41
	opUnmap            = 0x42
	opLogSense         = 0x4d
	opModeSelect10     = 0x55
	opModeSense10      = 0x5a
	opExtendedCopy     = 0x83
	opCopyResults      = 0x84
	opRead16           = 0x88
	opCompareWrite     = 0x89
	opWrite16          = 0x8a
	opOrWrite          = 0x8b
	opWriteVerify16    = 0x8e
	opVerify16         = 0x8f
	opPrefetch16       = 0x90
	opSync16           = 0x91
	opWriteSame16      = 0x93
	opServiceActionIn  = 0x9e
	opReportLUNs       = 0xa0
	opMaintenanceIn    = 0xa3
	opRead12           = 0xa8
	opWrite12          = 0xaa
	opWriteVerify12    = 0xae
	opVerify12         = 0xaf
	opReadDefects12    = 0xb7
	saReadCapacity16   = 0x10
	saLBAStatus        = 0x12
	saReportGroups     = 0x0a
	saReportOperations = 0x0c
	saReportManagement = 0x0d
)

func kindOf(cdb []byte) kind {
	switch cdb[0] {
	case opRead6, opRead10, opRead12, opRead16:
		return kRead
	case opWrite6, opWrite10, opWrite12, opWrite16:
		return kWrite
	case opWriteVerify10, opWriteVerify12, opWriteVerify16:
		return kWriteVerify
	case opVerify10, opVerify12, opVerify16:
		return kVerify
	case opWriteSame10, opWriteSame16:
		return kWriteSame
	case opUnmap:
		return kUnmap
	case opSync10, opSync16:
		return kSync
	case opPrefetch10, opPrefetch16:
		return kPrefetch
	case opOrWrite:
		return kOr
	case opCompareWrite:
		return kCompareWrite
	case opServiceActionIn:
		if cdb[1]&0x1f == saLBAStatus {
			return kStatus
		}
	case opExtendedCopy:
		if _, ok := copyFormat(cdb); ok {
			return kCopy
		}
	}
	return 0
}

// changes tells whether a command changes blocks.
func (k kind) changes() bool {
	switch k {
	case kWrite, kWriteVerify, kWriteSame, kUnmap, kOr, kCompareWrite, kCopy:
		return true
	}
	return false
}

// extent reads LBA and number of blocks out of the CDB of a command that has them.
func extent(cdb []byte) (lba, n uint64) {
	if cdb[0] == opCompareWrite {
		return binary.BigEndian.Uint64(cdb[2:]), uint64(cdb[13])
	}
	switch cdb[0] >> 5 {
	case 0: // 6 bytes: 0 blocks mean 256
		n = uint64(cdb[4])
		if n == 0 {
			n = 256
		}
		return uint64(cdb[1]&0x1f)<<16 | uint64(binary.BigEndian.Uint16(cdb[2:])), n
	case 1, 2: // 10 bytes
		return uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint16(cdb[7:]))
	case 5: // 12 bytes
		return uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint32(cdb[6:]))
	}
	return binary.BigEndian.Uint64(cdb[2:]), uint64(binary.BigEndian.Uint32(cdb[10:]))
}

// control is the CONTROL byte of a CDB of fixed length.
func control(cdb []byte) byte {
	switch cdb[0] >> 5 {
	case 0:
		return cdb[5]
	case 1, 2:
		return cdb[9]
	case 5:
		return cdb[11]
	case 4:
		return cdb[15]
	}
	return 0
}

const controlNACA = 0x04

// Bits of byte 1 of the CDBs that have them.
const (
	bitFUA     = 0x08
	bitUnmap   = 0x08 // WRITE SAME
	bitAnchor  = 0x10 // WRITE SAME
	bitNDOB    = 0x01 // WRITE SAME(16)
	protection = 0xe0
)

func byteCheck(cdb []byte) byte { return cdb[1] >> 1 & 3 }

// dataOut is how many bytes of Data-Out a command takes by its CDB, where that is not an error anyway.
func dataOut(k kind, cdb []byte, n uint64, st *state) uint64 {
	switch k {
	case kWrite, kWriteVerify, kOr:
		return n << st.shift
	case kCompareWrite:
		return 2 * n << st.shift
	case kCopy:
		return uint64(binary.BigEndian.Uint32(cdb[10:]))
	case kVerify:
		switch byteCheck(cdb) {
		case 1:
			return n << st.shift
		case 3:
			return 1 << st.shift
		}
	case kWriteSame:
		if cdb[0] == opWriteSame16 && cdb[1]&bitNDOB != 0 {
			return 0
		}
		return 1 << st.shift
	case kUnmap:
		return uint64(binary.BigEndian.Uint16(cdb[7:]))
	}
	return 0
}

// wants is what the layer must provide for a command that moves blocks.
func wants(k kind, t *target.Task, n uint64, st *state) (w target.Want) {
	switch k {
	case kRead, kWrite, kWriteVerify, kVerify, kOr:
		if n > st.max {
			return target.Want{} // refused by Execute
		}
	case kCopy:
		if dataOut(k, t.CDB, n, st) > maxCopyList {
			return target.Want{} // as well
		}
	}
	w.Out = min(int64(dataOut(k, t.CDB, n, st)), t.ExpOut)
	switch k {
	case kRead:
		w.In = min(int64(n<<st.shift), t.ExpIn+1<<st.shift)
	case kWriteVerify, kVerify:
		w.In = int64(n << st.shift)
	case kOr:
		w.In = int64(n << st.shift)
	case kCompareWrite:
		w.In = int64(n << st.shift) // n is a byte
	case kStatus:
		w.In = maxAnswer
	case kCopy:
		w.In = copyChunk
	case kWriteSame:
		w.In = min(int64(n<<st.shift), patternLen(st))
	}
	return w
}

// parameters is how many bytes of parameter list a command brings that moves no blocks; 0 for those that bring none.
func parameters(cdb []byte) int64 {
	switch cdb[0] {
	case opModeSelect6:
		return int64(cdb[4])
	case opModeSelect10:
		return int64(binary.BigEndian.Uint16(cdb[7:]))
	}
	return 0
}

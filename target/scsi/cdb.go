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
)

// Operation codes of the commands that move blocks (SBC-3 table 33), and of those with a special treatment.
const (
	opTestUnitReady    = 0x00
	opRequestSense     = 0x03
	opRead6            = 0x08
	opWrite6           = 0x0a
	opInquiry          = 0x12
	opModeSense6       = 0x1a
	opStartStop        = 0x1b
	opSendDiagnostic   = 0x1d
	opReadCapacity10   = 0x25
	opRead10           = 0x28
	opWrite10          = 0x2a
	opWriteVerify10    = 0x2e
	opVerify10         = 0x2f
	opSync10           = 0x35
	opWriteSame10      = 0x41
	opUnmap            = 0x42
	opModeSense10      = 0x5a
	opRead16           = 0x88
	opWrite16          = 0x8a
	opWriteVerify16    = 0x8e
	opVerify16         = 0x8f
	opSync16           = 0x91
	opWriteSame16      = 0x93
	opServiceActionIn  = 0x9e
	opReportLUNs       = 0xa0
	opMaintenanceIn    = 0xa3
	opRead12           = 0xa8
	opWrite12          = 0xaa
	opWriteVerify12    = 0xae
	opVerify12         = 0xaf
	saReadCapacity16   = 0x10
	saReportOperations = 0x0c
)

func kindOf(op byte) kind {
	switch op {
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
	}
	return 0
}

// extent reads LBA and number of blocks out of the CDB of a command that has them.
func extent(cdb []byte) (lba, n uint64) {
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
	case kWrite, kWriteVerify:
		return n << st.shift
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
	if (k == kRead || k == kWrite || k == kWriteVerify || k == kVerify) && n > st.max {
		return target.Want{} // refused by Execute
	}
	w.Out = min(int64(dataOut(k, t.CDB, n, st)), t.ExpOut)
	switch k {
	case kRead:
		w.In = min(int64(n<<st.shift), t.ExpIn+1<<st.shift)
	case kWriteVerify, kVerify:
		w.In = int64(n << st.shift)
	case kWriteSame:
		w.In = min(int64(n<<st.shift), patternLen(st))
	}
	return w
}

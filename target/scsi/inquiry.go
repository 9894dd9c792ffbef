package scsi

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"
)

// qualifierNone is the peripheral qualifier and device type of a LUN at which there can be no unit (SPC-4 table 175).
const qualifierNone = 0x7f

// inquiry does INQUIRY (SPC-4 6.6).
func (lu *LU) inquiry(_ int, cmd *api.SCSICommand) api.SAMStat {
	allocation := uint64(binary.BigEndian.Uint16(cmd.SCB[3:]))
	evpd, page := cmd.SCB[1]&1 != 0, cmd.SCB[2]
	if cmd.SCB[1]&^1 != 0 || !evpd && page != 0 {
		return refuse(cmd, invalidField())
	}
	if !evpd {
		return answer(cmd, standardInquiry(byte(api.TYPE_DISK)), allocation)
	}
	st := callOf(cmd).io.st
	var body []byte
	switch page {
	case 0x00:
		body = []byte{0x00, 0x80, 0x83, 0x86, 0x8f, 0xb0, 0xb1, 0xb2}
	case 0x80:
		body = []byte(lu.serial())
	case 0x83:
		body = lu.designators(cmd.Target.Name, cmd.RelTargetPortID)
	case 0x86: // extended INQUIRY data
		body = make([]byte, 60)
		body[1] = 0x07 // HEADSUP, ORDSUP, SIMPSUP
	case 0x8f:
		body = thirdParty()
	case 0xb0:
		body = blockLimits(st)
	case 0xb1: // block device characteristics: what the pools are made of is not known
		body = make([]byte, 60)
	case 0xb2: // logical block provisioning: thin, and what is unmapped reads as zeros
		body = []byte{0, 0xe4, 0x02, 0}
		if st.geo.Logical != 0 {
			body[0] = byte(thresholdShift - st.shift) // threshold exponent
		}
	default:
		return refuse(cmd, invalidField())
	}
	b := make([]byte, 4, 4+len(body))
	b[0], b[1] = byte(api.TYPE_DISK), page
	binary.BigEndian.PutUint16(b[2:], uint16(len(body)))
	return answer(cmd, append(b, body...), allocation)
}

func standardInquiry(qualifier byte) []byte {
	b := make([]byte, 74)
	b[0] = qualifier
	b[2] = 0x06                                                // SPC-4
	b[3] = gotgt.INQUIRY_HISUP | gotgt.INQUIRY_STANDARD_FORMAT // no NORMACA
	b[4] = byte(len(b) - 5)
	b[5] = 0x18 // TPGS: implicit; 3PC
	b[7] = gotgt.INQUIRY_CMDQUE
	copy(b[8:16], fmt.Sprintf("%-8s", vendorID))
	copy(b[16:32], fmt.Sprintf("%-16s", productID))
	copy(b[32:36], revision)
	for i, v := range []uint16{0x00a0, 0x0960, 0x0460, 0x04c0} { // SAM-5, iSCSI, SPC-4, SBC-3
		binary.BigEndian.PutUint16(b[58+2*i:], v)
	}
	return b
}

// designators is the body of VPD page 83h. Those of the LU are the same from every node and for ever; those of the
// target port name the port.
func (lu *LU) designators(name string, port uint16) (b []byte) {
	add := func(head [2]byte, d []byte) {
		b = append(append(b, head[0], head[1], 0, byte(len(d))), d...)
	}
	add([2]byte{gotgt.INQ_CODE_BIN, gotgt.DESG_NAA}, naa(lu.id))
	add([2]byte{gotgt.INQ_CODE_ASCII, gotgt.DESG_T10}, fmt.Appendf(nil, "%-8s%s %s", vendorID, productID, lu.id))
	const portOf, deviceOf = 0x80 | gotgt.ASS_TGT_PORT<<4, 0x80 | gotgt.ASS_TGT_DEV<<4
	iscsi := gotgt.PIV_ISCSI << 4
	add([2]byte{iscsi | gotgt.INQ_CODE_BIN, portOf | gotgt.DESG_REL_TGT_PORT}, []byte{0, 0, byte(port >> 8), byte(port)})
	const groupDesignator = 5
	add([2]byte{iscsi | gotgt.INQ_CODE_BIN, portOf | groupDesignator}, []byte{0, 0, byte(port >> 8), byte(port)})
	add([2]byte{iscsi | gotgt.INQ_CODE_UTF8, portOf | gotgt.DESG_SCSI}, nameString(fmt.Sprintf("%s,t,0x%04x", name, port)))
	add([2]byte{iscsi | gotgt.INQ_CODE_UTF8, deviceOf | gotgt.DESG_SCSI}, nameString(name))
	return b
}

// nameString is a SCSI name string: ended by a zero byte, its length a multiple of 4.
func nameString(s string) []byte {
	b := append([]byte(s), 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// blockLimits is the body of VPD page B0h.
func blockLimits(st *state) []byte {
	b := make([]byte, 60)
	b[0] = 1                 // WSNZ
	if st.geo.Logical == 0 { // it stands by, and nobody knows of it yet
		return b
	}
	b[1] = byte(compareBlocks(st)) // maximum COMPARE AND WRITE length
	granularity := uint32(st.geo.Physical / st.geo.Logical)
	binary.BigEndian.PutUint16(b[2:], uint16(granularity))
	binary.BigEndian.PutUint32(b[4:], uint32(st.max))                         // maximum transfer length
	binary.BigEndian.PutUint32(b[8:], uint32(min(st.max, 256<<10>>st.shift))) // optimal transfer length
	binary.BigEndian.PutUint32(b[16:], maxUnmap)                              // maximum unmap LBA count
	binary.BigEndian.PutUint32(b[20:], maxDescriptors)                        // maximum unmap block descriptor count
	binary.BigEndian.PutUint32(b[24:], granularity)                           // optimal unmap granularity
	binary.BigEndian.PutUint32(b[28:], 1<<31)                                 // UGAVALID, alignment 0
	binary.BigEndian.PutUint64(b[32:], maxSame>>st.shift)                     // maximum WRITE SAME length
	return b
}

// serviceActionIn does READ CAPACITY(16) (SBC-3 5.16).
func serviceActionIn(_ int, cmd *api.SCSICommand) api.SAMStat {
	if cmd.SCB[1]&0x1f != saReadCapacity16 {
		return refuse(cmd, invalidOp())
	}
	if binary.BigEndian.Uint64(cmd.SCB[2:]) != 0 || cmd.SCB[14]&1 != 0 {
		return refuse(cmd, invalidField())
	}
	st := callOf(cmd).io.st
	b := make([]byte, 32)
	binary.BigEndian.PutUint64(b, st.count-1)
	binary.BigEndian.PutUint32(b[8:], uint32(st.geo.Logical))
	b[13] = byte(bits.TrailingZeros(uint(st.geo.Physical / st.geo.Logical)))
	b[14] = 0xc0 // LBPME, LBPRZ
	return answer(cmd, b, uint64(binary.BigEndian.Uint32(cmd.SCB[10:])))
}

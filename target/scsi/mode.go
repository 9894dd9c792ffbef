package scsi

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"
)

// modePage is a mode page without its two bytes of head. change has the bits that MODE SELECT can change; nil: none.
type modePage struct {
	code   byte
	body   []byte
	change []byte
}

// bitSWP is in the control mode page's fifth byte.
const (
	controlPage = 0x0a
	swpByte     = 2
	bitSWP      = 0x08
	bitWCE      = 0x04
)

// modePages are the pages as they are; volatile says that what is acknowledged may be in memory only (invariant 1); swp is the one parameter that can be changed (SPC-4 7.5, SBC-3 6.4).
func modePages(swp, volatile bool) []modePage {
	recovery := make([]byte, 10)
	caching := make([]byte, 18)
	if volatile {
		caching[0] = bitWCE // until SYNCHRONIZE CACHE, or FUA; else what is acknowledged is durable on every in-sync member
	}
	caching[10] = 0x80
	control := make([]byte, 10)
	control[0] = 0x20 // TST=001b: a task set for each nexus; GLTSD=0, D_SENSE=0
	control[1] = 0x10 // QUEUE ALGORITHM MODIFIER=1: commands may be reordered
	if swp {
		control[swpByte] = bitSWP
	}
	control[6], control[7] = 0xff, 0xff
	change := make([]byte, 10)
	change[swpByte] = bitSWP
	exceptions := make([]byte, 10)
	return []modePage{{0x01, recovery, nil}, {0x08, caching, nil}, {controlPage, control, change}, {0x1c, exceptions, nil}}
}

// Values of PAGE CONTROL.
const (
	modeChangeable = 1
	modeSaved      = 3
)

// modeWriteProtected is WP in the device-specific parameter (SBC-3 6.4.1).
const modeWriteProtected = 0x80

// modeSense does MODE SENSE(6) and (10) (SPC-4 6.11, 6.12).
func modeSense(_ int, cmd *api.SCSICommand) api.SAMStat {
	cdb := cmd.SCB
	six := cdb[0] == opModeSense6
	which, page, sub := cdb[2]>>6, cdb[2]&0x3f, cdb[3]
	noDescriptor, long := cdb[1]&0x08 != 0, !six && cdb[1]&0x10 != 0
	if which == modeSaved {
		return refuse(cmd, illegal(gotgt.ASC_SAVING_PARMS_UNSUP))
	}
	if sub != 0 && (sub != 0xff || page != 0x3f) {
		return refuse(cmd, invalidField())
	}
	var pages []byte
	swp := callOf(cmd).io.unit.lu.writeProtected()
	for _, p := range modePages(swp, callOf(cmd).io.st.geo.Volatile) {
		if page != 0x3f && page != p.code {
			continue
		}
		if which == modeChangeable {
			clear(p.body)
			copy(p.body, p.change)
		}
		pages = append(append(pages, p.code, byte(len(p.body))), p.body...)
	}
	if len(pages) == 0 {
		return refuse(cmd, invalidField())
	}
	var descriptor []byte
	if !noDescriptor {
		descriptor = blockDescriptor(callOf(cmd).io.st, long)
	}
	specific := byte(0x10) // DPOFUA
	if _, fixed := callOf(cmd).io.unit.writeProtected(); fixed {
		specific |= modeWriteProtected
	}
	var b []byte
	if six {
		b = []byte{0, 0, specific, byte(len(descriptor))}
	} else {
		b = []byte{0, 0, 0, specific, 0, 0, 0, byte(len(descriptor))}
		if long && descriptor != nil {
			b[4] = 1
		}
	}
	b = append(append(b, descriptor...), pages...)
	if six {
		b[0] = byte(len(b) - 1)
		return answer(cmd, b, uint64(cdb[4]))
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return answer(cmd, b, uint64(binary.BigEndian.Uint16(cdb[7:])))
}

// blockDescriptor is a mode parameter block descriptor, short or long (SBC-3 6.4.2).
func blockDescriptor(st *state, long bool) []byte {
	if long {
		b := make([]byte, 16)
		binary.BigEndian.PutUint64(b, st.count)
		binary.BigEndian.PutUint32(b[12:], uint32(st.geo.Logical))
		return b
	}
	b := make([]byte, 8)
	binary.BigEndian.PutUint32(b, uint32(min(st.count, 1<<32-1)))
	binary.BigEndian.PutUint32(b[4:], uint32(st.geo.Logical)) // three bytes, after a reserved one
	return b
}

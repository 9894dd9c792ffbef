package scsi

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
)

// Log pages (SPC-4 7.3, SBC-3 6.3).
const (
	logSupported    = 0x00
	logProvisioning = 0x0c
	logExceptions   = 0x2f
)

// logSense does LOG SENSE (SPC-4 6.8) with current cumulative values; there are no others.
func logSense(_ int, cmd *api.SCSICommand) api.SAMStat {
	cdb := cmd.SCB
	if cdb[1] != 0 || cdb[2]>>6 > 1 || cdb[4] != 0 {
		return refuse(cmd, invalidField())
	}
	page, sub, pointer := cdb[2]&0x3f, cdb[3], binary.BigEndian.Uint16(cdb[5:])
	var body []byte
	switch {
	case page == logSupported && sub == 0:
		body = []byte{logSupported, logProvisioning, logExceptions}
	case page == logSupported && sub == 0xff:
		body = []byte{logSupported, 0, logSupported, 0xff, logProvisioning, 0, logExceptions, 0}
	case sub != 0:
		return refuse(cmd, invalidField())
	case page == logProvisioning:
		body = callOf(cmd).io.unit.lu.provisioning(pointer)
	case page == logExceptions:
		if pointer == 0 {
			body = []byte{0, 0, 0x03, 4, 0, 0, 0, 0} // no exception; the temperature is that of nothing
		}
	default:
		return refuse(cmd, invalidField())
	}
	if page != logSupported && body == nil {
		return refuse(cmd, invalidField()) // no parameter at or above the pointer
	}
	b := make([]byte, 4, 4+len(body))
	b[0], b[1] = page, sub
	if sub != 0 {
		b[0] |= 0x40 // SPF
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(body)))
	return answer(cmd, append(b, body...), uint64(binary.BigEndian.Uint16(cdb[7:])))
}

// readDefects does READ DEFECT DATA(10) and (12) (SBC-3 5.17, 5.18): there is no list of defects that a host could have
// use for; both lists are there and empty.
func readDefects(_ int, cmd *api.SCSICommand) api.SAMStat {
	cdb := cmd.SCB
	if cdb[0] == opReadDefects10 {
		return answer(cmd, []byte{0, cdb[2] & 0x1f, 0, 0}, uint64(binary.BigEndian.Uint16(cdb[7:])))
	}
	return answer(cmd, []byte{0, cdb[1] & 0x1f, 0, 0, 0, 0, 0, 0}, uint64(binary.BigEndian.Uint32(cdb[6:])))
}

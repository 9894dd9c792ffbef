package scsi

import (
	"bytes"
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"
)

// modeSelect does MODE SELECT(6) and (10) (SPC-4 6.9, 6.10). What it can change is lost when the unit is reset or another
// node serves it: that is a power on to the host, which gets the unit attention for it.
func modeSelect(_ int, cmd *api.SCSICommand) api.SAMStat {
	c := callOf(cmd).io
	if cmd.SCB[1]&0x10 == 0 || cmd.SCB[1]&^0x10 != 0 { // PF is needed; there is nothing to save or to revert to
		return refuse(cmd, invalidField())
	}
	length := parameters(cmd.SCB)
	if length == 0 {
		return api.SAMStatGood
	}
	if int64(len(c.task.DataOut)) < length {
		return refuse(cmd, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR))
	}
	lu := c.unit.lu
	if c.unit.readOnly {
		s, _ := c.unit.writeProtected()
		return refuse(cmd, s)
	}
	swp, s := parseModeSelect(c.task.DataOut[:length], cmd.SCB[0] == opModeSelect6, c.st, lu.writeProtected())
	if s != (sense{}) {
		return refuse(cmd, s)
	}
	lu.protect(swp, c.unit.attention)
	return api.SAMStatGood
}

// parseModeSelect reads a parameter list and returns what SWP is to be. All of it is checked before anything is changed.
func parseModeSelect(b []byte, six bool, st *state, swp bool) (bool, sense) {
	short := illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	head, long, descriptor := 4, false, 0
	if !six {
		head = 8
	}
	if len(b) < head {
		return swp, short
	}
	if six {
		descriptor = int(b[3])
	} else {
		long, descriptor = b[4]&1 != 0, int(binary.BigEndian.Uint16(b[6:]))
	}
	b = b[head:]
	if len(b) < descriptor {
		return swp, short
	}
	if descriptor > 0 && !sameDescriptor(b[:descriptor], long, st) {
		return swp, invalidParm()
	}
	for b = b[descriptor:]; len(b) > 0; {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return swp, short
		}
		body := b[2 : 2+int(b[1])]
		if !changeable(b[0], body, swp, st.geo.Volatile) {
			return swp, invalidParm()
		}
		if b[0] == controlPage {
			swp = body[swpByte]&bitSWP != 0
		}
		b = b[2+len(body):]
	}
	return swp, sense{}
}

// changeable tells whether a page is one of ours and changes nothing but what can be changed.
func changeable(code byte, body []byte, swp, volatile bool) bool {
	for _, p := range modePages(swp, volatile) {
		if p.code != code || len(p.body) != len(body) {
			continue
		}
		for i := range body {
			var free byte
			if p.change != nil {
				free = p.change[i]
			}
			if (body[i]^p.body[i])&^free != 0 {
				return false
			}
		}
		return true
	}
	return false
}

// sameDescriptor tells whether a block descriptor describes the unit as it is, or leaves the number of blocks open.
func sameDescriptor(d []byte, long bool, st *state) bool {
	now := blockDescriptor(st, long)
	if len(d) != len(now) {
		return false
	}
	count := 4
	if long {
		count = 8
	}
	number, zero := d[:count], make([]byte, count)
	return bytes.Equal(d[count:], now[count:]) && (bytes.Equal(number, now[:count]) || bytes.Equal(number, zero))
}

package scsi_test

import (
	"encoding/binary"
	"testing"
)

// TestOperationsAreTrue: what REPORT SUPPORTED OPERATION CODES lists is carried out, or refused for its fields, and what it does not list
// is refused as not there: all operation codes and service actions, where the unit is served and where it stands by.
func TestOperationsAreTrue(t *testing.T) {
	r := newRig(t)
	listed := map[[2]uint16]bool{}
	actions := map[uint16]bool{}
	b := r.good(r.do(cdb(0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x40, 0), nil, 16384))
	for d := b[4:]; len(d) >= 8; d = d[8:] {
		op, sa := uint16(d[0]), binary.BigEndian.Uint16(d[2:])
		listed[[2]uint16{op, sa}] = true
		actions[op] = d[5]&1 != 0
	}
	if len(listed) < 50 {
		t.Fatalf("%d commands are listed", len(listed))
	}
	check := func(where string) {
		for op := range uint16(256) {
			for sa := range uint16(32) {
				if sa > 0 && !actions[op] {
					break
				}
				c := cdb(byte(op), byte(sa))
				if op == 0x7f { // of variable length: no CDB of 16 bytes is one
					continue
				}
				w := r.do(c, nil, 512)
				refused := w.Status == 2 && w.Sense[2]&0xf == 5
				absent := refused && w.Sense[12] == 0x20
				if actions[op] && !listed[[2]uint16{op, sa}] { // INVALID FIELD IN CDB, some of them
					absent = refused && (w.Sense[12] == 0x20 || w.Sense[12] == 0x24)
				}
				if w.Status == 2 && w.Sense[2]&0xf == 6 {
					t.Fatalf("%s: %02x/%02x: unit attention %x", where, op, sa, w.Sense[12:14])
				}
				if has := listed[[2]uint16{op, sa}]; has == absent {
					t.Errorf("%s: operation %02x, service action %02x: listed: %v, status %02x, sense %x", where, op, sa, has, w.Status, w.Sense)
				}
			}
		}
	}
	check("served")
	r.lu.Standby()
	check("stands by")
}

package scsi_test

import (
	"testing"

	"pmsapp/target"
	"pmsapp/target/scsi"
)

// TestReadOnlyMap: one host may read a unit that another writes.
func TestReadOnlyMap(t *testing.T) {
	r := newRig(t)
	other := *r
	other.target = scsi.NewTarget("iqn.2026-11.app.pmsapp:test", 3)
	luns := map[uint16]*scsi.LU{7: r.lu}
	if err := other.target.SetMap(luns, map[uint16]bool{7: true}); err != nil {
		t.Fatal(err)
	}
	other.lun = target.FlatLUN(7)
	h := other.host("h")
	r.status(r.put(), 0)
	h.good(h.do(rw10(0x28, 0, 0, 1), nil, 512))
	list := copyList(1, [][]byte{h.designator()}, segment{0, 0, 8, 0, 100})
	for _, c := range []*target.Task{h.put(), h.do(rw16(0x93, 8, 0, 8), fill(512, 0), 0), h.do(xcopy(0, list), list, 0),
		h.do(cdb(0x15, 0x10, 0, 0, 16), append([]byte{0, 0, 0, 0, 0x0a, 10}, fill(10, 0)...), 0)} {
		h.sense(c, 7, 0x2700)
	}
	if b := h.good(h.do(cdb(0x1a, 8, 0x0a, 0, 64), nil, 64)); b[2]&0x80 == 0 {
		t.Error("MODE SENSE does not say so")
	}
	if b := r.good(r.do(cdb(0x1a, 8, 0x0a, 0, 64), nil, 64)); b[2]&0x80 != 0 {
		t.Error("MODE SENSE says so to the other host")
	}
	if err := other.target.SetMap(luns, nil); err != nil {
		t.Fatal(err)
	}
	h.sense(h.do(cdb(0x00), nil, 0), 6, 0x2900)
	h.attention(0x3f0e)
	h.status(h.put(), 0)
}

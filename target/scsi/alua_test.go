package scsi_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/ids"
	"pmsapp/target/scsi"
)

// TestGroups: each port says of itself what it is, of the others what the cluster knows, and that it changed.
func TestGroups(t *testing.T) {
	r := newRig(t)
	known := []scsi.PortGroup{{3, scsi.StandingBy}, {5, scsi.Optimized}}
	lu := scsi.NewLUAmong(r.lu.Volume(), scsi.Around{Groups: func(ids.Volume) []scsi.PortGroup { return append([]scsi.PortGroup{}, known...) }})
	if err := r.target.SetLUNs(map[uint16]*scsi.LU{1: lu}); err != nil {
		t.Fatal(err)
	}
	r = r.host("a")
	rtpg := func(format byte) []byte {
		t.Helper()
		return r.good(r.do(cdb(0xa3, 0x0a|format<<5, 0, 0, 0, 0, 0, 0, 64), nil, 64))
	}
	check := func(a, b byte) {
		t.Helper()
		want := []byte{0, 0, 0, 24, a, 0x85, 0, 3, 0, 2, 0, 1, 0, 0, 0, 3, b, 0x85, 0, 5, 0, 2, 0, 1, 0, 0, 0, 5}
		if d := cmp.Diff(want, rtpg(0)); d != "" {
			t.Fatal(d)
		}
	}
	check(2, 0)
	r.sense(r.put(), 2, 0x040b)
	known[0].Access, known[1].Access = scsi.Transitioning, scsi.StandingBy
	lu.AccessChanged()
	r.attention(0x2a06)
	check(0xf, 2)
	r.sense(r.put(), 2, 0x040a)
	known[0].Access = scsi.Optimized // so the catalog says, and it does not serve yet
	check(0xf, 2)
	if err := lu.Serve(r.dev, nil); err != nil {
		t.Fatal(err)
	}
	check(0xf, 2) // it holds what comes
	if err := lu.Serve(r.dev, r.keeper); err != nil {
		t.Fatal(err)
	}
	check(0, 2)
	r.status(r.put(), 0)
	if b := rtpg(1); len(b) != 32 || b[3] != 28 || b[4] != 0x10 || b[5] == 0 {
		t.Errorf("%x", b)
	}
	r.sense(r.do(cdb(0xa3, 0x4a, 0, 0, 0, 0, 0, 0, 64), nil, 64), illegalRequest, 0x2400)
	// States are the target's to change: SET TARGET PORT GROUPS is not there, and INQUIRY says implicit only.
	r.sense(r.do(cdb(0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8), fill(8, 0), 0), illegalRequest, 0x2000)
	if b := r.good(r.do(cdb(0x12, 0, 0, 0, 96), nil, 96)); b[5]&0x30 != 0x10 {
		t.Errorf("TPGS %x", b[5])
	}
}

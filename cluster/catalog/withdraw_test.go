package catalog

import (
	"net/netip"
	"testing"

	"pmsapp/internal/ids"
	"pmsapp/internal/reserve"
)

// TestWithdraw: what is not served in this epoch loses all its exports, and what hosts reserved by them; what is, or is of another epoch, nothing.
func TestWithdraw(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	w := v
	w.ID, w.Name = ids.NewVolume(), "w"
	m.do(CreateVolume{1, w, nil})
	s := m.share(n)
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 1}, {Volume: w.ID, Version: 1}}})
	m.do(SetExport{1, Export{Volume: v.ID, LUN: 1}})
	m.do(Reserve{1, v.ID, 0, reserve.Command{Nexus: reserve.Nexus{Initiator: "iqn.a,i,0x000000000001", Port: 1}, ServiceKey: 7}})
	m.do(PutHost{Host{Name: "h", IQNs: []string{"iqn.a"}}})
	m.do(MapLUN{1, w.ID, Mapping{Host: "h", LUN: 1}})
	m.do(ExportShare{1, ShareExport{s.ID, []ShareRule{{Clients: netip.MustParsePrefix("192.0.2.0/24"), Squash: SquashRoot}}}})
	all := []ids.Volume{v.ID, w.ID, s.ID}
	for _, id := range all {
		m.fails(ErrInUse, Withdraw{1, id})
	}
	m.do(TakeOver{n[1].ID, 2})
	for _, id := range all {
		m.fails(ErrEpoch, Withdraw{1, id})
	}
	m.fails(ErrNoVolume, Withdraw{2, ids.NewVolume()})
	m.do(Served{2, []VolumeVersion{{Volume: w.ID, Version: 1}}})
	m.fails(ErrInUse, Withdraw{2, w.ID})
	for range 2 {
		m.do(Withdraw{2, v.ID})
		m.do(Withdraw{2, s.ID})
	}
	if r := m.s.Reservations[v.ID]; len(m.s.Exports) != 0 || len(m.s.Shares) != 0 || len(m.s.Maps) != 1 || len(r.Registered) != 0 || r.Seq < 2 {
		t.Fatalf("%+v %+v %+v %+v", m.s.Exports, m.s.Shares, m.s.Maps, r)
	}
	m.do(DeleteVolume{2, v.ID, 1, 0})
	m.do(TakeOver{n[1].ID, 3})
	m.do(Withdraw{3, w.ID})
	m.do(DeleteVolume{3, w.ID, 1, 0})
}

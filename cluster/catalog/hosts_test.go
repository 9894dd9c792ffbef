package catalog

import (
	"testing"

	"pmsapp/internal/ids"
	"pmsapp/internal/reserve"
)

func TestHosts(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	secret, other := []byte("0123456789ab"), []byte("ba9876543210")
	h := Host{Name: "h1", IQNs: []string{"iqn.a", "iqn.b"}, CHAPUser: "u", CHAPSecret: secret, MutualUser: "t", MutualSecret: other}
	for _, bad := range []Host{{Name: "x"}, {IQNs: h.IQNs}, {Name: "x", IQNs: []string{""}}, {Name: "x", IQNs: h.IQNs, CHAPUser: "u"},
		{Name: "x", IQNs: h.IQNs, MutualUser: "t", MutualSecret: other},
		{Name: "x", IQNs: h.IQNs, CHAPUser: "u", CHAPSecret: secret, MutualUser: "t", MutualSecret: secret}} {
		m.fails(ErrInvalid, PutHost{bad})
	}
	m.do(PutHost{h})
	m.do(PutHost{h})
	m.fails(ErrNameTaken, PutHost{Host{Name: "h1", IQNs: []string{"iqn.c"}}})
	m.fails(ErrNameTaken, PutHost{Host{Name: "h2", IQNs: []string{"iqn.b"}}})
	m.do(PutHost{Host{Name: "h2", IQNs: []string{"iqn.c"}}})
	m.fails(ErrNotServed, MapLUN{1, v.ID, Mapping{Host: "h1", LUN: 1}})
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 1}}})
	m.fails(ErrNoHost, MapLUN{1, v.ID, Mapping{Host: "h3", LUN: 1}})
	m.fails(ErrInvalid, MapLUN{1, v.ID, Mapping{Host: "h1", LUN: 16384}})
	m.fails(ErrNoVolume, MapLUN{1, ids.NewVolume(), Mapping{Host: "h1"}})
	m.do(MapLUN{1, v.ID, Mapping{Host: "h1", LUN: 1}})
	m.do(MapLUN{1, v.ID, Mapping{Host: "h1", LUN: 1}})
	m.fails(ErrInUse, MapLUN{1, v.ID, Mapping{Host: "h1", LUN: 2}})
	m.do(MapLUN{1, v.ID, Mapping{Host: "h2", LUN: 1, ReadOnly: true}})
	w := v
	w.ID, w.Name = ids.NewVolume(), "w"
	m.do(CreateVolume{1, w, nil})
	m.do(Served{1, []VolumeVersion{{Volume: w.ID, Version: 1}}})
	m.fails(ErrInUse, MapLUN{1, w.ID, Mapping{Host: "h1", LUN: 1}})
	if l := m.s.FreeLUN("h1"); l != 2 {
		t.Error(l)
	}
	m.fails(ErrInUse, SetExport{1, Export{Volume: v.ID, LUN: 1}})
	m.do(SetExport{1, Export{Volume: w.ID, LUN: 1}})
	m.fails(ErrInUse, MapLUN{1, w.ID, Mapping{Host: "h1", LUN: 2}})
	m.fails(ErrInUse, DeleteVolume{Epoch: 1, Volume: v.ID, Version: 1})
	m.fails(ErrInUse, RemoveHost{"h1"})
	m.do(Reserve{1, v.ID, 0, reserve.Command{Nexus: reserve.Nexus{Initiator: "i", Port: 1}, ServiceKey: 1}})
	m.do(UnmapLUN{1, v.ID, "h1"})
	m.do(UnmapLUN{1, v.ID, "h1"})
	if r := m.s.Reservations[v.ID]; r.Blank() {
		t.Error("the reservations of one host ended with the map of another")
	}
	m.do(TakeOver{n[1].ID, 2})
	m.fails(ErrEpoch, UnmapLUN{1, v.ID, "h2"})
	m.do(Served{2, []VolumeVersion{{Volume: v.ID, Version: 1}}})
	m.do(UnmapLUN{2, v.ID, "h2"})
	if r := m.s.Reservations[v.ID]; !r.Blank() {
		t.Error("reserved, and nobody may use it")
	}
	m.do(RemoveHost{"h1"})
	m.fails(ErrNoHost, RemoveHost{"h1"})
	m.do(DeleteVolume{Epoch: 2, Volume: v.ID, Version: 1})
}

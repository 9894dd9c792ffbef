package catalog

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/reserve"
)

// TestReservations: they change only under the epoch that serves, judged by the newest, and go with what they are of.
func TestReservations(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	a := reserve.Nexus{Initiator: "iqn.a,i,0x000000000001", Port: 1}
	register := func(epoch, seq uint64) Reserve {
		return Reserve{epoch, v.ID, seq, reserve.Command{Nexus: a, ServiceKey: 7}}
	}
	m.fails(ErrNotServed, register(1, 0))
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 1}}})
	m.do(SetExport{1, Export{Volume: v.ID, LUN: 1}})
	m.do(register(1, 0))
	m.fails(ErrReservations, register(1, 0)) // the same again, without a request's id
	m.fails(ErrInvalid, register(1, 1))      // RESERVATION CONFLICT is no change
	take := Reserve{1, v.ID, 1, reserve.Command{Nexus: a, Action: reserve.Reserve, Key: 7, Type: reserve.WriteExclusiveRegistrants}}
	first, err := m.try(Command{Request: "r", Body: take})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := m.try(Command{Request: "r", Body: take}); err != nil || again.Index != first.Index {
		t.Fatal(again, err)
	}
	m.do(TakeOver{n[1].ID, 2})
	m.fails(ErrEpoch, Reserve{1, v.ID, 2, reserve.Command{Nexus: a, Action: reserve.Clear, Key: 7}})
	m.fails(ErrNotServed, Reserve{2, v.ID, 2, reserve.Command{Nexus: a, Action: reserve.Clear, Key: 7}})
	b := snapshot(t, m.s)
	s, err := DecodeSnapshot(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m.s.Reservations, s.Reservations); d != "" {
		t.Fatal(d)
	}
	if r := s.Reservations[v.ID]; r.Seq != 2 || r.Holder != a || r.Type != reserve.WriteExclusiveRegistrants {
		t.Fatalf("%+v", r)
	}
	m.do(Served{2, []VolumeVersion{{Volume: v.ID, Version: 1}}})
	m.do(RemoveExport{2, v.ID})
	if r := m.s.Reservations[v.ID]; r.Seq != 3 || !r.Blank() {
		t.Fatalf("%+v", r)
	}
	m.do(DeleteVolume{2, v.ID, 1, 0})
	if len(m.s.Reservations) != 0 {
		t.Fatal(m.s.Reservations)
	}
}

package catalog

import (
	"slices"
	"testing"

	"pmsapp/internal/ids"
)

// TestForceVolume: one replica of the volume's lineage, or of the one that was adopted in its pool, becomes the whole set of a new one.
func TestForceVolume(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	m.do(RemoveMember{1, v.ID, 1, n[1].ID, ""})
	m.do(Served{1, []VolumeVersion{{v.ID, 2}}})
	a, b := v.Replicas[0], v.Replicas[1]
	first, second := ids.NewLineage(), ids.NewLineage()
	m.fails(ErrEpoch, ForceVolume{2, v.ID, 2, b, v.Lineage, first})
	m.fails(ErrVersion, ForceVolume{1, v.ID, 1, b, v.Lineage, first})
	m.fails(ErrNoReplica, ForceVolume{1, v.ID, 2, Place{n[2].ID, n[2].Pools[0].ID}, v.Lineage, first})
	m.fails(ErrInvalid, ForceVolume{1, v.ID, 2, b, second, first})
	m.fails(ErrInvalid, ForceVolume{1, v.ID, 2, b, v.Lineage, ids.Lineage{}})
	m.fails(ErrNoVolume, ForceVolume{1, ids.NewVolume(), 2, b, v.Lineage, first})
	for range 2 { // a repetition does nothing
		if r := m.do(ForceVolume{1, v.ID, 2, b, v.Lineage, first}); r.Version != 3 || !slices.Equal(r.InSync, []Place{b}) {
			t.Fatal(r)
		}
	}
	got := m.s.Volumes[v.ID]
	if got.Lineage != first || got.Adopted != (Adoption{b.Pool, v.Lineage}) || got.LastServed != 0 || len(got.Replicas) != 2 {
		t.Fatalf("%+v", got)
	}
	m.fails(ErrVersion, AddMember{1, v.ID, 2, n[0].ID}) // what the former history has proposed
	// Again: a's replica is of the former lineage, and only b's counts as one of this.
	m.fails(ErrInvalid, ForceVolume{1, v.ID, 3, a, v.Lineage, second})
	m.do(ForceVolume{1, v.ID, 3, b, v.Lineage, second})
	m.do(AddMember{1, v.ID, 4, n[0].ID})
	m.do(RemoveMember{1, v.ID, 5, n[1].ID, ""})
	m.do(ForceVolume{1, v.ID, 6, a, second, ids.NewLineage()})
	if got := m.s.Volumes[v.ID]; got.Adopted != (Adoption{a.Pool, second}) || !slices.Equal(got.InSync, []Place{a}) {
		t.Fatalf("%+v", got)
	}
}

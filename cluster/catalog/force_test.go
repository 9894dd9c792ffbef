package catalog

import (
	"slices"
	"testing"
	"time"

	"pmsapp/internal/ids"
)

// TestForceVolume: one replica of the volume's lineage, or of the one that was adopted in its pool, becomes the whole set of a new one.
func TestForceVolume(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	m.do(RemoveMember{1, v.ID, 1, n[1].ID, ""})
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 2}}})
	a, b := v.Replicas[0], v.Replicas[1]
	first, second := ids.NewLineage(), ids.NewLineage()
	m.fails(ErrEpoch, ForceVolume{2, v.ID, 2, b, v.Lineage, first, false, false, 0, nil})
	m.fails(ErrVersion, ForceVolume{1, v.ID, 1, b, v.Lineage, first, false, false, 0, nil})
	m.fails(ErrNoReplica, ForceVolume{1, v.ID, 2, Place{n[2].ID, n[2].Pools[0].ID}, v.Lineage, first, false, false, 0, nil})
	m.fails(ErrInvalid, ForceVolume{1, v.ID, 2, b, second, first, false, false, 0, nil})
	m.fails(ErrInvalid, ForceVolume{1, v.ID, 2, b, v.Lineage, ids.Lineage{}, false, false, 0, nil})
	m.fails(ErrNoVolume, ForceVolume{1, ids.NewVolume(), 2, b, v.Lineage, first, false, false, 0, nil})
	for range 2 { // a repetition does nothing
		if r := m.do(ForceVolume{1, v.ID, 2, b, v.Lineage, first, false, false, 0, nil}); r.Version != 3 || !slices.Equal(r.InSync, []Place{b}) {
			t.Fatal(r)
		}
	}
	got := m.s.Volumes[v.ID]
	if got.Lineage != first || got.Adopted != (Adoption{b.Pool, v.Lineage, false}) || got.LastServed != 0 || len(got.Replicas) != 2 {
		t.Fatalf("%+v", got)
	}
	m.fails(ErrVersion, AddMember{1, v.ID, 2, n[0].ID}) // what the former history has proposed
	// Again: a's replica is of the former lineage, and only b's counts as one of this.
	m.fails(ErrInvalid, ForceVolume{1, v.ID, 3, a, v.Lineage, second, false, false, 0, nil})
	m.do(ForceVolume{1, v.ID, 3, b, v.Lineage, second, false, false, 0, nil})
	m.do(AddMember{1, v.ID, 4, n[0].ID})
	m.do(RemoveMember{1, v.ID, 5, n[1].ID, ""})
	m.do(ForceVolume{1, v.ID, 6, a, second, ids.NewLineage(), false, false, 0, nil})
	if got := m.s.Volumes[v.ID]; got.Adopted != (Adoption{a.Pool, second, false}) || !slices.Equal(got.InSync, []Place{a}) {
		t.Fatalf("%+v", got)
	}
}

// TestBehind: of every replica outside of the in-sync set the catalog knows whether it was ever in it, until when, and whether a copy to it
// was begun since; one that is no copy of any one moment is adopted only if that is said.
func TestBehind(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	check := func(want ...Behind) {
		t.Helper()
		if got := m.s.Volumes[v.ID].Behind; !slices.Equal(got, want) {
			t.Fatalf("%+v, not %+v", got, want)
		}
	}
	a, b, c := v.Replicas[0], v.Replicas[1], Place{n[2].ID, n[2].Pools[0].ID}
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 1}}})
	check()
	m.fails(ErrNoReplica, BeginCopy{1, v.ID, b.Pool})
	m.at = at
	m.do(RemoveMember{1, v.ID, 1, b.Node, ""})
	left := Behind{Pool: b.Pool, Synced: true, Epoch: 1, Time: at}
	check(left)
	m.at = at.Add(time.Hour)
	m.do(AddReplica{Epoch: 1, Volume: v.ID, Version: 2, Place: c})
	check(left, Behind{Pool: c.Pool})
	m.fails(ErrEpoch, BeginCopy{2, v.ID, b.Pool})
	m.fails(ErrNoVolume, BeginCopy{1, ids.NewVolume(), b.Pool})
	m.do(BeginCopy{1, v.ID, b.Pool})
	left.Copying = true
	check(left, Behind{Pool: c.Pool})
	m.do(AddMember{1, v.ID, 3, b.Node})
	check(Behind{Pool: c.Pool})
	m.do(RemoveUnfenced{1, []ids.Pool{a.Pool}, []ids.Pool{b.Pool}, ""})
	left = Behind{Pool: b.Pool, Synced: true, Epoch: 1, Time: at.Add(time.Hour)}
	check(left, Behind{Pool: c.Pool})
	m.fails(ErrIncomplete, ForceVolume{1, v.ID, 5, c, v.Lineage, ids.NewLineage(), false, false, 0, nil})
	m.do(BeginCopy{1, v.ID, b.Pool})
	m.fails(ErrIncomplete, ForceVolume{1, v.ID, 5, b, v.Lineage, ids.NewLineage(), false, false, 0, nil})
	next := ids.NewLineage()
	m.do(ForceVolume{1, v.ID, 5, b, v.Lineage, next, true, true, 0, nil})
	check(Behind{Pool: a.Pool}, Behind{Pool: c.Pool}) // of the new lineage they never had anything
	if got := m.s.Volumes[v.ID].Adopted; got != (Adoption{b.Pool, v.Lineage, true}) {
		t.Fatal(got)
	}
	m.fails(ErrIncomplete, ForceVolume{1, v.ID, 6, a, next, ids.NewLineage(), false, false, 0, nil})
}

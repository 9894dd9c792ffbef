package catalog

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/ids"
)

// TestTrash: a deletion can be taken back until it is purged; what comes late or twice does nothing else.
func TestTrash(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	m.do(RemoveMember{1, v.ID, 1, n[1].ID, ""})
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 2}}})
	m.fails(ErrVersion, DeleteVolume{1, v.ID, 1, 60})
	m.fails(ErrInvalid, DeleteVolume{1, v.ID, 2, -1})
	m.fails(ErrNoVolume, PurgeVolume{v.ID, 1, false})
	was := m.s.Volumes[v.ID]
	m.do(CountTrash{0, 100})
	m.do(DeleteVolume{1, v.ID, 2, 60})
	m.do(DeleteVolume{1, v.ID, 2, 60})
	got, ok := m.s.Trash[v.ID]
	if !ok || len(m.s.Volumes) != 0 || len(m.s.Deleted) != 0 || got.Until != 160 || cmp.Diff(was, got.Volume) != "" {
		t.Fatalf("%+v", got)
	}
	// Nobody changes it, its name is free, its id is not.
	m.fails(ErrNoVolume, AddMember{1, v.ID, 2, n[1].ID})
	m.fails(ErrNoVolume, SetExport{1, Export{Volume: v.ID, LUN: 1}})
	if r := m.do(RemoveUnfenced{1, []ids.Pool{n[1].Pools[0].ID}, []ids.Pool{n[0].Pools[0].ID}, ""}); len(r.Left) != 0 {
		t.Fatal(r)
	}
	m.fails(ErrNoVolume, CreateVolume{1, v, nil})
	other := v
	other.ID, other.Lineage = ids.NewVolume(), ids.NewLineage()
	m.do(CreateVolume{1, other, nil})
	m.fails(ErrNameTaken, RestoreVolume{v.ID, got.Since, "", nil})
	m.fails(ErrNoVolume, RestoreVolume{v.ID, got.Since + 1, "w", nil})
	m.do(RestoreVolume{v.ID, got.Since, "w", nil})
	m.do(RestoreVolume{v.ID, got.Since, "w", nil})
	was.Name, was.Version = "w", 3
	if d := cmp.Diff(was, m.s.Volumes[v.ID]); d != "" || len(m.s.Trash) != 0 {
		t.Fatal(d)
	}
	// What meant the former deletion does not touch it.
	m.fails(ErrVersion, DeleteVolume{1, v.ID, 2, 60})
	m.fails(ErrNoVolume, PurgeVolume{v.ID, got.Since, false})
	m.do(DeleteVolume{1, v.ID, 3, 60})
	m.fails(ErrNoVolume, PurgeVolume{v.ID, got.Since, false})
	got = m.s.Trash[v.ID]
	// Time passes by counting alone, from what it is, and by so much at once.
	m.fails(ErrInUse, PurgeVolume{v.ID, got.Since, true})
	m.fails(ErrInvalid, CountTrash{0, 100})
	m.fails(ErrInvalid, CountTrash{100, 100})
	m.fails(ErrInvalid, CountTrash{100, 101 + MaxCount})
	m.do(CountTrash{100, 159})
	m.fails(ErrInUse, PurgeVolume{v.ID, got.Since, true})
	m.do(CountTrash{159, 160})
	m.do(PurgeVolume{v.ID, got.Since, true})
	m.do(PurgeVolume{v.ID, got.Since, true})
	m.fails(ErrNoVolume, RestoreVolume{v.ID, got.Since, "", nil})
	if len(m.s.Trash) != 0 || len(m.s.Deleted) != 1 {
		t.Fatal(m.s.Trash, m.s.Deleted)
	}
	m.do(DeleteVolume{1, other.ID, 1, 60})
	m.do(PurgeVolume{other.ID, m.s.Trash[other.ID].Since, false}) // by name: before its time
}

// TestTrashedPlaces: a machine's new identity has what the old one had in the trash, a node that is removed leaves it, but for the last
// in-sync replica, and a snapshot keeps it.
func TestTrashedPlaces(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	m.do(DeleteVolume{1, v.ID, 1, 60})
	was := m.s.Trash[v.ID]
	m.do(PutNode{Node{ID: n[1].ID, Name: n[1].Name, Version: 1}, ids.Node{}}) // its pool is absent at a start, and not forgotten
	if len(m.s.Nodes[n[1].ID].Pools) != 1 {
		t.Fatal("a pool of which only the trash knows was forgotten")
	}
	again := n[1]
	again.ID = ids.NewNode()
	m.do(PutNode{again, n[1].ID})
	got := m.s.Trash[v.ID]
	if got.Volume.InSync[1].Node != again.ID || got.Volume.Replicas[1].Node != again.ID || was.Volume.InSync[1].Node != n[1].ID {
		t.Fatal(got)
	}
	b := snapshot(t, m.s)
	s, err := DecodeSnapshot(b)
	if err != nil || cmp.Diff(s.Trash, m.s.Trash) != "" {
		t.Fatal(err, s.Trash)
	}
	m.do(RemoveNode{again.ID})
	if got := m.s.Trash[v.ID].Volume; len(got.InSync) != 1 || len(got.Replicas) != 1 {
		t.Fatal(got)
	}
	m.fails(ErrInUse, RemoveNode{n[0].ID})
	m.do(PurgeVolume{v.ID, was.Since, false})
	m.do(RemoveNode{n[0].ID})
}

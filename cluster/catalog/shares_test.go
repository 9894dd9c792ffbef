package catalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
)

// sameTrees has trees compared by their snapshots.
func sameTrees() cmp.Option {
	return cmp.Options{cmp.Comparer(func(a, b *filetree.Tree) bool {
		var x, y bytes.Buffer
		return a == b || a.Save(&x) == nil && b.Save(&y) == nil && bytes.Equal(x.Bytes(), y.Bytes())
	}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
}

// share makes one on the first two nodes, served in epoch 1.
func (m *machine) share(n [3]Node) Volume {
	m.t.Helper()
	v := Volume{ID: ids.NewVolume(), Lineage: ids.NewLineage(), Name: "s", Size: 1 << 20, Region: 1 << 20, Logical: 512, Share: true,
		Replicas: []Place{{n[0].ID, n[0].Pools[0].ID}, {n[1].ID, n[1].Pools[0].ID}}}
	m.do(CreateVolume{1, v, nil})
	m.do(CreateVolume{1, v, nil}) // again: the tree stays
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 1}}})
	return v
}

func mkdir(name string) []byte {
	return filetree.Batch{Ops: []filetree.Op{{Kind: filetree.Create, Type: filetree.Directory, Dir: filetree.Root, Name: name}}}.Encode()
}

func TestShares(t *testing.T) {
	m := newMachine(t)
	n, lun := m.three()
	v := m.share(n)
	m.do(Served{1, []VolumeVersion{{Volume: lun.ID, Version: 1}}})
	m.fails(ErrNoShare, ChangeTree{1, lun.ID, 1, mkdir("a")})
	m.fails(ErrIsShare, SetExport{1, Export{Volume: v.ID, LUN: 1}})
	rule := ShareRule{Clients: netip.MustParsePrefix("192.0.2.0/24"), Squash: SquashRoot, AnonUID: 65534}
	m.fails(ErrNoShare, ExportShare{1, ShareExport{lun.ID, []ShareRule{rule}}})
	bad := rule
	bad.Clients = netip.MustParsePrefix("192.0.2.1/24")
	for _, rules := range [][]ShareRule{nil, {bad}, {rule, rule}, {{Clients: rule.Clients, Squash: "some"}}, {{Squash: SquashAll}}} {
		m.fails(ErrInvalid, ExportShare{1, ShareExport{v.ID, rules}})
	}
	m.do(ExportShare{1, ShareExport{v.ID, []ShareRule{rule}}})
	m.fails(ErrInUse, DeleteVolume{1, v.ID, 1, 60})

	r := m.do(ChangeTree{1, v.ID, 1, mkdir("a")})
	if len(r.Tree) != 1 || r.Tree[0].Status != filetree.OK {
		t.Fatal(r)
	}
	if r := m.do(ChangeTree{1, v.ID, 1, mkdir("a")}); r.Tree[0].Status != filetree.Exist {
		t.Fatal(r)
	}
	m.fails(ErrUnreadable, ChangeTree{1, v.ID, 1, []byte("x")})
	m.fails(ErrInvalid, ChangeTree{1, v.ID, 1, filetree.Batch{Ops: []filetree.Op{{Kind: filetree.Resize, Size: 2 << 20}}}.Encode()})
	m.do(RemoveMember{1, v.ID, 1, n[1].ID, ""})
	m.fails(ErrVersion, ChangeTree{1, v.ID, 1, mkdir("b")})
	m.do(ChangeTree{1, v.ID, 2, mkdir("b")})

	// What a snapshot has is all there is.
	b := snapshot(t, m.s)
	s, err := DecodeSnapshot(b)
	if d := cmp.Diff(m.s, s, sameTrees()); err != nil || d != "" {
		t.Fatal(err, d)
	}
	for i := snapshotHead; i < len(b); i += 7 {
		c := bytes.Clone(b)
		c[i] ^= 1
		if _, err := DecodeSnapshot(c); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}

	// So is one of the version before shares.
	old := snapshot(t, &State{Index: 5, Volumes: map[ids.Volume]Volume{lun.ID: m.s.Volumes[lun.ID]}})
	old[7] = 1
	end := len(old) - 4
	old = binary.BigEndian.AppendUint32(old[:end], crc32.Checksum(old[:end], castagnoli()))
	if s, err := DecodeSnapshot(old); err != nil || s.Index != 5 || len(s.Volumes) != 1 {
		t.Fatal(s, err)
	}

	// A later leader changes nothing before it serves.
	m.do(TakeOver{n[1].ID, 2})
	m.fails(ErrEpoch, ChangeTree{1, v.ID, 2, mkdir("c")})
	m.fails(ErrNotServed, ChangeTree{2, v.ID, 2, mkdir("c")})
	m.fails(ErrNotServed, UnexportShare{2, v.ID})
	m.do(Served{2, []VolumeVersion{{Volume: v.ID, Version: 2}}})
	m.do(ChangeTree{2, v.ID, 2, mkdir("c")})
	m.do(UnexportShare{2, v.ID})
	m.do(DeleteVolume{2, v.ID, 2, 60}) // to the trash, from where it comes back with its files
	m.fails(ErrNoVolume, ChangeTree{2, v.ID, 2, mkdir("d")})
	b = snapshot(t, m.s)
	if s, err = DecodeSnapshot(b); err != nil || cmp.Diff(m.s.Trees, s.Trees, sameTrees()) != "" || len(s.Trees) != 1 {
		t.Fatal(err, s)
	}
	m.do(RestoreVolume{v.ID, m.s.Trash[v.ID].Since, "", nil})
	m.do(Served{2, []VolumeVersion{{Volume: v.ID, Version: 3}}})
	if r := m.do(ChangeTree{2, v.ID, 3, mkdir("c")}); r.Tree[0].Status != filetree.Exist {
		t.Fatal(r)
	}
	m.do(DeleteVolume{2, v.ID, 3, 0})
	if len(m.s.Trees) != 0 {
		t.Fatal("the tree of a share that was deleted is still there")
	}
}

// TestForceShare: a replica that is adopted may lack that freed space was zeroed, and whatever else. Nothing of it is free before it has been zeroed there.
func TestForceShare(t *testing.T) {
	m := newMachine(t)
	n, _ := m.three()
	v := m.share(n)
	m.do(ChangeTree{1, v.ID, 1, mkdir("a")})
	m.do(ChangeTree{1, v.ID, 1, filetree.Batch{Ops: []filetree.Op{{Kind: filetree.Ahead, Spans: []filetree.Span{{Vol: 8192, Len: 4096}}}}}.Encode()})
	to := ids.NewLineage()
	for range 2 {
		m.do(ForceVolume{1, v.ID, 1, v.Replicas[1], v.Lineage, to, false, false, 0, nil})
		tree := m.s.Trees[v.ID]
		if free, ahead, freed := tree.Space(); free != 0 || ahead != 4096 || freed != v.Size-4096 || tree.Check() != nil {
			t.Fatal(free, ahead, freed, tree.Check())
		}
		if _, ok := tree.Lookup(filetree.Root, "a"); !ok {
			t.Error("what was in the share is gone")
		}
	}
}

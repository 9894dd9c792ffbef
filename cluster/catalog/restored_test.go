package catalog

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
	"pmsapp/internal/rangelock"
	"pmsapp/internal/reserve"
)

// backup is a state as a backup brings it back.
func (m *machine) backup() *State {
	m.t.Helper()
	var b bytes.Buffer
	if err := WriteSnapshot(&b, m.s); err != nil {
		m.t.Fatal(err)
	}
	s, err := DecodeSnapshot(b.Bytes())
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// TestRestored: of what a backup says nothing is believed of the replicas. What would delete or move one is gone from it, and no leader can
// have a volume served, exported, or its set changed, before one replica is adopted by name.
func TestRestored(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	c := Place{n[2].ID, n[2].Pools[0].ID}
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 1}}})
	m.do(SetExport{1, Export{Volume: v.ID, LUN: 1}})
	m.do(Reserve{1, v.ID, 0, reserve.Command{Nexus: reserve.Nexus{Initiator: "iqn.a,i,0x000000000001", Port: 1}, ServiceKey: 7}})
	m.do(AddReplica{Epoch: 1, Volume: v.ID, Version: 1, Place: c, Instead: n[1].ID})
	m.do(SetDrain{Node: n[2].ID, On: true})
	m.do(SetDrain{Node: n[1].ID, Pool: n[1].Pools[0].ID, On: true})
	late := v
	late.ID, late.Name = ids.NewVolume(), "late"
	m.do(CreateVolume{1, late, nil})
	m.do(DeleteVolume{1, late.ID, 1, 0})
	m.do(AddToken{Token{Digest: make([]byte, 32), Expires: m.at}})
	w := v
	w.ID, w.Name = ids.NewVolume(), "w"
	m.do(CreateVolume{1, w, nil})
	m.do(DeleteVolume{1, w.ID, 1, 10})
	gone := v
	gone.ID, gone.Name = ids.NewVolume(), "gone"
	m.do(CreateVolume{1, gone, nil})
	m.do(Served{1, []VolumeVersion{{Volume: gone.ID, Version: 1}}})
	m.do(RetireReplica{Epoch: 1, Volume: gone.ID, Version: 1, Node: n[1].ID})
	m.do(RemoveMember{1, gone.ID, 2, n[1].ID, ""})
	m.do(DropReplica{Epoch: 1, Volume: gone.ID, Version: 3, Node: n[1].ID})
	if x := m.s.Volumes[gone.ID]; len(x.Gone) != 1 || len(m.s.Volumes[v.ID].Leaving) != 1 {
		t.Fatalf("%+v", x)
	}

	before := snapshot(t, m.s)
	old := m.s
	m.s = Restored(m.backup(), ids.NewLineage(), bytes.Repeat([]byte{1}, 32), m.at)
	if !bytes.Equal(before, snapshot(t, old)) {
		t.Fatal("the backup's state was changed")
	}
	s := m.s
	base := history(0, m.at) * baseStep
	e := base + 1
	if s.Cluster != old.Cluster || s.Lineage == old.Lineage || s.Base != base || s.Epoch != base || s.Deleted != nil || len(old.Deleted) != 1 ||
		s.Nodes[n[2].ID].Draining || s.Nodes[n[1].ID].Pools[0].Draining || !old.Nodes[n[1].ID].Pools[0].Draining || s.Trash[w.ID].Until != Forever || !s.Leader.IsZero() || s.Admin[0] != 1 ||
		len(s.Former) != 3 || s.Tokens != nil || s.Requests != nil || len(s.Reservations[v.ID].Registered) != 0 || s.Reservations[v.ID].Seq != old.Reservations[v.ID].Seq+1 {
		t.Fatalf("%+v", s)
	}
	if x := s.Volumes[v.ID]; !x.Foreign || x.Leaving != nil || x.Version != old.Volumes[v.ID].Version+1 || x.Lineage != v.Lineage || len(x.Replicas) != 3 {
		t.Fatalf("%+v", x)
	}
	if x := s.Volumes[gone.ID]; x.Gone != nil || !s.Trash[w.ID].Volume.Foreign {
		t.Fatalf("%+v", x)
	}

	// The snapshot of what was restored is another to programs that do not know of it, and it comes back as it is.
	var b bytes.Buffer
	if err := WriteSnapshot(&b, s); err != nil || string(b.Bytes()[:8]) != restoredMagic {
		t.Fatalf("%q, %v", b.Bytes()[:8], err)
	}
	back := m.backup()
	if !bytes.Equal(snapshot(t, back), snapshot(t, s)) || !back.Volumes[v.ID].Foreign {
		t.Fatal("it is another")
	}

	// The machine of node0 is the first node; another with an older program is not let in.
	self := Node{ID: ids.NewNode(), Name: "node0", Version: Version, Pools: n[0].Pools}
	m.fails(ErrOldNode, PutNode{func() Node { x := self; x.Version = 2; return x }(), n[0].ID})
	m.do(PutNode{self, n[0].ID})
	if len(m.s.Former) != 2 || m.s.IsFormer(n[0].ID) || m.s.IsFormer(self.ID) || !m.s.IsFormer(n[1].ID) {
		t.Fatal(m.s.Former)
	}
	a := Place{self.ID, self.Pools[0].ID}
	if x := m.s.Volumes[v.ID]; !slices.Contains(x.InSync, a) {
		t.Fatalf("%+v", x)
	}
	m.fails(ErrEpoch, TakeOver{self.ID, 2})
	m.do(TakeOver{self.ID, e})
	at := func() Volume { return m.s.Volumes[v.ID] }
	foreign := at()
	if r := m.do(Served{e, []VolumeVersion{{Volume: v.ID, Version: foreign.Version}}}); len(r.Left) != 1 {
		t.Fatal(r)
	}
	if r := m.do(RemoveUnfenced{Epoch: e, Fenced: []ids.Pool{a.Pool}, Remove: []ids.Pool{n[1].Pools[0].ID}}); len(r.Left) != 0 {
		t.Fatal(r)
	}
	if x := at(); x.LastServed == e || x.Version != foreign.Version || len(x.InSync) != len(foreign.InSync) {
		t.Fatalf("%+v", x)
	}
	m.fails(ErrNotServed, SetExport{e, Export{Volume: v.ID, LUN: 2}})
	m.fails(ErrNotServed, ResizeVolume{Epoch: e, Volume: v.ID, Version: foreign.Version, Size: 2 << 20})
	m.fails(ErrNotServed, AddReplica{Epoch: e, Volume: v.ID, Version: foreign.Version, Place: a})
	m.fails(ErrNotServed, SetDurability{Volume: v.ID, Memory: true})
	m.do(CountTrash{0, 600})
	m.fails(ErrInUse, PurgeVolume{w.ID, m.s.Trash[w.ID].Since, true})

	// One that nobody will adopt can be withdrawn from its hosts, and deleted.
	kept := m.s
	m.fails(ErrInUse, DeleteVolume{e, v.ID, foreign.Version, 0})
	m.fails(ErrNotServed, RemoveExport{e, v.ID})
	m.do(Withdraw{e, v.ID})
	m.do(DeleteVolume{e, v.ID, foreign.Version, 0})
	m.s = kept

	// The replica that was adopted may be anywhere, of any lineage, and larger than the backup says.
	b2 := Node{ID: ids.NewNode(), Name: "node1", Version: Version, Pools: []Pool{{ID: ids.NewPool(), Path: "/new"}, n[1].Pools[0]}}
	m.do(PutNode{b2, n[1].ID})
	if len(m.s.Former) != 1 {
		t.Fatal(m.s.Former)
	}
	foreign = at()
	moved, stays := Place{b2.ID, b2.Pools[0].ID}, Place{b2.ID, n[1].Pools[0].ID}
	lineage, from := ids.NewLineage(), ids.NewLineage()
	f := ForceVolume{Epoch: e, Volume: v.ID, Version: foreign.Version, Place: moved, From: from, Lineage: lineage, Size: 4 << 20, Others: []Place{stays}}
	for _, bad := range []func(f *ForceVolume){func(f *ForceVolume) { f.Size = 512 }, func(f *ForceVolume) { f.Size = 4<<20 + 1 }, func(f *ForceVolume) { f.Size = maxSize + 512 },
		func(f *ForceVolume) { f.From = ids.Lineage{} }, func(f *ForceVolume) { f.Lineage = f.From }, func(f *ForceVolume) { f.Place.Pool = a.Pool }} {
		x := f
		bad(&x)
		m.fails(ErrInvalid, x)
	}
	m.fails(ErrVersion, func() ForceVolume { x := f; x.Version--; return x }())
	losses := at().Losses
	for range 2 {
		m.do(f)
	}
	got := at()
	if got.Foreign || got.Size != 4<<20 || got.Lineage != lineage || got.Adopted != (Adoption{moved.Pool, from, false}) || got.LastServed != 0 || got.Behind == nil ||
		!slices.Equal(got.InSync, []Place{moved}) || !slices.Equal(got.Replicas, []Place{moved, a, c}) || !slices.Equal(got.Gone, []Place{stays}) {
		t.Fatalf("%+v", got)
	}
	if got.Losses <= losses+1 || got.TimesLost() != 0 {
		t.Fatal(got.Losses)
	}
	m.fails(ErrInvalid, ForceVolume{Epoch: e, Volume: v.ID, Version: got.Version, Place: moved, From: from, Lineage: ids.NewLineage(), Size: 8 << 20})

	// What is deleted from now on expires as ever.
	m.do(DeleteVolume{e, gone.ID, m.s.Volumes[gone.ID].Version, 10})
	m.do(CountTrash{600, 700})
	m.do(PurgeVolume{gone.ID, m.s.Trash[gone.ID].Since, true})

	// Again, from a backup of this history: its epochs are above those, whatever the clock says.
	again := Restored(m.backup(), ids.NewLineage(), nil, m.at.Add(-time.Hour))
	if again.Base != base+baseStep || len(again.Former) != 3 || !again.Volumes[v.ID].Foreign {
		t.Fatal(again.Base, again.Former)
	}
}

// TestOlderProgram: the nodes of a backup may have been of an older program. Those that join are not, so nothing waits for the others.
func TestOlderProgram(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	for _, x := range n {
		x.Version = 2
		m.do(PutNode{Node: x})
	}
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 1}}})
	m.do(SetExport{1, Export{Volume: v.ID, LUN: 1}})
	m.s = Restored(m.backup(), ids.NewLineage(), nil, m.at)
	a := Node{ID: ids.NewNode(), Name: "node0", Version: Version, Pools: n[0].Pools}
	m.do(PutNode{a, n[0].ID})
	m.do(TakeOver{a.ID, m.s.Base + 1})
	m.fails(ErrInUse, RemoveNode{n[1].ID})
	m.do(Withdraw{m.s.Epoch, v.ID})
	m.do(DeleteVolume{m.s.Epoch, v.ID, m.s.Volumes[v.ID].Version, 0})
	m.do(RemoveNode{n[1].ID})
}

// TestTwoRestores: of one backup; neither has an epoch, or a number of losses, of the other.
func TestTwoRestores(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	now := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	old := m.backup()
	losses := map[uint64]bool{}
	for _, at := range []time.Time{now, now.Add(time.Minute), {}, now.AddDate(500, 0, 0)} {
		m.s = Restored(old, ids.NewLineage(), nil, at)
		if m.s.Base >= 1<<53-baseStep {
			t.Fatal(m.s.Base)
		}
		m.do(PutNode{Node{ID: ids.NewNode(), Name: n[0].Name, Version: Version, Pools: n[0].Pools}, n[0].ID})
		var self ids.Node
		for id := range m.s.Nodes {
			if !m.s.IsFormer(id) {
				self = id
			}
		}
		m.do(TakeOver{self, m.s.Base + 1})
		m.do(ForceVolume{Epoch: m.s.Epoch, Volume: v.ID, Version: m.s.Volumes[v.ID].Version, Place: Place{self, n[0].Pools[0].ID}, From: v.Lineage, Lineage: ids.NewLineage()})
		got := m.s.Volumes[v.ID]
		if losses[got.Losses] || losses[m.s.Base] || got.Losses < lossStep || got.TimesLost() != 0 {
			t.Fatal(got.Losses, m.s.Base)
		}
		losses[got.Losses], losses[m.s.Base] = true, true
	}
}

// TestOneReplicaOfANode: two pools of the backup's nodes are in one machine now. The volume goes on with one place on it.
func TestOneReplicaOfANode(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	m.do(Served{1, []VolumeVersion{{Volume: v.ID, Version: 1}}})
	m.do(AddReplica{Epoch: 1, Volume: v.ID, Version: 1, Place: Place{n[2].ID, n[2].Pools[0].ID}})
	m.s = Restored(m.backup(), ids.NewLineage(), nil, m.at)
	a := Node{ID: ids.NewNode(), Name: "node0", Version: Version, Pools: n[0].Pools}
	b := Node{ID: ids.NewNode(), Name: "node1", Version: Version, Pools: []Pool{n[1].Pools[0], {ID: n[2].Pools[0].ID, Path: "/q"}}}
	m.do(PutNode{a, n[0].ID})
	m.do(PutNode{b, n[1].ID})
	m.do(TakeOver{a.ID, m.s.Base + 1})
	m.do(ForceVolume{Epoch: m.s.Epoch, Volume: v.ID, Version: m.s.Volumes[v.ID].Version, Place: Place{a.ID, a.Pools[0].ID}, From: v.Lineage, Lineage: ids.NewLineage()})
	if got := m.s.Volumes[v.ID]; len(got.Replicas) != 2 || len(got.Gone) != 1 || got.Gone[0].Node != b.ID || got.Replicas[1].Node != b.ID || got.Gone[0] == got.Replicas[1] {
		t.Fatalf("%+v", got)
	}
}

// TestWitnessOfPools: a machine whose replicas the catalog knows does not come back as one that serves nothing.
func TestWitnessOfPools(t *testing.T) {
	m := newMachine(t)
	n, _ := m.three()
	m.s = Restored(m.backup(), ids.NewLineage(), nil, m.at)
	m.fails(ErrInvalid, PutNode{Node{ID: ids.NewNode(), Name: n[1].Name, Witness: true, Version: Version}, n[1].ID})
}

// TestRestoredShare: files made after a restore are no one's that were made after the backup, nobody has a lock, and what a larger replica has
// beyond the tree is zeroed before it is used.
func TestRestoredShare(t *testing.T) {
	m := newMachine(t)
	n, _ := m.three()
	v := m.share(n)
	epoch := uint64(1)
	do := func(o filetree.Op) filetree.Result {
		t.Helper()
		r := m.do(ChangeTree{epoch, v.ID, m.s.Volumes[v.ID].Version, filetree.Batch{Ops: []filetree.Op{o}}.Encode()})
		if r.Tree[0].Status != filetree.OK {
			t.Fatal(r.Tree[0].Status)
		}
		return r.Tree[0]
	}
	create := func(name string) filetree.Inode {
		do(filetree.Op{Kind: filetree.Create, Type: filetree.Regular, Dir: filetree.Root, Name: name})
		e, _ := m.s.Trees[v.ID].Lookup(filetree.Root, name)
		i, _ := m.s.Trees[v.ID].Inode(e.Ino)
		return i
	}
	before := create("before")
	e, _ := m.s.Trees[v.ID].Lookup(filetree.Root, "before")
	lock := rangelock.Lock{Owner: rangelock.Owner{Addr: netip.MustParseAddr("192.0.2.1"), Host: "h"}, Exclusive: true}
	do(filetree.LockOp(filetree.Lock, e.Ino, lock))
	old := m.backup()
	after := create("after") // which the backup does not know

	m.s = Restored(old, ids.NewLineage(), make([]byte, 32), m.at)
	self := Node{ID: ids.NewNode(), Name: n[0].Name, Version: Version, Pools: n[0].Pools}
	m.do(PutNode{self, n[0].ID})
	epoch = m.s.Base + 1
	m.do(TakeOver{self.ID, epoch})
	size, mine := m.s.Volumes[v.ID].Size, Place{self.ID, n[0].Pools[0].ID}
	m.do(ForceVolume{Epoch: epoch, Volume: v.ID, Version: m.s.Volumes[v.ID].Version, Place: mine, From: v.Lineage, Lineage: ids.NewLineage(), Size: 2 * size})
	m.do(Served{epoch, []VolumeVersion{{Volume: v.ID, Version: m.s.Volumes[v.ID].Version}}})
	tree := m.s.Trees[v.ID]
	if free, ahead, freed := tree.Space(); free != 0 || ahead != 0 || freed != 2*size || tree.Size() != 2*size {
		t.Fatal(free, ahead, freed, tree.Size())
	}
	if tree.HoldsLock(e.Ino, lock) {
		t.Error("a lock of former times holds")
	}
	if i, ok := tree.Inode(e.Ino); !ok || i.Gen != before.Gen {
		t.Error("what was there has another handle", i, before)
	}
	if again := create("again"); again.Gen == after.Gen {
		t.Error("a handle means two files")
	}
	if err := m.s.Trees[v.ID].Check(); err != nil {
		t.Fatal(err)
	}
}

// TestAdoptVolume: a volume that the backup does not know comes back with what its replicas say of it, and waits as the others do.
func TestAdoptVolume(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	late := v
	late.ID, late.Name = ids.NewVolume(), "late"
	m.fails(ErrInvalid, AdoptVolume{1, late}) // it was never restored
	m.s = Restored(m.backup(), ids.NewLineage(), nil, m.at)
	a := Node{ID: ids.NewNode(), Name: "node0", Version: Version, Pools: n[0].Pools}
	m.do(PutNode{a, n[0].ID})
	e := m.s.Base + 1
	m.do(TakeOver{a.ID, e})
	late.Replicas = []Place{{a.ID, a.Pools[0].ID}}
	m.fails(ErrEpoch, AdoptVolume{1, late})
	for _, bad := range []func(v *Volume){func(v *Volume) { v.Size = 0 }, func(v *Volume) { v.Size = maxSize + 512 }, func(v *Volume) { v.Region = 7 }, func(v *Volume) { v.Replicas = nil },
		func(v *Volume) { v.Logical = 0 }, func(v *Volume) { v.Replicas = []Place{{n[0].ID, n[0].Pools[0].ID}} }, func(v *Volume) { v.Lineage = ids.Lineage{} }} {
		x := late
		bad(&x)
		m.fails(ErrInvalid, AdoptVolume{e, x})
	}
	m.fails(ErrNameTaken, AdoptVolume{e, func() Volume { x := late; x.Name = "v"; return x }()})
	wild := late
	wild.LastServed, wild.Leaving, wild.Gone, wild.Share, wild.Losses = e, []Leave{{Node: a.ID}}, late.Replicas, true, 3
	for range 2 {
		m.do(AdoptVolume{e, wild})
	}
	m.fails(ErrInUse, AdoptVolume{e, func() Volume { x := late; x.Name = "w"; return x }()})
	got := m.s.Volumes[late.ID]
	if !got.Foreign || got.LastServed != 0 || got.Leaving != nil || got.Gone != nil || got.Share || got.Losses != 0 || len(got.InSync) != 1 {
		t.Fatalf("%+v", got)
	}
	if r := m.do(Served{e, []VolumeVersion{{Volume: late.ID, Version: 1}}}); len(r.Left) != 1 {
		t.Fatal(r)
	}
	// Another node comes, with a replica too.
	b := Node{ID: ids.NewNode(), Name: "node1", Version: Version, Pools: n[1].Pools}
	m.do(PutNode{b, n[1].ID})
	more := late
	more.Replicas = []Place{{a.ID, a.Pools[0].ID}, {b.ID, b.Pools[0].ID}}
	m.do(AdoptVolume{e, more})
	if got := m.s.Volumes[late.ID]; len(got.Replicas) != 2 || len(got.InSync) != 2 || got.Version != 2 {
		t.Fatalf("%+v", got)
	}
	more.Replicas = []Place{{n[2].ID, a.Pools[0].ID}}
	m.fails(ErrInvalid, AdoptVolume{e, more})
	m.do(ForceVolume{Epoch: e, Volume: late.ID, Version: 2, Place: late.Replicas[0], From: late.Lineage, Lineage: ids.NewLineage()})
	m.fails(ErrInUse, AdoptVolume{e, late})
	m.do(DeleteVolume{e, late.ID, 3, 9})
	m.fails(ErrInUse, AdoptVolume{e, late})
	m.do(PurgeVolume{late.ID, m.s.Trash[late.ID].Since, false})
	m.fails(ErrNoVolume, AdoptVolume{e, late})
}

// TestDeletions: what commands that may never have been committed have deleted for good is in the trash at the end; on the way it is not, or
// commands that were accepted would be rejected.
func TestDeletions(t *testing.T) {
	m := newMachine(t)
	n, v := m.three()
	other := v
	other.ID, other.Name, other.Replicas = ids.NewVolume(), "other", []Place{{n[2].ID, n[2].Pools[0].ID}}
	var d Deletions
	do := func(b Body) {
		t.Helper()
		before := m.s
		m.do(b)
		d.Note(before, m.s)
	}
	do(CreateVolume{1, other, nil})
	s := m.share(n)
	for range 2 {
		do(ChangeTree{1, s.ID, 1, mkdir("a")})
	}
	do(DeleteVolume{1, other.ID, 1, 0})
	do(RemoveNode{n[2].ID})
	do(PutNode{Node{ID: ids.NewNode(), Name: n[2].Name, Version: Version}, ids.Node{}})
	do(DeleteVolume{1, s.ID, 1, 9})
	do(PurgeVolume{s.ID, m.s.Trash[s.ID].Since, false})
	do(DeleteVolume{1, v.ID, 1, 9})
	if len(m.s.Trash) != 1 {
		t.Fatal(m.s.Trash)
	}
	before := snapshot(t, m.s)
	got := d.TakenBack(m.s)
	if !bytes.Equal(before, snapshot(t, m.s)) {
		t.Fatal("the state was changed")
	}
	if len(got.Trash) != 3 || got.Trash[other.ID].Volume.Name != "other" || got.Trash[other.ID].Until != Forever || got.Trash[v.ID].Until == Forever {
		t.Fatalf("%+v", got.Trash)
	}
	if tree := got.Trees[s.ID]; tree == nil || tree.Files() != 2 {
		t.Fatal("the share has lost its files", tree)
	}
	m.s = got
	m.s = Restored(m.backup(), ids.NewLineage(), nil, m.at)
	if !m.s.Trash[other.ID].Volume.Foreign || m.s.Trees[s.ID].Files() != 2 {
		t.Fatalf("%+v", m.s.Trash)
	}
}

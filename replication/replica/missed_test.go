package replica

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// The part of the crash test that is about missed maps: what was recorded is there after every crash.

func crashOther() peer.Other {
	return peer.Other{ID: peer.ReplicaID{Node: ids.Node{7}, Pool: ids.Pool{7}, Birth: ids.ID{7}}}
}

func regionsOfExtents(xs []peer.Extent, region int64) map[uint32]bool {
	out := map[uint32]bool{}
	for _, x := range xs {
		for r := x.Off / region; r*region < x.Off+x.Len; r++ {
			out[uint32(r)] = true
		}
	}
	return out
}

// know says that the other replica is absent, present, or lacks everything.
func (m *machine) know(v *volume) error {
	o := crashOther()
	o.Absent = m.rnd.Chance(0.7)
	o.All = o.Absent && m.rnd.Chance(0.2)
	was := v.absent
	v.absent = unknown
	err := m.call(peer.Command{Kind: peer.Know, Volume: v.spec.Volume, Others: []peer.Other{o}}).Err
	if err != nil {
		if was != yes {
			v.missed = nil
		}
		if err := m.ended(err); err != nil {
			return err
		}
		return m.open()
	}
	v.absent = yes
	switch {
	case !o.Absent:
		v.absent, v.missed = no, nil
	case o.All:
		v.missed = map[uint32]bool{}
		for r := range regionsOf(v.spec) {
			v.missed[r] = true
		}
	case was != yes:
		v.missed = map[uint32]bool{}
		for r := range v.active {
			v.missed[r] = true
		}
	}
	return nil
}

// changeMissed adds regions, or takes some out.
func (m *machine) changeMissed(v *volume) error {
	if v.absent != yes {
		return nil
	}
	first := uint32(m.rnd.Intn(int(regionsOf(v.spec))))
	x := peer.Extent{Off: int64(first) * crashRegion, Len: min(2*crashRegion, v.spec.Size-int64(first)*crashRegion)}
	c := peer.Command{Kind: peer.AddMissed, Volume: v.spec.Volume, Others: []peer.Other{crashOther()}, Missed: []peer.Extent{x}}
	if m.rnd.Chance(0.6) {
		c.Kind = peer.DropMissed
		c.Others[0].Seq = v.seq
		for r := range regionsOfExtents(c.Missed, crashRegion) {
			if v.active[r] == 0 {
				delete(v.missed, r)
			}
		}
	}
	if err := m.call(c).Err; err != nil {
		if err := m.ended(err); err != nil {
			return err
		}
		return m.open()
	}
	if c.Kind == peer.AddMissed {
		maps.Copy(v.missed, regionsOfExtents(c.Missed, crashRegion))
	}
	return nil
}

func (m *machine) checkMissed(v *volume, a peer.Answer, active map[uint32]peer.Seq) error {
	if !v.birth.IsZero() && v.birth != a.Birth {
		return fmt.Errorf("it was %s and is another replica now, %s", v.birth, a.Birth)
	}
	v.birth = a.Birth
	found := len(a.Known) == 1 && a.Known[0].ID == crashOther().ID && a.Known[0].Absent
	if v.absent == yes && !found || v.absent == no && found {
		return fmt.Errorf("recorded as absent: %v, and should be %d", found, v.absent)
	}
	if v.absent = no; !found {
		v.missed = nil
		return nil
	}
	v.absent = yes
	got := m.call(peer.Command{Kind: peer.ReadMissed, Volume: v.spec.Volume, Len: v.spec.Size, Others: []peer.Other{crashOther()}})
	if got.Err != nil {
		return got.Err
	}
	has := regionsOfExtents(got.Extents, crashRegion)
	for r := range active {
		if !has[r] {
			return fmt.Errorf("region %d is active and not missed", r)
		}
	}
	for r := range v.missed {
		if !has[r] {
			return fmt.Errorf("region %d was recorded as missed, and is not", r)
		}
	}
	v.missed = has
	return nil
}

func TestMissed(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(1)
	spec := h.spec(0)
	v := spec.Volume
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	b := make([]byte, 4096)
	a1 := peer.Other{ID: peer.ReplicaID{Node: ids.Node{1}, Pool: ids.Pool{1}, Birth: ids.ID{1}}, Absent: true, Epoch: 3, Seq: 4}
	a2 := peer.Other{ID: peer.ReplicaID{Node: ids.Node{2}, Pool: ids.Pool{2}, Birth: ids.ID{2}}}
	missed := func(of ids.ID, want ...uint32) {
		t.Helper()
		x := must(t, s, peer.Command{Kind: peer.ReadMissed, Volume: v, Len: spec.Size, Others: []peer.Other{{ID: peer.ReplicaID{Birth: of}}}})
		w := map[uint32]bool{}
		for _, r := range want {
			w[r] = true
		}
		if d := cmp.Diff(w, regionsOfExtents(x.Extents, spec.Region)); d != "" {
			t.Fatal(d)
		}
	}
	know := func(list ...peer.Other) {
		t.Helper()
		must(t, s, peer.Command{Kind: peer.Know, Volume: v, Others: list})
	}
	epoch := peer.Epoch(1)
	restart := func() {
		h.restart()
		epoch++
		s = h.open(epoch)
	}
	must(t, s, write(v, 5<<20, b, 7))
	know(a1, a2) // what is active is missed
	missed(ids.ID{1}, 5)
	if e := do(t, s, peer.Command{Kind: peer.ReadMissed, Volume: v, Len: spec.Size, Others: []peer.Other{a2}}).Err; e == nil {
		t.Fatal("a map of a replica that is present")
	}
	must(t, s, write(v, 100<<20, b[:512], 8)) // the last region, with its flush
	clear := func(rs ...uint32) {
		var list []peer.RegionSeq
		for _, r := range rs {
			list = append(list, peer.RegionSeq{Region: r, Seq: 99})
		}
		must(t, s, peer.Command{Kind: peer.Clear, Volume: v, Regions: list})
	}
	clear(5, 100)
	missed(ids.ID{1}, 5, 100)
	restart()
	missed(ids.ID{1}, 5, 100)
	// Another map beside it, begun later; evidence rises and never falls.
	a2.Absent, a2.All = true, true
	a1.Epoch, a1.Seq = 9, 1
	know(a1, a2)
	got := must(t, s, peer.Command{Kind: peer.ReadMap, Volume: v})
	a2.All = false
	if d := cmp.Diff([]peer.Other{{ID: a1.ID, Absent: true, Epoch: 9, Seq: 4}, a2}, got.Known); d != "" {
		t.Fatal(d)
	}
	must(t, s, write(v, 7<<20, b, 10))
	drop := func(o peer.Other, first, n int64) {
		t.Helper()
		x := peer.Extent{Off: first * spec.Region, Len: min(n*spec.Region, spec.Size-first*spec.Region)}
		must(t, s, peer.Command{Kind: peer.DropMissed, Volume: v, Others: []peer.Other{o}, Missed: []peer.Extent{x}})
	}
	drop(a2, 0, 101)
	missed(ids.ID{2}, 7) // active: it stays
	missed(ids.ID{1}, 5, 7, 100)
	restart()
	missed(ids.ID{2}, 7)
	must(t, s, peer.Command{Kind: peer.AddMissed, Volume: v, Others: []peer.Other{a2}, Missed: []peer.Extent{{Off: 8 << 20, Len: 2 << 20}}})
	restart()
	missed(ids.ID{2}, 7, 8, 9)
	missed(ids.ID{}, 5, 7, 8, 9, 100)
	// Dropped and begun anew in the same place: what was there before does not count.
	know(a2)
	clear(7)
	a3 := peer.Other{ID: peer.ReplicaID{Node: ids.Node{1}, Pool: ids.Pool{1}, Birth: ids.ID{3}}, Absent: true}
	know(a2, a3)
	missed(ids.ID{3})
	must(t, s, write(v, 90<<20, b, 20))
	restart()
	missed(ids.ID{3}, 90)
	missed(ids.ID{2}, 7, 8, 9, 90)
	for _, bad := range [][]peer.Other{{a2, a2}, {a1, a2, a3}, {{ID: peer.ReplicaID{Node: ids.Node{1}}}}, make([]peer.Other, peer.MaxOthers+1)} {
		if do(t, s, peer.Command{Kind: peer.Know, Volume: v, Others: bad}).Err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	missed(ids.ID{3}, 90)

	// A record that is damaged is forgotten: the replica is another one to the others, and knows of none. An older map is refused.
	h.node.Close()
	path := filepath.Join(h.pools[0], dirReplicas, v.String(), fileMap)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	hurt := bytes.Clone(raw)
	hurt[mapBlocks(spec)+20] ^= 1
	hurt[mapBlocks(spec)+blockSize+20] ^= 1
	os.WriteFile(path, hurt, 0o600)
	h.start()
	s = h.open(50)
	now := must(t, s, peer.Command{Kind: peer.ReadMap, Volume: v})
	if len(now.Known) != 0 || now.Birth == got.Birth || now.Birth.IsZero() || now.Highest != 20 {
		t.Fatalf("%+v", now)
	}
	h.restart()
	s = h.open(51)
	if again := must(t, s, peer.Command{Kind: peer.ReadMap, Volume: v}); again.Birth != now.Birth {
		t.Fatal("the new birth is not durable")
	}
	h.node.Close()
	old := bytes.Clone(raw[:len(raw)-8192])
	for at := 0; at < len(old); at += mapSector {
		if !allZero(old[at : at+mapSector]) {
			old[at+11] = 1
		}
	}
	os.WriteFile(path, old, 0o600)
	h.start()
	s = h.open(52)
	if x := h.node.pools[0].find(v); x.foreign == nil || !bytes.Contains([]byte(x.foreign.Error()), []byte("version 1, and this program knows 2")) {
		t.Fatal(x.foreign)
	}
}

// TestKnowThenGrow makes a replica larger that records what others miss: the record lies behind the map's blocks, and moves.
func TestKnowThenGrow(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(1)
	spec := h.spec(0)
	spec.Size, spec.Region = 1<<20, 64<<10
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	v := spec.Volume
	some := peer.Other{ID: peer.ReplicaID{Node: ids.Node{1}, Pool: ids.Pool{1}, Birth: ids.ID{1}}, Absent: true, Epoch: 7, Seq: 3}
	all := peer.Other{ID: peer.ReplicaID{Node: ids.Node{2}, Pool: ids.Pool{2}, Birth: ids.ID{2}}, Absent: true, All: true}
	must(t, s, peer.Command{Kind: peer.Know, Volume: v, Others: []peer.Other{some, all}})
	b := make([]byte, 4096)
	must(t, s, write(v, 5*spec.Region, b, 4))
	must(t, s, peer.Command{Kind: peer.Clear, Volume: v, Regions: []peer.RegionSeq{{Region: 5, Seq: 4}}})
	was := must(t, s, peer.Command{Kind: peer.ReadMap, Volume: v})

	missed := func(size int64, id ids.ID) map[uint32]bool {
		t.Helper()
		a := must(t, s, peer.Command{Kind: peer.ReadMissed, Volume: v, Len: size, Others: []peer.Other{{ID: peer.ReplicaID{Birth: id}}}})
		return regionsOfExtents(a.Extents, spec.Region)
	}
	check := func(size int64, want map[uint32]bool) {
		t.Helper()
		now := must(t, s, peer.Command{Kind: peer.ReadMap, Volume: v})
		if d := cmp.Diff(was.Known, now.Known); d != "" || now.Birth != was.Birth {
			t.Fatal("the record has changed: ", d)
		}
		if d := cmp.Diff(want, missed(size, some.ID.Birth)); d != "" {
			t.Fatal(d)
		}
		has := missed(size, all.ID.Birth)
		for r := range uint32(16) {
			if !has[r] {
				t.Fatalf("region %d is no longer missed by who misses all", r)
			}
		}
	}
	check(spec.Size, map[uint32]bool{5: true})
	for i, blocks := range []int64{1, 3} { // within the map's block, and with more blocks
		large := spec
		large.Size = spec.Region * perBlock * blocks
		must(t, s, peer.Command{Kind: peer.Grow, Volume: v, Spec: large})
		want := map[uint32]bool{5: true}
		if i > 0 {
			want[uint32(perBlock-1)] = true
		}
		check(large.Size, want)
		last := uint32(perBlock*blocks - 1)
		must(t, s, write(v, int64(last)*spec.Region, b, peer.Seq(9+i)))
		want[last] = true
		check(large.Size, want)
		h.restart()
		s = h.open(peer.Epoch(2 + i))
		check(large.Size, want)
		must(t, s, peer.Command{Kind: peer.Clear, Volume: v, Regions: []peer.RegionSeq{{Region: last, Seq: 99}}})
		check(large.Size, want)
	}
}

// TestMissedOfLarger: a growth may have come to an end on this replica alone, so that its volume ends within a region of it. It answers for
// what was asked and no more, or the leader's end of a session takes it for a peer that it does not understand; and it takes regions up to
// where the volume ends.
func TestMissedOfLarger(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(1)
	spec := h.spec(0)
	spec.Size = 3<<20 + 4096
	v, volume := spec.Volume, spec.Size
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	spec.Size = 8 << 20
	must(t, s, peer.Command{Kind: peer.Grow, Volume: v, Spec: spec})
	absent := peer.Other{ID: peer.ReplicaID{Node: ids.Node{1}, Pool: ids.Pool{1}, Birth: ids.ID{1}}, Absent: true, All: true}
	must(t, s, peer.Command{Kind: peer.Know, Volume: v, Others: []peer.Other{absent}})
	absent.All = false
	missed := func(want ...peer.Extent) {
		t.Helper()
		for _, of := range []peer.Other{absent, {}} {
			a := must(t, s, peer.Command{Kind: peer.ReadMissed, Volume: v, Len: volume, Others: []peer.Other{of}})
			if d := cmp.Diff(want, a.Extents); d != "" {
				t.Fatal(d)
			}
		}
	}
	all, last := peer.Extent{Len: volume}, peer.Extent{Off: 3 << 20, Len: 4096}
	missed(all)
	must(t, s, peer.Command{Kind: peer.DropMissed, Volume: v, Others: []peer.Other{absent}, Missed: []peer.Extent{all}})
	missed()
	must(t, s, peer.Command{Kind: peer.AddMissed, Volume: v, Others: []peer.Other{absent}, Missed: []peer.Extent{last}})
	missed(last)
	for _, x := range []peer.Extent{{Off: 4096, Len: 1 << 20}, {Off: 7 << 20, Len: 2 << 20}, {Off: 8 << 20, Len: 4096}, {Len: 100}} {
		if err := do(t, s, peer.Command{Kind: peer.AddMissed, Volume: v, Others: []peer.Other{absent}, Missed: []peer.Extent{x}}).Err; !errors.Is(err, peer.ErrInvalid) {
			t.Errorf("%+v: %v", x, err)
		}
	}
}

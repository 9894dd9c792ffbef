package replica

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/replication/peer"
)

// TestGrow makes a replica larger on a real disk: bytes, marks and checksums stay, what is new reads as zeros, and it is so
// after a restart. What a growth that did not happen has left does no harm.
func TestGrow(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(1)
	spec := h.spec(0)
	spec.Size = 1 << 20
	spec.Region = 64 << 10
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	v := spec.Volume
	old := bytes.Repeat([]byte{7}, 1<<20)
	must(t, s, write(v, 0, old[:512<<10], 3))
	must(t, s, write(v, 512<<10, old[512<<10:], 4))
	must(t, s, peer.Command{Kind: peer.Clear, Volume: v, Regions: []peer.RegionSeq{{Region: 2, Seq: 3}, {Region: 3, Seq: 3}}})
	marks := must(t, s, peer.Command{Kind: peer.ReadMap, Volume: v}).Active

	large := spec
	large.Size = 456*(64<<10) + 1<<20 // another block of the map
	dir := filepath.Join(h.pools[0], dirReplicas, v.String())
	for _, c := range []peer.Spec{{Volume: v, Pool: spec.Pool, Lineage: spec.Lineage, Size: large.Size, Region: 1 << 20},
		{Volume: v, Pool: spec.Pool, Lineage: spec.Lineage, Size: large.Size + 512, Region: spec.Region}} {
		if a := do(t, s, peer.Command{Kind: peer.Grow, Volume: v, Spec: c}); !errors.Is(a.Err, peer.ErrInvalid) {
			t.Fatal(a.Err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, fileData), large.Size+4096); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, grownMap(5<<20)), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.restart()
	s = h.open(2)
	if left, _ := filepath.Glob(filepath.Join(dir, fileMap+".*")); len(left) > 0 {
		t.Fatal("what a growth has left stays", left)
	}
	check := func(size int64) {
		t.Helper()
		if r := s.Fenced().Pools[0].Replicas[0]; size == large.Size && len(s.Fenced().Pools) == 1 && r.Foreign {
			t.Fatal("it is foreign")
		}
		got := make([]byte, size)
		for off := int64(0); off < size; off += 1 << 20 {
			n := min(1<<20, size-off)
			must(t, s, peer.Command{Kind: peer.Read, Volume: v, Off: off, Len: n, Data: got[off : off+n]})
		}
		if !bytes.Equal(got, append(bytes.Clone(old), make([]byte, size-int64(len(old)))...)) {
			t.Fatal("it reads otherwise")
		}
		if d := cmp.Diff(marks, must(t, s, peer.Command{Kind: peer.ReadMap, Volume: v}).Active); d != "" {
			t.Fatal(d)
		}
		if a := do(t, s, peer.Command{Kind: peer.Read, Volume: v, Off: size, Len: 4096, Data: make([]byte, 4096)}); !errors.Is(a.Err, peer.ErrInvalid) {
			t.Fatal(a.Err)
		}
	}
	check(spec.Size)
	must(t, s, peer.Command{Kind: peer.Grow, Volume: v, Spec: large})
	check(large.Size)
	must(t, s, peer.Command{Kind: peer.Grow, Volume: v, Spec: large})
	must(t, s, peer.Command{Kind: peer.Grow, Volume: v, Spec: spec}) // an older one that comes late
	h.restart()
	s = h.open(3)
	check(large.Size)
	if r := s.Fenced().Pools[0].Replicas[0]; r.Spec != large || r.Seq != 4 {
		t.Fatalf("%+v", r)
	}
	b := bytes.Repeat([]byte{9}, 4096)
	must(t, s, write(v, large.Size-4096, b, 9))
	got := make([]byte, 4096)
	must(t, s, peer.Command{Kind: peer.Read, Volume: v, Off: large.Size - 4096, Len: 4096, Data: got})
	if !bytes.Equal(got, b) {
		t.Fatal("the end cannot be written")
	}
}

package share

import (
	"bytes"
	"testing"

	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// TestUnstable: where the volume's durability is memory, a write within a file's size is unstable if that is what was asked for; COMMIT
// flushes; what a size or an extent shows is durable before it is shown; and the verifier changes with a loss (RFC 1813 3.3.7, 3.3.21).
func TestUnstable(t *testing.T) {
	w := newWorld(t, 64<<20, 1)
	w.volatile = true
	open := func() *Share {
		t.Helper()
		s, err := w.lead()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close(nil) })
		return s
	}
	s := open()
	c := newClient(1)
	m, err := s.Create(t.Context(), c.next(), nfs.Name{Dir: s.Root(), Name: "f"}, nfs.Create{Mode: nfs3.Guarded, Attr: mode()})
	if err != nil {
		t.Fatal(err)
	}
	f := m.Node.Ref
	put := func(off uint64, how nfs3.Stable) nfs.WriteResult {
		t.Helper()
		res, err := s.Write(t.Context(), f, off, bytes.Repeat([]byte{9}, 8192), how)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	counts := func() (loose, flushes int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.loose, w.flushes
	}
	if put(0, nfs3.Unstable).Committed != nfs3.FileSync { // it grows the file
		t.Fatal("a size shows what may be lost")
	}
	for _, how := range []nfs3.Stable{nfs3.FileSync, nfs3.DataSync} {
		if res := put(0, how); res.Committed < how {
			t.Fatal(res)
		}
	}
	if n, _ := counts(); n != 0 {
		t.Fatalf("%d writes were not durable", n)
	}
	first := put(0, nfs3.Unstable)
	if n, _ := counts(); first.Committed != nfs3.Unstable || n == 0 {
		t.Fatal(first, n)
	}
	res, err := s.Commit(t.Context(), f, 0, 0)
	if _, n := counts(); err != nil || n != 1 || res.Verifier != first.Verifier {
		t.Fatal(res, err, n)
	}
	for _, lost := range []uint64{0, 1, 2} { // each opened anew
		s.Close(nil)
		w.losses = lost
		s = open()
		if v := put(0, nfs3.Unstable).Verifier; (v == first.Verifier) != (lost == 0) {
			t.Fatal(lost, v, first.Verifier)
		}
	}
}

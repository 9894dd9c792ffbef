package share

import (
	"errors"
	"testing"
	"testing/synctest"

	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// TestMoved: a name that must be a certain file, or nothing, and is not, is left alone, and what is refused so is no answer to a retry.
func TestMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4<<20, 1)
		s, err := w.lead()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close(nil) }()
		ctx, c := t.Context(), newClient(1)
		made := func(name string) *nfs.Ref {
			t.Helper()
			m, err := s.Create(ctx, c.next(), nfs.Name{Dir: s.Root(), Name: name}, nfs.Create{Attr: mode()})
			if err != nil {
				t.Fatal(err)
			}
			return &m.Node.Ref
		}
		a, b, none := made("a"), made("b"), &nfs.Ref{}
		at := func(name string, is *nfs.Ref) nfs.Name { return nfs.Name{Dir: s.Root(), Name: name, Is: is} }
		size := uint64(0)
		cut := nfs.Create{Mode: nfs3.Unchecked, Attr: mode()}
		cut.Attr.Size = &size
		remove := func(n nfs.Name) func(nfs.Caller) error {
			return func(c nfs.Caller) error { _, err := s.Remove(ctx, c, n); return err }
		}
		rename := func(from, to nfs.Name) func(nfs.Caller) error {
			return func(c nfs.Caller) error { _, err := s.Rename(ctx, c, from, to); return err }
		}
		create := func(n nfs.Name) func(nfs.Caller) error {
			return func(c nfs.Caller) error { _, err := s.Create(ctx, c, n, cut); return err }
		}
		for i, x := range []struct{ wrong, right func(nfs.Caller) error }{
			{create(at("a", b)), create(at("a", a))},
			{create(at("a", none)), create(at("a", nil))},
			{create(at("new", a)), create(at("new", none))},
			{rename(at("a", b), at("x", none)), rename(at("a", a), at("x", none))},
			{rename(at("x", a), at("b", none)), rename(at("x", a), at("b", b))},
			{remove(at("b", b)), remove(at("b", a))},
			{remove(at("new", none)), remove(at("new", nil))},
		} {
			caller := c.next()
			for range 2 {
				if err := x.wrong(caller); !errors.Is(err, nfs.ErrMoved) {
					t.Fatal(i, err)
				}
			}
			if err := x.right(caller); err != nil {
				t.Fatal(i, err)
			}
			if err := x.right(caller); err != nil {
				t.Fatal(i, "again: ", err)
			}
		}
	})
}

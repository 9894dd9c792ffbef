package nfs_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
)

// fill makes files, and returns their names with "." and "..".
func (d *door) fill(n int) map[string]int {
	names := map[string]int{".": 1, "..": 1}
	for i := range n {
		name := fmt.Sprintf("%0*d", 1+i%200, i)
		d.file(name, 0o644, "")
		names[name] = 1
	}
	return names
}

// walk lists a directory in parts of some bytes, with between called after each.
func walk(t *testing.T, read func(cookie uint64, v nfs3.Verifier) (nfsclient.Listing, error), between func(int)) map[string]int {
	t.Helper()
	got := map[string]int{}
	var cookie uint64
	var v nfs3.Verifier
	for part := 0; ; part++ {
		r, err := read(cookie, v)
		if err != nil {
			t.Fatal(err)
		}
		if r.Dir == nil || len(r.Entries) == 0 && !r.EOF {
			t.Fatalf("part %d: %+v", part, r)
		}
		for _, e := range r.Entries {
			got[e.Name]++
			cookie = e.Cookie
		}
		if v = r.Verifier; r.EOF {
			return got
		}
		between(part)
	}
}

func TestReaddir(t *testing.T) {
	d, ctx := open(t), t.Context()
	names := d.fill(300)
	for _, size := range []uint32{350, 512, 4096, 1 << 20} {
		plain := walk(t, func(cookie uint64, v nfs3.Verifier) (nfsclient.Listing, error) {
			return d.c.Readdir(ctx, nfs3.ReaddirArgs{Dir: d.root, Cookie: cookie, Verifier: v, Count: size})
		}, func(int) {})
		if !maps.Equal(plain, names) {
			t.Errorf("READDIR of %d: %d entries", size, len(plain))
		}
		plus := walk(t, func(cookie uint64, v nfs3.Verifier) (nfsclient.Listing, error) {
			return d.c.Readdirplus(ctx, nfs3.ReaddirplusArgs{Dir: d.root, Cookie: cookie, Verifier: v, DirCount: size, MaxCount: 2 * size})
		}, func(int) {})
		if !maps.Equal(plus, names) {
			t.Errorf("READDIRPLUS of %d: %d entries", size, len(plus))
		}
	}
	_, err := d.c.Readdir(ctx, nfs3.ReaddirArgs{Dir: d.root, Count: 100})
	want(t, "not one fits", err, nfs3.ErrTooSmall)
	_, err = d.c.Readdirplus(ctx, nfs3.ReaddirplusArgs{Dir: d.root, DirCount: 4096, MaxCount: 200})
	want(t, "not one fits, plus", err, nfs3.ErrTooSmall)
	_, err = d.c.Readdir(ctx, nfs3.ReaddirArgs{Dir: d.root, Cookie: 50, Verifier: nfs3.Verifier{9}, Count: 4096})
	want(t, "another verifier", err, nfs3.ErrBadCookie)
	_, err = d.c.Readdir(ctx, nfs3.ReaddirArgs{Dir: d.file("f", 0o644, ""), Count: 4096})
	want(t, "of a file", err, nfs3.ErrNotDir)
}

// TestReaddirSizes has no result above what was asked for.
func TestReaddirSizes(t *testing.T) {
	d, ctx := open(t), t.Context()
	d.fill(100)
	for size := uint32(300); size < 6000; size += 97 {
		for plus, a := range map[bool]nfs3.Args{
			false: &nfs3.ReaddirArgs{Dir: d.root, Count: size},
			true:  &nfs3.ReaddirplusArgs{Dir: d.root, DirCount: size, MaxCount: size},
		} {
			proc := uint32(nfs3.ProcReaddir)
			if plus {
				proc = nfs3.ProcReaddirplus
			}
			r, err := d.c.RPC().Call(ctx, nfs3.Program, 3, proc, a.Encode, nil)
			if err != nil || r.Left() > int(size) {
				t.Fatalf("%d bytes for %d (plus %v), %v", r.Left(), size, plus, err)
			}
		}
	}
}

// TestReaddirWhileItChanges lists what stays exactly once.
func TestReaddirWhileItChanges(t *testing.T) {
	d, ctx := open(t), t.Context()
	names := d.fill(120)
	all := slices.Sorted(maps.Keys(names))[2:]
	removed := 0
	got := walk(t, func(cookie uint64, v nfs3.Verifier) (nfsclient.Listing, error) {
		return d.c.Readdir(ctx, nfs3.ReaddirArgs{Dir: d.root, Cookie: cookie, Verifier: v, Count: 1024})
	}, func(part int) {
		for range 3 {
			name := all[removed]
			removed++
			if _, err := d.c.Remove(ctx, d.root, name); err != nil {
				t.Fatal(err)
			}
			delete(names, name)
			d.file(fmt.Sprintf("new%d", removed), 0o644, "")
		}
	})
	for name := range names {
		if got[name] != 1 {
			t.Errorf("%q is listed %d times", name, got[name])
		}
	}
	if removed < 9 {
		t.Error("it did not change while it was listed")
	}
}

func TestReaddirplusTells(t *testing.T) {
	d, ctx := open(t), t.Context()
	sub := d.mkdir("sub", 0o755)
	d.file("f", 0o640, "contents")
	all, err := d.c.List(ctx, d.root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		a, err := d.c.Getattr(ctx, e.File)
		if err != nil || e.Attr == nil || a != *e.Attr || e.Ino != a.Fileid {
			t.Errorf("%s: %v %+v %+v", e.Name, err, e.Attr, a)
		}
	}
	if len(all) != 4 || string(all[0].File) != string(d.root) || string(all[1].File) != string(d.root) {
		t.Errorf("%+v", all)
	}
	if all, err = d.c.List(ctx, sub); err != nil || len(all) != 2 || string(all[0].File) != string(sub) || string(all[1].File) != string(d.root) {
		t.Errorf("an empty one: %v %+v", err, all)
	}
}

package nfs_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/block"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/nfs"
)

func at(dir nfs3.Handle, name string) nfs3.DirOp { return nfs3.DirOp{Dir: dir, Name: name} }

func TestGetattrSetattr(t *testing.T) {
	d, ctx := open(t), t.Context()
	f := d.file("f", 0o640, "hello")
	a, err := d.c.Getattr(ctx, f)
	if err != nil || a.Type != nfs3.Regular || a.FileMode != 0o640 || a.Filesize != 5 || a.Nlink != 1 || a.FSID == 0 || a.Fileid == 0 {
		t.Fatalf("%v %+v", err, a)
	}
	when := nfs3.Time{Seconds: 4_000_000_000, Nseconds: 123_456_789}
	w, err := d.c.Setattr(ctx, f, nfs3.SetAttr{Mode: ptr(uint32(0o600)), UID: ptr(uint32(7)), GID: ptr(uint32(8)), Size: ptr(uint64(3)),
		Mtime: nfs3.SetTime{How: nfs3.ToClientTime, Time: when}}, &a.Ctime)
	if err != nil {
		t.Fatal(err)
	}
	if w.Before == nil || *w.Before != nfs3.PreOpOf(a) || w.After == nil || w.After.FSID != a.FSID {
		t.Errorf("wcc %+v, before it %+v", w, a)
	}
	b, err := d.c.Getattr(ctx, f)
	if err != nil || b.FileMode != 0o600 || b.UID != 7 || b.GID != 8 || b.Filesize != 3 || b.Mtime != when || b.Ctime == a.Ctime {
		t.Fatalf("%v %+v", err, b)
	}
	if diff := cmp.Diff(&b, w.After); diff != "" {
		t.Error("after:", diff)
	}
	_, err = d.c.Setattr(ctx, f, mode(0o777), &a.Ctime)
	want(t, "a guard of before", err, nfs3.ErrNotSync)
	_, err = d.c.Setattr(ctx, f, nfs3.SetAttr{Size: ptr(uint64(nfs3.MaxFile + 1))}, nil)
	want(t, "too large", err, nfs3.ErrFBig)
	_, err = d.c.Setattr(ctx, d.root, nfs3.SetAttr{Size: ptr(uint64(0))}, nil)
	want(t, "size of a directory", err, nfs3.ErrIsDir)
	_, err = d.c.Setattr(ctx, f, nfs3.SetAttr{Atime: nfs3.SetTime{How: nfs3.ToClientTime, Time: nfs3.Time{Nseconds: 1e9}}}, nil)
	want(t, "a second of nanoseconds", err, nfs3.ErrInval)
}

func TestHandles(t *testing.T) {
	d, ctx := open(t), t.Context()
	f := d.file("f", 0o644, "")
	if len(f) > nfs3.MaxHandle {
		t.Error(len(f), "bytes")
	}
	for i := range f {
		bad := slices.Clone(f)
		bad[i] ^= 1
		_, err := d.c.Getattr(ctx, bad)
		want(t, fmt.Sprintf("byte %d changed", i), err, nfs3.ErrBadHandle)
	}
	_, err := d.c.Getattr(ctx, f[:20])
	want(t, "cut", err, nfs3.ErrBadHandle)
	_, err = d.c.Getattr(ctx, nil)
	want(t, "empty", err, nfs3.ErrBadHandle)
	_, err = d.c.Remove(ctx, d.root, "f")
	want(t, "remove", err, nil)
	_, err = d.c.Getattr(ctx, f)
	want(t, "removed", err, nfs3.ErrStale)
	if g := d.file("f", 0o644, ""); bytes.Equal(f, g) {
		t.Error("a new file has an old one's handle")
	}
	d.exports.Remove(d.export.ID)
	_, err = d.c.Getattr(ctx, d.root)
	want(t, "no export", err, nfs3.ErrStale)
	_, _, err = d.c.Mount(ctx, "/vol")
	want(t, "mount without an export", err, nfs3.ErrNoEnt)
}

func TestLookup(t *testing.T) {
	d, ctx := open(t), t.Context()
	sub := d.mkdir("sub", 0o755)
	f := d.file("f", 0o644, "x")
	r, err := d.c.Lookup(ctx, d.root, "f")
	if err != nil || !bytes.Equal(r.File, f) || r.Attr == nil || r.Attr.Filesize != 1 || r.Dir.After == nil || r.Dir.After.Type != nfs3.Directory {
		t.Fatalf("%v %+v", err, r)
	}
	for name, h := range map[string]nfs3.Handle{".": sub, "..": d.root} {
		if r, err = d.c.Lookup(ctx, sub, name); err != nil || !bytes.Equal(r.File, h) {
			t.Errorf("%q: %v %x", name, err, r.File)
		}
	}
	if r, err = d.c.Lookup(ctx, d.root, ".."); err != nil || !bytes.Equal(r.File, d.root) {
		t.Errorf("above the root: %v", err)
	}
	r, err = d.c.Lookup(ctx, d.root, "none")
	want(t, "none", err, nfs3.ErrNoEnt)
	if r.Dir.After == nil {
		t.Error("a LOOKUP that fails tells nothing of the directory")
	}
	for name, status := range map[string]error{"a/b": nfs3.ErrNoEnt, "a\x00b": nfs3.ErrNoEnt, "": nfs3.ErrNoEnt,
		strings.Repeat("n", 255): nfs3.ErrNoEnt, strings.Repeat("n", 256): nfs3.ErrNameTooLong, "../vol": nfs3.ErrNoEnt} {
		_, err := d.c.Lookup(ctx, d.root, name)
		want(t, fmt.Sprintf("%.20q", name), err, status)
	}
	for _, name := range []string{"x", ".", ".."} {
		_, err = d.c.Lookup(ctx, f, name)
		want(t, "in a file, "+name, err, nfs3.ErrNotDir)
	}
}

func TestReadWriteCommit(t *testing.T) {
	d, ctx := open(t), t.Context()
	f := d.file("f", 0o644, "")
	big := bytes.Repeat([]byte("0123456789abcdef"), nfs3.MaxIO/16)
	for _, how := range []nfs3.Stable{nfs3.Unstable, nfs3.DataSync, nfs3.FileSync} {
		w, err := d.c.Write(ctx, f, 0, big, how)
		if err != nil || w.Count != nfs3.MaxIO || w.Committed < how || w.Wcc.Before == nil || w.Wcc.After == nil || w.Wcc.After.Filesize != nfs3.MaxIO {
			t.Fatalf("%d: %v %d %+v", how, err, w.Count, w.Wcc)
		}
	}
	for _, c := range []struct {
		off uint64
		n   uint32
	}{{0, nfs3.MaxIO}, {1, 3}, {65535, 2}, {nfs3.MaxIO - 3, 100}, {100, 0}} {
		r, err := d.c.Read(ctx, f, c.off, c.n)
		want := big[c.off:min(len(big), int(c.off)+int(c.n))]
		if err != nil || !bytes.Equal(r.Data, want) || r.EOF != (c.off+uint64(c.n) >= nfs3.MaxIO) || r.Attr == nil {
			t.Errorf("%+v: %v, %d bytes, EOF %v", c, err, len(r.Data), r.EOF)
		}
	}
	for _, off := range []uint64{nfs3.MaxIO, nfs3.MaxFile, 1<<64 - 1} {
		if r, err := d.c.Read(ctx, f, off, 10); err != nil || len(r.Data) != 0 || !r.EOF {
			t.Errorf("at %d: %v %d %v", off, err, len(r.Data), r.EOF)
		}
	}
	if r, err := d.c.Read(ctx, f, 0, 1<<32-1); err != nil || len(r.Data) != nfs3.MaxIO {
		t.Errorf("a READ of 4 GiB: %v, %d", err, len(r.Data))
	}
	// A hole, and odd lengths in odd places.
	w, err := d.c.Write(ctx, f, 5<<20+1, []byte("odd"), nfs3.Unstable)
	if err != nil || w.Wcc.After.Filesize != 5<<20+4 || w.Wcc.After.Used >= 5<<20 {
		t.Fatalf("%v %+v", err, w.Wcc.After)
	}
	if r, err := d.c.Read(ctx, f, 5<<20-2, 9); err != nil || string(r.Data) != "\x00\x00\x00odd" || !r.EOF {
		t.Errorf("%v %q", err, r.Data)
	}
	c, err := d.c.Commit(ctx, f, 0, 0)
	if err != nil || c.Verifier != w.Verifier || c.Wcc.After == nil {
		t.Fatalf("%v %+v", err, c)
	}
	d.share.Lose()
	if c, err = d.c.Commit(ctx, f, 0, 0); err != nil || c.Verifier == w.Verifier {
		t.Fatalf("lost writes do not show: %v", err)
	}
	_, err = d.c.Write(ctx, f, nfs3.MaxFile-1, []byte("xy"), nfs3.Unstable)
	want(t, "beyond 16 TiB", err, nfs3.ErrFBig)
	_, err = d.c.Write(ctx, f, 1<<64-1, []byte("xy"), nfs3.Unstable)
	want(t, "around the end of 64 bits", err, nfs3.ErrFBig)
	_, err = d.c.Write(ctx, d.root, 0, []byte("x"), nfs3.Unstable)
	want(t, "WRITE of a directory", err, nfs3.ErrIsDir)
	_, err = d.c.Read(ctx, d.root, 0, 1)
	want(t, "READ of a directory", err, nfs3.ErrIsDir)
	_, err = d.c.Commit(ctx, d.root, 0, 0)
	want(t, "COMMIT of a directory", err, nfs3.ErrIsDir)
}

func TestNoSpace(t *testing.T) {
	d, ctx := open(t), t.Context()
	f := d.file("f", 0o644, "")
	var err error
	n := uint64(0)
	for ; err == nil; n++ {
		_, err = d.c.Write(ctx, f, n<<20, make([]byte, 1<<20), nfs3.Unstable)
	}
	want(t, "full", err, nfs3.ErrNoSpace)
	if n != shareSize>>20+1 {
		t.Error(n, "MiB written")
	}
	if st, err := d.c.Fsstat(ctx, d.root); err != nil || st.Free != 0 || st.Total != shareSize {
		t.Errorf("%v %+v", err, st)
	}
}

func TestCreate(t *testing.T) {
	d, ctx := open(t), t.Context()
	create := func(how nfs3.CreateMode, v byte, s nfs3.SetAttr) (nfsclient.Found, error) {
		return d.c.Create(ctx, nfs3.CreateArgs{Where: at(d.root, "f"), How: how, Verifier: nfs3.Verifier{v}, Attr: s})
	}
	first, err := create(nfs3.Exclusive, 1, nfs3.SetAttr{})
	if err != nil || first.Attr == nil || first.Dir.Before == nil || first.Dir.After == nil || first.File == nil {
		t.Fatalf("%v %+v", err, first)
	}
	if first.Dir.Before.Mtime == first.Dir.After.Mtime {
		t.Error("the directory has not changed")
	}
	again, err := create(nfs3.Exclusive, 1, nfs3.SetAttr{})
	if err != nil || !bytes.Equal(again.File, first.File) {
		t.Errorf("the same verifier: %v", err)
	}
	_, err = create(nfs3.Exclusive, 2, nfs3.SetAttr{})
	want(t, "another verifier", err, nfs3.ErrExist)
	r, err := create(nfs3.Guarded, 0, nfs3.SetAttr{})
	want(t, "guarded", err, nfs3.ErrExist)
	if r.Dir.After == nil {
		t.Error("a CREATE that fails tells nothing of the directory")
	}
	if _, err = d.c.Write(ctx, first.File, 0, []byte("kept"), nfs3.FileSync); err != nil {
		t.Fatal(err)
	}
	if r, err = create(nfs3.Unchecked, 0, mode(0o777)); err != nil || r.Attr.Filesize != 4 || r.Attr.FileMode == 0o777 || !bytes.Equal(r.File, first.File) {
		t.Errorf("unchecked opens: %v %+v", err, r.Attr)
	}
	if r, err = create(nfs3.Unchecked, 0, nfs3.SetAttr{Size: ptr(uint64(0))}); err != nil || r.Attr.Filesize != 0 {
		t.Errorf("unchecked truncates: %v %+v", err, r.Attr)
	}
	d.mkdir("dir", 0o755)
	_, err = d.c.Create(ctx, nfs3.CreateArgs{Where: at(d.root, "dir"), How: nfs3.Unchecked})
	want(t, "unchecked over a directory", err, nfs3.ErrExist)
	for name, status := range badNames(nfs3.ErrExist) {
		_, err = d.c.Create(ctx, nfs3.CreateArgs{Where: at(d.root, name), How: nfs3.Unchecked})
		want(t, fmt.Sprintf("create %.20q", name), err, status)
		_, err = d.c.Mkdir(ctx, d.root, name, nfs3.SetAttr{})
		want(t, fmt.Sprintf("mkdir %.20q", name), err, status)
		_, err = d.c.Symlink(ctx, d.root, name, "x")
		want(t, fmt.Sprintf("symlink %.20q", name), err, status)
		_, err = d.c.Mknod(ctx, nfs3.MknodArgs{Where: at(d.root, name), Type: nfs3.FIFO})
		want(t, fmt.Sprintf("mknod %.20q", name), err, status)
		_, _, err = d.c.Link(ctx, first.File, at(d.root, name))
		want(t, fmt.Sprintf("link %.20q", name), err, status)
	}
	for name, status := range badNames(nfs3.ErrInval) {
		_, _, err = d.c.Rename(ctx, at(d.root, "f"), at(d.root, name))
		want(t, fmt.Sprintf("rename to %.20q", name), err, status)
		_, _, err = d.c.Rename(ctx, at(d.root, name), at(d.root, "g"))
		want(t, fmt.Sprintf("rename of %.20q", name), err, status)
		_, err = d.c.Remove(ctx, d.root, name)
		want(t, fmt.Sprintf("remove %.20q", name), err, status)
		if name != ".." {
			_, err = d.c.Rmdir(ctx, d.root, name)
			want(t, fmt.Sprintf("rmdir %.20q", name), err, status)
		}
	}
	_, err = d.c.Rmdir(ctx, d.root, "..")
	want(t, "rmdir ..", err, nfs3.ErrExist)
}

// badNames are names that cannot be made or taken away, with the answers; special is that of "." and "..".
func badNames(special error) map[string]error {
	return map[string]error{"": nfs3.ErrInval, "a/b": nfs3.ErrInval, "/": nfs3.ErrInval, "../x": nfs3.ErrInval, "a\x00": nfs3.ErrInval,
		strings.Repeat("x", 256): nfs3.ErrNameTooLong, ".": special, "..": special}
}

func TestMakeOthers(t *testing.T) {
	d, ctx := open(t), t.Context()
	r, err := d.c.Mkdir(ctx, d.root, "dir", mode(0o751))
	if err != nil || r.Attr.Type != nfs3.Directory || r.Attr.FileMode != 0o751 || r.Attr.Nlink != 2 || r.Dir.After.Nlink != r.Attr.Nlink+1 {
		t.Fatalf("%v %+v", err, r)
	}
	_, err = d.c.Mkdir(ctx, d.root, "dir", nfs3.SetAttr{})
	want(t, "twice", err, nfs3.ErrExist)
	r, err = d.c.Symlink(ctx, d.root, "link", "../some/where")
	if err != nil || r.Attr.Type != nfs3.Symlink {
		t.Fatalf("%v %+v", err, r)
	}
	text, attr, err := d.c.Readlink(ctx, r.File)
	if err != nil || text != "../some/where" || attr == nil || attr.Filesize != uint64(len(text)) {
		t.Errorf("%v %q %+v", err, text, attr)
	}
	_, _, err = d.c.Readlink(ctx, d.root)
	want(t, "readlink of a directory", err, nfs3.ErrInval)
	_, err = d.c.Symlink(ctx, d.root, "long", strings.Repeat("x", nfs3.MaxPath+1))
	want(t, "a long link", err, nfs3.ErrNameTooLong)
	_, err = d.c.Symlink(ctx, d.root, "empty", "")
	want(t, "an empty link", err, nfs3.ErrInval)
	for _, typ := range []nfs3.FileType{nfs3.Block, nfs3.Character, nfs3.Socket, nfs3.FIFO} {
		r, err = d.c.Mknod(ctx, nfs3.MknodArgs{Where: at(d.root, typ.String()), Type: typ, Dev: [2]uint32{8, 1}, Attr: mode(0o600)})
		if err != nil || r.Attr.Type != typ || r.Attr.FileMode != 0o600 {
			t.Errorf("%v: %v %+v", typ, err, r.Attr)
		}
		if typ == nfs3.Block && r.Attr.SpecData != [2]uint32{8, 1} {
			t.Error(r.Attr.SpecData)
		}
		_, err = d.c.Read(ctx, r.File, 0, 1)
		want(t, "READ of "+typ.String(), err, nfs3.ErrInval)
		_, err = d.user(5, 5).Mknod(ctx, nfs3.MknodArgs{Where: at(d.root, "user "+typ.String()), Type: typ})
		if device := typ == nfs3.Block || typ == nfs3.Character; device {
			want(t, "a user's device", err, nfs3.ErrPerm)
		} else {
			want(t, "a user's "+typ.String(), err, nil)
		}
	}
	for _, typ := range []nfs3.FileType{nfs3.Regular, nfs3.Directory, nfs3.Symlink} {
		_, err = d.c.Mknod(ctx, nfs3.MknodArgs{Where: at(d.root, "n"), Type: typ})
		want(t, "MKNOD of "+typ.String(), err, nfs3.ErrBadType)
	}
}

func TestRemoveRenameLink(t *testing.T) {
	d, ctx := open(t), t.Context()
	f, sub := d.file("f", 0o644, "1"), d.mkdir("sub", 0o755)
	_, err := d.c.Remove(ctx, d.root, "sub")
	want(t, "REMOVE of a directory", err, nfs3.ErrIsDir)
	_, err = d.c.Rmdir(ctx, d.root, "f")
	want(t, "RMDIR of a file", err, nfs3.ErrNotDir)
	attr, dir, err := d.c.Link(ctx, f, at(sub, "g"))
	if err != nil || attr == nil || attr.Nlink != 2 || dir.Before == nil || dir.After == nil {
		t.Fatalf("%v %+v %+v", err, attr, dir)
	}
	_, _, err = d.c.Link(ctx, f, at(sub, "g"))
	want(t, "LINK over a name", err, nfs3.ErrExist)
	_, _, err = d.c.Link(ctx, sub, at(d.root, "h"))
	want(t, "LINK of a directory", err, nfs3.ErrIsDir)
	_, err = d.c.Rmdir(ctx, d.root, "sub")
	want(t, "RMDIR of a full directory", err, nfs3.ErrNotEmpty)
	from, to, err := d.c.Rename(ctx, at(sub, "g"), at(d.root, "g2"))
	if err != nil || from.Before == nil || from.After == nil || to.Before == nil || to.After == nil {
		t.Fatalf("%v %+v %+v", err, from, to)
	}
	if r, err := d.c.Lookup(ctx, d.root, "g2"); err != nil || !bytes.Equal(r.File, f) {
		t.Errorf("after RENAME: %v", err)
	}
	over := d.file("over", 0o644, "2")
	_, _, err = d.c.Rename(ctx, at(d.root, "g2"), at(d.root, "over"))
	want(t, "RENAME over a file", err, nil)
	_, err = d.c.Getattr(ctx, over)
	want(t, "what was renamed over", err, nfs3.ErrStale)
	if a, err := d.c.Getattr(ctx, f); err != nil || a.Nlink != 2 {
		t.Errorf("%v %+v", err, a)
	}
	_, _, err = d.c.Rename(ctx, at(d.root, "f"), at(d.root, "sub"))
	want(t, "RENAME of a file over a directory", err, nfs3.ErrIsDir)
	_, _, err = d.c.Rename(ctx, at(d.root, "sub"), at(d.root, "f"))
	want(t, "RENAME of a directory over a file", err, nfs3.ErrNotDir)
	_, _, err = d.c.Rename(ctx, at(d.root, "sub"), at(sub, "below"))
	want(t, "RENAME of a directory below itself", err, nfs3.ErrInval)
	_, _, err = d.c.Rename(ctx, at(d.root, "none"), at(d.root, "x"))
	want(t, "RENAME of nothing", err, nfs3.ErrNoEnt)
	_, err = d.c.Rmdir(ctx, d.root, "sub")
	want(t, "RMDIR", err, nil)
	w, err := d.c.Remove(ctx, d.root, "sub")
	want(t, "REMOVE of nothing", err, nfs3.ErrNoEnt)
	if w.After == nil {
		t.Error("a REMOVE that fails tells nothing of the directory")
	}
	// Two shares.
	other := d.export
	other.Path, other.ID[0] = "/other", 9
	d.exports.Set(other)
	second, _, err := d.c.Mount(ctx, "/other")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = d.c.Rename(ctx, at(d.root, "f"), at(second, "f"))
	want(t, "RENAME between shares", err, nfs3.ErrXDev)
	_, _, err = d.c.Link(ctx, f, at(second, "f"))
	want(t, "LINK between shares", err, nfs3.ErrXDev)
}

func TestFilesystem(t *testing.T) {
	d, ctx := open(t), t.Context()
	if i, err := d.c.Fsinfo(ctx, d.root); err != nil || i.RtMax != 1<<20 || i.WtMax != 1<<20 || i.MaxFile != 16<<40 || i.Attr == nil || i.Properties != 0x1b {
		t.Errorf("%v %+v", err, i)
	}
	if p, err := d.c.Pathconf(ctx, d.root); err != nil || p.NameMax != 255 || !p.NoTrunc || p.CaseInsensitive || p.Attr == nil {
		t.Errorf("%v %+v", err, p)
	}
	if s, err := d.c.Fsstat(ctx, d.root); err != nil || s.Total != shareSize || s.Files == 0 || s.Attr == nil {
		t.Errorf("%v %+v", err, s)
	}
	for name, call := range map[string]func(nfs3.Handle) error{
		"FSINFO":   func(h nfs3.Handle) error { _, err := d.c.Fsinfo(ctx, h); return err },
		"FSSTAT":   func(h nfs3.Handle) error { _, err := d.c.Fsstat(ctx, h); return err },
		"PATHCONF": func(h nfs3.Handle) error { _, err := d.c.Pathconf(ctx, h); return err },
		"ACCESS":   func(h nfs3.Handle) error { _, _, err := d.c.Access(ctx, h, 63); return err },
		"READ":     func(h nfs3.Handle) error { _, err := d.c.Read(ctx, h, 0, 9); return err },
		"READDIR": func(h nfs3.Handle) error {
			_, err := d.c.Readdir(ctx, nfs3.ReaddirArgs{Dir: h, Count: 999})
			return err
		},
		"READDIRPLUS": func(h nfs3.Handle) error { _, err := d.c.List(ctx, h); return err },
		"READLINK":    func(h nfs3.Handle) error { _, _, err := d.c.Readlink(ctx, h); return err },
		"LOOKUP":      func(h nfs3.Handle) error { _, err := d.c.Lookup(ctx, h, "x"); return err },
		"WRITE":       func(h nfs3.Handle) error { _, err := d.c.Write(ctx, h, 0, []byte("abc"), 0); return err },
		"COMMIT":      func(h nfs3.Handle) error { _, err := d.c.Commit(ctx, h, 0, 0); return err },
		"CREATE":      func(h nfs3.Handle) error { _, err := d.c.Create(ctx, nfs3.CreateArgs{Where: at(h, "x")}); return err },
		"MKDIR":       func(h nfs3.Handle) error { _, err := d.c.Mkdir(ctx, h, "x", nfs3.SetAttr{}); return err },
		"SYMLINK":     func(h nfs3.Handle) error { _, err := d.c.Symlink(ctx, h, "x", "y"); return err },
		"MKNOD": func(h nfs3.Handle) error {
			_, err := d.c.Mknod(ctx, nfs3.MknodArgs{Where: at(h, "x"), Type: nfs3.FIFO})
			return err
		},
		"REMOVE":  func(h nfs3.Handle) error { _, err := d.c.Remove(ctx, h, "x"); return err },
		"RMDIR":   func(h nfs3.Handle) error { _, err := d.c.Rmdir(ctx, h, "x"); return err },
		"RENAME":  func(h nfs3.Handle) error { _, _, err := d.c.Rename(ctx, at(h, "x"), at(h, "y")); return err },
		"LINK":    func(h nfs3.Handle) error { _, _, err := d.c.Link(ctx, h, at(h, "x")); return err },
		"SETATTR": func(h nfs3.Handle) error { _, err := d.c.Setattr(ctx, h, mode(0), nil); return err },
	} {
		gone := d.mkdir("gone", 0o755)
		if _, err := d.c.Rmdir(ctx, d.root, "gone"); err != nil {
			t.Fatal(err)
		}
		want(t, name+" of what is gone", call(gone), nfs3.ErrStale)
		want(t, name+" of no handle", call(nfs3.Handle("nothing")), nfs3.ErrBadHandle)
	}
}

// aligned is a share that looks at where data come in memory.
type aligned struct {
	nfs.Share
	not atomic.Int64
}

func (a *aligned) Write(ctx context.Context, f nfs.Ref, off uint64, p []byte, how nfs3.Stable) (nfs.WriteResult, error) {
	if !block.Aligned(p) {
		a.not.Add(1)
	}
	return a.Share.Write(ctx, f, off, p, how)
}

// TestAligned has the data of WRITE come where direct I/O can use them, whatever the credentials' length.
func TestAligned(t *testing.T) {
	d, ctx := open(t), t.Context()
	f := d.file("f", 0o666, "")
	e, share := d.export, &aligned{Share: d.share}
	e.Share = share
	d.exports.Set(e)
	for groups := range 17 {
		c := d.user(0, 0, make([]uint32, groups)...)
		for _, n := range []int{4096, 8192, 1 << 20, 65537} {
			p := bytes.Repeat([]byte{byte(n)}, n)
			if w, err := c.Write(ctx, f, 0, p, nfs3.Unstable); err != nil || int(w.Count) != n {
				t.Fatal(err)
			}
			if r, err := c.Read(ctx, f, 0, uint32(n)); err != nil || !bytes.Equal(r.Data, p) {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
	}
	if n := share.not.Load(); n != 0 {
		t.Error(n, "writes came unaligned")
	}
}

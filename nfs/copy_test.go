package nfs_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
)

func tree() fstest.MapFS {
	return fstest.MapFS{
		"empty":       {Mode: 0o600},
		"small":       {Data: []byte("contents"), Mode: 0o644},
		"dir/large":   {Data: bytes.Repeat([]byte("0123456"), 100_000), Mode: 0o640},
		"dir/a/b/c":   {Data: []byte("deep"), Mode: 0o644},
		"dir/link":    {Data: []byte("../small"), Mode: fs.ModeSymlink},
		"dir/nothing": {Mode: fs.ModeDir},
	}
}

func TestCopy(t *testing.T) {
	d, ctx := open(t), t.Context()
	told := 0
	if err := d.c.Copy(ctx, tree(), d.root, func(string) { told++ }); err != nil {
		t.Fatal(err)
	}
	if told != 9 {
		t.Error(told, "paths were told")
	}
	if err := d.c.Compare(ctx, tree(), d.root); err != nil {
		t.Fatal(err)
	}
	d.share.Lose()
	if err := d.c.Compare(ctx, tree(), d.root); err != nil {
		t.Fatal("it was not durable:", err)
	}
	for name, change := range map[string]func(fstest.MapFS){
		"one more":        func(m fstest.MapFS) { m["more"] = &fstest.MapFile{} },
		"one less":        func(m fstest.MapFS) { delete(m, "empty") },
		"another name":    func(m fstest.MapFS) { m["full"] = m["empty"]; delete(m, "empty") },
		"another byte":    func(m fstest.MapFS) { m["dir/large"].Data[600_000] = 'x' },
		"longer":          func(m fstest.MapFS) { m["small"].Data = []byte("contents and more") },
		"shorter":         func(m fstest.MapFS) { m["small"].Data = []byte("content") },
		"another link":    func(m fstest.MapFS) { m["dir/link"].Data = []byte("large") },
		"deep down below": func(m fstest.MapFS) { m["dir/a/b/c"].Data = []byte("DEEP") },
	} {
		other := tree()
		change(other)
		if err := d.c.Compare(ctx, other, d.root); !errors.Is(err, nfsclient.ErrDiffers) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCopyLoses has the server lose unstable writes while a tree is copied.
func TestCopyLoses(t *testing.T) {
	d, ctx := open(t), t.Context()
	lost := 0
	d.share.Before(func(_ context.Context, method string) error {
		if method == "Commit" {
			d.share.Lose()
			lost++
		}
		return nil
	})
	if err := d.c.Copy(ctx, tree(), d.root, nil); err != nil {
		t.Fatal(err)
	}
	d.share.Before(nil)
	d.share.Lose()
	if err := d.c.Compare(ctx, tree(), d.root); err != nil || lost == 0 {
		t.Fatal(err, lost)
	}
	_, err := d.c.Create(ctx, nfs3.CreateArgs{Where: at(d.root, "small"), How: nfs3.Guarded})
	want(t, "what is there", err, nfs3.ErrExist)
	want(t, "copying over it", d.c.Copy(ctx, tree(), d.root, nil), nfs3.ErrExist)
}

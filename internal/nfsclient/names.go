package nfsclient

import (
	"context"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/xdr"
)

// made calls what makes a file.
func (c *Client) made(ctx context.Context, proc uint32, a nfs3.Args) (r Found, err error) {
	err = c.do(ctx, proc, a, func(d *xdr.Decoder, ok bool) { r = Made(d, ok) })
	return r, err
}

// Made reads the result of what makes a file.
func Made(d *xdr.Decoder, ok bool) (r Found) {
	if ok {
		if d.Bool() {
			r.File = d.Opaque(nfs3.MaxHandle)
		}
		r.Attr = nfs3.GetPostOp(d)
	}
	r.Dir = nfs3.GetWcc(d)
	return r
}

func (c *Client) Create(ctx context.Context, a nfs3.CreateArgs) (Found, error) {
	return c.made(ctx, nfs3.ProcCreate, &a)
}

func (c *Client) Mkdir(ctx context.Context, dir nfs3.Handle, name string, s nfs3.SetAttr) (Found, error) {
	return c.made(ctx, nfs3.ProcMkdir, &nfs3.MkdirArgs{Where: nfs3.DirOp{Dir: dir, Name: name}, Attr: s})
}

func (c *Client) Symlink(ctx context.Context, dir nfs3.Handle, name, text string) (Found, error) {
	return c.made(ctx, nfs3.ProcSymlink, &nfs3.SymlinkArgs{Where: nfs3.DirOp{Dir: dir, Name: name}, Text: text})
}

func (c *Client) Mknod(ctx context.Context, a nfs3.MknodArgs) (Found, error) {
	return c.made(ctx, nfs3.ProcMknod, &a)
}

func (c *Client) taken(ctx context.Context, proc uint32, dir nfs3.Handle, name string) (w nfs3.Wcc, err error) {
	err = c.do(ctx, proc, &nfs3.DirOp{Dir: dir, Name: name}, func(d *xdr.Decoder, _ bool) { w = nfs3.GetWcc(d) })
	return w, err
}

func (c *Client) Remove(ctx context.Context, dir nfs3.Handle, name string) (nfs3.Wcc, error) {
	return c.taken(ctx, nfs3.ProcRemove, dir, name)
}

func (c *Client) Rmdir(ctx context.Context, dir nfs3.Handle, name string) (nfs3.Wcc, error) {
	return c.taken(ctx, nfs3.ProcRmdir, dir, name)
}

func (c *Client) Rename(ctx context.Context, from, to nfs3.DirOp) (fromDir, toDir nfs3.Wcc, err error) {
	err = c.do(ctx, nfs3.ProcRename, &nfs3.RenameArgs{From: from, To: to}, func(d *xdr.Decoder, _ bool) {
		fromDir, toDir = nfs3.GetWcc(d), nfs3.GetWcc(d)
	})
	return fromDir, toDir, err
}

func (c *Client) Link(ctx context.Context, f nfs3.Handle, to nfs3.DirOp) (attr *nfs3.Attr, dir nfs3.Wcc, err error) {
	err = c.do(ctx, nfs3.ProcLink, &nfs3.LinkArgs{File: f, To: to}, func(d *xdr.Decoder, _ bool) {
		attr, dir = nfs3.GetPostOp(d), nfs3.GetWcc(d)
	})
	return attr, dir, err
}

// Entry is an entry of a listing; File and Attr are READDIRPLUS's.
type Entry struct {
	Ino    uint64
	Name   string
	Cookie uint64
	Attr   *nfs3.Attr
	File   nfs3.Handle
}

// Listing is a part of a directory.
type Listing struct {
	Dir      *nfs3.Attr
	Verifier nfs3.Verifier
	Entries  []Entry
	EOF      bool
}

func (c *Client) Readdir(ctx context.Context, a nfs3.ReaddirArgs) (r Listing, err error) {
	err = c.do(ctx, nfs3.ProcReaddir, &a, func(d *xdr.Decoder, ok bool) { r = listing(d, ok, false) })
	return r, err
}

func (c *Client) Readdirplus(ctx context.Context, a nfs3.ReaddirplusArgs) (r Listing, err error) {
	err = c.do(ctx, nfs3.ProcReaddirplus, &a, func(d *xdr.Decoder, ok bool) { r = listing(d, ok, true) })
	return r, err
}

func listing(d *xdr.Decoder, ok, plus bool) (r Listing) {
	if r.Dir = nfs3.GetPostOp(d); !ok {
		return r
	}
	d.Fixed(r.Verifier[:])
	for d.Bool() {
		e := Entry{Ino: d.Uint64(), Name: d.String(nfs3.MaxName), Cookie: d.Uint64()}
		if plus {
			e.Attr = nfs3.GetPostOp(d)
			if d.Bool() {
				e.File = d.Opaque(nfs3.MaxHandle)
			}
		}
		r.Entries = append(r.Entries, e)
	}
	r.EOF = d.Bool()
	return r
}

// List lists a whole directory, "." and ".." too.
func (c *Client) List(ctx context.Context, dir nfs3.Handle) ([]Entry, error) {
	var all []Entry
	a := nfs3.ReaddirplusArgs{Dir: dir, DirCount: 64 << 10, MaxCount: 64 << 10}
	for {
		r, err := c.Readdirplus(ctx, a)
		if err != nil {
			return all, err
		}
		all = append(all, r.Entries...)
		if r.EOF || len(r.Entries) == 0 {
			return all, nil
		}
		a.Cookie, a.Verifier = r.Entries[len(r.Entries)-1].Cookie, r.Verifier
	}
}

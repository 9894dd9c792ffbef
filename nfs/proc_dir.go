package nfs

import (
	"context"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/xdr"
)

const (
	preferredDir = 64 << 10  // dtpref: what clients had better ask for
	maxDir       = 256 << 10 // of a listing, in bytes, whatever is asked for

	// Cookies of the entries that the front door adds. The share's are above.
	cookieSelf   = 1
	cookieParent = 2

	maxEntries = 4096
)

// listing is what READDIR and READDIRPLUS differ in.
type listing struct {
	dir      nfs3.Handle
	cookie   uint64
	verifier nfs3.Verifier
	names    int // bytes of names, numbers and cookies, at most; RFC 1813 3.3.17 dircount
	size     int // bytes of the whole result, at most
	plus     bool
}

// readdir is RFC 1813 3.3.16.
func (c *call) readdir(ctx context.Context) error {
	var a nfs3.ReaddirArgs
	if err := c.args(&a); err != nil {
		return err
	}
	size := int(min(a.Count, maxDir))
	return c.list(ctx, listing{dir: a.Dir, cookie: a.Cookie, verifier: a.Verifier, names: size, size: size})
}

// readdirplus is RFC 1813 3.3.17.
func (c *call) readdirplus(ctx context.Context) error {
	var a nfs3.ReaddirplusArgs
	if err := c.args(&a); err != nil {
		return err
	}
	return c.list(ctx, listing{dir: a.Dir, cookie: a.Cookie, verifier: a.Verifier, names: int(min(a.DirCount, maxDir)),
		size: int(min(a.MaxCount, maxDir)), plus: true})
}

func (c *call) list(ctx context.Context, l listing) error {
	var r ReaddirResult
	dir, err := c.file(ctx, l.dir)
	if err == nil {
		if err := c.out.Reserve(ctx, l.size+replyHead); err != nil {
			return err
		}
		r, err = c.entries(ctx, dir, l)
	}
	at := c.out.Len()
	ok, err := c.status(ctx, err)
	if err != nil {
		return err
	}
	c.postOp(r.Attr)
	if !ok {
		return nil
	}
	c.out.Fixed(r.Verifier[:])
	if c.putEntries(at, l, r) == 0 && len(r.Entries) > 0 { // not one fits
		c.out.Cut(at)
		c.out.Uint32(uint32(nfs3.ErrTooSmall))
		c.postOp(r.Attr)
	}
	return nil
}

// entries asks the share, and puts "." and ".." first.
func (c *call) entries(ctx context.Context, dir Ref, l listing) (ReaddirResult, error) {
	if err := c.needDir(dir, mayRead); err != nil {
		return ReaddirResult{}, err
	}
	var first []Entry
	if l.cookie <= cookieParent {
		for _, special := range [...]Entry{{Name: ".", Cookie: cookieSelf}, {Name: "..", Cookie: cookieParent}} {
			if special.Cookie <= l.cookie {
				continue
			}
			var err error
			if special.Name == "." {
				special.Node, err = c.export.Share.Peek(dir)
			} else {
				special.Node, err = c.export.Share.PeekName(dir, "..")
			}
			if err != nil {
				return ReaddirResult{}, confirmed(err)
			}
			first = append(first, special)
		}
		l.cookie, l.verifier = 0, nfs3.Verifier{}
	}
	least := entrySize(1, l.plus)
	r, err := c.export.Share.Readdir(ctx, dir, l.cookie, l.verifier, max(1, min(maxEntries, l.size/least, l.names/entrySize(1, false))))
	r.Entries = append(first, r.Entries...)
	return r, err
}

// entrySize is what an entry takes, with the boolean that precedes it.
func entrySize(name int, plus bool) int {
	n := 4 + 8 + 4 + name + xdr.Pad(name) + 8
	if plus {
		n += 4 + attrSize + 4 + 4 + handleLen
	}
	return n
}

const attrSize = 84

// putEntries writes as many entries as fit into a result that begins at an offset of the reply, and tells how many.
func (c *call) putEntries(begin int, l listing, r ReaddirResult) int {
	const trailer = 8 // the end of the list, and whether it is the directory's
	names := 0
	n := 0
	for _, e := range r.Entries {
		names += entrySize(len(e.Name), false)
		if c.out.Len()-begin+entrySize(len(e.Name), l.plus)+trailer > l.size || names > l.names && n > 0 {
			break
		}
		n++
		c.out.Bool(true)
		c.out.Uint64(e.Node.Ref.Ino)
		c.out.String(e.Name)
		c.out.Uint64(e.Cookie)
		if l.plus {
			c.postOp(&e.Node.Attr)
			c.out.Bool(true)
			c.handle(e.Node.Ref)
		}
	}
	c.out.Bool(false)
	c.out.Bool(r.EOF && n == len(r.Entries))
	return n
}

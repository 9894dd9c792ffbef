package nfs

import (
	"context"

	"pmsapp/internal/nfs3"
)

// create is RFC 1813 3.3.8.
func (c *call) create(ctx context.Context) error {
	var a nfs3.CreateArgs
	if err := c.args(&a); err != nil {
		return err
	}
	return c.make(ctx, a.Where, nfs3.Regular, a.Attr, func(at Name, s nfs3.SetAttr) (Made, error) {
		var m Made
		err := unmoved(func() (err error) {
			if a.How == nfs3.Unchecked && s.Size != nil && !c.user.root() {
				if at.Is, err = c.mayTruncate(at); err != nil {
					return err
				}
			}
			m, err = c.export.Share.Create(ctx, c.caller, at, Create{Mode: a.How, Attr: s, Verifier: a.Verifier})
			return err
		})
		return m, err
	})
}

// mayTruncate checks whether a file that an UNCHECKED CREATE would open may be cut, and returns which file that is.
func (c *call) mayTruncate(at Name) (*Ref, error) {
	is, f, found, err := c.peekName(at)
	if err != nil || !found || f.Type != nfs3.Regular || c.user.mayData(f, mayWrite) {
		return &is, err
	}
	return nil, denied{nfs3.ErrAccess}
}

// mkdir is RFC 1813 3.3.9.
func (c *call) mkdir(ctx context.Context) error {
	var a nfs3.MkdirArgs
	if err := c.args(&a); err != nil {
		return err
	}
	a.Attr.Size = nil
	return c.make(ctx, a.Where, nfs3.Directory, a.Attr, func(at Name, s nfs3.SetAttr) (Made, error) {
		return c.export.Share.Mkdir(ctx, c.caller, at, s)
	})
}

// symlink is RFC 1813 3.3.10.
func (c *call) symlink(ctx context.Context) error {
	var a nfs3.SymlinkArgs
	if err := c.args(&a); err != nil {
		return err
	}
	a.Attr.Size = nil
	return c.make(ctx, a.Where, nfs3.Symlink, a.Attr, func(at Name, s nfs3.SetAttr) (Made, error) {
		switch {
		case a.Text == "":
			return Made{}, nfs3.ErrInval
		case len(a.Text) > nfs3.MaxPath:
			return Made{}, nfs3.ErrNameTooLong
		}
		return c.export.Share.Symlink(ctx, c.caller, at, a.Text, s)
	})
}

// mknod is RFC 1813 3.3.11. Devices are for root to make.
func (c *call) mknod(ctx context.Context) error {
	var a nfs3.MknodArgs
	if err := c.args(&a); err != nil {
		return err
	}
	a.Attr.Size = nil
	return c.make(ctx, a.Where, a.Type, a.Attr, func(at Name, s nfs3.SetAttr) (Made, error) {
		switch a.Type {
		case nfs3.Block, nfs3.Character:
			if !c.user.root() {
				return Made{}, nfs3.ErrPerm
			}
		case nfs3.Socket, nfs3.FIFO:
		default:
			return Made{}, nfs3.ErrBadType
		}
		return c.export.Share.Mknod(ctx, c.caller, at, a.Type, a.Dev, s)
	})
}

// make is the common part of what makes a file: the checks before, and the results, which are the same for all.
func (c *call) make(ctx context.Context, where nfs3.DirOp, t nfs3.FileType, s nfs3.SetAttr, do func(Name, nfs3.SetAttr) (Made, error)) error {
	var m Made
	dir, err := c.file(ctx, where.Dir)
	if err == nil {
		m, err = c.makeIn(Name{Dir: dir, Name: where.Name}, t, s, do)
	}
	ok, err := c.status(ctx, err)
	if err != nil {
		return err
	}
	if ok {
		c.out.Bool(true)
		c.handle(m.Node.Ref)
		c.postOp(&m.Node.Attr)
	}
	c.wcc(m.Dir)
	return nil
}

func (c *call) makeIn(at Name, t nfs3.FileType, s nfs3.SetAttr, do func(Name, nfs3.SetAttr) (Made, error)) (Made, error) {
	if err := c.mayAdd(at); err != nil {
		return Made{}, err
	}
	if err := valid(s); err != nil {
		return Made{}, err
	}
	dir, _, err := c.peek(at.Dir) // of a directory that is gone nothing is inherited
	if err != nil {
		return Made{}, err
	}
	return do(at, c.user.created(dir, t, s))
}

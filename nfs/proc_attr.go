package nfs

import (
	"context"

	"pmsapp/internal/nfs3"
)

// getattr is RFC 1813 3.3.1.
func (c *call) getattr(ctx context.Context) error {
	var a nfs3.FileArgs
	if err := c.args(&a); err != nil {
		return err
	}
	var attr nfs3.Attr
	f, err := c.file(ctx, a.File)
	if err == nil {
		attr, err = c.export.Share.Getattr(ctx, f)
	}
	ok, err := c.status(ctx, err)
	if ok {
		c.attr(attr)
	}
	return err
}

// setattr is RFC 1813 3.3.2.
func (c *call) setattr(ctx context.Context) error {
	var a nfs3.SetattrArgs
	if err := c.args(&a); err != nil {
		return err
	}
	var w nfs3.Wcc
	f, err := c.file(ctx, a.File)
	if err == nil {
		w, err = c.setAttr(ctx, f, a)
	}
	if _, err := c.status(ctx, err); err != nil {
		return err
	}
	c.wcc(w)
	return nil
}

func (c *call) setAttr(ctx context.Context, f Ref, a nfs3.SetattrArgs) (nfs3.Wcc, error) {
	attr, found, err := c.peek(f)
	if err != nil {
		return nfs3.Wcc{}, err
	}
	if found {
		if a.Attr, err = c.user.change(attr, a.Attr); err != nil {
			return nfs3.Wcc{After: &attr}, confirmed(err)
		}
	}
	return c.export.Share.Setattr(ctx, c.caller, f, a.Attr, a.Guard)
}

// access is RFC 1813 3.3.4.
func (c *call) access(ctx context.Context) error {
	var a nfs3.AccessArgs
	if err := c.args(&a); err != nil {
		return err
	}
	var attr nfs3.Attr
	f, err := c.file(ctx, a.File)
	if err == nil {
		attr, err = c.export.Share.Getattr(ctx, f)
	}
	ok, err := c.status(ctx, err)
	if err != nil {
		return err
	}
	if !ok {
		c.postOp(nil)
		return nil
	}
	c.postOp(&attr)
	c.out.Uint32(c.user.access(attr, c.rule.ReadOnly) & a.Access)
	return nil
}

// fsstat is RFC 1813 3.3.18.
func (c *call) fsstat(ctx context.Context) error {
	var st Statfs
	ok, err := c.ofFile(ctx, func() (err error) {
		st, err = c.export.Share.Statfs(ctx)
		return err
	})
	if ok {
		for _, v := range [...]uint64{st.Total, st.Free, st.Avail, st.Files, st.FilesFree, st.FilesAvail} {
			c.out.Uint64(v)
		}
		c.out.Uint32(0) // seconds for which it stays so
	}
	return err
}

// fsinfo is RFC 1813 3.3.19.
func (c *call) fsinfo(ctx context.Context) error {
	const links, symlinks, homogeneous, canSetTime = 1, 2, 8, 16
	ok, err := c.ofFile(ctx, nil)
	if ok {
		for _, v := range [...]uint32{nfs3.MaxIO, nfs3.MaxIO, 4096, nfs3.MaxIO, nfs3.MaxIO, 4096, preferredDir} {
			c.out.Uint32(v)
		}
		c.out.Uint64(nfs3.MaxFile)
		c.out.Uint32(0)
		c.out.Uint32(1) // times are exact to the nanosecond
		c.out.Uint32(links | symlinks | homogeneous | canSetTime)
	}
	return err
}

// pathconf is RFC 1813 3.3.20.
func (c *call) pathconf(ctx context.Context) error {
	ok, err := c.ofFile(ctx, nil)
	if ok {
		c.out.Uint32(nfs3.MaxLinks)
		c.out.Uint32(nfs3.MaxName)
		c.out.Bool(true)  // longer names are refused, not cut
		c.out.Bool(true)  // only root changes owners
		c.out.Bool(false) // names differ by case
		c.out.Bool(true)  // and keep it
	}
	return err
}

// ofFile is the common part of what is asked of any file of a share: status and attributes, with more asked in between.
func (c *call) ofFile(ctx context.Context, more func() error) (bool, error) {
	var a nfs3.FileArgs
	if err := c.args(&a); err != nil {
		return false, err
	}
	var attr *nfs3.Attr
	f, err := c.file(ctx, a.File)
	if err == nil {
		var got nfs3.Attr
		if got, err = c.export.Share.Getattr(ctx, f); err == nil {
			attr = &got
		}
	}
	if err == nil && more != nil {
		err = more()
	}
	ok, err := c.status(ctx, err)
	if err == nil {
		c.postOp(attr)
	}
	return ok, err
}

package nfs

import (
	"context"

	"pmsapp/internal/nfs3"
)

// lookup is RFC 1813 3.3.3.
func (c *call) lookup(ctx context.Context) error {
	var a nfs3.DirOp
	if err := c.args(&a); err != nil {
		return err
	}
	var n Node
	var dirAttr *nfs3.Attr
	dir, err := c.file(ctx, a.Dir)
	if err == nil {
		n, dirAttr, err = c.lookUp(ctx, dir, a.Name)
	}
	ok, err := c.status(ctx, err)
	if err != nil {
		return err
	}
	if ok {
		c.handle(n.Ref)
		c.postOp(&n.Attr)
	}
	c.postOp(dirAttr)
	return nil
}

func (c *call) lookUp(ctx context.Context, dir Ref, s string) (Node, *nfs3.Attr, error) {
	if err := name(s, nil); err != nil {
		if err == nfs3.ErrInval { // no such name can exist
			err = nfs3.ErrNoEnt
		}
		return Node{}, nil, err
	}
	if s == "." {
		a, err := c.export.Share.Getattr(ctx, dir)
		if err == nil && a.Type != nfs3.Directory {
			err = nfs3.ErrNotDir
		}
		return Node{Ref: dir, Attr: a}, &a, err
	}
	if err := c.needDir(dir, mayExec); err != nil {
		return Node{}, nil, err
	}
	return c.export.Share.Lookup(ctx, dir, s)
}

// readlink is RFC 1813 3.3.5.
func (c *call) readlink(ctx context.Context) error {
	var a nfs3.FileArgs
	if err := c.args(&a); err != nil {
		return err
	}
	var text string
	var attr *nfs3.Attr
	f, err := c.file(ctx, a.File)
	if err == nil {
		text, attr, err = c.export.Share.Readlink(ctx, f)
	}
	ok, err := c.status(ctx, err)
	if err != nil {
		return err
	}
	c.postOp(attr)
	if ok {
		c.out.String(text)
	}
	return nil
}

// remove is REMOVE and RMDIR, RFC 1813 3.3.12 and 3.3.13.
func (c *call) remove(ctx context.Context) error {
	var a nfs3.DirOp
	if err := c.args(&a); err != nil {
		return err
	}
	var w nfs3.Wcc
	dir, err := c.file(ctx, a.Dir)
	if err == nil {
		err = unmoved(func() (err error) {
			w, err = c.take(ctx, Name{Dir: dir, Name: a.Name})
			return err
		})
	}
	if _, err := c.status(ctx, err); err != nil {
		return err
	}
	c.wcc(w)
	return nil
}

func (c *call) take(ctx context.Context, at Name) (w nfs3.Wcc, err error) {
	var special error = nfs3.ErrInval
	if c.rpc.Proc == nfs3.ProcRmdir && at.Name == ".." {
		special = nfs3.ErrExist // RFC 1813 3.3.13
	}
	if at.Is, err = c.mayTake(at, special); err != nil {
		return w, err
	}
	if c.rpc.Proc == nfs3.ProcRmdir {
		return c.export.Share.Rmdir(ctx, c.caller, at)
	}
	return c.export.Share.Remove(ctx, c.caller, at)
}

// mayTake checks whether a name may be taken out of its directory. If that depends on which file it is, it returns which.
func (c *call) mayTake(at Name, special error) (*Ref, error) {
	if err := name(at.Name, special); err != nil {
		return nil, err
	}
	if err := c.needDir(at.Dir, mayWrite|mayExec); err != nil {
		return nil, err
	}
	dir, found, err := c.peek(at.Dir)
	if err != nil || !found || dir.FileMode&sticky == 0 || c.user.owns(dir) {
		return nil, err
	}
	is, f, found, err := c.peekName(at)
	if err != nil || !found || c.user.mayTake(dir, f) {
		return &is, err
	}
	return nil, denied{nfs3.ErrPerm}
}

// needDir checks permissions on a directory. What is none is for the share to refuse.
func (c *call) needDir(dir Ref, want uint32) error {
	a, found, err := c.peek(dir)
	if err != nil || !found || a.Type != nfs3.Directory || c.user.may(a, want) {
		return err
	}
	return denied{nfs3.ErrAccess}
}

// rename is RFC 1813 3.3.14.
func (c *call) rename(ctx context.Context) error {
	var a nfs3.RenameArgs
	if err := c.args(&a); err != nil {
		return err
	}
	var r RenameResult
	from, err := c.file(ctx, a.From.Dir)
	if err == nil {
		err = unmoved(func() (err error) {
			r, err = c.move(ctx, Name{Dir: from, Name: a.From.Name}, a.To)
			return err
		})
	}
	if _, err := c.status(ctx, err); err != nil {
		return err
	}
	c.wcc(r.From)
	c.wcc(r.To)
	return nil
}

func (c *call) move(ctx context.Context, from Name, wireTo nfs3.DirOp) (RenameResult, error) {
	dir, err := c.same(wireTo.Dir)
	if err != nil {
		return RenameResult{}, err
	}
	to := Name{Dir: dir, Name: wireTo.Name}
	for _, n := range [...]*Name{&from, &to} {
		if n.Is, err = c.mayTake(*n, nfs3.ErrInval); err != nil {
			return RenameResult{}, err
		}
	}
	if from.Dir != to.Dir && !c.user.root() { // a directory that moves has its ".." changed
		is, a, found, err := c.peekName(from)
		if err != nil {
			return RenameResult{}, err
		}
		if found && a.Type == nfs3.Directory && !c.user.may(a, mayWrite) {
			return RenameResult{}, denied{nfs3.ErrAccess}
		}
		if from.Is != nil && *from.Is != is {
			return RenameResult{}, ErrMoved
		}
		from.Is = &is
	}
	return c.export.Share.Rename(ctx, c.caller, from, to)
}

// link is RFC 1813 3.3.15.
func (c *call) link(ctx context.Context) error {
	var a nfs3.LinkArgs
	if err := c.args(&a); err != nil {
		return err
	}
	var r LinkResult
	f, err := c.file(ctx, a.File)
	if err == nil {
		var dir Ref
		if dir, err = c.same(a.To.Dir); err == nil {
			err = c.mayAdd(Name{Dir: dir, Name: a.To.Name})
		}
		if err == nil {
			r, err = c.export.Share.Link(ctx, c.caller, f, Name{Dir: dir, Name: a.To.Name})
		}
	}
	if _, err := c.status(ctx, err); err != nil {
		return err
	}
	c.postOp(r.File)
	c.wcc(r.Dir)
	return nil
}

// mayAdd checks whether a name may be put into its directory.
func (c *call) mayAdd(at Name) error {
	if err := name(at.Name, nfs3.ErrExist); err != nil {
		return err
	}
	return c.needDir(at.Dir, mayWrite|mayExec)
}

package share

import (
	"context"
	"encoding/binary"

	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// set translates what a call changes.
func set(a nfs3.SetAttr) (out filetree.Set) {
	if a.Mode != nil {
		out.Fields |= filetree.SetMode
		out.Mode = uint16(*a.Mode & 0o7777)
	}
	if a.UID != nil {
		out.Fields |= filetree.SetUID
		out.UID = *a.UID
	}
	if a.GID != nil {
		out.Fields |= filetree.SetGID
		out.GID = *a.GID
	}
	if a.Size != nil {
		out.Fields |= filetree.SetSize
		out.Size = int64(min(*a.Size, nfs3.MaxFile+1))
	}
	for _, f := range []struct {
		in         nfs3.SetTime
		given, now filetree.Fields
		to         *int64
	}{{a.Atime, filetree.SetAtime, filetree.AtimeNow, &out.Atime}, {a.Mtime, filetree.SetMtime, filetree.MtimeNow, &out.Mtime}} {
		switch f.in.How {
		case nfs3.ToClientTime:
			out.Fields |= f.given
			*f.to = int64(f.in.Time.Seconds)*1e9 + int64(f.in.Time.Nseconds)
		case nfs3.ToServerTime:
			out.Fields |= f.now
		}
	}
	return out
}

// do has a call's op done, once. A retry gets the first status and inode.
func (s *Share) do(ctx context.Context, c nfs.Caller, o filetree.Op, refs ...nfs.Ref) (filetree.Result, error) {
	o.Reply = key(c)
	t, err := s.tree()
	if err != nil {
		return filetree.Result{}, err
	}
	if r, ok := t.Replied(o.Reply); ok { // whatever it was about may be gone by now
		out := filetree.Result{Status: r.Status, Ino: r.Ino, Replay: true}
		if r.Status != filetree.OK {
			return out, s.confirmed(ctx, nfs3.Status(r.Status))
		}
		return out, s.Confirm(ctx)
	}
	for _, r := range refs {
		if _, err := live(t, r); err != nil {
			return filetree.Result{}, s.confirmed(ctx, err)
		}
	}
	return s.change(ctx, o)
}

// make has a file made.
func (s *Share) make(ctx context.Context, c nfs.Caller, at nfs.Name, o filetree.Op) (nfs.Made, error) {
	o.Kind, o.Dir, o.Name = filetree.Create, at.Dir.Ino, at.Name
	r, err := s.do(ctx, c, o, at.Dir)
	out := nfs.Made{Dir: s.changed(r.Dirs[0], at.Dir)}
	if err != nil {
		return out, err
	}
	if r.File.Ino != 0 {
		out.Node = s.node(r.File.Ino, r.File.After)
		return out, nil
	}
	// A retry, of a call that made what may be gone by now: then it was there when that was answered.
	if t := s.cfg.Catalog.Tree(); t != nil {
		if n, ok := t.Inode(r.Ino); ok {
			out.Node = s.node(r.Ino, n)
			return out, nil
		}
	}
	return out, nfs3.ErrStale
}

// Create implements nfs.Share.
func (s *Share) Create(ctx context.Context, c nfs.Caller, at nfs.Name, how nfs.Create) (nfs.Made, error) {
	o := filetree.Op{Type: filetree.Regular, Set: set(how.Attr)}
	switch how.Mode {
	case nfs3.Guarded:
		o.How = filetree.Guarded
	case nfs3.Exclusive:
		o.How, o.Aux = filetree.Exclusive, binary.BigEndian.Uint64(how.Verifier[:])
	case nfs3.Unchecked:
		if how.Attr.Size != nil {
			return s.createSized(ctx, c, at, o)
		}
	}
	return s.make(ctx, c, at, o)
}

// createSized is an unchecked Create that gives the file a size: for one that exists that is a Setattr, and ordered like it.
func (s *Share) createSized(ctx context.Context, c nfs.Caller, at nfs.Name, o filetree.Op) (nfs.Made, error) {
	for {
		t, err := s.tree()
		if err != nil {
			return nfs.Made{}, err
		}
		e, exists := t.Lookup(at.Dir.Ino, at.Name)
		_, answered := t.Replied(key(c)) // the name may be what this call has made
		if w := is(at); !answered && w != 0 && (exists && w != e.Ino || !exists && w != filetree.Absent) {
			return nfs.Made{}, nfs.ErrMoved
		}
		if !exists {
			out, err := s.make(ctx, c, at, o)
			if err != errAgain { // it is there now
				return out, err
			}
			continue
		}
		n, _ := t.Inode(e.Ino)
		ref := nfs.Ref{Ino: e.Ino, Gen: n.Gen}
		var out nfs.Made
		o.Ino = e.Ino
		err = s.resized(ctx, c, ref, o, func() (err error) {
			out, err = s.make(ctx, c, at, o)
			return err
		})
		if err != errAgain {
			return out, err
		}
		o.Ino = 0
	}
}

// errAgain is the tree's, when the name is another file's by now.
const errAgain = nfs3.Status(filetree.Again)

// is says which file a name must be, as the tree's ops do.
func is(n nfs.Name) uint64 {
	switch {
	case n.Is == nil:
		return 0
	case *n.Is == nfs.Ref{}:
		return filetree.Absent
	}
	return n.Is.Ino
}

// moved is do for ops on names that must be certain files.
func (s *Share) moved(ctx context.Context, c nfs.Caller, o filetree.Op, refs ...nfs.Ref) (filetree.Result, error) {
	r, err := s.do(ctx, c, o, refs...)
	if err == errAgain {
		err = nfs.ErrMoved
	}
	return r, err
}

// Mkdir implements nfs.Share.
func (s *Share) Mkdir(ctx context.Context, c nfs.Caller, at nfs.Name, a nfs3.SetAttr) (nfs.Made, error) {
	a.Size = nil
	return s.make(ctx, c, at, filetree.Op{Type: filetree.Directory, How: filetree.Guarded, Set: set(a)})
}

// Symlink implements nfs.Share.
func (s *Share) Symlink(ctx context.Context, c nfs.Caller, at nfs.Name, text string, a nfs3.SetAttr) (nfs.Made, error) {
	a.Size = nil
	return s.make(ctx, c, at, filetree.Op{Type: filetree.Symlink, How: filetree.Guarded, Set: set(a), Name2: text})
}

// Mknod implements nfs.Share.
func (s *Share) Mknod(ctx context.Context, c nfs.Caller, at nfs.Name, kind nfs3.FileType, dev [2]uint32, a nfs3.SetAttr) (nfs.Made, error) {
	a.Size = nil
	o := filetree.Op{Type: filetree.Type(kind), How: filetree.Guarded, Set: set(a)}
	switch kind {
	case nfs3.Block, nfs3.Character:
		o.Aux = uint64(dev[0])<<32 | uint64(dev[1])
	case nfs3.Socket, nfs3.FIFO:
	default:
		return nfs.Made{Dir: s.wcc(at.Dir)}, s.confirmed(ctx, nfs3.ErrBadType)
	}
	return s.make(ctx, c, at, o)
}

// Link implements nfs.Share.
func (s *Share) Link(ctx context.Context, c nfs.Caller, f nfs.Ref, to nfs.Name) (nfs.LinkResult, error) {
	r, err := s.do(ctx, c, filetree.Op{Kind: filetree.Link, Ino: f.Ino, Dir: to.Dir.Ino, Name: to.Name}, f, to.Dir)
	s.bump(r.File)
	return nfs.LinkResult{File: s.wcc(f).After, Dir: s.changed(r.Dirs[0], to.Dir)}, err
}

// bump gives a file whose ctime was committed a later one than was shown before. It is committed, not shown: nothing keeps the file
// from being settled meanwhile.
func (s *Share) bump(c filetree.Change) {
	if f := s.files.peek(c.Ino); f != nil && f.shown() >= c.After.Ctime {
		// If that fails the file is gone, or the share has ended.
		_, _ = s.change(s.ctx, filetree.Op{Kind: filetree.Write, Ino: c.Ino})
	}
}

// Remove implements nfs.Share.
func (s *Share) Remove(ctx context.Context, c nfs.Caller, n nfs.Name) (nfs3.Wcc, error) {
	r, err := s.moved(ctx, c, filetree.Op{Kind: filetree.Remove, Dir: n.Dir.Ino, Name: n.Name, Ino: is(n)}, n.Dir)
	s.bump(r.File)
	return s.changed(r.Dirs[0], n.Dir), err
}

// Rmdir implements nfs.Share.
func (s *Share) Rmdir(ctx context.Context, c nfs.Caller, n nfs.Name) (nfs3.Wcc, error) {
	r, err := s.moved(ctx, c, filetree.Op{Kind: filetree.Rmdir, Dir: n.Dir.Ino, Name: n.Name, Ino: is(n)}, n.Dir)
	return s.changed(r.Dirs[0], n.Dir), err
}

// Rename implements nfs.Share.
func (s *Share) Rename(ctx context.Context, c nfs.Caller, from, to nfs.Name) (nfs.RenameResult, error) {
	r, err := s.moved(ctx, c, filetree.Op{Kind: filetree.Rename, Dir: from.Dir.Ino, Name: from.Name, Ino: is(from), Dir2: to.Dir.Ino, Name2: to.Name, Aux: is(to)},
		from.Dir, to.Dir)
	s.bump(r.File)
	return nfs.RenameResult{From: s.changed(r.Dirs[0], from.Dir), To: s.changed(r.Dirs[1], to.Dir)}, err
}

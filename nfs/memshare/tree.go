package memshare

import (
	"cmp"
	"context"
	"slices"

	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

func (s *Share) Lookup(ctx context.Context, dir nfs.Ref, name string) (nfs.Node, *nfs3.Attr, error) {
	if err := s.begin(ctx, "Lookup"); err != nil {
		return nfs.Node{}, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.dir(dir)
	if err != nil {
		return nfs.Node{}, nil, err
	}
	n, err := s.child(dir, name)
	if err != nil {
		return nfs.Node{}, d.after(), err
	}
	return n.node(), d.after(), nil
}

// add gives a file a name in d.
func (s *Share) add(d *inode, name string, n *inode) {
	d.entries[name] = &entry{name: name, cookie: d.cookie, ino: n.attr.Fileid}
	d.cookie++
	if n.entries != nil {
		d.attr.Nlink++
		n.parent = d.attr.Fileid
	}
	s.changed(d)
}

func (s *Share) changed(d *inode) {
	d.attr.Mtime = s.now()
	d.attr.Ctime = d.attr.Mtime
}

// drop takes a name away, and the file with its last name.
func (s *Share) drop(d *inode, name string) {
	n := s.all[d.entries[name].ino]
	delete(d.entries, name)
	s.changed(d)
	if n.entries != nil {
		d.attr.Nlink--
		n.attr.Nlink = 0
	} else {
		n.attr.Nlink--
		n.attr.Ctime = s.now()
	}
	if n.attr.Nlink == 0 {
		s.truncate(n, 0)
		delete(s.all, n.attr.Fileid)
	}
}

// in finds a directory and what it has under a name, nil if nothing, and its wcc's begin.
func (s *Share) in(at nfs.Name) (d, n *inode, w nfs3.Wcc, err error) {
	if d, err = s.dir(at.Dir); err != nil {
		return nil, nil, w, err
	}
	if e := d.entries[at.Name]; e != nil {
		n = s.all[e.ino]
	}
	return d, n, nfs3.Wcc{Before: d.before(), After: d.after()}, nil
}

// moved tells whether a name that must be a certain file is another's, n; nil is none.
func moved(at nfs.Name, n *inode) bool {
	switch {
	case at.Is == nil:
		return false
	case n == nil:
		return *at.Is != nfs.Ref{}
	}
	return *at.Is != n.node().Ref
}

func (s *Share) Create(ctx context.Context, c nfs.Caller, at nfs.Name, how nfs.Create) (nfs.Made, error) {
	return once(s, ctx, "Create", c, func() (m nfs.Made, err error) {
		d, n, w, err := s.in(at)
		m.Dir = w
		if err != nil {
			return m, err
		}
		switch {
		case moved(at, n):
			return m, nfs.ErrMoved
		case n == nil:
			n = s.make(nfs3.Regular, how.Attr)
			if how.Mode == nfs3.Exclusive {
				n.made = &how.Verifier
			}
			s.add(d, at.Name, n)
		case how.Mode == nfs3.Guarded, n.pages == nil, how.Mode == nfs3.Exclusive && (n.made == nil || *n.made != how.Verifier):
			return m, nfs3.ErrExist
		case how.Mode == nfs3.Unchecked && how.Attr.Size != nil:
			s.apply(n, nfs3.SetAttr{Size: how.Attr.Size})
		}
		m.Node, m.Dir.After = n.node(), d.after()
		return m, nil
	})
}

// makeNew makes what must not exist.
func (s *Share) makeNew(ctx context.Context, method string, c nfs.Caller, at nfs.Name, t nfs3.FileType, a nfs3.SetAttr, fill func(*inode)) (nfs.Made, error) {
	return once(s, ctx, method, c, func() (m nfs.Made, err error) {
		d, n, w, err := s.in(at)
		m.Dir = w
		if err == nil && n != nil {
			err = nfs3.ErrExist
		}
		if err != nil {
			return m, err
		}
		n = s.make(t, a)
		fill(n)
		s.add(d, at.Name, n)
		m.Node, m.Dir.After = n.node(), d.after()
		return m, nil
	})
}

func (s *Share) Mkdir(ctx context.Context, c nfs.Caller, at nfs.Name, a nfs3.SetAttr) (nfs.Made, error) {
	return s.makeNew(ctx, "Mkdir", c, at, nfs3.Directory, a, func(*inode) {})
}

func (s *Share) Symlink(ctx context.Context, c nfs.Caller, at nfs.Name, text string, a nfs3.SetAttr) (nfs.Made, error) {
	return s.makeNew(ctx, "Symlink", c, at, nfs3.Symlink, a, func(n *inode) { n.text = text })
}

func (s *Share) Mknod(ctx context.Context, c nfs.Caller, at nfs.Name, t nfs3.FileType, dev [2]uint32, a nfs3.SetAttr) (nfs.Made, error) {
	return s.makeNew(ctx, "Mknod", c, at, t, a, func(n *inode) { n.attr.SpecData = dev })
}

func (s *Share) Link(ctx context.Context, c nfs.Caller, f nfs.Ref, to nfs.Name) (nfs.LinkResult, error) {
	return once(s, ctx, "Link", c, func() (r nfs.LinkResult, err error) {
		n, err := s.get(f)
		if err != nil {
			return r, err
		}
		r.File = n.after()
		d, other, w, err := s.in(to)
		r.Dir = w
		switch {
		case err != nil:
			return r, err
		case n.entries != nil:
			return r, nfs3.ErrIsDir
		case other != nil:
			return r, nfs3.ErrExist
		case n.attr.Nlink >= nfs3.MaxLinks:
			return r, nfs3.ErrMLink
		}
		n.attr.Nlink++
		n.attr.Ctime = s.now()
		s.add(d, to.Name, n)
		r.File, r.Dir.After = n.after(), d.after()
		return r, nil
	})
}

func (s *Share) Remove(ctx context.Context, c nfs.Caller, at nfs.Name) (nfs3.Wcc, error) {
	return s.take(ctx, "Remove", c, at, func(n *inode) error {
		if n.entries != nil {
			return nfs3.ErrIsDir
		}
		return nil
	})
}

func (s *Share) Rmdir(ctx context.Context, c nfs.Caller, at nfs.Name) (nfs3.Wcc, error) {
	return s.take(ctx, "Rmdir", c, at, func(n *inode) error {
		if n.entries == nil {
			return nfs3.ErrNotDir
		}
		if len(n.entries) > 0 {
			return nfs3.ErrNotEmpty
		}
		return nil
	})
}

func (s *Share) take(ctx context.Context, method string, c nfs.Caller, at nfs.Name, check func(*inode) error) (nfs3.Wcc, error) {
	return once(s, ctx, method, c, func() (nfs3.Wcc, error) {
		d, n, w, err := s.in(at)
		switch {
		case err != nil:
		case moved(at, n):
			err = nfs.ErrMoved
		case n == nil:
			err = nfs3.ErrNoEnt
		default:
			err = check(n)
		}
		if err != nil {
			return w, err
		}
		s.drop(d, at.Name)
		w.After = d.after()
		return w, nil
	})
}

func (s *Share) Rename(ctx context.Context, c nfs.Caller, from, to nfs.Name) (nfs.RenameResult, error) {
	return once(s, ctx, "Rename", c, func() (r nfs.RenameResult, err error) {
		d, n, w, err := s.in(from)
		r.From = w
		if err != nil {
			return r, err
		}
		td, old, w, err := s.in(to)
		r.To = w
		switch {
		case err != nil:
		case moved(from, n) || moved(to, old):
			err = nfs.ErrMoved
		case n == nil:
			err = nfs3.ErrNoEnt
		default:
			err = s.mayReplace(n, td, old)
		}
		if err != nil || n == old {
			return r, err
		}
		if old != nil {
			s.drop(td, to.Name)
		}
		delete(d.entries, from.Name)
		if n.entries != nil {
			d.attr.Nlink--
		}
		s.changed(d)
		s.add(td, to.Name, n)
		n.attr.Ctime = s.now()
		r.From.After, r.To.After = d.after(), td.after()
		return r, nil
	})
}

func (s *Share) mayReplace(n, td, old *inode) error {
	if n.entries != nil {
		for at := td; ; at = s.all[at.parent] {
			if at == n {
				return nfs3.ErrInval
			}
			if at.parent == at.attr.Fileid {
				break
			}
		}
	}
	switch {
	case old == nil || old == n:
	case n.entries == nil && old.entries != nil:
		return nfs3.ErrIsDir
	case n.entries != nil && old.entries == nil:
		return nfs3.ErrNotDir
	case len(old.entries) > 0:
		return nfs3.ErrNotEmpty
	}
	return nil
}

func (s *Share) Readdir(ctx context.Context, dir nfs.Ref, cookie uint64, v nfs3.Verifier, limit int) (r nfs.ReaddirResult, err error) {
	if err := s.begin(ctx, "Readdir"); err != nil {
		return r, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.dir(dir)
	if err != nil {
		return r, err
	}
	r.Attr, r.Verifier = d.after(), nfs3.Verifier{'m', 'e', 'm'}
	if cookie != 0 && v != r.Verifier {
		return r, nfs3.ErrBadCookie
	}
	var all []*entry
	for _, e := range d.entries {
		if e.cookie > cookie {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Compare(a.cookie, b.cookie) })
	r.EOF = len(all) <= limit
	for _, e := range all[:min(limit, len(all))] {
		r.Entries = append(r.Entries, nfs.Entry{Name: e.name, Cookie: e.cookie, Node: s.all[e.ino].node()})
	}
	return r, nil
}

var _ nfs.Share = (*Share)(nil)

package memshare

import (
	"context"
	"maps"

	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// apply sets attributes, the size with all that belongs to it.
func (s *Share) apply(n *inode, a nfs3.SetAttr) {
	if a.Mode != nil {
		n.attr.FileMode = *a.Mode
	}
	if a.UID != nil {
		n.attr.UID = *a.UID
	}
	if a.GID != nil {
		n.attr.GID = *a.GID
	}
	n.attr.Ctime = s.now()
	if a.Size != nil {
		s.truncate(n, *a.Size)
		n.attr.Mtime = n.attr.Ctime
	}
	for _, t := range []struct {
		set nfs3.SetTime
		to  *nfs3.Time
	}{{a.Atime, &n.attr.Atime}, {a.Mtime, &n.attr.Mtime}} {
		switch t.set.How {
		case nfs3.ToServerTime:
			*t.to = n.attr.Ctime
		case nfs3.ToClientTime:
			*t.to = t.set.Time
		}
	}
}

func (s *Share) truncate(n *inode, size uint64) {
	for i, p := range n.pages {
		switch begin := i * pageSize; {
		case begin >= size:
			delete(n.pages, i)
			s.used -= pageSize
		case begin+pageSize > size:
			clear(p[size-begin:])
		}
	}
	maps.DeleteFunc(n.stable, func(i uint64, _ []byte) bool { return i*pageSize >= size })
	n.attr.Filesize = size
}

func (s *Share) Getattr(ctx context.Context, r nfs.Ref) (nfs3.Attr, error) {
	if err := s.begin(ctx, "Getattr"); err != nil {
		return nfs3.Attr{}, err
	}
	n, err := s.Peek(r)
	return n.Attr, err
}

func (s *Share) Setattr(ctx context.Context, c nfs.Caller, r nfs.Ref, a nfs3.SetAttr, guard *nfs3.Time) (nfs3.Wcc, error) {
	return once(s, ctx, "Setattr", c, func() (w nfs3.Wcc, err error) {
		n, err := s.get(r)
		if err != nil {
			return w, err
		}
		w.Before, w.After = n.before(), n.after()
		switch {
		case guard != nil && *guard != n.attr.Ctime:
			return w, nfs3.ErrNotSync
		case a.Size != nil && n.entries != nil:
			return w, nfs3.ErrIsDir
		case a.Size != nil && n.pages == nil:
			return w, nfs3.ErrInval
		}
		s.apply(n, a)
		w.After = n.after()
		return w, nil
	})
}

func (s *Share) Readlink(ctx context.Context, r nfs.Ref) (string, *nfs3.Attr, error) {
	if err := s.begin(ctx, "Readlink"); err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.get(r)
	if err != nil {
		return "", nil, err
	}
	if n.attr.Type != nfs3.Symlink {
		return "", n.after(), nfs3.ErrInval
	}
	return n.text, n.after(), nil
}

// data finds a regular file. Called with mu.
func (s *Share) data(r nfs.Ref) (*inode, error) {
	n, err := s.get(r)
	switch {
	case err != nil:
		return nil, err
	case n.entries != nil:
		return n, nfs3.ErrIsDir
	case n.pages == nil:
		return n, nfs3.ErrInval
	}
	return n, nil
}

func (s *Share) Read(ctx context.Context, r nfs.Ref, off uint64, p []byte) (nfs.ReadResult, error) {
	if err := s.begin(ctx, "Read"); err != nil {
		return nfs.ReadResult{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.data(r)
	if err != nil {
		return nfs.ReadResult{}, err
	}
	size := n.attr.Filesize
	if off >= size {
		return nfs.ReadResult{EOF: true, Attr: n.after()}, nil
	}
	p = p[:min(uint64(len(p)), size-off)]
	for done := uint64(0); done < uint64(len(p)); {
		i, in := (off+done)/pageSize, (off+done)%pageSize
		part := p[done:min(uint64(len(p)), done+pageSize-in)]
		if page := n.pages[i]; page != nil {
			copy(part, page[in:])
		} else {
			clear(part)
		}
		done += uint64(len(part))
	}
	n.attr.Atime = s.now()
	return nfs.ReadResult{N: len(p), EOF: off+uint64(len(p)) == size, Attr: n.after()}, nil
}

func (s *Share) Write(ctx context.Context, r nfs.Ref, off uint64, p []byte, how nfs3.Stable) (res nfs.WriteResult, err error) {
	if err := s.begin(ctx, "Write"); err != nil {
		return res, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.data(r)
	if err != nil {
		return res, err
	}
	res = nfs.WriteResult{Wcc: nfs3.Wcc{Before: n.before()}, Committed: how, Verifier: s.verf()}
	end := off + uint64(len(p))
	need := uint64(0)
	for i := off / pageSize; i*pageSize < end; i++ {
		if n.pages[i] == nil {
			need += pageSize
		}
	}
	if s.used+need > s.size {
		res.Wcc.After = n.after()
		return res, nfs3.ErrNoSpace
	}
	for done := uint64(0); done < uint64(len(p)); {
		i, in := (off+done)/pageSize, (off+done)%pageSize
		part := p[done:min(uint64(len(p)), done+pageSize-in)]
		s.write(n, i, in, part, how)
		done += uint64(len(part))
	}
	if len(p) > 0 {
		n.attr.Filesize = max(n.attr.Filesize, end)
		n.attr.Mtime = s.now()
		n.attr.Ctime = n.attr.Mtime
	}
	res.Wcc.After = n.after()
	return res, nil
}

// write changes a part of a page.
func (s *Share) write(n *inode, i, in uint64, part []byte, how nfs3.Stable) {
	page := n.pages[i]
	if _, kept := n.stable[i]; how == nfs3.Unstable && !kept {
		if n.stable == nil {
			n.stable = map[uint64][]byte{}
		}
		n.stable[i] = append([]byte(nil), page...)
	}
	if page == nil {
		page = make([]byte, pageSize)
		n.pages[i] = page
		s.used += pageSize
	}
	copy(page[in:], part)
	if old := n.stable[i]; how != nfs3.Unstable && old != nil {
		copy(old[in:], part)
	}
}

func (s *Share) Commit(ctx context.Context, r nfs.Ref, off uint64, count uint32) (res nfs.WriteResult, err error) {
	if err := s.begin(ctx, "Commit"); err != nil {
		return res, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.data(r)
	if err != nil {
		return res, err
	}
	maps.DeleteFunc(n.stable, func(i uint64, _ []byte) bool {
		return count == 0 && (i+1)*pageSize > off || (i+1)*pageSize > off && i*pageSize < off+uint64(count)
	})
	res.Wcc = nfs3.Wcc{Before: n.before(), After: n.after()}
	res.Verifier = s.verf()
	return res, nil
}

func (s *Share) Statfs(ctx context.Context) (nfs.Statfs, error) {
	if err := s.begin(ctx, "Statfs"); err != nil {
		return nfs.Statfs{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	free, files := s.size-s.used, uint64(inodes-len(s.all))
	return nfs.Statfs{Total: s.size, Free: free, Avail: free, Files: inodes, FilesFree: files, FilesAvail: files}, nil
}

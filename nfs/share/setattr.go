package share

import (
	"context"

	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// Setattr implements nfs.Share.
func (s *Share) Setattr(ctx context.Context, c nfs.Caller, r nfs.Ref, a nfs3.SetAttr, guard *nfs3.Time) (nfs3.Wcc, error) {
	o := filetree.Op{Kind: filetree.SetAttr, Ino: r.Ino, Set: set(a)}
	if guard != nil {
		o.Guarded, o.Guard = true, int64(guard.Seconds)*1e9+int64(guard.Nseconds)
	}
	var out nfs3.Wcc
	err := s.resized(ctx, c, r, o, func() error {
		res, err := s.do(ctx, c, o, r)
		out = s.changed(res.File, r)
		return err
	})
	if out.After == nil {
		out = s.wcc(r)
	}
	return out, err
}

// maxCut is how many extents a SetAttr may free; a file with more behind its new end is cut in steps before.
const maxCut = 2048

// resized has a change of a file's attributes done when no write to it is under way. Times that were shown are committed first,
// so that a guard can be compared with them. If o gives another size the file is made ready for it, but only if the change is
// new and its guard holds: what is done for it is seen.
func (s *Share) resized(ctx context.Context, c nfs.Caller, r nfs.Ref, o filetree.Op, do func() error) error {
	f := s.files.get(r.Ino)
	defer s.files.put(f)
	q := f.gate.enter(0, filetree.MaxFile, true)
	defer f.gate.leave(q)
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	t, err := s.tree()
	if err != nil {
		return err
	}
	_, answered := t.Replied(key(c))
	if _, err := regular(t, r); err != nil || answered { // the tree says what to answer
		return do()
	}
	if o, marked := f.settleOp(); marked {
		if _, err := s.change(ctx, o); err != nil && !status(err) {
			return err
		}
		f.settled()
	}
	f.used(s.cfg.Now().UnixNano())
	if t, err = s.tree(); err != nil {
		return err
	}
	n, _ := t.Inode(r.Ino)
	size := o.Set.Size
	resizes := o.Set.Fields&filetree.SetSize != 0 && size <= filetree.MaxFile && (!o.Guarded || o.Guard == n.Ctime)
	if resizes {
		if err := s.prepare(ctx, f, r, n, size); err != nil {
			return s.refused(ctx, err)
		}
	}
	err = do()
	if err != nil || resizes && size < n.Size {
		f.setClean(false)
	}
	return err
}

// prepare makes ready for another size. The gate is held alone.
func (s *Share) prepare(ctx context.Context, f *file, r nfs.Ref, n filetree.Inode, size int64) error {
	if size > n.Size {
		f.mu.Lock()
		clean := f.clean
		f.mu.Unlock()
		if clean {
			return nil
		}
		return s.cleanTail(ctx, f, r)
	}
	for {
		t, err := s.tree()
		if err != nil {
			return err
		}
		if len(t.Extents(r.Ino, roundUp(size), filetree.MaxFile, maxCut+1)) <= maxCut {
			return nil
		}
		if _, err := s.change(ctx, filetree.Op{Kind: filetree.Cut, Ino: r.Ino, Aux: uint64(size), Size: maxCut}); err != nil {
			return err
		}
		f.setClean(false)
	}
}

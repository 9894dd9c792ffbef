package share

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// attr returns attributes as clients see them: those of now, with the times that were shown; nil if the file that had been n is gone
// by now. The times are taken first, and the tree then: so no size is told with a time at which it was another.
func (s *Share) attr(ino uint64, n filetree.Inode) *nfs3.Attr {
	var time int64
	if f := s.files.peek(ino); f != nil {
		time = f.shown()
	}
	t := s.cfg.Catalog.Tree()
	if t == nil {
		return nil
	}
	now, ok := t.Inode(ino)
	if !ok || now.Gen != n.Gen || now.Nlink == 0 {
		return nil
	}
	if time > 0 && t.Marked(ino) { // else the tree has the time, or an mtime that was set since
		now.Ctime, now.Mtime = max(now.Ctime, time), max(now.Mtime, time)
	}
	return plain(ino, now)
}

// plain returns the attributes of a state of the tree.
func plain(ino uint64, n filetree.Inode) *nfs3.Attr {
	a := nfs3.Attr{Type: nfs3.FileType(n.Type), FileMode: uint32(n.Mode), Nlink: n.Nlink, UID: n.UID, GID: n.GID, Filesize: uint64(n.Size),
		Used: uint64(n.Used), Fileid: ino, Atime: timeOf(n.Atime), Mtime: timeOf(n.Mtime), Ctime: timeOf(n.Ctime)}
	switch n.Type {
	case filetree.Directory:
		a.Filesize = uint64(n.Size+63) / 64 * filetree.Block // as if its names were in blocks
		a.Used = a.Filesize
	case filetree.BlockDevice, filetree.CharDevice:
		a.SpecData = [2]uint32{uint32(n.Aux >> 32), uint32(n.Aux)}
	}
	return &a
}

func timeOf(ns int64) nfs3.Time { return nfs3.TimeOf(time.Unix(0, ns)) }

func preOp(n filetree.Inode) nfs3.PreOp {
	size := uint64(n.Size)
	if n.Type == filetree.Directory {
		size = uint64(n.Size+63) / 64 * filetree.Block
	}
	return nfs3.PreOp{Size: size, Mtime: timeOf(n.Mtime), Ctime: timeOf(n.Ctime)}
}

// wcc is what is known of a file after a call that may not have changed it.
func (s *Share) wcc(r nfs.Ref) nfs3.Wcc {
	if t, err := s.tree(); err == nil {
		if n, err := live(t, r); err == nil {
			return nfs3.Wcc{After: s.attr(r.Ino, n)}
		}
	}
	return nfs3.Wcc{}
}

// changed is the Wcc of an inode that an op changed: exactly before and after it, or a client would miss what others have changed.
// Without an op, and where times were shown that the tree does not have, it is what is known of the file now.
func (s *Share) changed(c filetree.Change, r nfs.Ref) nfs3.Wcc {
	if c.Ino == 0 {
		return s.wcc(r)
	}
	if f := s.files.peek(c.Ino); f != nil && f.isMarked() {
		return s.wcc(nfs.Ref{Ino: c.Ino, Gen: c.After.Gen})
	}
	pre := preOp(c.Before)
	return nfs3.Wcc{Before: &pre, After: plain(c.Ino, c.After)}
}

func (s *Share) node(ino uint64, n filetree.Inode) nfs.Node {
	a := s.attr(ino, n)
	if a == nil { // gone meanwhile: as it was, at the latest time that it had
		if f := s.files.peek(ino); f != nil {
			n.Ctime, n.Mtime = max(n.Ctime, f.shown()), max(n.Mtime, f.shown())
		}
		a = plain(ino, n)
	}
	return nfs.Node{Ref: nfs.Ref{Ino: ino, Gen: n.Gen}, Attr: *a}
}

// Root implements nfs.Share.
func (s *Share) Root() nfs.Ref {
	t, err := s.tree()
	if err != nil {
		return nfs.Ref{Ino: filetree.Root}
	}
	n, _ := t.Inode(filetree.Root)
	return nfs.Ref{Ino: filetree.Root, Gen: n.Gen}
}

// Peek implements nfs.Share.
func (s *Share) Peek(r nfs.Ref) (nfs.Node, error) {
	t, err := s.tree()
	if err != nil {
		return nfs.Node{}, err
	}
	n, err := live(t, r)
	if err != nil {
		return nfs.Node{}, err
	}
	a := s.attr(r.Ino, n)
	if a == nil { // by now
		return nfs.Node{}, nfs3.ErrStale
	}
	return nfs.Node{Ref: r, Attr: *a}, nil
}

// PeekName implements nfs.Share.
func (s *Share) PeekName(dir nfs.Ref, name string) (nfs.Node, error) {
	t, err := s.tree()
	if err != nil {
		return nfs.Node{}, err
	}
	d, err := live(t, dir)
	switch {
	case err != nil:
		return nfs.Node{}, err
	case d.Type != filetree.Directory:
		return nfs.Node{}, nfs3.ErrNotDir
	}
	ino := d.Aux
	switch name {
	case "..":
	case ".":
		ino = dir.Ino
	default:
		e, ok := t.Lookup(dir.Ino, name)
		if !ok {
			return nfs.Node{}, nfs3.ErrNoEnt
		}
		ino = e.Ino
	}
	n, ok := t.Inode(ino)
	if !ok {
		return nfs.Node{}, nfs3.ErrStale
	}
	return s.node(ino, n), nil
}

// Getattr implements nfs.Share.
func (s *Share) Getattr(ctx context.Context, r nfs.Ref) (nfs3.Attr, error) {
	if err := s.Confirm(ctx); err != nil {
		return nfs3.Attr{}, err
	}
	n, err := s.Peek(r)
	return n.Attr, err
}

// Lookup implements nfs.Share.
func (s *Share) Lookup(ctx context.Context, dir nfs.Ref, name string) (nfs.Node, *nfs3.Attr, error) {
	if err := s.Confirm(ctx); err != nil {
		return nfs.Node{}, nil, err
	}
	n, err := s.PeekName(dir, name)
	return n, s.wcc(dir).After, err
}

// Readlink implements nfs.Share.
func (s *Share) Readlink(ctx context.Context, r nfs.Ref) (string, *nfs3.Attr, error) {
	if err := s.Confirm(ctx); err != nil {
		return "", nil, err
	}
	t, err := s.tree()
	if err != nil {
		return "", nil, err
	}
	n, err := live(t, r)
	switch {
	case err != nil:
		return "", nil, err
	case n.Type != filetree.Symlink:
		return "", s.attr(r.Ino, n), nfs3.ErrInval
	}
	return t.Target(r.Ino), s.attr(r.Ino, n), nil
}

// Commit implements nfs.Share: what was answered is durable already, or made so.
func (s *Share) Commit(ctx context.Context, r nfs.Ref, _ uint64, _ uint32) (nfs.WriteResult, error) {
	if err := s.Confirm(ctx); err != nil {
		return nfs.WriteResult{}, err
	}
	t, err := s.tree()
	if err == nil {
		_, err = regular(t, r)
	}
	v := s.verifier()
	if err == nil && s.volatile {
		err = s.io([]*block.Request{{Op: block.Flush}})
	}
	return nfs.WriteResult{Wcc: s.wcc(r), Committed: nfs3.FileSync, Verifier: v}, err
}

// verifier is the write verifier. It changes when unstable writes may have been lost, which is a matter of the volume.
func (s *Share) verifier() (v nfs3.Verifier) {
	binary.BigEndian.PutUint64(v[:], binary.BigEndian.Uint64(s.cfg.ID[:])+s.losses)
	return v
}

// Readdir implements nfs.Share. The verifier is always zero: a walk can always go on.
func (s *Share) Readdir(ctx context.Context, dir nfs.Ref, cookie uint64, _ nfs3.Verifier, most int) (nfs.ReaddirResult, error) {
	if err := s.Confirm(ctx); err != nil {
		return nfs.ReaddirResult{}, err
	}
	t, err := s.tree()
	if err != nil {
		return nfs.ReaddirResult{}, err
	}
	d, err := live(t, dir)
	switch {
	case err != nil:
		return nfs.ReaddirResult{}, err
	case d.Type != filetree.Directory:
		return nfs.ReaddirResult{Attr: s.attr(dir.Ino, d)}, nfs3.ErrNotDir
	case cookie >= 1<<63:
		return nfs.ReaddirResult{Attr: s.attr(dir.Ino, d)}, nfs3.ErrBadCookie
	}
	all := t.Entries(dir.Ino, cookie, most+1)
	out := nfs.ReaddirResult{EOF: len(all) <= most, Attr: s.attr(dir.Ino, d)}
	for _, e := range all[:min(len(all), most)] {
		n, _ := t.Inode(e.Ino)
		out.Entries = append(out.Entries, nfs.Entry{Name: e.Name, Cookie: e.Cookie, Node: s.node(e.Ino, n)})
	}
	return out, nil
}

// fileCost is what a file takes of filetree.MaxMeta, about.
const fileCost = 160

// Statfs implements nfs.Share. Space that is to be zeroed counts as free.
func (s *Share) Statfs(ctx context.Context) (nfs.Statfs, error) {
	if err := s.Confirm(ctx); err != nil {
		return nfs.Statfs{}, err
	}
	t, err := s.tree()
	if err != nil {
		return nfs.Statfs{}, err
	}
	free, ahead, freed := t.Space()
	space := uint64(free + ahead + freed)
	left := uint64(max(filetree.MaxMeta-t.Meta(), 0) / fileCost)
	return nfs.Statfs{Total: uint64(t.Size()), Free: space, Avail: space, Files: uint64(t.Files()) + left, FilesFree: left, FilesAvail: left}, nil
}

// key is the caller's in the tree.
func key(c nfs.Caller) (k filetree.Key) {
	b := c.Client.As16()
	h := sha256.New()
	h.Write(b[:])
	h.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, c.XID), c.Sum))
	copy(k[:], h.Sum(nil))
	return k
}

// status tells whether err is an answer to the client.
func status(err error) bool {
	var n nfs3.Status
	return errors.As(err, &n)
}

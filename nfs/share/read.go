package share

import (
	"context"
	"errors"
	"fmt"

	"pmsapp/internal/block"
	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// told turns an error of the device into the answer to a client, or leaves it to say that there is none.
func (s *Share) told(err error) error {
	switch {
	case errors.Is(err, block.ErrNoSpace):
		return nfs3.ErrNoSpace
	case errors.Is(err, block.ErrMedium):
		return nfs3.ErrIO
	case errors.Is(err, block.ErrRange):
		return fmt.Errorf("%w: %w", nfs3.ErrServerFault, err)
	}
	return err
}

// Confirm implements nfs.Share: a read of no bytes is the device's exchange with every in-sync member.
func (s *Share) Confirm(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return s.io([]*block.Request{{Op: block.Read}})
}

// live returns a file of the tree by its Ref.
func live(t *filetree.Tree, r nfs.Ref) (filetree.Inode, error) {
	n, ok := t.Inode(r.Ino)
	if !ok || n.Gen != r.Gen || n.Nlink == 0 {
		return n, nfs3.ErrStale
	}
	return n, nil
}

// regular returns a file that has bytes.
func regular(t *filetree.Tree, r nfs.Ref) (filetree.Inode, error) {
	n, err := live(t, r)
	switch {
	case err != nil:
		return n, err
	case n.Type == filetree.Directory:
		return n, nfs3.ErrIsDir
	case n.Type != filetree.Regular:
		return n, nfs3.ErrInval
	}
	return n, nil
}

// segment is a piece of a read or write: bytes [at, at+n) of the buffer are those from vol on; vol < 0: a hole.
type segment struct {
	at, n int
	vol   int64
}

// maxPieces is more than a read or write of nfs3.MaxIO bytes can meet.
const maxPieces = nfs3.MaxIO/filetree.Block + 2

// Read implements nfs.Share. The tree is taken after the call began; the answer comes after a confirmation that began later
// still: the device's own with the bytes, else one of its own.
func (s *Share) Read(ctx context.Context, r nfs.Ref, off uint64, p []byte) (nfs.ReadResult, error) {
	if err := ctx.Err(); err != nil {
		return nfs.ReadResult{}, context.Cause(ctx)
	}
	pin := s.pins.enter()
	defer s.pins.leave(pin)
	t, err := s.tree()
	if err != nil {
		return nfs.ReadResult{}, err
	}
	n, err := regular(t, r)
	if err != nil {
		return nfs.ReadResult{}, s.confirmed(ctx, err)
	}
	count := 0
	if off < uint64(n.Size) {
		count = int(min(int64(len(p)), n.Size-int64(off)))
	}
	var reads []*block.Request
	var bounced []segment
	for _, g := range mapped(t, r.Ino, int64(off), count) {
		if g.vol < 0 {
			clear(p[g.at : g.at+g.n])
			continue
		}
		if whole := g.vol%s.block == 0 && int64(g.n)%s.block == 0; whole {
			reads = append(reads, &block.Request{Op: block.Read, Off: g.vol, Len: int64(g.n), Data: p[g.at : g.at+g.n]})
			continue
		}
		lo, hi := g.vol&^(s.block-1), (g.vol+int64(g.n)+s.block-1)&^(s.block-1)
		b := block.Get(int(hi - lo))
		defer block.Put(b)
		reads = append(reads, &block.Request{Op: block.Read, Off: lo, Len: hi - lo, Data: b, Owner: len(bounced)})
		bounced = append(bounced, g)
	}
	if len(reads) == 0 {
		err = s.Confirm(ctx)
	} else {
		err = s.io(reads)
	}
	if err != nil {
		return nfs.ReadResult{}, err
	}
	for _, q := range reads {
		if i, ok := q.Owner.(int); ok {
			g := bounced[i]
			copy(p[g.at:g.at+g.n], q.Data[g.vol-q.Off:])
		}
	}
	attr := s.attr(r.Ino, n)
	if attr != nil && attr.Filesize != uint64(n.Size) {
		attr = nil // those of now do not go with what was read
	}
	return nfs.ReadResult{N: count, EOF: off >= uint64(n.Size) || int64(off)+int64(count) == n.Size, Attr: attr}, nil
}

// mapped returns the pieces of n bytes of a file from off on.
func mapped(t *filetree.Tree, ino uint64, off int64, n int) (all []segment) {
	at := 0
	hole := func(upTo int) {
		if upTo > at {
			all = append(all, segment{at, upTo - at, -1})
			at = upTo
		}
	}
	if n > 0 {
		for _, x := range t.Extents(ino, off, off+int64(n), maxPieces) {
			hole(int(max(x.File-off, 0)))
			m := int(min(x.File+x.Len-off, int64(n))) - at
			all = append(all, segment{at, m, x.Vol + off + int64(at) - x.File})
			at += m
		}
	}
	hole(n)
	return all
}

// refused is an error of a change; if it answers the client it is confirmed first, as it may come from this node's tree alone.
func (s *Share) refused(ctx context.Context, err error) error {
	if status(err) {
		return s.confirmed(ctx, err)
	}
	return err
}

// confirmed is for an answer that needs no data: err, when it is confirmed.
func (s *Share) confirmed(ctx context.Context, err error) error {
	if c := s.Confirm(ctx); c != nil {
		return c
	}
	return err
}

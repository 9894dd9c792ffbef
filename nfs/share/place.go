package share

import (
	"context"
	"math/bits"
	"slices"

	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// Sizes of pieces, in bytes.
const (
	smallPiece = 64 << 10
	holePiece  = 4 << 20
	largePiece = 16 << 20
)

// placed is where a write goes.
type placed struct {
	pin      uint64 // of the look-up; the caller ends it
	size     int64  // of the file
	segments []segment
	mine     []*pending // of space ahead, to be brought into the tree
	others   []*pending // that others bring there
}

// place finds where n bytes of a file from off on belong: in extents that the tree has, in others' that are on their way into
// it, or in mine, of space ahead. Nobody else's writes meet this one's blocks if they share some, but their pieces may.
func (s *Share) place(ctx context.Context, f *file, r nfs.Ref, off int64, n int) (placed, error) {
	var mine []*pending
	for {
		at, hole, err := s.find(f, r, off, n, mine)
		if err == nil && hole.hi == 0 {
			at.mine = mine
			return at, nil
		}
		// Space may have to be zeroed first, which waits for look-ups: this one has ended.
		s.pins.leave(at.pin)
		var p *pending
		if err == nil {
			p, err = s.fill(ctx, f, r.Ino, hole)
		}
		if err != nil {
			return placed{}, s.drop(f, mine, err)
		}
		if p != nil {
			mine = append(mine, p)
		}
	}
}

// gap is a part of a file that is to have space: at least the block at `at`.
type gap struct{ lo, hi, at int64 }

// find looks for the places, and for the first gap among them.
func (s *Share) find(f *file, r nfs.Ref, off int64, n int, mine []*pending) (out placed, hole gap, err error) {
	out.pin = s.pins.enter()
	f.mu.Lock() // what leaves pending is in the tree already
	defer f.mu.Unlock()
	t, err := s.tree()
	if err != nil {
		return out, hole, err
	}
	node, err := regular(t, r)
	if err != nil {
		return out, hole, err
	}
	out.size = node.Size
	for _, g := range mapped(t, r.Ino, off, n) {
		if g.vol >= 0 {
			out.segments = append(out.segments, g)
			continue
		}
		for at := g.at; at < g.at+g.n; {
			p, m := f.pendingAt(off+int64(at), g.at+g.n-at)
			if p == nil {
				hole.at = off + int64(at)
				hole.lo, hole.hi = f.piece(t, node, r.Ino, hole.at, off+int64(n))
				return out, hole, nil
			}
			out.segments = append(out.segments, segment{at, m, p.Vol + off + int64(at) - p.File})
			at += m
			if !slices.Contains(mine, p) && !slices.Contains(out.others, p) {
				out.others = append(out.others, p)
			}
		}
	}
	return out, hole, nil
}

// fill gives a gap space, as much as there is in one piece. It returns nil if somebody else did it.
func (s *Share) fill(ctx context.Context, f *file, ino uint64, g gap) (*pending, error) {
	sp, err := s.take(ctx, g.hi-g.lo)
	if err != nil {
		return nil, err
	}
	if sp.Len < g.hi-g.lo { // it goes where it is needed
		g.lo = max(g.lo, g.at&^(filetree.Block-1))
		if n := g.hi - g.lo; n < sp.Len {
			s.ahead.add([]filetree.Span{{Vol: sp.Vol + n, Len: sp.Len - n}})
			sp.Len = n
		}
		g.hi = g.lo + sp.Len
	}
	return f.reserve(s, ino, g.lo, g.hi, sp.Vol), nil
}

// drop ends extents of a write that does not come to write: they are as they were.
func (s *Share) drop(f *file, mine []*pending, err error) error {
	f.finish(mine, err)
	for _, m := range mine { // others may have written to them
		s.giveBack([]filetree.Span{{Vol: m.Vol, Len: m.Len}})
	}
	return err
}

// pendingAt returns the extent on its way into the tree that has a byte, and how many of n bytes from there on. Called with mu.
func (f *file) pendingAt(at int64, n int) (*pending, int) {
	for _, p := range f.pending {
		if p.File <= at && at < p.File+p.Len {
			return p, int(min(p.File+p.Len-at, int64(n)))
		}
	}
	return nil, 0
}

// piece tells which part of the file gets space for a byte in a hole: [lo, hi) in whole blocks, within the hole. Called with mu.
//
// A file that grows gets as much as it has, so that it has few extents; what it does not use is given back when it is quiet. A
// hole inside gets pieces that grow with what the file has.
func (f *file) piece(t *filetree.Tree, n filetree.Inode, ino uint64, at, end int64) (lo, hi int64) {
	lo, hi = at&^(filetree.Block-1), roundUp(end)
	limit := int64(nfs3.MaxFile)
	if end > n.Size {
		if n.Used > 0 {
			hi = max(hi, lo+min(power(n.Used), largePiece))
		}
	} else {
		size := min(max(power(n.Used/8), smallPiece), holePiece)
		lo, hi = at&^(size-1), max(hi, at&^(size-1)+size)
		limit = roundUp(n.Size)
	}
	// Not beyond the hole.
	floor := int64(0)
	for _, x := range t.Extents(ino, lo, hi, 1<<20) {
		if x.File > at {
			limit = min(limit, x.File)
		} else {
			floor = max(floor, x.File+x.Len)
		}
	}
	for _, p := range f.pending {
		if p.File > at {
			limit = min(limit, p.File)
		} else {
			floor = max(floor, p.File+p.Len)
		}
	}
	return max(lo, floor), min(hi, limit, max(lo, floor)+largePiece)
}

// power is the greatest power of two that is at most n, or 0.
func power(n int64) int64 {
	if n < 1 {
		return 0
	}
	return 1 << (bits.Len64(uint64(n)) - 1)
}

// reserve adds an extent that is on its way into the tree, if the hole is still one; else it gives the space back.
func (f *file) reserve(s *Share, ino uint64, lo, hi, vol int64) *pending {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := s.cfg.Catalog.Tree()
	free := t != nil && len(t.Extents(ino, lo, hi, 1)) == 0
	for _, p := range f.pending {
		free = free && (p.File >= hi || p.File+p.Len <= lo)
	}
	if !free {
		s.ahead.add([]filetree.Span{{Vol: vol, Len: hi - lo}})
		return nil
	}
	p := &pending{Span: filetree.Span{File: lo, Vol: vol, Len: hi - lo}, done: make(chan struct{})}
	f.pending = append(f.pending, p)
	return p
}

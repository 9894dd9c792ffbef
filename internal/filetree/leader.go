package filetree

import "pmsapp/internal/rangelock"

// What a leader commits for itself: times, and the use of the volume's space.

func (t *Tree) mark(o *Op, r *Result) {
	n, s := t.live(o.Ino)
	switch {
	case s != OK:
		r.Status = s
	case n.Type != Regular:
		r.Status = Inval
	case t.Marked(o.Ino):
	case t.marks.n >= MaxMarks:
		r.Status = NoSpace
	default:
		t.marks.set(t.by, number(o.Ino), struct{}{})
		t.meta += 8
		n.Ctime = t.now(o)
		n.Mtime = n.Ctime
		t.putInode(o.Ino, n)
	}
}

func (t *Tree) unmark(ino uint64) {
	if t.marks.delete(t.by, number(ino)) {
		t.meta -= 8
	}
}

// settle takes times that were shown into the tree. It never puts one back: since the mark, only writes set the mtime.
func (t *Tree) settle(o *Op, r *Result) {
	n, s := t.live(o.Ino)
	if s != OK || !t.Marked(o.Ino) {
		r.Status = Stale
		return
	}
	t.clock = max(t.clock, o.Set.Ctime)
	n.Mtime, n.Ctime = max(n.Mtime, o.Set.Mtime), max(n.Ctime, o.Set.Ctime)
	t.unmark(o.Ino)
	t.putInode(o.Ino, n)
}

// move moves spans from one set of space to another, all or none.
func (t *Tree) move(o *Op, r *Result, from, to *space) {
	var seen space
	for _, p := range o.Spans {
		if p.Len <= 0 || (p.Vol|p.Len)&(Block-1) != 0 || p.Vol < 0 || p.Vol > t.size-p.Len || !from.has(p.Vol, p.Len) ||
			seen.meets(p.Vol, p.Len) {
			r.Status = Inval
			return
		}
		seen.add(t.by, p.Vol, p.Len)
	}
	t.now(o)
	for _, p := range o.Spans {
		from.remove(t.by, p.Vol, p.Len)
		to.add(t.by, p.Vol, p.Len)
	}
	r.Freed = to == &t.freed
}

func (t *Tree) open(o *Op, r *Result) {
	t.clock = max(t.clock, t.ceil)
	now := t.now(o)
	for off, n := range t.ahead.m.from(0) {
		t.freed.add(t.by, int64(off), n)
	}
	t.ahead = space{}
	for ino := range t.marks.from(0) {
		n, _ := t.Inode(uint64(ino))
		n.Mtime, n.Ctime = now, now
		t.putInode(uint64(ino), n)
		t.meta -= 8
	}
	t.marks = bmap[number, struct{}]{}
	r.Freed = t.freed.sum > 0 || t.orphans.n > 0
}

// Renewed returns the tree of a share that was brought back from a backup: files that are made from now on have that generation, or the next
// (0 is none), since the same numbers may have been given out to others after the backup; and nobody has a lock.
func (t *Tree) Renewed(gen uint32) *Tree {
	n := *t
	n.by = new(edit)
	for n.gen = gen; n.gen == 0 || n.gen == t.gen; n.gen++ {
	}
	for ino := range t.locks.from(0) {
		n.setLocks(uint64(ino), &rangelock.Table{})
	}
	n.by = nil
	return &n
}

// Doubted returns the tree of a volume of so many bytes that goes on with another replica: what is free, or was not the tree's yet, may have
// anybody's bytes there, and is to be zeroed.
func (t *Tree) Doubted(size int64) *Tree {
	n := *t
	n.by = new(edit)
	if size &^= Block - 1; size > n.size {
		n.freed.add(n.by, n.size, size-n.size)
		n.size = size
	}
	for off, l := range t.free.m.from(0) {
		n.freed.add(n.by, int64(off), l)
	}
	n.free, n.by = space{}, nil
	return &n
}

func (t *Tree) resize(o *Op, r *Result) {
	size := o.Size &^ (Block - 1)
	if size < t.size || size > 1<<46 {
		r.Status = Inval
		return
	}
	t.now(o)
	if size > t.size {
		t.free.add(t.by, t.size, size-t.size)
		t.size = size
	}
}

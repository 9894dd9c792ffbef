package filetree

func (t *Tree) setAttr(o *Op, r *Result) {
	n, s := t.live(o.Ino)
	set := o.Set
	switch {
	case s != OK:
		r.Status = s
	case o.Guarded && n.Ctime != o.Guard:
		r.Status = NotSync
	case set.Fields&SetMode != 0 && set.Mode > 0o7777:
		r.Status = Inval
	case set.Fields&SetSize != 0 && n.Type == Directory:
		r.Status = IsDir
	case set.Fields&SetSize != 0 && (n.Type != Regular || set.Size < 0):
		r.Status = Inval
	case set.Fields&SetSize != 0 && set.Size > MaxFile:
		r.Status = FBig
	}
	if r.Status != OK {
		return
	}
	now := t.now(o)
	r.File = Change{Ino: o.Ino, Before: n}
	if set.Fields&SetMode != 0 {
		n.Mode = set.Mode
	}
	if set.Fields&SetUID != 0 {
		n.UID = set.UID
	}
	if set.Fields&SetGID != 0 {
		n.GID = set.GID
	}
	if set.Fields&SetSize != 0 {
		used := n.Used
		t.putInode(o.Ino, n)
		t.freeTail(o.Ino, roundUp(set.Size), 1<<62)
		n, _ = t.Inode(o.Ino)
		r.Freed = n.Used != used
		n.Size, n.Mtime = set.Size, now
	}
	for _, f := range []struct {
		given, isNow Fields
		value        int64
		time         *int64
	}{{SetAtime, AtimeNow, set.Atime, &n.Atime}, {SetMtime, MtimeNow, set.Mtime, &n.Mtime}} {
		if set.Fields&f.given != 0 {
			*f.time = f.value
		}
		if set.Fields&f.isNow != 0 {
			*f.time = now
		}
	}
	n.Ctime = now
	if set.Fields&(SetSize|SetMtime|MtimeNow) != 0 {
		t.unmark(o.Ino)
	}
	t.putInode(o.Ino, n)
	r.File.After = n
}

func roundUp(n int64) int64 { return (n + Block - 1) &^ (Block - 1) }

func (t *Tree) write(o *Op, r *Result) {
	n, s := t.live(o.Ino)
	switch {
	case s != OK:
		r.Status = s
	case n.Type != Regular || o.Size < 0:
		r.Status = Inval
	case o.Size > MaxFile:
		r.Status = FBig
	default:
		r.Status = t.mappable(o)
	}
	if r.Status != OK {
		return
	}
	now := t.now(o)
	r.File = Change{Ino: o.Ino, Before: n}
	for _, p := range o.Spans {
		t.ahead.remove(t.by, p.Vol, p.Len)
		t.mapSpan(o.Ino, p)
		n.Used += p.Len
	}
	n.Size = max(n.Size, o.Size)
	n.Mtime, n.Ctime = now, now
	t.putInode(o.Ino, n)
	r.File.After = n
}

// mappable looks at the spans of a Write: ascending in the file, in holes, and of the space ahead.
func (t *Tree) mappable(o *Op) Status {
	end := int64(0)
	var seen space
	for _, p := range o.Spans {
		switch {
		case p.Len <= 0 || (p.File|p.Vol|p.Len)&(Block-1) != 0 || p.File < end || p.Vol < 0:
			return Inval
		case p.Len > MaxFile || p.File > MaxFile-p.Len:
			return FBig
		case p.Vol > t.size-p.Len || !t.ahead.has(p.Vol, p.Len) || seen.meets(p.Vol, p.Len):
			return Inval
		case len(t.Extents(o.Ino, p.File, p.File+p.Len, 1)) > 0:
			return Inval
		}
		end = p.File + p.Len
		seen.add(t.by, p.Vol, p.Len)
	}
	return OK
}

// mapSpan adds an extent, and joins it with its neighbours.
func (t *Tree) mapSpan(ino uint64, p Span) {
	if x, ok := t.extents.get(extentKey{ino, p.File + p.Len}); ok && x.vol == p.Vol+p.Len {
		t.dropExtent(ino, p.File+p.Len)
		p.Len += x.len
	}
	if k, x, ok := t.extents.floor(extentKey{ino, p.File}); ok && k.ino == ino && k.off+x.len == p.File && x.vol+x.len == p.Vol {
		t.dropExtent(ino, k.off)
		p.File, p.Vol, p.Len = k.off, x.vol, p.Len+x.len
	}
	t.extents.set(t.by, extentKey{ino, p.File}, extent{p.Vol, p.Len})
	t.meta += metaExtent
}

func (t *Tree) dropExtent(ino uint64, off int64) {
	t.extents.delete(t.by, extentKey{ino, off})
	t.meta -= metaExtent
}

// freeTail frees what a file has at and behind off, a multiple of Block, in at most n extents, from its end. It tells whether
// that was all.
func (t *Tree) freeTail(ino uint64, off int64, n int64) bool {
	node, _ := t.Inode(ino)
	for done := int64(0); ; done++ {
		k, x, ok := t.extents.floor(extentKey{ino, MaxFile})
		if !ok || k.ino != ino || k.off+x.len <= off {
			t.putInode(ino, node)
			return true
		}
		if done == n {
			t.putInode(ino, node)
			return false
		}
		keep := max(off-k.off, 0)
		t.freed.add(t.by, x.vol+keep, x.len-keep)
		node.Used -= x.len - keep
		if keep > 0 {
			t.extents.set(t.by, k, extent{x.vol, keep})
		} else {
			t.dropExtent(ino, k.off)
		}
	}
}

func (t *Tree) cut(o *Op, r *Result) {
	n, ok := t.Inode(o.Ino)
	if !ok || o.Size < 1 {
		r.Status = Stale
		return
	}
	r.Freed = n.Used > 0
	if n.Nlink == 0 {
		if t.freeTail(o.Ino, 0, o.Size) {
			t.orphans.delete(t.by, number(o.Ino))
			t.meta -= 8
			t.forget(o.Ino)
		}
		return
	}
	if n.Type != Regular || o.Aux > MaxFile {
		r.Status = Inval
		return
	}
	at := roundUp(int64(o.Aux))
	all := t.freeTail(o.Ino, at, o.Size)
	n, _ = t.Inode(o.Ino)
	if all {
		n.Size = min(n.Size, int64(o.Aux))
	} else {
		n.Size = min(n.Size, t.MappedEnd(o.Ino))
	}
	t.putInode(o.Ino, n)
}

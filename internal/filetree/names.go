package filetree

import "pmsapp/internal/rangelock"

func (t *Tree) create(o *Op, r *Result) {
	d, s := t.dir(o.Dir, o.Name)
	if s != OK {
		r.Status = s
		return
	}
	e, exists := t.find(o.Dir, o.Name)
	set := o.Set
	switch {
	case exists:
		t.createOver(o, e, d, r)
		return
	case o.Type < Regular || o.Type > FIFO || set.Mode > 0o7777 || len(o.Name2) > MaxTarget ||
		o.Type == Symlink && o.Name2 == "" || set.Fields&SetSize != 0 && (set.Size < 0 || o.Type != Regular):
		r.Status = Inval
		return
	case set.Size > MaxFile:
		r.Status = FBig
		return
	case o.Type == Directory && d.Nlink >= MaxLinks:
		r.Status = MLink
		return
	case e.Cookie == 0:
		r.Status = NoSpace
		return
	}
	now := t.now(o)
	ino := t.next
	t.next++
	n := Inode{Type: o.Type, Mode: set.Mode, Gen: t.gen, UID: set.UID, GID: set.GID, Nlink: 1, Atime: now, Mtime: now, Ctime: now,
		Aux: o.Aux}
	if set.Fields&SetAtime != 0 {
		n.Atime = set.Atime
	}
	if set.Fields&SetMtime != 0 {
		n.Mtime = set.Mtime
	}
	links := 0
	switch o.Type {
	case Directory:
		n.Nlink, n.Aux, links = 2, o.Dir, 1
	case Symlink:
		n.Size, n.Aux = int64(len(o.Name2)), 0
		t.texts.set(t.by, number(ino), o.Name2)
		t.meta += int64(len(o.Name2)) + 8
	case Regular:
		if set.Fields&SetSize != 0 {
			n.Size = set.Size
		}
	}
	t.putInode(ino, n)
	t.putEntry(o.Dir, e.Cookie, o.Name, ino)
	t.touchDir(&r.Dirs[0], o.Dir, d, 1, links, now)
	r.Ino, r.File = ino, Change{Ino: ino, After: n}
}

// createOver is Create where the name exists.
func (t *Tree) createOver(o *Op, e Entry, d Inode, r *Result) {
	n, _ := t.Inode(e.Ino)
	switch {
	case o.Type != Regular || n.Type != Regular || o.How == Guarded || o.How > Exclusive:
		r.Status = Exist
		return
	case o.How == Exclusive && (n.Aux != o.Aux || o.Aux == 0):
		r.Status = Exist
		return
	case o.How == Unchecked && o.Set.Fields&SetSize != 0 && o.Ino != e.Ino:
		r.Status = Again
		return
	case o.How == Unchecked && o.Set.Fields&SetSize != 0:
		resize := Op{Kind: SetAttr, Now: o.Now, Ino: e.Ino, Set: Set{Fields: SetSize, Size: o.Set.Size}}
		if t.setAttr(&resize, r); r.Status != OK {
			return
		}
	default:
		r.File = Change{e.Ino, n, n}
	}
	r.Ino = e.Ino
	r.Dirs[0] = Change{o.Dir, d, d}
}

func (t *Tree) link(o *Op, r *Result) {
	d, s := t.dir(o.Dir, o.Name)
	if s != OK {
		r.Status = s
		return
	}
	n, s := t.live(o.Ino)
	e, exists := t.find(o.Dir, o.Name)
	switch {
	case s != OK:
		r.Status = s
	case n.Type == Directory:
		r.Status = IsDir
	case exists:
		r.Status = Exist
	case n.Nlink >= MaxLinks:
		r.Status = MLink
	case e.Cookie == 0:
		r.Status = NoSpace
	}
	if r.Status != OK {
		return
	}
	now := t.now(o)
	r.File = Change{Ino: o.Ino, Before: n}
	n.Nlink++
	n.Ctime = now
	r.File.After = n
	t.putInode(o.Ino, n)
	t.putEntry(o.Dir, e.Cookie, o.Name, o.Ino)
	t.touchDir(&r.Dirs[0], o.Dir, d, 1, 0, now)
}

// moved tells whether a name is not what an op wants it to be: 0 is anything, Absent nothing.
func moved(want uint64, e Entry, exists bool) bool {
	switch {
	case want == 0:
		return false
	case !exists:
		return want != Absent
	}
	return want != e.Ino
}

func (t *Tree) remove(o *Op, r *Result) {
	d, s := t.dir(o.Dir, o.Name)
	if s != OK {
		r.Status = s
		return
	}
	e, exists := t.find(o.Dir, o.Name)
	switch {
	case moved(o.Ino, e, exists):
		r.Status = Again
	case !exists:
		r.Status = NoEnt
	}
	if r.Status != OK {
		return
	}
	n, _ := t.Inode(e.Ino)
	links := 0
	switch isDir := n.Type == Directory; {
	case o.Kind == Remove && isDir:
		r.Status = IsDir
	case o.Kind == Rmdir && !isDir:
		r.Status = NotDir
	case isDir && n.Size != 0:
		r.Status = NotEmpty
	case isDir:
		links = -1
	}
	if r.Status != OK {
		return
	}
	now := t.now(o)
	t.dropEntry(o.Dir, e)
	t.touchDir(&r.Dirs[0], o.Dir, d, -1, links, now)
	t.unlink(e.Ino, n, now, r)
	if after, _ := t.Inode(e.Ino); after.Nlink > 0 {
		r.File = Change{e.Ino, n, after}
	}
}

// unlink takes a name away from a file. One without names is gone if it has few extents, else an orphan.
func (t *Tree) unlink(ino uint64, n Inode, now int64, r *Result) {
	n.Nlink--
	if n.Type == Directory {
		n.Nlink = 0
	}
	n.Ctime = now
	t.putInode(ino, n)
	if n.Nlink > 0 {
		return
	}
	r.Freed = r.Freed || n.Used > 0
	t.unmark(ino)
	t.setLocks(ino, &rangelock.Table{})
	if t.freeTail(ino, 0, fewExtents) {
		t.forget(ino)
	} else {
		t.orphans.set(t.by, number(ino), struct{}{})
		t.meta += 8
	}
}

// fewExtents are freed together with the last name.
const fewExtents = 8

// forget removes an inode that has no extents.
func (t *Tree) forget(ino uint64) {
	t.inodes.delete(t.by, number(ino))
	t.meta -= metaInode
	if s, ok := t.texts.get(number(ino)); ok {
		t.meta -= int64(len(s)) + 8
		t.texts.delete(t.by, number(ino))
	}
}

func (t *Tree) rename(o *Op, r *Result) {
	from, s := t.dir(o.Dir, o.Name)
	if s != OK {
		r.Status = s
		return
	}
	to, s := t.dir(o.Dir2, o.Name2)
	if s != OK {
		r.Status = s
		return
	}
	e, exists := t.find(o.Dir, o.Name)
	over, replaces := t.find(o.Dir2, o.Name2)
	switch {
	case moved(o.Ino, e, exists), moved(o.Aux, over, replaces):
		r.Status = Again
	case !exists:
		r.Status = NoEnt
	}
	if r.Status != OK {
		return
	}
	n, _ := t.Inode(e.Ino)
	old, _ := t.Inode(over.Ino)
	if replaces && over.Ino == e.Ino { // two names of one file
		r.Dirs = [2]Change{{o.Dir, from, from}, {o.Dir2, to, to}}
		return
	}
	isDir := n.Type == Directory
	switch {
	case isDir && !t.mayMove(e.Ino, o.Dir2):
		r.Status = Inval
	case replaces && isDir && old.Type != Directory:
		r.Status = NotDir
	case replaces && !isDir && old.Type == Directory:
		r.Status = IsDir
	case replaces && isDir && old.Size != 0:
		r.Status = NotEmpty
	case !replaces && over.Cookie == 0:
		r.Status = NoSpace
	case isDir && !replaces && o.Dir != o.Dir2 && to.Nlink >= MaxLinks:
		r.Status = MLink
	}
	if r.Status != OK {
		return
	}
	now := t.now(o)
	t.dropEntry(o.Dir, e)
	links := 0
	if isDir {
		links = 1
		n.Aux = o.Dir2
	}
	n.Ctime = now
	t.putInode(e.Ino, n)
	t.touchDir(&r.Dirs[0], o.Dir, from, -1, -links, now)
	if o.Dir == o.Dir2 {
		to = r.Dirs[0].After
	}
	added := int64(1)
	if replaces {
		added = 0
		t.dropEntry(o.Dir2, over)
		if isDir {
			links = 0
		}
		t.unlink(over.Ino, old, now, r)
	} else if o.Dir == o.Dir2 {
		over, _ = t.find(o.Dir2, o.Name2) // the old name's place may be the one
	}
	t.putEntry(o.Dir2, over.Cookie, o.Name2, e.Ino)
	t.touchDir(&r.Dirs[1], o.Dir2, to, added, links, now)
	if o.Dir == o.Dir2 {
		r.Dirs[1].Before = from
		r.Dirs[0].After = r.Dirs[1].After
	}
	r.File = Change{Ino: e.Ino, After: n}
}

// mayMove tells whether a directory may be moved into dir: dir is neither it nor below it.
func (t *Tree) mayMove(moved, dir uint64) bool {
	for range MaxDepth {
		if dir == moved {
			return false
		}
		if dir == Root {
			return true
		}
		n, ok := t.Inode(dir)
		if !ok {
			return false
		}
		dir = n.Aux
	}
	return false
}

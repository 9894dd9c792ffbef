package filetree

import "slices"

// model is a file tree as one would write it down without a thought for its cost: maps, files block by block.
type model struct {
	size        int64
	next        uint64
	clock, ceil int64
	files       map[uint64]*modelFile
	use         []byte // of each block of the volume: 'f'ree, 'a'head, 'd' for freed, 'u'sed
	replies     map[Key]Reply
	order       []Key
}

type modelFile struct {
	Inode
	text   string
	names  map[string]uint64
	blocks map[int64]int64 // of the file -> of the volume
	marked bool
}

func newModel(size, now int64) *model {
	m := &model{size: size, next: 2, clock: now, files: map[uint64]*modelFile{}, replies: map[Key]Reply{}}
	m.files[1] = &modelFile{Inode: Inode{Type: Directory, Mode: 0o755, Gen: 7, Nlink: 2, Atime: now, Mtime: now, Ctime: now, Aux: 1},
		names: map[string]uint64{}}
	for range size / Block {
		m.use = append(m.use, 'f')
	}
	return m
}

func (m *model) apply(b Batch) (all []Result) {
	m.ceil = max(m.ceil, b.Ceil)
	for i := range b.Ops {
		o := &b.Ops[i]
		if r, ok := m.replies[o.Reply]; ok && o.Reply != (Key{}) {
			all = append(all, Result{Status: r.Status, Ino: r.Ino, Replay: true})
			continue
		}
		s, ino := m.do(o)
		if o.Reply != (Key{}) && s != Again {
			m.replies[o.Reply] = Reply{s, ino}
			m.order = append(m.order, o.Reply)
		}
		all = append(all, Result{Status: s, Ino: ino})
	}
	return all
}

func (m *model) live(ino uint64) *modelFile {
	if f := m.files[ino]; f != nil && f.Nlink > 0 {
		return f
	}
	return nil
}

func (m *model) tick(o *Op) int64 {
	m.clock = max(m.clock+1, o.Now)
	return m.clock
}

func (m *model) do(o *Op) (Status, uint64) {
	switch o.Kind {
	case Create:
		return m.create(o)
	case Link:
		d, f := m.live(o.Dir), m.live(o.Ino)
		switch {
		case d == nil:
			return Stale, 0
		case d.Type != Directory:
			return NotDir, 0
		case f == nil:
			return Stale, 0
		case f.Type == Directory:
			return IsDir, 0
		case d.names[o.Name] != 0:
			return Exist, 0
		}
		now := m.tick(o)
		d.names[o.Name] = o.Ino
		f.Nlink++
		f.Ctime, d.Mtime, d.Ctime = now, now, now
	case Remove, Rmdir:
		d := m.live(o.Dir)
		switch {
		case d == nil:
			return Stale, 0
		case d.Type != Directory:
			return NotDir, 0
		case unlike(o.Ino, d.names[o.Name]):
			return Again, 0
		case d.names[o.Name] == 0:
			return NoEnt, 0
		}
		f := m.files[d.names[o.Name]]
		switch {
		case o.Kind == Remove && f.Type == Directory:
			return IsDir, 0
		case o.Kind == Rmdir && f.Type != Directory:
			return NotDir, 0
		case len(f.names) > 0:
			return NotEmpty, 0
		}
		m.drop(d, o.Name, m.tick(o))
	case Rename:
		return m.rename(o), 0
	case SetAttr:
		return m.setAttr(o), 0
	case Write:
		f := m.live(o.Ino)
		switch {
		case f == nil:
			return Stale, 0
		case f.Type != Regular:
			return Inval, 0
		}
		seen := map[int64]bool{}
		for _, p := range o.Spans {
			for i := range p.Len / Block {
				_, taken := f.blocks[p.File/Block+i]
				if v := p.Vol/Block + i; v >= int64(len(m.use)) || m.use[v] != 'a' || taken || seen[v] {
					return Inval, 0
				}
				seen[p.Vol/Block+i] = true
			}
		}
		now := m.tick(o)
		for _, p := range o.Spans {
			for i := range p.Len / Block {
				f.blocks[p.File/Block+i] = p.Vol/Block + i
				m.use[p.Vol/Block+i] = 'u'
			}
		}
		f.Size = max(f.Size, o.Size)
		f.Mtime, f.Ctime = now, now
	case Mark:
		f := m.live(o.Ino)
		switch {
		case f == nil:
			return Stale, 0
		case f.Type != Regular:
			return Inval, 0
		case !f.marked:
			f.marked = true
			f.Ctime = m.tick(o)
			f.Mtime = f.Ctime
		}
	case Settle:
		f := m.live(o.Ino)
		if f == nil || !f.marked {
			return Stale, 0
		}
		m.clock = max(m.clock, o.Set.Ctime)
		f.Mtime, f.Ctime, f.marked = max(f.Mtime, o.Set.Mtime), max(f.Ctime, o.Set.Ctime), false
	case Ahead:
		return m.move(o, 'f', 'a'), 0
	case Back:
		return m.move(o, 'a', 'd'), 0
	case Zeroed:
		return m.move(o, 'd', 'f'), 0
	case Open:
		m.clock = max(m.clock, m.ceil)
		now := m.tick(o)
		for i, u := range m.use {
			if u == 'a' {
				m.use[i] = 'd'
			}
		}
		for _, f := range m.files {
			if f.marked {
				f.marked, f.Mtime, f.Ctime = false, now, now
			}
		}
	case Resize:
		if o.Size < m.size {
			return Inval, 0
		}
		m.tick(o)
		for m.size = o.Size; int64(len(m.use)) < m.size/Block; {
			m.use = append(m.use, 'f')
		}
	}
	return OK, 0
}

func (m *model) create(o *Op) (Status, uint64) {
	d := m.live(o.Dir)
	switch {
	case d == nil:
		return Stale, 0
	case d.Type != Directory:
		return NotDir, 0
	}
	if ino := d.names[o.Name]; ino != 0 {
		f := m.files[ino]
		switch {
		case o.Type != Regular || f.Type != Regular || o.How == Guarded || o.How == Exclusive && (f.Aux != o.Aux || o.Aux == 0):
			return Exist, 0
		case o.How == Unchecked && o.Set.Fields&SetSize != 0 && o.Ino != ino:
			return Again, 0
		case o.How == Unchecked && o.Set.Fields&SetSize != 0:
			return m.setAttr(&Op{Now: o.Now, Ino: ino, Set: Set{Fields: SetSize, Size: o.Set.Size}}), ino
		}
		return OK, ino
	}
	if o.Type == Symlink && o.Name2 == "" || o.Type != Regular && o.Set.Fields&SetSize != 0 {
		return Inval, 0
	}
	now := m.tick(o)
	f := &modelFile{Inode: Inode{Type: o.Type, Mode: o.Set.Mode, Gen: 7, UID: o.Set.UID, GID: o.Set.GID, Nlink: 1, Atime: now, Mtime: now, Ctime: now, Aux: o.Aux}}
	switch o.Type {
	case Directory:
		f.Aux, f.names, f.Nlink = o.Dir, map[string]uint64{}, 2
		d.Nlink++
	case Symlink:
		f.Aux, f.text, f.Size = 0, o.Name2, int64(len(o.Name2))
	case Regular:
		f.blocks = map[int64]int64{}
		if o.Set.Fields&SetSize != 0 {
			f.Size = o.Set.Size
		}
	}
	ino := m.next
	m.next++
	m.files[ino] = f
	d.names[o.Name] = ino
	d.Mtime, d.Ctime = now, now
	return OK, ino
}

func (m *model) setAttr(o *Op) Status {
	f := m.live(o.Ino)
	size := o.Set.Fields&SetSize != 0
	switch {
	case f == nil:
		return Stale
	case o.Guarded && o.Guard != f.Ctime:
		return NotSync
	case size && f.Type == Directory:
		return IsDir
	case size && f.Type != Regular:
		return Inval
	}
	now := m.tick(o)
	if o.Set.Fields&SetMode != 0 {
		f.Mode = o.Set.Mode
	}
	if o.Set.Fields&SetUID != 0 {
		f.UID = o.Set.UID
	}
	if o.Set.Fields&SetGID != 0 {
		f.GID = o.Set.GID
	}
	if size {
		f.Size, f.Mtime = o.Set.Size, now
		m.cut(f, o.Set.Size)
	}
	if o.Set.Fields&SetAtime != 0 {
		f.Atime = o.Set.Atime
	}
	if o.Set.Fields&AtimeNow != 0 {
		f.Atime = now
	}
	if o.Set.Fields&SetMtime != 0 {
		f.Mtime = o.Set.Mtime
	}
	if o.Set.Fields&MtimeNow != 0 {
		f.Mtime = now
	}
	if o.Set.Fields&(SetSize|SetMtime|MtimeNow) != 0 {
		f.marked = false
	}
	f.Ctime = now
	return OK
}

// cut frees the blocks from a byte on.
func (m *model) cut(f *modelFile, from int64) {
	for b, v := range f.blocks {
		if b*Block >= from {
			m.use[v] = 'd'
			delete(f.blocks, b)
		}
	}
}

// drop takes a name away.
func (m *model) drop(d *modelFile, name string, now int64) {
	ino := d.names[name]
	f := m.files[ino]
	delete(d.names, name)
	d.Mtime, d.Ctime, f.Ctime = now, now, now
	f.Nlink--
	if f.Type == Directory {
		f.Nlink = 0
		d.Nlink--
	}
	if f.Nlink == 0 {
		m.cut(f, 0)
		delete(m.files, ino)
	}
}

// unlike tells whether a name that must be a file is another, or none, which is 0.
func unlike(must, is uint64) bool {
	if must == Absent {
		return is != 0
	}
	return must != 0 && must != is
}

func (m *model) rename(o *Op) Status {
	from, to := m.live(o.Dir), m.live(o.Dir2)
	for _, d := range []*modelFile{from, to} {
		switch {
		case d == nil:
			return Stale
		case d.Type != Directory:
			return NotDir
		}
	}
	ino := from.names[o.Name]
	switch {
	case unlike(o.Ino, ino) || unlike(o.Aux, to.names[o.Name2]):
		return Again
	case ino == 0:
		return NoEnt
	}
	f, over := m.files[ino], m.files[to.names[o.Name2]]
	if f == over {
		return OK
	}
	if f.Type == Directory {
		for at := o.Dir2; ; at = m.files[at].Aux {
			if at == ino {
				return Inval
			}
			if at == 1 {
				break
			}
		}
	}
	switch {
	case over == nil:
	case f.Type == Directory && over.Type != Directory:
		return NotDir
	case f.Type != Directory && over.Type == Directory:
		return IsDir
	case len(over.names) > 0:
		return NotEmpty
	}
	now := m.tick(o)
	if over != nil {
		m.drop(to, o.Name2, now)
	}
	delete(from.names, o.Name)
	to.names[o.Name2] = ino
	if f.Type == Directory {
		from.Nlink--
		to.Nlink++
		f.Aux = o.Dir2
	}
	for _, x := range []*modelFile{from, to} {
		x.Mtime, x.Ctime = now, now
	}
	f.Ctime = now
	return OK
}

func (m *model) move(o *Op, from, to byte) Status {
	next := slices.Clone(m.use)
	for _, p := range o.Spans {
		for i := range p.Len / Block {
			v := p.Vol/Block + i
			if v >= int64(len(next)) || next[v] != from {
				return Inval
			}
			next[v] = to
		}
	}
	m.use = next
	m.tick(o)
	return OK
}

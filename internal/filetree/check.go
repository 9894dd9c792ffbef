package filetree

import (
	"errors"
	"fmt"
	"slices"
)

// errTree is what Check's errors are.
var errTree = errors.New("filetree: the tree contradicts itself")

func bad(format string, a ...any) error {
	return fmt.Errorf("%w: %s", errTree, fmt.Sprintf(format, a...))
}

// Check tells whether the tree is whole: every byte of the volume is free, ahead, freed or one file's; the counts of links,
// entries and bytes are those of what they count; every file is in a directory or an orphan; every directory hangs from the
// root. It looks at everything, for seconds where there are a million files.
func (t *Tree) Check() error {
	if t.gen == 0 || t.next <= Root || t.size < 0 || t.size%Block != 0 {
		return bad("size %d, generation %d, next inode %d", t.size, t.gen, t.next)
	}
	root, ok := t.Inode(Root)
	if !ok || root.Type != Directory || root.Nlink < 2 || root.Aux != Root {
		return bad("its root is %+v", root)
	}
	if err := errors.Join(t.checkSpace(), t.checkNames(), t.checkLocks()); err != nil {
		return err
	}
	if t.order.n != t.replies.n || t.order.n > MaxReplies {
		return bad("%d replies, %d in order", t.replies.n, t.order.n)
	}
	for seq, k := range t.order.from(0) {
		if r, ok := t.replies.get(k); !ok || r.seq != uint64(seq) || r.seq > t.seq || k == (Key{}) {
			return bad("reply %d", seq)
		}
	}
	return nil
}

// checkSpace adds up the uses of the volume.
func (t *Tree) checkSpace() error {
	var all []Span
	for _, s := range []*space{&t.free, &t.ahead, &t.freed} {
		sum := int64(0)
		for off, n := range s.m.from(0) {
			all = append(all, Span{Vol: int64(off), Len: n})
			sum += n
		}
		if sum != s.sum {
			return bad("%d bytes of space in the sum, %d in spans", s.sum, sum)
		}
	}
	used := map[uint64]int64{}
	var last extentKey
	var end int64
	for k, x := range t.extents.from(extentKey{}) {
		n, ok := t.Inode(k.ino)
		switch {
		case !ok || n.Type != Regular:
			return bad("an extent of %d, which is no file", k.ino)
		case k.off < 0 || k.off%Block != 0 || k.off > MaxFile-x.len:
			return bad("an extent of %d at %d", k.ino, k.off)
		case k.ino == last.ino && k.off < end:
			return bad("extents of %d overlap at %d", k.ino, k.off)
		}
		last, end = k, k.off+x.len
		used[k.ino] += x.len
		all = append(all, Span{Vol: x.vol, Len: x.len})
	}
	slices.SortFunc(all, func(a, b Span) int { return number(a.Vol).compare(number(b.Vol)) })
	at := int64(0)
	for _, s := range all {
		if s.Vol != at || s.Len <= 0 || s.Len%Block != 0 || s.Len > t.size-at {
			return bad("the volume at %d: a span of %d bytes at %d", at, s.Len, s.Vol)
		}
		at += s.Len
	}
	if at != t.size {
		return bad("%d bytes of the volume are accounted for, of %d", at, t.size)
	}
	for ino, n := range t.inodes.from(0) {
		if n.Used != used[uint64(ino)] {
			return bad("inode %d: %d bytes used, %d in extents", ino, n.Used, used[uint64(ino)])
		}
	}
	return nil
}

// checkNames counts links and entries.
func (t *Tree) checkNames() error {
	links, children, subdirs := map[uint64]uint32{}, map[uint64]int64{}, map[uint64]uint32{}
	for k, d := range t.entries.from(entryKey{}) {
		n, ok := t.Inode(d.ino)
		dir, isDir := t.Inode(k.dir)
		base := cookieOf(d.name)
		if !ok || !isDir || dir.Type != Directory || dir.Nlink == 0 || !nameOK(d.name) || k.cookie < base || k.cookie >= base+slots {
			return bad("entry %q of %d", d.name, k.dir)
		}
		if e, ok := t.find(k.dir, d.name); !ok || e.Cookie != k.cookie {
			return bad("%q is twice in %d", d.name, k.dir)
		}
		links[d.ino]++
		children[k.dir]++
		if n.Type == Directory {
			subdirs[k.dir]++
			if n.Aux != k.dir || d.ino == Root || links[d.ino] > 1 {
				return bad("directory %d is in %d, its parent is %d", d.ino, k.dir, n.Aux)
			}
		}
	}
	rooted := map[uint64]bool{Root: true}
	for i, n := range t.inodes.from(0) {
		ino := uint64(i)
		_, orphan := t.orphans.get(i)
		_, text := t.texts.get(i)
		want := links[ino]
		if n.Type == Directory && (ino == Root || want == 1) {
			want = 2 + subdirs[ino]
		}
		switch {
		case ino == 0 || ino >= t.next || n.Gen == 0 || n.Type < Regular || n.Type > FIFO || n.Mode > 0o7777:
			return bad("inode %d: %+v", ino, n)
		case n.Nlink != want || orphan != (n.Nlink == 0) || n.Size < 0 || n.Type == Directory && n.Size != children[ino]:
			return bad("inode %d has %d links, %d entries: %+v", ino, want, children[ino], n)
		case text != (n.Type == Symlink) || n.Type == Regular && n.Size > MaxFile:
			return bad("inode %d: %+v", ino, n)
		}
		if n.Type == Directory && !t.hangs(ino, rooted) {
			return bad("directory %d does not hang from the root", ino)
		}
	}
	for _, m := range []*bmap[number, struct{}]{&t.orphans, &t.marks} {
		for ino := range m.from(0) {
			if n, ok := t.Inode(uint64(ino)); !ok || n.Type != Regular {
				return bad("%d is an orphan or marked, and no file", ino)
			}
		}
	}
	for ino := range t.texts.from(0) {
		if _, ok := t.inodes.get(ino); !ok {
			return bad("the text of %d, which does not exist", ino)
		}
	}
	return nil
}

// hangs tells whether a directory hangs from one in rooted, and adds those on the way.
func (t *Tree) hangs(ino uint64, rooted map[uint64]bool) bool {
	var way []uint64
	for at := ino; !rooted[at]; {
		n, ok := t.Inode(at)
		if !ok || n.Type != Directory || len(way) > t.inodes.n {
			return false
		}
		way = append(way, at)
		at = n.Aux
	}
	for _, d := range way {
		rooted[d] = true
	}
	return true
}

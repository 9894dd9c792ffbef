package filetree

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

const testSize = 200 * Block

// compare holds a tree against the model.
func compare(t *testing.T, tree *Tree, m *model) {
	t.Helper()
	if err := tree.Check(); err != nil {
		t.Fatal(err)
	}
	live := 0
	for i, n := range tree.inodes.from(0) {
		ino := uint64(i)
		if n.Nlink == 0 {
			continue
		}
		live++
		f := m.files[ino]
		if f == nil {
			t.Fatalf("inode %d is too many", ino)
		}
		want := f.Inode
		want.Used = int64(len(f.blocks)) * Block
		if want.Type == Directory {
			want.Size = int64(len(f.names))
		}
		if n != want || tree.Target(ino) != f.text || tree.Marked(ino) != f.marked {
			t.Fatalf("inode %d:\n%+v\n%+v", ino, n, want)
		}
		blocks := map[int64]int64{}
		for _, x := range tree.Extents(ino, 0, MaxFile, 1<<30) {
			for b := range x.Len / Block {
				blocks[x.File/Block+b] = x.Vol/Block + b
			}
		}
		if len(blocks)+len(f.blocks) > 0 && !maps.Equal(blocks, f.blocks) {
			t.Fatalf("inode %d: %v, not %v", ino, blocks, f.blocks)
		}
		names := map[string]uint64{}
		cookie := uint64(0)
		for {
			some := tree.Entries(ino, cookie, 3)
			for _, e := range some {
				if e.Cookie <= cookie {
					t.Fatal("cookies go back")
				}
				names[e.Name], cookie = e.Ino, e.Cookie
			}
			if len(some) < 3 {
				break
			}
		}
		if len(names)+len(f.names) > 0 && !maps.Equal(names, f.names) {
			t.Fatalf("directory %d: %v, not %v", ino, names, f.names)
		}
	}
	if live != len(m.files) {
		t.Fatalf("%d files, not %d", live, len(m.files))
	}
	use := bytes.Repeat([]byte{'u'}, int(tree.Size()/Block))
	for kind, s := range map[byte]*space{'f': &tree.free, 'a': &tree.ahead, 'd': &tree.freed} {
		for off, n := range s.m.from(0) {
			for b := range n / Block {
				use[int64(off)/Block+b] = kind
			}
		}
	}
	for _, ino := range tree.Orphans(1 << 20) { // the model frees at once
		for _, x := range tree.Extents(ino, 0, MaxFile, 1<<30) {
			for b := range x.Len / Block {
				use[x.Vol/Block+b] = 'd'
			}
		}
	}
	if !bytes.Equal(use, m.use) {
		t.Fatalf("space:\n%s\n%s", use, m.use)
	}
}

// random makes ops that often make sense.
type random struct {
	*rand.Rand
	now  int64
	tree *Tree
	keys []Key
}

func (r *random) ino(types ...Type) uint64 {
	var all []uint64
	for ino, n := range r.tree.inodes.from(0) {
		if slices.Contains(types, n.Type) {
			all = append(all, uint64(ino))
		}
	}
	if len(all) == 0 || r.IntN(30) == 0 {
		return r.Uint64N(r.tree.next + 1)
	}
	return all[r.IntN(len(all))]
}

func (r *random) name() string { return string(rune('a' + r.IntN(6))) }

// spans takes some of a set of space.
func (r *random) spans(s *space) (all []Span) {
	for range 1 + r.IntN(3) {
		off, n := r.Int64N(testSize/Block), 1+r.Int64N(4)
		if r.IntN(10) > 0 {
			if list := s.list(off*Block, 1); len(list) > 0 {
				off, n = list[0].Vol/Block, min(n, list[0].Len/Block)
			}
		}
		all = append(all, Span{Vol: off * Block, Len: n * Block})
	}
	return all
}

func (r *random) op() Op {
	r.now += r.Int64N(100) - 20 // clocks go back
	o := Op{Kind: Kind(1 + r.IntN(int(Resize))), Now: max(r.now, 0), Ino: r.ino(Regular, Symlink), Dir: r.ino(Directory), Dir2: r.ino(Directory), Name: r.name(), Name2: r.name()}
	if r.IntN(8) == 0 {
		o.Ino = r.ino(Directory, Regular, FIFO)
	}
	o.Set = Set{Fields: Fields(r.IntN(256)), Mode: uint16(r.IntN(0o10000)), UID: r.Uint32N(9), GID: r.Uint32N(9), Size: r.Int64N(20 * Block), Atime: r.Int64N(1000), Mtime: r.Int64N(1000)}
	switch o.Kind {
	case Create:
		o.How, o.Type, o.Aux = How(r.IntN(3)), []Type{Regular, Regular, Directory, Directory, Symlink, FIFO}[r.IntN(6)], r.Uint64N(3)
		if r.IntN(2) == 0 {
			o.Set.Fields &^= SetSize
		}
		o.Set.Fields &^= SetAtime | SetMtime
		if e, ok := r.tree.Lookup(o.Dir, o.Name); ok && r.IntN(4) > 0 {
			o.Ino = e.Ino
		}
	case SetAttr:
		if n, _ := r.tree.Inode(o.Ino); r.IntN(3) == 0 {
			o.Guarded, o.Guard = true, n.Ctime+r.Int64N(2)
		}
	case Write:
		off := r.Int64N(10)
		for _, s := range r.spans(&r.tree.ahead) {
			o.Spans = append(o.Spans, Span{off * Block, s.Vol, s.Len})
			off += s.Len/Block + r.Int64N(3)
		}
		o.Size = r.Int64N(20 * Block)
	case Settle:
		o.Set.Mtime, o.Set.Ctime = r.now&0xffff, r.now&0xffff
	case Ahead:
		o.Spans = r.spans(&r.tree.free)
	case Back:
		o.Spans = r.spans(&r.tree.ahead)
	case Zeroed:
		o.Spans = r.spans(&r.tree.freed)
	case Open:
		if r.IntN(10) > 0 {
			o.Kind = Create
			o.Type = Regular
			o.Set.Fields &^= SetAtime | SetMtime
		}
	case Resize:
		o.Size = r.tree.size
	case Cut:
		o.Ino, o.Size = 0, 3
		if orphans := r.tree.Orphans(9); len(orphans) > 0 {
			o.Ino = orphans[r.IntN(len(orphans))]
		} else {
			o.Kind = Mark
			o.Ino = r.ino(Regular)
		}
	}
	if o.Kind == Remove || o.Kind == Rmdir || o.Kind == Rename { // mostly what there is, or anything
		for _, must := range []struct {
			is  *uint64
			dir uint64
			of  string
		}{{&o.Ino, o.Dir, o.Name}, {&o.Aux, o.Dir2, o.Name2}} {
			e, found := r.tree.Lookup(must.dir, must.of)
			switch n := r.IntN(10); {
			case n < 5:
				*must.is = 0
			case n < 7 && found:
				*must.is = e.Ino
			case n < 9:
				*must.is = Absent
			}
		}
	}
	if o.Kind <= SetAttr && r.IntN(2) == 0 {
		k := Key{1: byte(r.IntN(256)), 2: byte(r.IntN(256)), 3: 1}
		if len(r.keys) > 0 && r.IntN(4) == 0 {
			k = r.keys[r.IntN(len(r.keys))]
		}
		o.Reply, r.keys = k, append(r.keys, k)
	}
	return o
}

// reload saves and loads a tree.
func reload(t *testing.T, tree *Tree) *Tree {
	t.Helper()
	var b, again bytes.Buffer
	if err := tree.Save(&b); err != nil {
		t.Fatal(err)
	}
	if int64(b.Len()) > tree.Meta()+1<<12+32*int64(tree.free.m.n+tree.ahead.m.n+tree.freed.m.n) {
		t.Fatalf("%d bytes, Meta says %d", b.Len(), tree.Meta())
	}
	got, err := Load(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Save(&again); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) || got.Meta() != tree.Meta() {
		t.Fatal("another tree came back", err, got.Meta(), tree.Meta())
	}
	return got
}

func TestAgainstModel(t *testing.T) {
	done := map[string]int{}
	for seed := range uint64(25) {
		r := &random{Rand: rand.New(rand.NewPCG(seed, 2)), now: 1000, tree: New(testSize, 7, 1000)}
		m := newModel(testSize, 1000)
		var old *Tree
		var before []byte
		for step := range 700 {
			var b Batch
			for range 1 + r.IntN(4) {
				b.Ops = append(b.Ops, r.op())
			}
			if r.IntN(20) == 0 {
				b.Ceil = r.now + r.Int64N(200)
			}
			d, err := DecodeBatch(b.Encode())
			if err != nil {
				t.Fatal(err)
			}
			next, got := r.tree.Apply(d, MaxMeta)
			want := m.apply(b)
			for i := range got {
				o := &b.Ops[i]
				if o.Kind == Cut { // the model has no orphans
					continue
				}
				if got[i].Status != want[i].Status || got[i].Ino != want[i].Ino || got[i].Replay != want[i].Replay {
					t.Fatalf("seed %d, step %d: %+v\n%+v\n%+v", seed, step, *o, got[i], want[i])
				}
				done[fmt.Sprint(o.Kind, got[i].Status == OK)]++
			}
			r.tree = next
			if step%10 == 0 {
				compare(t, next, m)
				if old != nil {
					var after bytes.Buffer
					if old.Save(&after); !bytes.Equal(before, after.Bytes()) {
						t.Fatal("a tree that was kept has changed")
					}
				}
				if r.IntN(3) == 0 {
					r.tree = reload(t, next)
				}
				var save bytes.Buffer
				r.tree.Save(&save)
				old, before = r.tree, save.Bytes()
			}
		}
		compare(t, r.tree, m)
	}
	for k := Create; k <= Resize; k++ { // locks have a test of their own
		if k != Cut && (done[fmt.Sprint(k, true)] < 20 || k != Open && k != Resize && done[fmt.Sprint(k, false)] < 20) {
			t.Errorf("kind %d: %d times done, %d times refused", k, done[fmt.Sprint(k, true)], done[fmt.Sprint(k, false)])
		}
	}
}

package filetree

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// machine applies ops to a tree.
type machine struct {
	t *testing.T
	*Tree
}

func newMachine(t *testing.T, size int64) *machine { return &machine{t, New(size, 7, 1000)} }

func (m *machine) do(o Op) Result {
	m.t.Helper()
	r := m.try(o)
	if r.Status != OK {
		m.t.Fatalf("%+v: status %d", o, r.Status)
	}
	return r
}

func (m *machine) try(o Op) Result {
	m.t.Helper()
	next, r := m.Apply(Batch{Ops: []Op{o}}, MaxMeta)
	m.Tree = next
	return r[0]
}

func (m *machine) file(name string) uint64 {
	m.t.Helper()
	return m.do(Op{Kind: Create, Dir: Root, Name: name, Type: Regular}).Ino
}

func TestOrphansAndCuts(t *testing.T) {
	m := newMachine(t, 64*Block)
	a, b := m.file("a"), m.file("b")
	m.do(Op{Kind: Ahead, Spans: []Span{{Len: 60 * Block}}})
	for i := range int64(20) { // one block of a, one of b: no two of a file touch
		m.do(Op{Kind: Write, Ino: a, Size: (i + 1) * Block, Spans: []Span{{i * Block, 2 * i * Block, Block}}})
		m.do(Op{Kind: Write, Ino: b, Size: (i + 1) * Block, Spans: []Span{{i * Block, (2*i + 1) * Block, Block}}})
	}
	if r := m.do(Op{Kind: Remove, Dir: Root, Name: "a"}); !r.Freed {
		t.Fatal(r)
	}
	if s := m.try(Op{Kind: SetAttr, Ino: a}).Status; s != Stale {
		t.Fatal(s)
	}
	for i := 0; len(m.Orphans(9)) > 0; i++ {
		if err := m.Check(); err != nil || i > 3 {
			t.Fatal(i, err)
		}
		m.do(Op{Kind: Cut, Ino: a, Size: 4})
		m.Tree = reload(t, m.Tree)
	}
	if _, still := m.Inode(a); still {
		t.Fatal("the orphan is still there")
	}
	if _, _, freed := m.Space(); freed != 20*Block {
		t.Fatal(freed)
	}
	// A long file is cut from its end, in steps.
	m.do(Op{Kind: Cut, Ino: b, Aux: 3*Block + 1, Size: 10})
	if n, _ := m.Inode(b); n.Size != 10*Block || n.Used != 10*Block {
		t.Fatal(n)
	}
	m.do(Op{Kind: Cut, Ino: b, Aux: 3*Block + 1, Size: 10})
	if n, _ := m.Inode(b); n.Size != 3*Block+1 || n.Used != 4*Block {
		t.Fatal(n)
	}
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
}

func TestTimesNeverGoBack(t *testing.T) {
	m := newMachine(t, 1<<20)
	f, quiet := m.file("f"), m.file("quiet")
	created, _ := m.Inode(quiet)
	m.do(Op{Kind: Mark, Ino: f, Now: 5000})
	m.Tree, _ = m.Apply(Batch{Ceil: 9000}, MaxMeta)
	m.do(Op{Kind: Open, Now: 10}) // by a leader whose clock is behind
	if n, _ := m.Inode(f); n.Mtime <= 9000 || n.Ctime <= 9000 || m.Marks() != 0 {
		t.Fatal(n)
	}
	if n, _ := m.Inode(quiet); n != created {
		t.Fatal(n)
	}
	at := m.Clock()
	if r := m.do(Op{Kind: SetAttr, Ino: quiet, Now: 20}); r.File.After.Ctime <= at {
		t.Fatal(r.File, at)
	}
	// What was settled is not bumped, and a time that a client set is not either.
	m.do(Op{Kind: Mark, Ino: f})
	m.do(Op{Kind: Settle, Ino: f, Set: Set{Mtime: 20000, Ctime: 20000}})
	m.do(Op{Kind: Mark, Ino: quiet})
	m.do(Op{Kind: SetAttr, Ino: quiet, Set: Set{Fields: SetMtime, Mtime: 77}})
	m.do(Op{Kind: Open})
	a, _ := m.Inode(f)
	b, _ := m.Inode(quiet)
	if a.Mtime != 20000 || b.Mtime != 77 {
		t.Fatal(a.Mtime, b.Mtime)
	}
}

func TestRepliesAreBounded(t *testing.T) {
	m := newMachine(t, 1<<20)
	key := func(i int) Key { return Key{byte(i), byte(i >> 8), byte(i >> 16), 1} }
	first := m.do(Op{Kind: Create, Dir: Root, Name: "x", Type: Regular, How: Guarded, Reply: key(0)})
	if r := m.try(Op{Kind: Create, Dir: Root, Name: "x", Type: Regular, How: Guarded, Reply: key(0)}); r.Status != OK || !r.Replay || r.Ino != first.Ino {
		t.Fatal(r)
	}
	for i := 1; i <= MaxReplies; i++ {
		m.try(Op{Kind: Remove, Dir: Root, Name: "nothing", Reply: key(i)})
	}
	if _, ok := m.Replied(key(0)); ok || m.replies.n != MaxReplies || m.order.n != MaxReplies {
		t.Fatal(ok, m.replies.n, m.order.n)
	}
	if r, ok := m.Replied(key(1)); !ok || r.Status != NoEnt {
		t.Fatal(r, ok)
	}
	meta := m.Meta()
	m.try(Op{Kind: Remove, Dir: Root, Name: "nothing", Reply: key(0)})
	if m.Meta() != meta {
		t.Fatal("evicting leaks")
	}
}

func TestFullCatalog(t *testing.T) {
	m := newMachine(t, 1<<20)
	next, r := m.Apply(Batch{Ops: []Op{{Kind: Create, Dir: Root, Name: "a", Type: Regular}, {Kind: Create, Dir: Root, Name: "b", Type: Regular},
		{Kind: Remove, Dir: Root, Name: "a"}, {Kind: Create, Dir: Root, Name: "b", Type: Regular}}}, 1)
	if r[0].Status != OK || r[1].Status != NoSpace || r[2].Status != OK || r[3].Status != OK || next.Files() != 2 {
		t.Fatal(r)
	}
}

// Names whose cookies would be the same have cookies of their own; when all are taken, the name is refused.
func TestCookiesThatMeet(t *testing.T) {
	m := newMachine(t, 1<<20)
	e := new(edit)
	base := cookieOf("x")
	for i := range uint64(slots) { // as if the hash of all these names were the same
		m.entries.set(e, entryKey{Root, base + i}, dirent{fmt.Sprint("other", i), 99})
	}
	if s := m.try(Op{Kind: Create, Dir: Root, Name: "x", Type: Regular}).Status; s != NoSpace {
		t.Fatal(s)
	}
	m.entries.delete(e, entryKey{Root, base + 7})
	m.do(Op{Kind: Create, Dir: Root, Name: "x", Type: Regular})
	if got, ok := m.Lookup(Root, "x"); !ok || got.Cookie != base+7 {
		t.Fatal(got, ok)
	}
}

// A walk along the cookies meets each entry that stays once, whatever happens to the others.
func TestListingWhileItChanges(t *testing.T) {
	const stay = 50000
	m := newMachine(t, 1<<20)
	var batch Batch
	for i := range stay {
		if batch.Ops = append(batch.Ops, Op{Kind: Create, Dir: Root, Name: fmt.Sprint("stay", i), Type: Regular}); len(batch.Ops) == 500 {
			m.Tree, _ = m.Apply(batch, MaxMeta)
			batch.Ops = nil
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	seen := map[string]int{}
	for cookie := uint64(0); ; {
		some := m.Entries(Root, cookie, 100)
		if len(some) == 0 {
			break
		}
		for _, e := range some {
			seen[e.Name]++
			cookie = e.Cookie
		}
		for range 10 {
			a, b := fmt.Sprint("come", r.IntN(40)), fmt.Sprint("go", r.IntN(40))
			m.try(Op{Kind: Create, Dir: Root, Name: a, Type: Regular})
			m.try(Op{Kind: Rename, Dir: Root, Name: a, Dir2: Root, Name2: b})
			m.try(Op{Kind: Remove, Dir: Root, Name: fmt.Sprint("go", r.IntN(40))})
		}
	}
	for i := range stay {
		if name := fmt.Sprint("stay", i); seen[name] != 1 {
			t.Fatalf("%s was listed %d times", name, seen[name])
		}
	}
}

func TestBatchFormat(t *testing.T) {
	b := Batch{Ceil: 5, Ops: []Op{{Kind: Create, How: Exclusive, Type: Regular, Guarded: true, Now: 1, Guard: 2, Reply: Key{9}, Ino: 3, Dir: 4, Dir2: 5,
		Name: "n", Name2: "m", Aux: 6, Size: 7, Set: Set{SetMode, 8, 9, 10, 11, 12, 13, 14}, Spans: []Span{{15, 16, 17}}}, {Kind: Open}}}
	const want = "010a02010201010204010900000000000000000000000000000003040501" + "6e016d060e0108090a16181a1c011e2022" +
		"0e00000000000000000000000000000000000000000000"
	if got := hex.EncodeToString(b.Encode()); got != want {
		t.Errorf("%s, not\n%s", got, want)
	}
	got, err := DecodeBatch(b.Encode())
	if d := cmp.Diff(b, got); err != nil || d != "" {
		t.Error(err, d)
	}
}

func FuzzBatch(f *testing.F) {
	f.Add(Batch{Ops: []Op{{Kind: Create, Dir: Root, Name: "a", Type: Regular, Reply: Key{1}}, {Kind: Ahead, Spans: []Span{{0, 0, 1 << 16}}},
		{Kind: Write, Ino: 2, Spans: []Span{{0, 0, 1 << 16}}, Size: 9}, {Kind: Rename, Dir: Root, Name: "a", Dir2: Root, Name2: "b"}}}.Encode())
	f.Add(Batch{Ceil: -1, Ops: []Op{{Kind: Resize, Size: 1 << 40}, {Kind: Open, Now: 1 << 61}, {Kind: Cut, Ino: 1, Size: 1}, {Kind: Mark, Ino: 2}}}.Encode())
	f.Add(Batch{Ops: []Op{{Kind: SetAttr, Ino: 2, Set: Set{Fields: 255, Size: 100, Atime: -1}}, {Kind: Settle, Ino: 2}, {Kind: Back}, {Kind: Zeroed}}}.Encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := DecodeBatch(p)
		if err != nil {
			if !errors.Is(err, ErrBatch) {
				t.Fatal(err)
			}
			return
		}
		tree, _ := New(1<<20, 7, 1000).Apply(Batch{Ops: []Op{{Kind: Create, Dir: Root, Name: "z", Type: Regular}}}, MaxMeta)
		tree, _ = tree.Apply(b, MaxMeta)
		if err := tree.Check(); err != nil {
			t.Fatal(err)
		}
		reload(t, tree)
	})
}

func FuzzLoad(f *testing.F) {
	m := &machine{nil, New(1<<20, 7, 1000)}
	m.Tree, _ = m.Apply(Batch{Ops: []Op{{Kind: Create, Dir: Root, Name: "a", Type: Symlink, Name2: "b", Reply: Key{1}}}}, MaxMeta)
	var b bytes.Buffer
	m.Save(&b)
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, p []byte) {
		if tree, err := Load(p); (err == nil) == (tree == nil) || err != nil && !errors.Is(err, ErrSnapshot) {
			t.Fatal(tree, err)
		}
	})
}

func TestUsages(t *testing.T) {
	m := newMachine(t, 1<<20)
	d := m.do(Op{Kind: Create, Dir: Root, Name: "d", Type: Directory}).Ino
	e := m.do(Op{Kind: Create, Dir: d, Name: "e", Type: Directory}).Ino
	f := m.do(Op{Kind: Create, Dir: e, Name: "f", Type: Regular}).Ino
	m.file("g")
	m.do(Op{Kind: Link, Ino: f, Dir: d, Name: "again"})
	m.do(Op{Kind: Ahead, Spans: []Span{{Len: 4 * Block}}})
	m.do(Op{Kind: Write, Ino: f, Spans: []Span{{Len: 3 * Block}}})
	got := map[string]Usage{}
	for _, u := range m.Usages() {
		got[u.Name] = u
	}
	if diff := cmp.Diff(map[string]Usage{"d": {"d", 3 * Block, 3}, "g": {"g", 0, 1}}, got); diff != "" {
		t.Fatal(diff)
	}
}

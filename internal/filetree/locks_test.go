package filetree

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pmsapp/internal/rangelock"
)

func lockOwner(n int) rangelock.Owner {
	return rangelock.Owner{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(n / 4)}), Host: fmt.Sprint("host", n/4), PID: int32(n) - 2, Handle: fmt.Sprint(n % 3)}
}

// TestLocks does random ops to the locks of a few files and to a map of tables, through batches and snapshots.
func TestLocks(t *testing.T) {
	done := map[string]int{}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 8))
		m := newMachine(t, 1<<20)
		var files []uint64
		model := map[uint64]*rangelock.Table{}
		names := map[uint64]string{}
		for i := range 300 {
			if len(files) < 3 {
				name := fmt.Sprint("f", i)
				files = append(files, m.file(name))
				names[files[len(files)-1]] = name
				model[files[len(files)-1]] = &rangelock.Table{}
			}
			ino := files[r.IntN(len(files))]
			l := rangelock.Lock{Owner: lockOwner(r.IntN(12)), Off: r.Uint64N(50), Len: r.Uint64N(30), Exclusive: r.IntN(3) == 0, State: r.Uint32N(4)}
			if r.IntN(20) == 0 {
				l.Off, l.Len = 1<<64-1-r.Uint64N(3), 1+r.Uint64N(3)
			}
			want := OK
			var o Op
			switch r.IntN(12) {
			case 0:
				o = ReleaseOp(l.Owner, l.State)
				for _, table := range model {
					table.Release(l.Owner, l.State)
				}
			case 1:
				o = Op{Kind: Remove, Dir: Root, Name: names[ino]}
				files = slices.DeleteFunc(files, func(f uint64) bool { return f == ino })
				delete(model, ino)
			case 2, 3, 4:
				if o = LockOp(Unlock, ino, l); l.Valid() {
					model[ino].Clear(l)
				} else {
					want = Inval
				}
			default:
				o = LockOp(Lock, ino, l)
				_, held := model[ino].Conflict(l)
				switch {
				case !l.Valid():
					want = Inval
				case held:
					want = Held
				default:
					model[ino].Set(l)
				}
				if _, is := m.Tree.Locked(ino, l); l.Valid() && is != held {
					t.Fatalf("seed %d: %+v is held: %v", seed, l, is)
				}
			}
			if got := m.try(o).Status; got != want {
				t.Fatalf("seed %d: %+v: %d, want %d", seed, o, got, want)
			}
			done[fmt.Sprint(o.Kind, want)]++
			for _, f := range files {
				if got := m.Tree.table(f).All(); !slices.Equal(got, model[f].All()) {
					t.Fatalf("seed %d: file %d: %+v\n%+v", seed, f, got, model[f].All())
				}
			}
			if i%20 == 0 {
				if err := m.Tree.Check(); err != nil {
					t.Fatal(err)
				}
				before := m.Tree
				m.Tree = reload(t, m.Tree)
				if err := m.Tree.Check(); err != nil || m.Tree.locks.n != before.locks.n {
					t.Fatal("another tree came back", err)
				}
			}
		}
	}
	for _, k := range []string{fmt.Sprint(Lock, OK), fmt.Sprint(Lock, Held), fmt.Sprint(Lock, Inval), fmt.Sprint(Unlock, OK), fmt.Sprint(Release, OK)} {
		if done[k] < 20 {
			t.Errorf("%s: %d times", k, done[k])
		}
	}
}

func TestLockReplies(t *testing.T) {
	m := newMachine(t, 1<<20)
	ino := m.file("f")
	a, b := rangelock.Lock{Owner: lockOwner(1), Exclusive: true}, rangelock.Lock{Owner: lockOwner(2), Exclusive: true}
	first, second := LockOp(Lock, ino, a), LockOp(Lock, ino, b)
	first.Reply, second.Reply = Key{1}, Key{2}
	if r := m.try(first); r.Status != OK || r.Replay {
		t.Fatalf("%+v", r)
	}
	if r := m.try(second); r.Status != Held {
		t.Fatalf("%+v", r)
	}
	if r := m.try(LockOp(Unlock, ino, a)); r.Status != OK {
		t.Fatalf("%+v", r)
	}
	if r := m.try(first); r.Status != OK || !r.Replay || m.Tree.locks.n != 0 {
		t.Fatalf("a retry that comes late locks again: %+v", r)
	}
	if r := m.try(second); r.Status != OK || r.Replay {
		t.Fatalf("what was held is remembered: %+v", r)
	}
	for what, o := range map[string]Op{
		"a directory": LockOp(Lock, Root, a), "no owner": {Kind: Lock, Ino: ino}, "garbage": {Kind: Release, Name: "\x04abc"},
		"more": {Kind: Lock, Ino: ino, Name: putOwner(a.Owner) + "x"}, "no state": {Kind: Lock, Ino: ino, Name: putOwner(a.Owner), Guard: 1 << 32},
	} {
		if r := m.try(o); r.Status != Inval {
			t.Errorf("%s: %+v", what, r)
		}
	}
	if r := m.try(LockOp(Lock, 99, a)); r.Status != Stale {
		t.Errorf("%+v", r)
	}
}

// TestTooManyLocks has the tree bound them, and a full catalog refuse them.
func TestTooManyLocks(t *testing.T) {
	m := newMachine(t, 1<<20)
	ino := m.file("f")
	for i := range uint64(rangelock.Max) {
		if r := m.try(LockOp(Lock, ino, rangelock.Lock{Owner: lockOwner(1), Off: 2 * i, Len: 1})); r.Status != OK {
			t.Fatalf("%d: %+v", i, r)
		}
	}
	if r := m.try(LockOp(Lock, ino, rangelock.Lock{Owner: lockOwner(1), Off: 1 << 40, Len: 1})); r.Status != NoSpace {
		t.Errorf("one more: %+v", r)
	}
	ops := []Op{LockOp(Unlock, ino, rangelock.Lock{Owner: lockOwner(1)}), LockOp(Lock, ino, rangelock.Lock{Owner: lockOwner(1)})}
	if _, r := m.Tree.Apply(Batch{Ops: ops[1:]}, -1); r[0].Status != NoSpace {
		t.Errorf("in a full catalog: %+v", r)
	}
	if _, r := m.Tree.Apply(Batch{Ops: ops[:1]}, -1); r[0].Status != OK {
		t.Errorf("unlocking in a full catalog: %+v", r)
	}
}

// TestVersion1 reads a snapshot without locks.
func TestVersion1(t *testing.T) {
	m := newMachine(t, 1<<20)
	m.file("f")
	var b bytes.Buffer
	if err := m.Tree.Save(&b); err != nil {
		t.Fatal(err)
	}
	old := b.Bytes()
	old = resum(append(append(slices.Clone(old[:7]), 1), old[8:len(old)-5]...)) // no list of locks, which is one byte here
	got, err := Load(old)
	if err != nil || got.Check() != nil || got.Files() != m.Tree.Files() {
		t.Fatal(err)
	}
	for _, version := range []byte{0, 4} {
		old[7] = version
		if _, err := Load(resum(slices.Clone(old[:len(old)-4]))); err == nil {
			t.Error("version", version, "is read")
		}
	}
}

// TestVersion2 reads a snapshot of locks without states.
func TestVersion2(t *testing.T) {
	m := newMachine(t, 1<<20)
	ino := m.file("f")
	l := rangelock.Lock{Owner: lockOwner(1), Off: 1, Len: 2, Exclusive: true, State: 5}
	if r := m.try(LockOp(Lock, ino, l)); r.Status != OK {
		t.Fatal(r)
	}
	var b bytes.Buffer
	if err := m.Tree.Save(&b); err != nil {
		t.Fatal(err)
	}
	old := b.Bytes()
	list := append([]byte{1, 2, 1, 5}, putString(nil, putOwner(l.Owner))...) // offset, length, exclusive, state, owner
	at := bytes.LastIndex(old, list)
	old = append(slices.Clone(old[:at+3]), old[at+4:len(old)-4]...)
	old[7] = 2
	got, err := Load(resum(old))
	if err != nil {
		t.Fatal(err)
	}
	l.State = 0
	if all := got.table(ino).All(); got.Check() != nil || !slices.Equal(all, []rangelock.Lock{l}) {
		t.Errorf("%+v", all)
	}
}

// resum puts the checksum behind a snapshot.
func resum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

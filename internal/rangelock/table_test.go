package rangelock

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func owner(n int) Owner {
	return Owner{Addr: netip.MustParseAddr("192.0.2.1"), Host: "h", PID: int32(n)}
}

func compare(t *testing.T, a, b []Lock) {
	t.Helper()
	if !slices.Equal(a, b) {
		t.Errorf("%+v\nnot\n%+v", a, b)
	}
}

func TestPOSIX(t *testing.T) {
	var tab Table
	a, b := owner(1), owner(2)
	set := func(o Owner, off, n uint64, x bool) {
		t.Helper()
		l := Lock{o, off, n, x, 0}
		if c, found := tab.Conflict(l); found {
			t.Fatalf("%+v conflicts with %+v", l, c)
		}
		if !tab.Set(l) {
			t.Fatal("too many")
		}
	}
	set(a, 0, 100, false)
	set(b, 50, 100, false)
	if _, found := tab.Conflict(Lock{b, 99, 1, true, 0}); !found {
		t.Error("an exclusive lock over a shared one")
	}
	if _, found := tab.Conflict(Lock{a, 0, 50, true, 0}); found {
		t.Error("its owner does not get more of it")
	}
	set(a, 10, 10, true) // in the middle
	compare(t, tab.All(), []Lock{{a, 0, 10, false, 0}, {a, 10, 10, true, 0}, {a, 20, 80, false, 0}, {b, 50, 100, false, 0}})
	set(a, 10, 10, false) // and back: one again
	compare(t, tab.All(), []Lock{{a, 0, 100, false, 0}, {b, 50, 100, false, 0}})
	tab.Clear(Lock{Owner: a, Off: 30, Len: 10})
	compare(t, tab.All(), []Lock{{a, 0, 30, false, 0}, {a, 40, 60, false, 0}, {b, 50, 100, false, 0}})
	set(a, 200, 0, true)
	if c, found := tab.Conflict(Lock{b, math.MaxUint64, 1, false, 0}); !found || c != (Lock{a, 200, 0, true, 0}) {
		t.Error("the last byte:", c)
	}
	tab.Clear(Lock{Owner: a})
	compare(t, tab.All(), []Lock{{b, 50, 100, false, 0}})
	if (Lock{Off: math.MaxUint64, Len: 2}).Valid() || !(Lock{Off: math.MaxUint64, Len: 1}).Valid() || !(Lock{Off: 5}).Valid() {
		t.Error("ranges around the end")
	}
}

// TestRelease: who says that he was started anew keeps what he has locked since, however late he says it.
func TestRelease(t *testing.T) {
	var tab Table
	a, other := owner(1), owner(1)
	other.Host = "another"
	for _, l := range []Lock{{a, 0, 10, true, 1}, {a, 10, 10, true, 3}, {a, 20, 10, true, 3}, {a, 40, 10, false, 0}, {other, 60, 1, true, 1}} {
		if !tab.Set(l) {
			t.Fatal(l)
		}
	}
	compare(t, tab.All(), []Lock{{a, 0, 10, true, 1}, {a, 10, 20, true, 3}, {a, 40, 10, false, 0}, {other, 60, 1, true, 1}})
	tab.Release(owner(7), 3)
	compare(t, tab.All(), []Lock{{a, 10, 20, true, 3}, {other, 60, 1, true, 1}})
	tab.Release(a, 0)
	compare(t, tab.All(), []Lock{{other, 60, 1, true, 1}})
}

// TestAgainstBytes compares with a table that has an entry for each byte.
func TestAgainstBytes(t *testing.T) {
	const size, owners = 24, 3
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var tab Table
		var model [size][owners]int // 0 none, 1 shared, 2 exclusive
		for range 60 {
			o := rnd.IntN(owners)
			l := Lock{Owner: owner(o), Off: uint64(rnd.IntN(size)), Exclusive: rnd.IntN(2) == 0}
			l.Len = 1 + rnd.Uint64N(size-l.Off)
			clearing := rnd.IntN(3) == 0
			conflict, holds := false, false
			for i := l.Off; i < l.Off+l.Len; i++ {
				holds = holds || model[i][o] != 0
				for p, m := range model[i] {
					conflict = conflict || p != o && (m == 2 || m == 1 && l.Exclusive)
				}
			}
			if _, found := tab.Conflict(l); found != conflict {
				t.Fatalf("seed %d: %+v: conflict %v", seed, l, found)
			}
			if tab.Holds(l) != holds {
				t.Fatalf("seed %d: %+v: holds %v", seed, l, !holds)
			}
			if conflict && !clearing {
				continue
			}
			kind := 1
			if l.Exclusive {
				kind = 2
			}
			if clearing {
				kind = 0
				tab.Clear(l)
			} else {
				tab.Set(l)
			}
			for i := l.Off; i < l.Off+l.Len; i++ {
				model[i][o] = kind
			}
			check(t, seed, &tab, func(i, o int) int { return model[i][o] }, size, owners)
		}
	}
}

func check(t *testing.T, seed uint64, tab *Table, want func(i, o int) int, size, owners int) {
	t.Helper()
	all := tab.All()
	var again Table
	for i, l := range all {
		if i > 0 && all[i-1].Off > l.Off {
			t.Fatalf("seed %d: not sorted: %+v", seed, all)
		}
		again.Set(l)
	}
	compare(t, again.All(), all)
	for o := range owners {
		runs, last := 0, 0
		for i := range size {
			got := 0
			for _, l := range all {
				if l.Owner == owner(o) && uint64(i) >= l.Off && uint64(i) < l.Off+l.Len {
					if got != 0 {
						t.Fatalf("seed %d: two locks of one owner at %d", seed, i)
					}
					if got = 1; l.Exclusive {
						got = 2
					}
				}
			}
			if got != want(i, o) {
				t.Fatalf("seed %d: byte %d of owner %d is %d, not %d", seed, i, o, got, want(i, o))
			}
			if got != last && got != 0 {
				runs++
			}
			last = got
		}
		n := 0
		for _, l := range all {
			if l.Owner == owner(o) {
				n++
			}
		}
		if n != runs {
			t.Fatalf("seed %d: %d locks where %d do", seed, n, runs)
		}
	}
}

func TestMax(t *testing.T) {
	var tab Table
	for i := range Max {
		if !tab.Set(Lock{owner(1), uint64(2 * i), 1, true, 0}) {
			t.Fatal(i)
		}
	}
	before := tab.All()
	if tab.Set(Lock{owner(1), 1 << 40, 1, true, 0}) || tab.Len() != Max {
		t.Error("one too many")
	}
	compare(t, tab.All(), before)
	if !tab.Set(Lock{owner(1), 1, 1, true, 0}) || tab.Len() != Max-1 {
		t.Error("what closes a gap is not one more")
	}
	tab = Table{}
	tab.Set(Lock{owner(1), 0, 100, true, 0})
	for i := range Max - 1 {
		tab.Set(Lock{owner(1), uint64(200 + 2*i), 1, true, 0})
	}
	if tab.Clear(Lock{Owner: owner(1), Off: 50, Len: 1}) {
		t.Error("unlocking makes one too many")
	}
}

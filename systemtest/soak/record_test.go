package soak

import (
	"testing"
	"time"
)

// The checker must find what it is there for.
func TestRecordFindsFaults(t *testing.T) {
	r := newRecord(4, 7)
	b, scratch := make([]byte, blockSize), make([]byte, blockSize)
	read := func(n int, version uint32, floor since) error {
		r.fill(b, n, version)
		return r.check(n, b, floor, scratch)
	}
	if err := read(1, 0, since{}); err != nil {
		t.Fatal("an empty block:", err)
	}
	r.issue(1)
	if err := read(1, 0, r.before(1)); err != nil {
		t.Fatal("a write under way that is not seen yet:", err)
	}
	floor := r.before(1)
	if err := read(1, 1, floor); err != nil {
		t.Fatal("a write under way that is seen:", err)
	}
	if err := read(1, 0, floor); err != nil {
		t.Fatal("a read that began before another one saw the write:", err)
	}
	if read(1, 0, r.before(1)) == nil {
		t.Error("a read went back behind another one")
	}
	r.acknowledge(1, since{version: 1}, true)
	r.acknowledge(2, r.issue(2), true)
	if read(2, 0, r.before(2)) == nil {
		t.Error("a lost write was not found")
	}
	if read(2, 2, r.before(2)) == nil {
		t.Error("a version from nowhere was not found")
	}
	r.fill(b, 2, 1)
	b[4000]++
	if r.check(2, b, since{version: 1}, scratch) == nil {
		t.Error("a torn block was not found")
	}
	r.fill(b, 3, 1)
	if r.check(2, b, since{}, scratch) == nil {
		t.Error("another block's data were not found")
	}
}

// TestRecordOfLosses: what was not durable may be lost where all lost their power, in part, and nothing else may.
func TestRecordOfLosses(t *testing.T) {
	r := newRecord(4, 7)
	b, scratch := make([]byte, blockSize), make([]byte, blockSize)
	read := func(n int, versions ...uint32) error {
		floor := r.before(n)
		r.fill(b, n, versions[0])
		for i, v := range versions[1:] {
			at := (i + 1) * sectorSize
			r.fill(scratch, n, v)
			copy(b[at:at+sectorSize], scratch[at:])
		}
		return r.check(n, b, floor, scratch)
	}
	write := func(n int, durable bool) { r.acknowledge(n, r.issue(n), durable) }
	for n := range 3 {
		write(n, true)
		write(n, false)
	}
	write(0, true)
	all := r.flushing()
	write(1, false)
	r.flushed(all)
	late, before := r.issue(2), r.before(2)
	// Block 0: 3 is durable. Block 1: 2 is, 3 is not. Block 2: 2 is, 3 is under way.
	if read(1, 3, 2) == nil {
		t.Error("a torn block was not found where nobody has lost his power")
	}
	r.lose()
	r.acknowledge(2, late, false) // its answer may be of before
	for _, x := range []struct {
		n        int
		versions []uint32
		right    bool
	}{
		{0, []uint32{2}, false}, {0, []uint32{3, 2}, false}, {0, []uint32{3}, true},
		{1, []uint32{1}, false}, {1, []uint32{3, 1}, false}, {1, []uint32{3, 2}, true}, {1, []uint32{2}, true}, {2, []uint32{2}, true}, {2, []uint32{3, 2, 3}, true},
	} {
		if err := read(x.n, x.versions...); (err == nil) != x.right {
			t.Errorf("block %d has the versions %v: %v", x.n, x.versions, err)
		}
	}
	r.fill(b, 2, 2)
	if err := r.check(2, b, before, scratch); err != nil {
		t.Error("a read that began before the loss:", err)
	}
	write(1, false)
	if read(1, 4, 3) == nil || read(1, 3) == nil {
		t.Error("a torn or a lost block was not found after it was written anew")
	}
	// A loss of which the cluster tells nobody.
	write(2, false)
	r.lose()
	r.keep()
	if read(2, 3) == nil {
		t.Error("a loss that nobody was told of was not found")
	}
}

func TestLongest(t *testing.T) {
	ends := []time.Duration{1, 2, 3, 10, 11, 30}
	for _, c := range []struct{ from, to, want time.Duration }{
		{0, 2, 7}, // the gap from 3 to 10 begins after 2
		{4, 5, 7}, {12, 13, 19}, {10, 11, 19}, {31, 40, 10}, {2, 40, 19},
	} {
		if c.from == 0 {
			c.want = 1
		}
		if got := longest(ends, c.from, c.to); got != c.want {
			t.Errorf("%d to %d: %d, want %d", c.from, c.to, got, c.want)
		}
	}
}

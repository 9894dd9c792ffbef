package soak

import (
	"testing"
	"time"
)

// The checker must find what it is there for.
func TestRecordFindsFaults(t *testing.T) {
	r := newRecord(4, 7)
	b, scratch := make([]byte, blockSize), make([]byte, blockSize)
	read := func(n int, version uint32, floor uint32) error {
		r.fill(b, n, version)
		return r.check(n, b, floor, scratch)
	}
	if err := read(1, 0, 0); err != nil {
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
	r.acknowledge(1, 1)
	r.acknowledge(2, r.issue(2))
	if read(2, 0, r.before(2)) == nil {
		t.Error("a lost write was not found")
	}
	if read(2, 2, r.before(2)) == nil {
		t.Error("a version from nowhere was not found")
	}
	r.fill(b, 2, 1)
	b[4000]++
	if r.check(2, b, 1, scratch) == nil {
		t.Error("a torn block was not found")
	}
	r.fill(b, 3, 1)
	if r.check(2, b, 0, scratch) == nil {
		t.Error("another block's data were not found")
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

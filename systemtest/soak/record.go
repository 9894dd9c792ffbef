package soak

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const blockSize = 4096

// record is what is known of every block: one writer at a time, many readers. With versions that grow, a block is
// linearizable if each read returns at least what was acknowledged, or returned by another read, before it began, and at most
// what had been begun when it ended. A write that a client repeats after a failover has the same version.
type record struct {
	seed   uint64
	blocks []block

	mu        sync.Mutex
	completed []time.Duration // of every write, since began
	began     time.Time
	reads     atomic.Int64
	last      atomic.Int64   // the block that was acknowledged last
	touches   []atomic.Int64 // by region: when a write was begun there last, in nanoseconds since began
}

type block struct {
	mu     sync.Mutex
	issued uint32 // the newest version that a write was begun with
	floor  uint32 // no later answer may be older
}

func newRecord(blocks int, seed uint64) *record {
	return &record{seed: seed, blocks: make([]block, blocks), began: time.Now(), touches: make([]atomic.Int64, blocks*blockSize/regionSize+1)}
}

// fill makes what a block holds at a version: zeros at version 0.
func (r *record) fill(b []byte, n int, version uint32) {
	clear(b)
	if version == 0 {
		return
	}
	binary.BigEndian.PutUint64(b, uint64(n))
	binary.BigEndian.PutUint64(b[8:], uint64(version))
	binary.BigEndian.PutUint64(b[16:], r.seed)
	sum := sha256.Sum256(b[:24])
	for at := 24; at < len(b); {
		at += copy(b[at:], sum[:])
	}
}

// issue begins a write of a block and returns its version.
func (r *record) issue(n int) uint32 {
	r.touches[n*blockSize/regionSize].Store(int64(time.Since(r.began)))
	b := &r.blocks[n]
	b.mu.Lock()
	defer b.mu.Unlock()
	b.issued++
	return b.issued
}

// touched is in how many regions writes were begun since t.
func (r *record) touched(t time.Time) (n int) {
	for i := range r.touches {
		if at := r.touches[i].Load(); at > 0 && at >= int64(t.Sub(r.began)) {
			n++
		}
	}
	return n
}

// acknowledge ends a write.
func (r *record) acknowledge(n int, version uint32) {
	b := &r.blocks[n]
	b.mu.Lock()
	b.floor = max(b.floor, version)
	b.mu.Unlock()
	r.last.Store(int64(n))
}

// newest is the block that was acknowledged last: where an old answer shows.
func (r *record) newest() int { return int(r.last.Load()) }

// wrote notes when a write ended.
func (r *record) wrote() {
	now := time.Since(r.began)
	r.mu.Lock()
	r.completed = append(r.completed, now)
	r.mu.Unlock()
}

// before is what a read that begins now must not go below.
func (r *record) before(n int) uint32 {
	b := &r.blocks[n]
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.floor
}

// check judges what a read of a block has returned; floor is what before said when it began. scratch has room for a block.
func (r *record) check(n int, got []byte, floor uint32, scratch []byte) error {
	version := uint32(binary.BigEndian.Uint64(got[8:]))
	b := &r.blocks[n]
	b.mu.Lock()
	issued := b.issued
	b.mu.Unlock()
	r.fill(scratch, n, version)
	switch {
	case !bytes.Equal(got, scratch):
		return fmt.Errorf("CORRUPT: block %d holds no version of it (number %d, version %d, seed %x); at least version %d was expected",
			n, binary.BigEndian.Uint64(got), version, binary.BigEndian.Uint64(got[16:]), floor)
	case version < floor:
		return fmt.Errorf("LOST OR STALE: block %d has version %d, and version %d was acknowledged or read before", n, version, floor)
	case version > issued:
		return fmt.Errorf("IMPOSSIBLE: block %d has version %d, and %d is the newest that was begun", n, version, issued)
	}
	b.mu.Lock()
	b.floor = max(b.floor, version)
	b.mu.Unlock()
	r.reads.Add(1)
	return nil
}

// count is how many writes have ended.
func (r *record) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.completed)
}

// standstill is the longest time without an end of a write that touches the time from a to b.
func (r *record) standstill(a, b time.Time) time.Duration {
	from, to := a.Sub(r.began), b.Sub(r.began)
	r.mu.Lock()
	defer r.mu.Unlock()
	return longest(r.completed, from, to)
}

// longest is the longest gap between neighbours of an ascending list that overlaps [from, to].
func longest(ends []time.Duration, from, to time.Duration) (gap time.Duration) {
	last := time.Duration(0)
	for _, at := range ends {
		if at >= from && last <= to {
			gap = max(gap, at-last)
		}
		last = at
	}
	if last < to {
		gap = max(gap, to-last)
	}
	return gap
}

// first is the first end of a write after t.
func (r *record) first(t time.Time) (time.Time, bool) {
	from := t.Sub(r.began)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.completed {
		if at > from {
			return r.began.Add(at), true
		}
	}
	return time.Time{}, false
}

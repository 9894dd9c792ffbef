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

const (
	blockSize  = 4096
	sectorSize = 512 // that a loss of power tears no further
)

// record is what is known of every block: one writer at a time, many readers. With versions that grow, a block is
// linearizable if each read returns at least what was acknowledged, or returned by another read, before it began, and at most
// what had been begun when it ended. A write that a client repeats after a failover has the same version.
//
// Where all replicas lose their power, what was acknowledged and not durable may be lost: of each sector that is written then any version
// may be there from the last durable one on, until it is written again.
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
	issued uint32                              // the newest version that a write was begun with
	floor  uint32                              // no later answer may be older
	firm   uint32                              // the newest version that is durable on every replica
	losses uint32                              // how often all replicas lost their power
	lost   struct{ issued, floor, was uint32 } // at the last loss: what was issued, the floor after it and the one before
}

// since is what was known of a block when something of it began.
type since struct{ version, losses uint32 }

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
	for at := 24; at < sectorSize; {
		at += copy(b[at:sectorSize], sum[:])
	}
	for at := sectorSize; at < len(b); at += sectorSize { // each tells its version
		copy(b[at:], b[:sectorSize])
		b[at+sectorSize-1] = byte(at / sectorSize)
	}
}

// issue begins a write of a block and returns its version.
func (r *record) issue(n int) since {
	r.touches[n*blockSize/regionSize].Store(int64(time.Since(r.began)))
	b := &r.blocks[n]
	b.mu.Lock()
	defer b.mu.Unlock()
	b.issued++
	return since{b.issued, b.losses}
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

// acknowledge ends a write. If all lost their power since it began, nobody knows whether its answer was of before.
func (r *record) acknowledge(n int, w since, durable bool) {
	b := &r.blocks[n]
	b.mu.Lock()
	if b.losses == w.losses {
		b.floor = max(b.floor, w.version)
		if durable {
			b.firm = max(b.firm, w.version)
		}
	}
	b.mu.Unlock()
	r.last.Store(int64(n))
}

// flushing is what a flush that begins now makes durable: of all blocks what was acknowledged.
func (r *record) flushing() []since {
	all := make([]since, len(r.blocks))
	for n := range r.blocks {
		all[n] = r.before(n)
	}
	return all
}

// flushed is its end.
func (r *record) flushed(all []since) {
	for n, f := range all {
		b := &r.blocks[n]
		b.mu.Lock()
		if b.losses == f.losses {
			b.firm = max(b.firm, f.version)
		}
		b.mu.Unlock()
	}
}

// lose says that all replicas have lost their power, and none has it again.
func (r *record) lose() {
	for n := range r.blocks {
		b := &r.blocks[n]
		b.mu.Lock()
		b.lost.issued, b.lost.was, b.lost.floor = b.issued, b.floor, b.firm
		b.floor = b.firm
		b.losses++
		b.mu.Unlock()
	}
}

// keep says that the cluster has told nobody of a loss: then there was none.
func (r *record) keep() {
	for n := range r.blocks {
		b := &r.blocks[n]
		b.mu.Lock()
		b.floor, b.firm = max(b.floor, b.lost.was), max(b.firm, b.lost.floor)
		b.lost.floor = b.lost.was
		b.mu.Unlock()
	}
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
func (r *record) before(n int) since {
	b := &r.blocks[n]
	b.mu.Lock()
	defer b.mu.Unlock()
	return since{b.floor, b.losses}
}

// check judges what a read of a block has returned; began is what before said when it began. scratch has room for a block.
func (r *record) check(n int, got []byte, began since, scratch []byte) error {
	b := &r.blocks[n]
	b.mu.Lock()
	issued, floor, torn := b.issued, began.version, b.lost.issued
	if b.losses != began.losses {
		floor = b.lost.floor
	}
	b.mu.Unlock()
	version, newest := r.versions(n, got, scratch)
	switch {
	case version == none, version != newest && newest > torn:
		return fmt.Errorf("CORRUPT: block %d holds no version of it (number %d, version %d, seed %x); at least version %d was expected",
			n, binary.BigEndian.Uint64(got), binary.BigEndian.Uint64(got[8:]), binary.BigEndian.Uint64(got[16:]), floor)
	case version < floor:
		return fmt.Errorf("LOST OR STALE: block %d has version %d, and version %d was acknowledged or read before", n, version, floor)
	case newest > issued:
		return fmt.Errorf("IMPOSSIBLE: block %d has version %d, and %d is the newest that was begun", n, newest, issued)
	}
	b.mu.Lock()
	b.floor = max(b.floor, version)
	b.mu.Unlock()
	r.reads.Add(1)
	return nil
}

// none is no version.
const none = ^uint32(0)

// versions are the oldest and the newest version of the sectors of a block, or none where one is of no version.
func (r *record) versions(n int, got, scratch []byte) (oldest, newest uint32) {
	oldest = none
	filled := none
	for at := 0; at < len(got); at += sectorSize {
		v := uint32(binary.BigEndian.Uint64(got[at+8:]))
		if v != filled {
			r.fill(scratch, n, v)
			filled = v
		}
		if v == none || !bytes.Equal(got[at:at+sectorSize], scratch[at:at+sectorSize]) {
			return none, none
		}
		oldest, newest = min(oldest, v), max(newest, v)
	}
	return oldest, newest
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

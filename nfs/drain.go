package nfs

import (
	"context"
	"sync"

	"pmsapp/internal/ids"
)

// drains counts the calls that each share has under way, so that somebody can wait for those that began before he asked,
// however many begin later.
type drains struct {
	mu   sync.Mutex
	busy map[ids.Volume]*shareCalls
}

type shareCalls struct {
	next    uint64 // the number of the next call
	under   map[uint64]struct{}
	waiters map[*drainer]struct{}
}

// drainer waits for left calls, all with numbers below.
type drainer struct {
	below uint64
	left  int
	done  chan struct{}
}

// enter counts a call; the function ends it.
func (d *drains) enter(id ids.Volume) (leave func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.busy[id]
	if s == nil {
		s = &shareCalls{under: map[uint64]struct{}{}, waiters: map[*drainer]struct{}{}}
		d.busy[id] = s
	}
	n := s.next
	s.next++
	s.under[n] = struct{}{}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(s.under, n)
		for w := range s.waiters {
			if n < w.below {
				if w.left--; w.left == 0 {
					close(w.done)
					delete(s.waiters, w)
				}
			}
		}
		if len(s.under) == 0 {
			delete(d.busy, id)
		}
	}
}

// wait returns when all calls of a share that have entered have left, or ctx is done.
func (d *drains) wait(ctx context.Context, id ids.Volume) error {
	d.mu.Lock()
	s := d.busy[id]
	if s == nil {
		d.mu.Unlock()
		return nil
	}
	w := &drainer{below: s.next, left: len(s.under), done: make(chan struct{})}
	s.waiters[w] = struct{}{}
	d.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	d.mu.Lock()
	delete(s.waiters, w)
	d.mu.Unlock()
	return context.Cause(ctx)
}

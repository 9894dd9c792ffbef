package share

import (
	"context"
	"fmt"
	"time"

	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
)

// Bounds of what is proposed.
const (
	proposers = 1    // batches under way at once: who comes while one is flushed goes with the next, all together
	maxQueued = 1024 // ops that wait
	maxBatch  = 512  // ops in a batch
	maxBytes  = 256 << 10
	patience  = time.Millisecond // how long a batch waits for more
)

// proposal is ops that are applied one after the other, in one batch.
type proposal struct {
	ops     []filetree.Op
	results []filetree.Result
	err     error
	done    chan struct{}
}

// change has ops committed and applied, with a new ceiling, and returns the result of the last, if any. Its error is an nfs3.Status if that was refused,
// else there is no answer. If ctx ends before the ops are on their way they are dropped.
func (s *Share) change(ctx context.Context, ops ...filetree.Op) (filetree.Result, error) {
	p := &proposal{ops: ops, done: make(chan struct{})}
	now := s.times.next()
	for i := range ops {
		ops[i].Now = now
	}
	if err := ctx.Err(); err != nil {
		return filetree.Result{}, context.Cause(ctx)
	}
	select {
	case s.proposals <- p:
	case <-ctx.Done():
		return filetree.Result{}, context.Cause(ctx)
	case <-s.ctx.Done():
		return filetree.Result{}, context.Cause(s.ctx)
	}
	select {
	case <-p.done:
	case <-s.ctx.Done():
		return filetree.Result{}, context.Cause(s.ctx)
	}
	if p.err != nil {
		return filetree.Result{}, p.err
	}
	var r filetree.Result
	for _, r = range p.results {
		if r.Freed {
			s.look()
		}
	}
	if r.Status != filetree.OK {
		return r, nfs3.Status(r.Status)
	}
	return r, nil
}

// propose brings what waits into the catalog, as much as there is at once: many calls share one flush of the log.
func (s *Share) propose() {
	var next *proposal // did not fit
	var before [2]int  // ops of the last two batches
	for {
		var b batch
		if next == nil {
			select {
			case next = <-s.proposals:
			case <-s.ctx.Done():
				return
			}
		}
		b.add(next)
		next = s.gather(&b, max(before[0], before[1]))
		before = [2]int{before[1], b.n}
		s.commit(b.all, b.n)
		if s.ctx.Err() != nil {
			return // change looks at it too
		}
	}
}

// batch is proposals that go into the catalog together.
type batch struct {
	all  []*proposal
	n    int // ops
	size int // bytes, at most
}

// add takes a proposal in, or says that it does not fit.
func (b *batch) add(p *proposal) bool {
	size := bytesOf(p)
	if len(b.all) > 0 && (b.n+len(p.ops) > maxBatch || b.size+size > maxBytes) {
		return false
	}
	b.all, b.n, b.size = append(b.all, p), b.n+len(p.ops), b.size+size
	return true
}

// gather adds what waits to a batch, and what comes within patience, until it has as many ops as are wanted: those who were
// answered with the last batches are about to come again, and a batch costs three nodes far more than an op of it. Where calls come
// one at a time nothing is waited for. It returns what did not fit, nil if all did.
func (s *Share) gather(b *batch, want int) *proposal {
	var late *time.Timer
	for {
		select {
		case p := <-s.proposals:
			if !b.add(p) {
				return p
			}
			continue
		default:
		}
		if b.n >= want {
			return nil
		}
		if late == nil {
			late = time.NewTimer(patience)
			defer late.Stop()
		}
		select {
		case p := <-s.proposals:
			if !b.add(p) {
				return p
			}
		case <-late.C:
			return nil
		case <-s.ctx.Done():
			return nil
		}
	}
}

// bytesOf is an upper bound of what a proposal takes in a batch.
func bytesOf(p *proposal) (n int) {
	for i := range p.ops {
		n += 256 + len(p.ops[i].Name) + len(p.ops[i].Name2) + 30*len(p.ops[i].Spans)
	}
	return n
}

func (s *Share) commit(all []*proposal, n int) {
	b := filetree.Batch{Ceil: s.times.ceiling(), Ops: make([]filetree.Op, 0, n)}
	for _, p := range all {
		b.Ops = append(b.Ops, p.ops...)
	}
	if n > 0 && b.Ops[0].Kind == filetree.Open { // its times are to be above the former leader's ceiling, not above ours
		b.Ceil = 0
	}
	results, err := s.cfg.Catalog.Propose(s.ctx, b)
	if err == nil && len(results) != n {
		err = fmt.Errorf("share: %d results for %d ops", len(results), n)
	}
	if err != nil {
		s.end(err)
		err = context.Cause(s.ctx)
	} else {
		s.times.committed(b.Ceil)
		if t := s.cfg.Catalog.Tree(); t != nil {
			s.times.seen(t.Latest()) // where commands passed each other, or a former leader's came late, it is ahead of ours
		}
	}
	for _, p := range all {
		if p.err = err; err == nil {
			p.results, results = results[:len(p.ops)], results[len(p.ops):]
		}
		close(p.done)
	}
}

package share

import (
	"context"
	"sync"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
)

// How much space is kept ahead, in bytes: a 64th of the volume between these.
const (
	minAhead = 1 << 20
	maxAhead = 256 << 20
)

// pool is the space ahead that this leader has not used: it reads as zeros on every member.
type pool struct {
	target int64

	refill turn       // whose is who gets more
	mu     sync.Mutex // guards what follows
	spans  []filetree.Span
	sum    int64
}

// take takes up to n bytes in one piece, at least one block; ok is false if there is none.
func (p *pool) take(n int64) (sp filetree.Span, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.spans) == 0 {
		return sp, false
	}
	best := 0 // the first that is long enough, or the longest
	for i, s := range p.spans {
		if s.Len >= n {
			best = i
			break
		}
		if s.Len > p.spans[best].Len {
			best = i
		}
	}
	s := &p.spans[best]
	sp = filetree.Span{Vol: s.Vol, Len: min(n, s.Len)}
	s.Vol, s.Len = s.Vol+sp.Len, s.Len-sp.Len
	p.sum -= sp.Len
	if s.Len == 0 {
		p.spans = append(p.spans[:best], p.spans[best+1:]...)
	}
	return sp, true
}

func (p *pool) add(all []filetree.Span) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range all {
		p.sum += s.Len
		p.spans = append(p.spans, s)
	}
}

func (p *pool) low() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sum < p.target/2
}

// spaceWait bounds how long a write waits for space that is being zeroed.
const spaceWait = 10 * time.Second

// take returns up to n bytes of space ahead. It returns nfs3.ErrNoSpace if the share is full.
func (s *Share) take(ctx context.Context, n int64) (filetree.Span, error) {
	deadline := time.NewTimer(spaceWait)
	defer deadline.Stop()
	for {
		made := s.cleaned.wait()
		if sp, ok := s.ahead.take(n); ok {
			if s.ahead.low() {
				s.look() // more before a write has to wait for it
			}
			return sp, nil
		}
		got, err := s.more(ctx)
		if err != nil {
			return filetree.Span{}, err
		}
		if got {
			continue
		}
		t, err := s.tree()
		if err != nil {
			return filetree.Span{}, err
		}
		if _, _, freed := t.Space(); freed == 0 && len(t.Orphans(1)) == 0 {
			return filetree.Span{}, nfs3.ErrNoSpace
		}
		s.look()
		select {
		case <-made:
		case <-deadline.C:
			return filetree.Span{}, nfs3.ErrNoSpace
		case <-ctx.Done():
			return filetree.Span{}, context.Cause(ctx)
		case <-s.ctx.Done():
			return filetree.Span{}, context.Cause(s.ctx)
		}
	}
}

// more takes free space ahead; false if there is none.
func (s *Share) more(ctx context.Context) (bool, error) {
	if err := s.ahead.refill.take(ctx, s.ctx); err != nil {
		return false, err
	}
	defer s.ahead.refill.give()
	if !s.ahead.low() {
		return true, nil // another has done it
	}
	t, err := s.tree()
	if err != nil {
		return false, err
	}
	var spans []filetree.Span
	sum := int64(0)
	for _, f := range t.Free(0, 256) {
		f.Len = min(f.Len, s.ahead.target-sum)
		spans, sum = append(spans, f), sum+f.Len
		if sum >= s.ahead.target {
			break
		}
	}
	if sum == 0 {
		s.ahead.mu.Lock()
		defer s.ahead.mu.Unlock()
		return s.ahead.sum > 0, nil
	}
	if _, err := s.change(ctx, filetree.Op{Kind: filetree.Ahead, Spans: spans}); err != nil {
		return false, err
	}
	s.ahead.add(spans)
	return true, nil
}

// giveBack has space that may have been written to zeroed. It is called with what a Write did not bring into the tree.
func (s *Share) giveBack(spans []filetree.Span) {
	if len(spans) > 0 {
		// If that fails the share has ended, and the next leader frees all that is ahead.
		_, _ = s.change(s.ctx, filetree.Op{Kind: filetree.Back, Spans: spans})
	}
}

// cleanStep bounds what one step of the zeroing zeroes, in bytes: who waits for space, or closes the share, waits for a step.
const cleanStep = 256 << 20

// cleanPause is how long the zeroing waits after a failure.
const cleanPause = time.Second

// cleanUp makes freed space free: no look-up that found it is under way, it reads as zeros on every member, that is committed.
func (s *Share) cleanUp() {
	stop := context.AfterFunc(s.ctx, s.pins.end)
	defer stop()
	for {
		select {
		case <-s.clean:
		case <-s.ctx.Done():
			return
		}
		for {
			if s.ahead.low() {
				_, _ = s.more(s.ctx) // who needs it sees the error
			}
			more, err := s.cleanSome()
			if s.ctx.Err() != nil {
				return
			}
			if err != nil {
				s.log.Warn("freed space could not be zeroed yet", "err", err)
				select {
				case <-time.After(cleanPause):
				case <-s.ctx.Done():
					return
				}
				continue
			}
			if !more {
				break
			}
		}
	}
}

// cleanSome does one step; more is false if there is nothing to do.
func (s *Share) cleanSome() (more bool, err error) {
	t, err := s.tree()
	if err != nil {
		return false, err
	}
	var ops []filetree.Op
	for _, ino := range t.Orphans(16) {
		ops = append(ops, filetree.Op{Kind: filetree.Cut, Ino: ino, Size: 512})
	}
	spans := first(t.Freed(0, 64), cleanStep)
	if len(spans) == 0 && len(ops) == 0 {
		return false, nil
	}
	if len(spans) > 0 {
		s.pins.drain()
		if s.ctx.Err() != nil {
			return false, context.Cause(s.ctx)
		}
		var reqs []*block.Request
		for _, sp := range spans {
			reqs = append(reqs, &block.Request{Op: block.Zero, Off: sp.Vol, Len: sp.Len, FUA: true})
		}
		if err := s.io(reqs); err != nil {
			return false, err
		}
		ops = append(ops, filetree.Op{Kind: filetree.Zeroed, Spans: spans})
	}
	if _, err := s.change(s.ctx, ops...); err != nil {
		return false, err
	}
	s.cleaned.made()
	return true, nil
}

// first returns the first n bytes of spans.
func first(spans []filetree.Span, n int64) []filetree.Span {
	for i := range spans {
		spans[i].Len = min(spans[i].Len, n)
		if n -= spans[i].Len; n == 0 {
			return spans[:i+1]
		}
	}
	return spans
}

// io does requests at once, and returns the first error.
func (s *Share) io(reqs []*block.Request) error {
	if err := s.ctx.Err(); err != nil {
		return context.Cause(s.ctx)
	}
	var all sync.WaitGroup
	all.Add(len(reqs))
	for _, r := range reqs {
		r.Done = func(*block.Request) { all.Done() }
		s.cfg.Device.Submit(r)
	}
	all.Wait()
	for _, r := range reqs {
		if r.Err != nil {
			return s.told(r.Err)
		}
	}
	return nil
}

package share

import (
	"context"
	"sync"
)

// gate orders the changes of one file. Ranges that overlap, of which one is to be alone, pass one after the other, in the
// order of their arrival.
type gate struct {
	mu    sync.Mutex // guards what follows
	cond  *sync.Cond // of mu; made with the first that has to wait
	queue []*passage // those inside and those that wait, by arrival
}

type passage struct {
	lo, hi int64
	alone  bool
}

// enter waits until [lo, hi) may be changed.
func (g *gate) enter(lo, hi int64, alone bool) *passage {
	p := &passage{lo, hi, alone}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queue = append(g.queue, p)
	for !g.first(p) {
		if g.cond == nil {
			g.cond = sync.NewCond(&g.mu)
		}
		g.cond.Wait()
	}
	return p
}

// first tells whether nothing that came before p is in its way.
func (g *gate) first(p *passage) bool {
	for _, q := range g.queue {
		if q == p {
			return true
		}
		if (q.alone || p.alone) && q.lo < p.hi && p.lo < q.hi {
			return false
		}
	}
	return false
}

func (g *gate) leave(p *passage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, q := range g.queue {
		if q == p {
			g.queue = append(g.queue[:i], g.queue[i+1:]...)
			break
		}
	}
	if g.cond != nil {
		g.cond.Broadcast()
	}
}

// pins are the look-ups under way. Space that was freed is used again only when all that may have found it have ended.
type pins struct {
	mu    sync.Mutex // guards what follows
	cond  *sync.Cond
	now   uint64         // the generation of look-ups that begin
	under map[uint64]int // generation -> look-ups under way
	over  bool           // nobody waits any more
}

func (p *pins) init() {
	p.cond = sync.NewCond(&p.mu)
	p.under = map[uint64]int{}
}

// enter begins a look-up: the tree is to be taken after it.
func (p *pins) enter() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under[p.now]++
	return p.now
}

func (p *pins) leave(gen uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.under[gen]--; p.under[gen] == 0 {
		delete(p.under, gen)
		p.cond.Broadcast()
	}
}

// drain waits until all look-ups that have begun by now have ended, or end is called.
func (p *pins) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	upTo := p.now
	p.now++
	for !p.over && p.older(upTo) {
		p.cond.Wait()
	}
}

// empty waits until no look-up is under way.
func (p *pins) empty() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.under) > 0 {
		p.cond.Wait()
	}
}

func (p *pins) older(upTo uint64) bool {
	for gen := range p.under {
		if gen <= upTo {
			return true
		}
	}
	return false
}

func (p *pins) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.cond.Broadcast()
}

// turn is a lock that one waits for no longer than for a context. It has room for one; who has put something in has it.
type turn chan struct{}

func (t turn) take(ctx, other context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-other.Done():
		return context.Cause(other)
	}
}

func (t turn) give() { <-t }

// progress tells those who wait for space that something was done.
type progress struct {
	mu   sync.Mutex // guards next
	next chan struct{}
}

func (p *progress) init() { p.next = make(chan struct{}) }

// wait returns a channel that is closed at the next made.
func (p *progress) wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}

func (p *progress) made() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.next)
	p.next = make(chan struct{})
}

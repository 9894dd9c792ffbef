package replica

import "sync"

// group lets many share one flush: do returns after a run of flush that began after do was called. Runs are one at a time.
type group struct {
	flush func() error

	mu      sync.Mutex  // guards what follows
	running bool        // a run is under way, or about to begin
	waiting []*waiter   // for the next run
	spare   [][]*waiter // arrays to be used again
	free    []*waiter
}

// waiter is somebody in do who waits. It is used again.
type waiter struct{ told chan verdict } // of size 1

// verdict is what a waiter is told: that the run is over, or that it is to carry the next one out.
type verdict struct {
	lead bool
	err  error
}

func (g *group) do() error {
	g.mu.Lock()
	if !g.running {
		g.running = true
		g.mu.Unlock()
		return g.lead()
	}
	w := g.waiter()
	g.waiting = append(g.waiting, w)
	g.mu.Unlock()
	v := <-w.told
	g.mu.Lock()
	g.free = append(g.free, w)
	g.mu.Unlock()
	if v.lead {
		return g.lead()
	}
	return v.err
}

func (g *group) waiter() *waiter {
	if n := len(g.free); n > 0 {
		w := g.free[n-1]
		g.free = g.free[:n-1]
		return w
	}
	return &waiter{make(chan verdict, 1)}
}

// lead carries out a run for its caller and all who wait when it begins.
func (g *group) lead() error {
	g.mu.Lock()
	batch := g.waiting
	if n := len(g.spare); n > 0 {
		g.waiting, g.spare = g.spare[n-1], g.spare[:n-1]
	} else {
		g.waiting = nil
	}
	g.mu.Unlock()
	err := g.flush()
	g.mu.Lock()
	if n := len(g.waiting); n > 0 {
		g.waiting[n-1].told <- verdict{lead: true} // first: the disk has nothing to do
		g.waiting = g.waiting[:n-1]
	} else {
		g.running = false
	}
	g.mu.Unlock()
	for _, w := range batch {
		w.told <- verdict{err: err}
	}
	g.mu.Lock()
	clear(batch)
	g.spare = append(g.spare, batch[:0])
	g.mu.Unlock()
	return err
}

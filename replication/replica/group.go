package replica

import "sync"

// group lets many share one flush: do returns after a run of flush that began after do was called. Runs are one at a time.
type group struct {
	flush func() error

	mu      sync.Mutex
	running *run // under way
	next    *run // those who came meanwhile wait for it
}

type run struct {
	done chan struct{}
	err  error
}

func (g *group) do() error {
	g.mu.Lock()
	if g.running == nil {
		r := &run{done: make(chan struct{})}
		g.running = r
		g.mu.Unlock()
		g.lead(r)
		return r.err
	}
	if g.next == nil {
		g.next = &run{done: make(chan struct{})}
		r := g.next
		before := g.running
		g.mu.Unlock()
		<-before.done // the first who came leads the next run
		g.lead(r)
		return r.err
	}
	r := g.next
	g.mu.Unlock()
	<-r.done
	return r.err
}

// lead carries out a run that is g.running, or becomes it.
func (g *group) lead(r *run) {
	g.mu.Lock()
	if g.next == r {
		g.running, g.next = r, nil
	}
	g.mu.Unlock()
	r.err = g.flush()
	g.mu.Lock()
	// If somebody waits as g.next he takes over when done is closed; he finds running to be r until then.
	if g.next == nil {
		g.running = nil
	}
	g.mu.Unlock()
	close(r.done)
}

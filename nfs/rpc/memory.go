package rpc

import (
	"context"
	"sync"
)

// memory bounds the bytes that calls, or replies, of all connections take. Whoever cannot have its part waits, in order;
// nobody that waits holds a part of the same memory. A connection has a quarter of it at most.
type memory struct {
	mu      sync.Mutex
	left    int64
	share   int64 // of one connection
	have    map[*conn]int64
	waiting []*claim // in the order of their coming
}

type claim struct {
	c     *conn
	n     int64
	given chan struct{} // closed, under mu, when it has its part
}

func newMemory(n int64) *memory {
	return &memory{left: n, share: n / 4, have: map[*conn]int64{}}
}

// fits tells whether c may have n bytes now. Called with mu.
func (m *memory) fits(c *conn, n int64) bool { return n <= m.left && m.have[c]+n <= m.share }

// try takes n bytes if they are to be had at once.
func (m *memory) try(c *conn, n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiting) > 0 || !m.fits(c, n) {
		return false
	}
	m.left -= n
	m.have[c] += n
	return true
}

// take waits for n bytes, which are at most a connection's share, until ctx is done.
func (m *memory) take(ctx context.Context, c *conn, n int64) error {
	if m.try(c, n) {
		return nil
	}
	m.mu.Lock()
	w := &claim{c: c, n: n, given: make(chan struct{})}
	m.waiting = append(m.waiting, w)
	m.serve()
	m.mu.Unlock()
	select {
	case <-w.given:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-w.given: // in the same moment
		m.put(c, w.n)
	default:
		for i := range m.waiting {
			if m.waiting[i] == w {
				m.waiting = append(m.waiting[:i], m.waiting[i+1:]...)
				break
			}
		}
	}
	m.serve()
	return context.Cause(ctx)
}

// give returns n bytes.
func (m *memory) give(c *conn, n int64) {
	if n == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(c, n)
	m.serve()
}

func (m *memory) put(c *conn, n int64) {
	m.left += n
	if m.have[c] -= n; m.have[c] == 0 {
		delete(m.have, c)
	}
}

// serve gives those that wait their parts. One that has its share already is passed by; one for which there is not enough
// is not, or large ones would never get theirs.
func (m *memory) serve() {
	kept := m.waiting[:0]
	stop := false
	for _, w := range m.waiting {
		if !stop && m.fits(w.c, w.n) {
			m.left -= w.n
			m.have[w.c] += w.n
			close(w.given)
			continue
		}
		stop = stop || w.n > m.left
		kept = append(kept, w)
	}
	clear(m.waiting[len(kept):])
	m.waiting = kept
}

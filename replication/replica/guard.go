package replica

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"time"

	"pmsapp/replication/peer"
)

// ErrHangs is why a guarded session died: a disk did not answer a command in time. It is wrapped in a peer.ErrLost.
var ErrHangs = errors.New("replica: the disk hangs")

// Guarded is the leader's session with its own node's replicas, which dies when a command is not answered in time, as one to
// another node does: otherwise a disk of the leader that hangs would hold the guests' I/O for ever. Commands work on copies
// of the data, or on data that the caller can do without (peer.Command.MayRetain), so that a call can end although the disk may still answer; what
// it answers then is dropped. The node still
// reports the pool as busy until that has happened (invariants 4 and 8).
type Guarded struct {
	inner peer.Session
	limit time.Duration
	done  chan struct{}

	mu    sync.Mutex // guards what follows
	cause error      // why it has died
	head  *guarded   // of the calls under way, the oldest first
	tail  *guarded

	classes [guardClasses]sync.Pool // of *guarded, by the size of the buffer
}

const (
	guardSmall   = 12 // log2 of the smallest buffer
	guardClasses = 12 // up to 8 MiB; longer ones are made for the call
	// lateness is by how much the watch may wake too late before that is taken for a pause of this machine, during which
	// answers were not seen.
	lateness = 500 * time.Millisecond
)

// guarded is a call under way.
type guarded struct {
	g          *Guarded
	call       peer.Call  // what the session executes, with a buffer of its own
	outer      *peer.Call // nil when it was given up
	began      time.Time
	class      int // -1: no buffer, or one that is not kept
	buf        []byte
	prev, next *guarded
}

// Guard wraps a session of Node.Open. limit is how long a command may take; Create, Delete and Reset may take any time.
func Guard(s peer.Session, limit time.Duration) *Guarded {
	g := &Guarded{inner: s, limit: limit, done: make(chan struct{})}
	go g.watch() // ends with the session, when every call has ended
	return g
}

// Submit implements peer.Session.
func (g *Guarded) Submit(c *peer.Call) {
	if c.Kind == peer.Confirm {
		// It touches no disk. A session that was given up confirms nothing.
		g.mu.Lock()
		cause := g.cause
		g.mu.Unlock()
		if cause != nil {
			c.Answer = peer.Answer{Err: cause}
			c.Done(c)
			return
		}
		g.inner.Submit(c)
		return
	}
	if c.Kind == peer.Read && c.Kept && g.hit(c) {
		return
	}
	var k *guarded
	if c.Kind == peer.Write && c.MayRetain {
		k = g.get(0)
		k.call.Command = c.Command
	} else {
		k = g.get(len(c.Data))
		k.call.Command = c.Command
		k.call.Data = k.buf[:len(c.Data)]
		if c.Kind == peer.Write {
			copy(k.call.Data, c.Data)
		}
	}
	k.outer, k.began = c, time.Now()
	g.mu.Lock()
	if cause := g.cause; cause != nil {
		g.mu.Unlock()
		g.put(k)
		c.Answer = peer.Answer{Err: cause}
		c.Done(c)
		return
	}
	g.push(k)
	g.mu.Unlock()
	g.inner.Submit(&k.call)
}

// hit answers a read from memory. It touches no disk, so it needs no buffer of its own; a session that was given up answers nothing.
func (g *Guarded) hit(c *peer.Call) bool {
	s, ok := g.inner.(interface{ Hit(*peer.Call) bool })
	if !ok {
		return false
	}
	g.mu.Lock()
	dead := g.cause != nil
	g.mu.Unlock()
	return !dead && s.Hit(c)
}

// answered is the end of a call as the session sees it.
func answered(call *peer.Call) {
	k := call.Owner.(*guarded)
	g := k.g
	g.mu.Lock()
	c := k.outer
	if c != nil {
		g.remove(k)
	}
	g.mu.Unlock()
	if c != nil {
		if call.Kind == peer.Read && call.Err == nil {
			copy(c.Data, call.Data)
		}
		c.Answer = call.Answer
	}
	g.put(k)
	if c != nil {
		c.Done(c)
	}
}

// watch gives the session up when a command hangs.
func (g *Guarded) watch() {
	every := max(g.limit/8, time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	last, resumed, inner := time.Now(), time.Time{}, g.inner.Done()
	for {
		select {
		case <-inner:
			g.die(g.inner.Err())
			inner = nil // calls in progress are answered by the disk, or given up
		case <-tick.C:
		}
		now := time.Now()
		if now.Sub(last) > every+lateness {
			resumed = now
		}
		last = now
		g.mu.Lock()
		hung, over := g.hangs(now, resumed), g.cause != nil && g.head == nil
		g.mu.Unlock()
		if hung {
			cause := fmt.Errorf("%w: %w for %v", peer.ErrLost, ErrHangs, g.limit)
			g.die(cause)
			g.inner.Close() // nothing more of it begins
			g.giveUp()
		}
		if over {
			return
		}
	}
}

// hangs tells whether the oldest call that counts is too old. Called with mu.
func (g *Guarded) hangs(now, resumed time.Time) bool {
	for k := g.head; k != nil; k = k.next {
		switch k.call.Kind {
		case peer.Create, peer.Delete, peer.Reset, peer.Grow:
			continue
		}
		return now.Sub(k.began) >= g.limit && now.Sub(resumed) >= g.limit
	}
	return false
}

func (g *Guarded) die(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cause == nil {
		g.cause = cause
		close(g.done)
	}
}

// giveUp ends every call under way.
func (g *Guarded) giveUp() {
	g.mu.Lock()
	cause := g.cause
	var all []*peer.Call
	for k := g.head; k != nil; k = g.head {
		g.remove(k)
		all = append(all, k.outer)
		k.outer = nil
	}
	g.mu.Unlock()
	for _, c := range all {
		c.Answer = peer.Answer{Err: cause, Retained: c.Kind == peer.Write && c.MayRetain}
		c.Done(c)
	}
}

// push and remove are called with mu.
func (g *Guarded) push(k *guarded) {
	k.prev, k.next = g.tail, nil
	if g.tail == nil {
		g.head = k
	} else {
		g.tail.next = k
	}
	g.tail = k
}

func (g *Guarded) remove(k *guarded) {
	if k.prev == nil {
		g.head = k.next
	} else {
		k.prev.next = k.next
	}
	if k.next == nil {
		g.tail = k.prev
	} else {
		k.next.prev = k.prev
	}
	k.prev, k.next = nil, nil
}

// get finds or makes a call with a buffer of at least n bytes.
func (g *Guarded) get(n int) *guarded {
	class := max(bits.Len(uint(max(n, 1)-1))-guardSmall, 0)
	if class >= guardClasses {
		class = -1
	} else if k, ok := g.classes[class].Get().(*guarded); ok {
		return k
	} else {
		n = 1 << (class + guardSmall) // at least a page: Go's allocator aligns it to one, as direct I/O wants it
	}
	k := &guarded{g: g, class: class, buf: make([]byte, n)}
	k.call.Done, k.call.Owner = answered, k
	return k
}

func (g *Guarded) put(k *guarded) {
	k.outer = nil
	k.call.Command, k.call.Answer = peer.Command{}, peer.Answer{}
	if k.class >= 0 {
		g.classes[k.class].Put(k)
	}
}

// Fenced implements peer.Session.
func (g *Guarded) Fenced() peer.Fenced { return g.inner.Fenced() }

// Poll implements peer.Session.
func (g *Guarded) Poll(ctx context.Context) (peer.Fenced, error) { return g.inner.Poll(ctx) }

// Done implements peer.Session.
func (g *Guarded) Done() <-chan struct{} { return g.done }

// Err implements peer.Session.
func (g *Guarded) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cause
}

// Close implements peer.Session.
func (g *Guarded) Close() {
	g.die(peer.ErrLost)
	g.inner.Close()
}

var _ peer.Session = (*Guarded)(nil)

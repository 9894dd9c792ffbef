package replica

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// Session is a leader's session with this node's replicas, under one epoch. It is a peer.Session.
type Session struct {
	node  *Node
	epoch peer.Epoch
	over  atomic.Bool // as cause != nil, for a look without the lock
	done  chan struct{}
	idle  chan struct{} // closed when it has ended and no command of it is in progress

	pools map[ids.Pool]poolState // what was recorded. Guarded by Node.fence

	mu       sync.Mutex // guards what follows
	cause    error
	running  map[ids.Pool]int
	count    int
	admitted map[ids.Pool]bool // pools that are fenced: commands may use them
	fenced   peer.Fenced
	known    map[ids.Volume]ids.ID // the incarnations that the session's commands are for
}

// poolState is how far a pool has got with the session's epoch.
type poolState struct {
	before   []peer.EpochRange // what it had accepted
	result   <-chan error      // of the recording under way; nil if none is
	recorded bool
	reverted bool
}

func newSession(n *Node, e peer.Epoch) *Session {
	return &Session{node: n, epoch: e, done: make(chan struct{}), idle: make(chan struct{}), pools: map[ids.Pool]poolState{},
		running: map[ids.Pool]int{}, admitted: map[ids.Pool]bool{}, known: map[ids.Volume]ids.ID{}}
}

// Fenced implements peer.Session.
func (s *Session) Fenced() peer.Fenced {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fenced
}

func (s *Session) setFenced(f peer.Fenced) {
	s.mu.Lock()
	s.fenced = f
	s.mu.Unlock()
}

// admit lets commands use a pool, whose replicas are as described. What the session was told first of a replica counts: later
// answers may be read by others than those who rely on it.
func (s *Session) admit(p ids.Pool, replicas []peer.FencedReplica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admitted[p] = true
	for i := range replicas {
		if v := replicas[i].Spec.Volume; s.known[v].IsZero() {
			s.known[v] = replicas[i].Incarnation
		}
	}
}

// admits tells whether commands use a pool.
func (s *Session) admits(p ids.Pool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.admitted[p]
}

// means tells whether a command is for this incarnation of its replica. One that reads the map begins with what there is.
func (s *Session) means(c *peer.Call, now ids.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Kind == peer.ReadMap || s.known[c.Volume].IsZero() {
		s.known[c.Volume] = now
	}
	return s.known[c.Volume] == now
}

// Done implements peer.Session.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err implements peer.Session.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// Close implements peer.Session.
func (s *Session) Close() { s.end(peer.ErrLost) }

// end ends the session: no command begins any more. Those in progress go on to their end, and are answered with the cause.
func (s *Session) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return
	}
	s.cause = cause
	s.over.Store(true)
	close(s.done)
	if s.count == 0 {
		close(s.idle)
	}
}

// inProgress returns the pools in which commands are in progress.
func (s *Session) inProgress() []ids.Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.running))
}

// finished tells whether the session has ended and nothing of it is in progress.
func (s *Session) finished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause != nil && s.count == 0
}

// Poll implements peer.Session: it looks again for pools that were busy or absent.
func (s *Session) Poll(ctx context.Context) (peer.Fenced, error) {
	n := s.node
	select {
	case n.fence <- struct{}{}:
		defer func() { <-n.fence }()
	case <-ctx.Done():
		return peer.Fenced{}, context.Cause(ctx)
	}
	if err := s.Err(); err != nil {
		return peer.Fenced{}, err
	}
	if err := n.acknowledge(ctx, s); err != nil {
		return peer.Fenced{}, err
	}
	if err := s.Err(); err != nil {
		return peer.Fenced{}, err
	}
	return s.Fenced(), nil
}

// Submit implements peer.Session.
func (s *Session) Submit(c *peer.Call) {
	c.Answer = peer.Answer{}
	if c.Kind == peer.Confirm {
		// The check comes after the request: the session has ended before a higher epoch was recorded (invariants 8, 11).
		if s.over.Load() {
			c.Err = s.Err()
		}
		c.Done(c)
		return
	}
	p, r, other := s.node.lookup(c)
	if p == nil {
		if err := s.Err(); err != nil {
			c.Err = err
		} else if c.Kind != peer.Delete { // what is not there needs no deleting
			c.Err = fmt.Errorf("volume %s: %w", c.Volume, peer.ErrNoReplica)
		}
		c.Done(c)
		return
	}
	s.mu.Lock()
	switch {
	case s.cause != nil:
		c.Err = s.cause
	case !s.admitted[p.id]:
		c.Err = fmt.Errorf("pool %s is not fenced: %w", p.path, peer.ErrNoReplica)
	case other: // at most one per node and volume
		c.Err = fmt.Errorf("another pool has a replica of volume %s: %w", c.Volume, peer.ErrInvalid)
		if c.Kind != peer.Create && c.Kind != peer.Reset {
			c.Err = fmt.Errorf("two pools have a replica of volume %s: %w", c.Volume, peer.ErrNoReplica)
		}
	}
	if c.Err != nil {
		s.mu.Unlock()
		c.Done(c)
		return
	}
	s.running[p.id]++
	s.count++
	s.mu.Unlock()
	switch c.Kind {
	case peer.Create, peer.Delete, peer.Reset, peer.Grow:
		p.shapes.run(job{s: s, c: c, p: p, r: r})
	default:
		switch j := (job{s: s, c: c, p: p, r: r}); {
		case c.Lent != nil && p.work.lend(c.Lent, j):
		case r != nil && r.batchable(c, p):
			r.batches.add(j)
		default:
			p.work.run(j)
		}
	}
}

// Hit answers a read with Kept whose bytes are in memory, before it returns; or it returns false, and nothing has happened.
func (s *Session) Hit(c *peer.Call) bool {
	p, r, other := s.node.lookup(c)
	if p == nil || r == nil || other {
		return false
	}
	s.mu.Lock()
	if s.cause != nil || !s.admitted[p.id] {
		s.mu.Unlock()
		return false
	}
	s.running[p.id]++
	s.count++
	s.mu.Unlock()
	hit := r.hit(c, s)
	if err := s.ended(p); hit {
		c.Answer = peer.Answer{Err: err}
		c.Done(c)
	}
	return hit
}

// ended counts a command out, and returns why the session has ended, if it has.
func (s *Session) ended(p *pool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[p.id]--; s.running[p.id] == 0 {
		delete(s.running, p.id)
	}
	s.count--
	if s.count == 0 && s.cause != nil {
		close(s.idle)
	}
	return s.cause
}

// job is a command on its way. Without one it is a runner of the replica's batches, or has those writes of one that are to be marked.
type job struct {
	s      *Session
	c      *peer.Call
	p      *pool
	r      *replica
	marked *batch
}

// run carries a job out, unless its session has ended meanwhile.
func (j job) run() {
	switch {
	case j.marked != nil:
		j.r.runMarked(j.p, j.marked)
		return
	case j.c == nil:
		j.r.runBatches(j.p)
		return
	}
	err := j.s.Err()
	if err == nil {
		err = j.execute()
	}
	if err == nil {
		j.s.renamed(j.c)
	}
	j.end(err)
}

// end answers a command.
func (j job) end(err error) {
	s, c := j.s, j.c
	if cause := s.ended(j.p); cause != nil {
		err = cause
	}
	if c.Err = err; err != nil && !errors.Is(err, peer.ErrEpoch) && !errors.Is(err, peer.ErrLost) && !errors.Is(err, peer.ErrNoReplica) {
		s.node.cfg.Log.Warn("a command failed", "volume", c.Volume.String(), "pool", j.p.path, "kind", int(c.Kind), "err", err)
	}
	c.Done(c)
}

// renamed forgets the incarnation of a replica that was made or deleted by this session, which knows everything of it.
func (s *Session) renamed(c *peer.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c.Kind {
	case peer.Create, peer.Reset:
		delete(s.known, c.Spec.Volume)
	case peer.Delete:
		delete(s.known, c.Volume)
	}
}

func (j job) execute() error {
	switch j.c.Kind {
	case peer.Create:
		if err := checkSpec(j.c.Spec); err != nil {
			return err
		}
		return j.p.create(j.c.Spec)
	case peer.Delete:
		return j.p.remove(j.c.Volume)
	case peer.Reset:
		return j.p.reset(j.c.Spec)
	case peer.Grow:
		return j.p.grow(j.c.Spec)
	}
	return j.r.execute(j.c, j.s)
}

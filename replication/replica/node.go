package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// Config is what a Node is made of.
type Config struct {
	Dir     string // on the catalog's disk, for the node's own epoch
	Cluster ids.Cluster
	Log     *slog.Logger
	// Written says how often the catalog has been written so far. It is called with locks held and must not block. Without it the
	// records say nothing of the catalog.
	Written func() Written
	// Cache is how many bytes of memory at most are used for blocks that were read.
	Cache int64

	disk disk // the operating system's if nil
	free bool // space is freed at once: for tests that replay
}

const (
	// drainWait is how long a fence waits for commands of lower epochs; past it their pools are busy.
	drainWait = 200 * time.Millisecond
	// recordWait is how long it waits for pools to record the epoch; past it they are busy.
	recordWait = 500 * time.Millisecond
	// maxWorkers is how many commands a pool executes at a time. Each pool has its own: a disk that hangs is nobody else's.
	maxWorkers = 64
)

// Node is what a node has: its pools and its accepted epoch.
type Node struct {
	cfg   Config
	cache *cache

	fence chan struct{} // held by who fences, polls or adds a pool: one at a time

	mu       sync.Mutex // guards what follows
	closed   bool
	accepted peer.Epoch
	pools    []*pool
	sessions []*Session // live ones, and dead ones with commands in progress

	// Guarded by fence.
	record slots      // on the catalog's disk
	own    nodeRecord // what it holds
	broken error      // writing it failed: it is not tried again
}

// OpenNode reads the node's own record. The pools come by AddPool.
func OpenNode(cfg Config) (*Node, error) {
	if cfg.disk == nil {
		cfg.disk = osDisk{}
	}
	if cfg.Written == nil {
		cfg.Written = func() Written { return Written{} }
	}
	n := &Node{cfg: cfg, fence: make(chan struct{}, 1)}
	if err := n.openRecord(); err != nil {
		return nil, fmt.Errorf("the node's record of its epoch, %s: %w", n.file(), err)
	}
	n.accepted = n.own.epoch
	var err error
	if n.cache, err = newCache(cfg.Cache); err != nil {
		n.record.f.close()
		return nil, err
	}
	return n, nil
}

func (n *Node) openRecord() error {
	f, err := n.cfg.disk.open(n.file(), blockSize)
	if errors.Is(err, os.ErrNotExist) {
		// Made under another name, so that it is never there without its size and its space.
		tmp := n.file() + ".new"
		err = n.cfg.disk.removeAll(tmp)
		if err == nil {
			err = n.cfg.disk.create(tmp, 2*blockSize, true)
		}
		if err == nil {
			err = n.cfg.disk.rename(tmp, n.file())
		}
		if err == nil {
			f, err = n.cfg.disk.open(n.file(), blockSize)
		}
	}
	if err != nil {
		return err
	}
	// Also when it was there: a process may have died before it.
	if err = n.cfg.disk.syncDir(n.cfg.Dir); err == nil {
		n.record.f = f
		err = n.record.load(func(b []byte) (uint64, error) {
			var err error
			n.own, err = decodeNode(b)
			return n.own.count, err
		})
		if errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w: restore it from a backup; or remove it, and what the pools say counts", err)
		}
	}
	if err != nil {
		f.close()
	}
	return err
}

func (n *Node) file() string { return filepath.Join(n.cfg.Dir, "epoch") }

// AddPool opens a pool; may says that an empty directory becomes one. A pool with an epoch above the accepted one ends all
// sessions: their leader is not the newest.
func (n *Node) AddPool(path string, may bool) (ids.Pool, error) {
	// Not under the fence: a disk that hangs here would keep the other pools from being fenced.
	p, err := openPool(n.cfg, path, may)
	if err != nil {
		return ids.Pool{}, err
	}
	n.fence <- struct{}{}
	defer func() { <-n.fence }()
	p.cache = n.cache
	for _, r := range p.replicas {
		r.keepIn(n.cache)
		if r.foreign != nil {
			n.cfg.Log.Error("a replica cannot be used", "pool", path, "volume", r.spec.Volume.String(), "err", r.foreign)
		}
	}
	if err := n.fits(p); err != nil {
		p.close()
		return ids.Pool{}, err
	}
	p.freer.start(n.cfg.Log)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pools = append(n.pools, p)
	if e := p.highest(); e > n.accepted {
		n.accepted = e
		n.endAll(&peer.EpochError{Accepted: e})
	}
	return p.id, nil
}

// fits tells whether a pool can be added.
func (n *Node) fits(p *pool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return ErrClosed
	}
	for _, q := range n.pools {
		if q.id == p.id {
			return fmt.Errorf("pool %s: %w: it is a copy of %s", p.path, ErrInUse, q.path)
		}
	}
	if len(n.pools) == maxNodePools {
		return fmt.Errorf("pool %s: a node has at most %d pools", p.path, maxNodePools)
	}
	return nil
}

// PoolInfo describes a pool. Sizes are bytes.
type PoolInfo struct {
	ID         ids.Pool
	Path       string
	Size, Free int64
	Epoch      peer.Epoch
	Err        error
}

// Pools describes the pools.
func (n *Node) Pools() (out []PoolInfo) {
	n.mu.Lock()
	pools := slices.Clone(n.pools)
	n.mu.Unlock()
	for _, p := range pools {
		i := PoolInfo{ID: p.id, Path: p.path, Epoch: p.highest()}
		_, i.Err, _ = p.history()
		size, free, err := p.disk.usage(p.path)
		i.Size, i.Free, i.Err = size, free, errors.Join(i.Err, err)
		out = append(out, i)
	}
	return out
}

// Accepted returns the highest epoch that the node has accepted.
func (n *Node) Accepted() peer.Epoch {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.accepted
}

// Written returns what the node's own record and its pools know of the catalog: what Config.Written said, at the latest, when they
// recorded the newest epoch that they have. Those that do not know say the zero value.
func (n *Node) Written() []Written {
	n.fence <- struct{}{}
	defer func() { <-n.fence }()
	n.mu.Lock()
	defer n.mu.Unlock()
	out := []Written{n.own.written}
	for _, p := range n.pools {
		p.mu.Lock()
		out = append(out, p.written)
		p.mu.Unlock()
	}
	return out
}

// Close ends all sessions, waits for their commands, and closes the pools.
func (n *Node) Close() {
	n.fence <- struct{}{}
	defer func() { <-n.fence }()
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return
	}
	n.closed = true
	n.endAll(peer.ErrLost)
	sessions, pools := slices.Clone(n.sessions), n.pools
	n.mu.Unlock()
	for _, s := range sessions {
		<-s.idle
	}
	for _, p := range pools {
		p.work.close()
		p.shapes.close()
		p.close()
	}
	if err := n.cache.close(); err != nil {
		n.cfg.Log.Warn("giving memory back", "err", err)
	}
	n.record.f.close()
}

// endAll ends the sessions. Called with mu.
func (n *Node) endAll(cause error) {
	for _, s := range n.sessions {
		s.end(cause)
	}
}

// Open fences for an epoch (invariant 8).
func (n *Node) Open(ctx context.Context, e peer.Epoch) (peer.Session, error) {
	select {
	case n.fence <- struct{}{}:
		defer func() { <-n.fence }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	n.mu.Lock()
	switch {
	case n.closed:
		n.mu.Unlock()
		return nil, ErrClosed
	case e < n.accepted || e == 0:
		defer n.mu.Unlock()
		return nil, &peer.EpochError{Accepted: n.accepted}
	}
	highest := n.accepted
	if e > n.accepted {
		n.endAll(&peer.EpochError{Accepted: e})
	} else {
		n.endAll(peer.ErrLost)
	}
	// From here on nothing of a lower epoch begins.
	n.accepted = e
	s := newSession(n, e)
	n.mu.Unlock()
	if err := n.acknowledge(ctx, s); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.accepted > e {
		return nil, &peer.EpochError{Accepted: n.accepted}
	}
	s.fenced.Highest = highest
	n.sessions = append(n.sessions, s)
	return s, nil
}

// acknowledge records the session's epoch wherever that is possible and not done yet, and brings the session's answer up to
// date. Called with fence held.
func (n *Node) acknowledge(ctx context.Context, s *Session) error {
	n.mu.Lock()
	pools := slices.Clone(n.pools)
	n.mu.Unlock()
	written := n.cfg.Written()
	recorded := n.recordEpoch(ctx, s, pools, written)
	if err := n.remember(s.epoch, recorded, written); err != nil {
		return err
	}
	busy := n.drain(ctx)
	for p := range n.reopen(ctx, pools, busy) {
		busy[p] = busy[p] || !s.admits(p) // of a pool that its commands use the session is told no less than before
	}
	f := peer.Fenced{Highest: s.fenced.Highest}
	for _, p := range pools {
		st, known := s.pools[p.id]
		if !known {
			continue // it could not record: as good as absent
		}
		fp := peer.FencedPool{Pool: p.id, Accepted: st.before, Reverted: st.reverted, Busy: !st.recorded || busy[p.id]}
		if k := len(st.before); k > 0 {
			fp.Previous = st.before[k-1].Hi
		}
		if !fp.Busy {
			for _, r := range p.all() {
				fp.Replicas = append(fp.Replicas, r.describe())
			}
			s.admit(p.id, fp.Replicas)
		}
		f.Pools = append(f.Pools, fp)
	}
	s.setFenced(f)
	return nil
}

// reopen has the replicas opened anew whose flush has failed, in all pools at once but those that are busy, and returns the pools in
// which that is not over after a while: a disk that begins to fail may well hang next.
func (n *Node) reopen(ctx context.Context, pools []*pool, busy map[ids.Pool]bool) map[ids.Pool]bool {
	under := map[ids.Pool]<-chan struct{}{}
	for _, p := range pools {
		if busy[p.id] {
			continue
		}
		if over := p.reopen(n.renewed); over != nil {
			under[p.id] = over
		}
	}
	left := map[ids.Pool]bool{}
	if len(under) == 0 {
		return left
	}
	ctx, cancel := context.WithTimeout(ctx, recordWait)
	defer cancel()
	for p, over := range under {
		select {
		case <-over:
			continue
		default:
		}
		select {
		case <-over:
		case <-ctx.Done():
			left[p] = true
		}
	}
	return left
}

// renewed says that a flush failed and the replica was opened anew.
func (n *Node) renewed() {
	n.cfg.Log.Warn("a replica was opened anew after its disk had failed to write")
}

// recordEpoch has the pools record the epoch, all at once, and returns those that have it. A pool whose disk takes longer is
// asked for its result the next time. Called with fence held.
func (n *Node) recordEpoch(ctx context.Context, s *Session, pools []*pool, w Written) (have []ids.Pool) {
	for _, p := range pools {
		st := s.pools[p.id]
		if st.recorded || st.result != nil {
			continue
		}
		before, failed, ok := p.history()
		switch {
		case failed != nil:
			delete(s.pools, p.id)
			continue
		case !ok: // an earlier fence's epoch is on its way to the disk: busy
		case n.own.epoch == s.epoch && slices.Contains(n.own.pools, p.id) && !peer.Has(before, s.epoch):
			// It had recorded this very epoch, and has lost that: to record it again would hide it.
			st.before, st.recorded, st.reverted = before, true, true
		default:
			result := make(chan error, 1)
			if before, ok := p.begin(s.epoch, w, func(err error) { result <- err }); ok {
				st.before, st.result = before, result
			}
		}
		s.pools[p.id] = st
	}
	ctx, cancel := context.WithTimeout(ctx, recordWait)
	defer cancel()
	for _, p := range pools {
		st, known := s.pools[p.id]
		if !known || !st.recorded && st.result == nil {
			continue
		}
		if !st.recorded {
			ok, err := result(ctx, st.result)
			if !ok {
				continue
			}
			if err != nil {
				n.cfg.Log.Error("a pool could not record an epoch", "pool", p.path, "epoch", uint64(s.epoch), "err", err)
				delete(s.pools, p.id)
				continue
			}
			st.recorded, st.result = true, nil
			s.pools[p.id] = st
		}
		have = append(have, p.id)
	}
	return have
}

// result waits for the end of a recording. One that has ended counts, also when a pool before it has used up the time.
func result(ctx context.Context, from <-chan error) (ok bool, failed error) {
	select {
	case failed = <-from:
		return true, failed
	default:
	}
	select {
	case failed = <-from:
		return true, failed
	case <-ctx.Done():
		return false, nil
	}
}

// remember records the epoch on the catalog's disk, and which pools have it.
func (n *Node) remember(e peer.Epoch, pools []ids.Pool, w Written) error {
	if n.broken != nil {
		return n.broken
	}
	next := nodeRecord{count: n.record.count + 1, epoch: e, pools: slices.Clone(pools), written: w}
	if n.own.epoch == e {
		for _, p := range n.own.pools {
			if !slices.Contains(next.pools, p) {
				next.pools = append(next.pools, p)
			}
		}
		if len(next.pools) == len(n.own.pools) {
			return nil
		}
	}
	if len(next.pools) > maxNodePools {
		next.pools = next.pools[:maxNodePools]
	}
	if err := n.record.write(next.encode()); err != nil {
		n.broken = diskError("recording the epoch on the catalog's disk", err)
		return n.broken
	}
	n.own = next
	return nil
}

// drain waits for the commands of sessions that have ended, for a while, and returns the pools in which some are left.
func (n *Node) drain(ctx context.Context) map[ids.Pool]bool {
	n.mu.Lock()
	sessions := slices.Clone(n.sessions)
	n.mu.Unlock()
	limit := time.NewTimer(drainWait)
	defer limit.Stop()
	busy := map[ids.Pool]bool{}
	over := false
	for _, s := range sessions {
		if s.Err() == nil {
			continue // alive: Poll's own
		}
		if !over {
			select {
			case <-s.idle:
			case <-limit.C:
				over = true
			case <-ctx.Done():
				over = true
			}
		}
		for _, p := range s.inProgress() {
			busy[p] = true
		}
	}
	n.mu.Lock()
	n.sessions = slices.DeleteFunc(n.sessions, func(s *Session) bool { return s.finished() })
	n.mu.Unlock()
	return busy
}

// lookup finds the replica of a volume and its pool; for Create and Reset the pool. other says that another pool has a replica
// of the volume: a disk came back after its replica was made anew in another pool. Which of them is meant is not guessed: all
// but a Delete that names its pool is refused until one of them is gone.
func (n *Node) lookup(c *peer.Call) (p *pool, r *replica, other bool) {
	n.mu.Lock()
	pools := n.pools
	n.mu.Unlock()
	if c.Kind != peer.Create && c.Kind != peer.Reset {
		named := c.Kind == peer.Delete && !c.Spec.Pool.IsZero()
		for _, q := range pools {
			if f := q.find(c.Volume); f != nil && (!named || q.id == c.Spec.Pool) {
				other = p != nil
				p, r = q, f
			}
		}
		return p, r, other
	}
	for _, q := range pools {
		if q.id == c.Spec.Pool {
			p = q
		} else if q.find(c.Spec.Volume) != nil {
			other = true
		}
	}
	return p, nil, other
}

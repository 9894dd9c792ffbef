package treesim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
)

// sector is what a write changes whole or not at all.
const sector = 512

var (
	errDied    = fmt.Errorf("the leader died: %w", block.ErrEnded)
	errUnknown = errors.New("the outcome is unknown")
)

// world is a volume and a catalog that outlive their leaders.
type world struct {
	brk  Break
	fail func(format string, a ...any)

	mu      sync.Mutex // guards what follows
	r       *rand.Rand
	disk    []byte
	logical int
	tree    *filetree.Tree
	epoch   int
	room    int64 // of the tree's meta
	flights []*flight
	queued  []*command // proposed, not decided
	late    *command   // of an unknown outcome, to be decided before the next
	undo    []undone   // of BreakDurable
	former  *filetree.Tree
	ghosts  []*flight // of BreakLate
	stats   map[string]int
}

// flight is a request under way.
type flight struct {
	r     *block.Request
	epoch int
	data  []byte // what a write writes
	over  chan struct{}
	done  bool
}

type undone struct {
	off int64
	was []byte
}

// command is a batch under way to the log.
type command struct {
	epoch   int
	batch   filetree.Batch
	results []filetree.Result
	decided bool
	applied bool
}

func newWorld(brk Break, seed uint64, fail func(string, ...any)) *world {
	r := rand.New(rand.NewPCG(seed, 17))
	size := int64(128<<10) << r.IntN(4)
	w := &world{brk: brk, fail: fail, r: r, disk: make([]byte, size), logical: []int{512, 4096}[r.IntN(2)], tree: filetree.New(size, 7, 1000),
		room: filetree.MaxMeta, stats: map[string]int{}}
	if r.IntN(4) == 0 {
		w.room = 6000
	}
	return w
}

// some is a random time of up to d, mostly short.
func (w *world) some(d time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.r.IntN(4) > 0 {
		d /= 10
	}
	return time.Duration(w.r.Int64N(int64(d) + 1))
}

// count notes what a call was answered.
func (w *world) count(a call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case a.status == nfs3.ErrNoSpace:
		w.stats["answers: no space"]++
	case a.status == nfs3.ErrStale:
		w.stats["answers: stale"]++
	}
	if a.tries > 1 {
		w.stats["calls that were sent again"]++
	}
}

// node is the world as one leader has it. Its catalog is that of its node, which may have heard no more since the next leader began.
type node struct {
	w      *world
	epoch  int
	behind *filetree.Tree // not nil: what it has heard; guarded by w.mu
}

func (n *node) Geometry() block.Geometry {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return block.Geometry{Size: int64(len(n.w.disk)), Logical: n.w.logical, Physical: 4096, MaxLen: 4 << 20}
}

func (n *node) Tree() *filetree.Tree {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.behind != nil {
		return n.behind
	}
	return n.w.tree
}

// Submit implements block.Device: a request ends after those before it that it overlaps.
func (n *node) Submit(r *block.Request) {
	w := n.w
	delay := w.some(4 * time.Millisecond)
	f := &flight{r: r, epoch: n.epoch, over: make(chan struct{})}
	w.mu.Lock()
	var before []*flight
	switch {
	case r.Len < 0 || r.Off < 0 || r.Off%int64(w.logical) != 0 || r.Len%int64(w.logical) != 0 || r.Off+r.Len > int64(len(w.disk)) || r.Op != block.Zero && r.Len != int64(len(r.Data)):
		w.fail("request %d of %d bytes at %d", r.Op, r.Len, r.Off)
	case r.Op == block.Write && !r.FUA:
		w.fail("a write that is not durable in a memory volume")
	}
	if n.epoch == w.epoch {
		for _, o := range w.flights {
			if o.r.Off < r.Off+r.Len && r.Off < o.r.Off+o.r.Len && (o.r.Op != block.Read || r.Op != block.Read) {
				before = append(before, o)
			}
		}
		if r.Op == block.Write {
			f.data = append([]byte(nil), r.Data...)
		}
		w.flights = append(w.flights, f)
	}
	w.mu.Unlock()
	if w.brk == BreakEarly && r.Op == block.Write {
		go func() {
			time.Sleep(delay + 20*time.Millisecond)
			w.end(&flight{r: &block.Request{Op: r.Op, Off: r.Off, Len: int64(len(f.data)), Done: func(*block.Request) {}}, epoch: n.epoch, data: f.data, over: f.over})
		}()
		w.mu.Lock()
		if n.epoch != w.epoch {
			r.Err = errDied
		}
		w.drop(f)
		w.mu.Unlock()
		r.Done(r)
		return
	}
	go func() {
		for _, o := range before {
			<-o.over
		}
		time.Sleep(delay)
		w.end(f)
	}()
}

// drop takes a request from those under way. Called with mu.
func (w *world) drop(f *flight) {
	for i, o := range w.flights {
		if o == f {
			w.flights = append(w.flights[:i], w.flights[i+1:]...)
			return
		}
	}
}

// end is the end of a request.
func (w *world) end(f *flight) {
	w.mu.Lock()
	r := f.r
	w.drop(f)
	switch {
	case f.done: // at the death of its leader
	case f.epoch != w.epoch && !(w.brk == BreakConfirm && r.Op == block.Read):
		r.Err = errDied
	case r.Op == block.Read:
		copy(r.Data, w.disk[r.Off:])
	default:
		whole := 0
		if w.r.IntN(300) == 0 && r.Op == block.Write {
			r.Err = block.ErrNoSpace
			whole = 1 + w.r.IntN(2)
			w.stats["writes that failed"]++
		}
		w.apply(f, whole)
	}
	w.mu.Unlock()
	close(f.over)
	r.Done(r)
}

// apply has a request's effect: wholly (0), in part (1) or not. Called with mu.
func (w *world) apply(f *flight, how int) {
	if how > 1 || w.brk == BreakZero && f.r.Op == block.Zero {
		return
	}
	if w.brk == BreakDurable && f.r.Op == block.Write && how == 0 {
		w.undo = append(w.undo[max(0, len(w.undo)-3):], undone{f.r.Off, append([]byte(nil), w.disk[f.r.Off:f.r.Off+f.r.Len]...)})
	}
	for at := int64(0); at < f.r.Len; at += sector {
		switch to := w.disk[f.r.Off+at : f.r.Off+at+sector]; {
		case how == 1 && w.r.IntN(2) == 0:
		case f.r.Op == block.Zero:
			clear(to)
		default:
			copy(to, f.data[at:])
		}
	}
}

// Propose implements share.Catalog.
func (n *node) Propose(ctx context.Context, b filetree.Batch) ([]filetree.Result, error) {
	w := n.w
	d, err := filetree.DecodeBatch(b.Encode())
	if err != nil {
		w.fail("a batch that cannot be read: %v", err)
		return nil, err
	}
	c := &command{epoch: n.epoch, batch: d}
	w.mu.Lock()
	w.queued = append(w.queued, c)
	w.mu.Unlock()
	time.Sleep(w.some(6 * time.Millisecond))
	w.mu.Lock()
	unknown := w.r.IntN(150) == 0
	if !c.decided {
		w.unqueue(c)
		w.decideLate()
		switch {
		case unknown && w.late == nil && w.r.IntN(2) == 0 && n.epoch == w.epoch:
			w.late = c // decided before the next, or never
			w.stats["commands with an unknown outcome"]++
		default:
			w.decide(c, !unknown || w.r.IntN(2) == 0)
		}
	}
	died := n.epoch != w.epoch
	w.mu.Unlock()
	time.Sleep(w.some(time.Millisecond))
	w.mu.Lock()
	died = died || n.epoch != w.epoch
	w.mu.Unlock()
	switch {
	case died:
		return nil, errDied
	case (unknown || !c.applied) && w.brk == BreakUnknown && !died:
		for range b.Ops {
			c.results = append(c.results, filetree.Result{})
		}
		return c.results[:len(b.Ops)], nil
	case unknown || !c.applied:
		return nil, errUnknown
	}
	return c.results, nil
}

func (w *world) unqueue(c *command) {
	for i, o := range w.queued {
		if o == c {
			w.queued = append(w.queued[:i], w.queued[i+1:]...)
			return
		}
	}
}

func (w *world) decideLate() {
	if c := w.late; c != nil {
		w.late = nil
		w.decide(c, w.r.IntN(2) == 0)
	}
}

// decide applies a command, if it reached the log and its leader still leads. Called with mu.
func (w *world) decide(c *command, logged bool) {
	c.decided = true
	if !logged || c.epoch != w.epoch {
		return
	}
	b := c.batch
	if w.brk == BreakCeiling {
		b.Ceil = 0
	}
	skip := map[int]bool{}
	for i := range b.Ops {
		o := &b.Ops[i]
		if w.brk == BreakReplies {
			o.Reply = filetree.Key{}
		}
		skip[i] = w.brk == BreakMarks && o.Kind == filetree.Mark || w.brk == BreakOpen && o.Kind == filetree.Open
		if skip[i] {
			*o = filetree.Op{Kind: filetree.Back, Now: o.Now} // nothing
		}
	}
	w.former = w.tree
	w.tree, c.results = w.tree.Apply(b, w.room-w.tree.Meta())
	c.applied = true
	w.stats["commands"]++
	w.stats["operations in them"] += len(b.Ops)
}

// kill ends the reign: what is under way has its effect, wholly, in part or not, and is never answered. The former leader's node may
// have heard no more from then on.
func (w *world) kill(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.decideLate()
	for _, c := range w.queued {
		w.decide(c, w.r.IntN(2) == 0)
	}
	w.queued = nil
	if w.r.IntN(2) == 0 || w.brk == BreakConfirm {
		n.behind = w.tree
	}
	if w.brk == BreakCommitted && w.former != nil {
		w.tree = w.former
	}
	if w.brk == BreakDurable {
		for i := len(w.undo) - 1; i >= 0; i-- {
			copy(w.disk[w.undo[i].off:], w.undo[i].was)
		}
		w.undo = nil
	}
	for _, f := range w.flights {
		if f.r.Op == block.Read {
			continue
		}
		if w.brk == BreakLate && f.r.Op == block.Write {
			w.ghosts = append(w.ghosts, f)
			continue
		}
		w.apply(f, w.r.IntN(3))
		f.done, f.r.Err = true, errDied
	}
	w.flights = nil
	w.epoch++
	w.stats["leaders that died"]++
}

// haunt is what BreakLate breaks.
func (w *world) haunt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.ghosts {
		w.apply(f, 0)
	}
	w.ghosts = nil
}

// begin is the next leader, from a snapshot sometimes.
func (w *world) begin() *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.tree.Check(); err != nil {
		w.fail("a leader takes over: %v", err)
	}
	if w.r.IntN(3) == 0 {
		w.tree = reloaded(w.tree, w.fail)
		w.stats["snapshots"]++
	}
	return &node{w: w, epoch: w.epoch}
}

package mirror

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// Sessions gives the mirrors of a reign the sessions that they share: one per node.
type Sessions interface {
	// Session returns a live session of the reign's epoch with node, its answer to the fence recorded. If there is none
	// it makes one attempt to open it, shared with all who ask meanwhile. It returns a peer.ErrEpoch if the node has
	// accepted a higher epoch. The session stays the callee's: the mirror never closes it.
	Session(ctx context.Context, node ids.Node) (peer.Session, error)
}

// Budget is shared by the resyncs and scrubs of a node (package throttle).
type Budget interface {
	// Guest tells how long a client's I/O took, from Submit to Done. It is called for each of them, by many at once.
	Guest(took time.Duration)
	// Wait returns when n more bytes may be copied, or with ctx's error.
	Wait(ctx context.Context, n int64) error
}

// Config is what a Mirror is made of.
type Config struct {
	Params   Params
	Sessions Sessions
	Catalog  truth.Catalog
	Log      *slog.Logger
	Budget   Budget // nil: no common budget
	// Notify is called with each Notice, one at a time; it must not block nor call the Mirror. May be nil.
	Notify func(Notice)
	// Resynced is called at the end of a resync, in the same way. May be nil.
	Resynced func(node ids.Node, s ResyncStatus, err error)
}

// Mirror is one open volume. It is a block.Device.
//
// Effects are carried out outside the lock, by one goroutine at a time: whoever finds nobody at it, up to a bound, then
// the mirror's own. So a session or a client that answers at once never makes the stack grow, and a client's goroutine
// is never kept for long by the work of others.
type Mirror struct {
	cfg   Config
	log   *slog.Logger
	start time.Time
	geo   atomic.Pointer[block.Geometry] // replaced as a whole

	answered func(*peer.Call) // made once: Call.Done of every call
	links    atomic.Pointer[[]link]

	mu       sync.Mutex // guards what follows; never held while anything outside is called
	core     *Core
	queue    []Effect // to be carried out
	spare    []Effect
	busy     bool // somebody carries them out
	timerAt  time.Duration
	closing  bool
	idle     chan struct{} // closed when closing and nothing is under way
	isIdle   bool
	drained  chan struct{}
	err      error
	ended    chan struct{}
	hasEnded bool

	timer  *time.Timer
	wake   chan struct{} // more effects for the mirror's own goroutine
	quit   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
}

// link is the session that is in use with a node.
type link struct {
	node    ids.Node
	session peer.Session
}

// Open opens the volume; requests may be submitted at once. ctx bounds the look-up of the sessions only: a member whose
// session cannot be had is treated as lost.
func Open(ctx context.Context, cfg Config) (*Mirror, error) {
	cfg.Params.Tunables.Budgeted = cfg.Budget != nil
	core, err := New(cfg.Params)
	if err != nil {
		return nil, err
	}
	m := &Mirror{
		cfg: cfg, core: core, start: time.Now(),
		log:  cfg.Log.With("volume", cfg.Params.Volume.ID.String(), "epoch", uint64(cfg.Params.Epoch)),
		idle: make(chan struct{}), drained: make(chan struct{}), ended: make(chan struct{}),
		wake: make(chan struct{}, 1), quit: make(chan struct{}),
		timer: time.NewTimer(time.Hour), timerAt: time.Hour,
	}
	m.answered = m.callDone
	geo := core.Geometry()
	m.geo.Store(&geo)
	m.links.Store(&[]link{})
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.wg.Go(m.loop)
	m.look(ctx, cfg.Params.Self)
	for _, p := range cfg.Params.Members {
		if p.Node != cfg.Params.Self {
			m.look(ctx, p.Node)
		}
	}
	m.mu.Lock()
	m.flush(false)
	return m, nil
}

// look takes the reign's session with a node into use. Without one, the first call says so.
func (m *Mirror) look(ctx context.Context, node ids.Node) {
	s, err := m.cfg.Sessions.Session(ctx, node)
	if err != nil {
		m.log.Warn("no session with a member at open", "node", node.String(), "error", err)
		return
	}
	m.mu.Lock()
	m.use(node, s)
	m.mu.Unlock()
}

// Geometry describes the device.
func (m *Mirror) Geometry() block.Geometry { return *m.geo.Load() }

// Resize says that the volume is larger; see Core.Resize.
func (m *Mirror) Resize(size int64) {
	m.tell(func(c *Core) {
		c.Resize(size)
		geo := m.Geometry()
		geo.Size = size
		m.geo.Store(&geo)
	})
}

// SetDurability says what an acknowledgement means from now on, and what Geometry says of it. Hosts have to be told that what they
// write may be volatile before it is, and that it is not only when the catalog says so.
func (m *Mirror) SetDurability(memory, volatile bool) {
	m.tell(func(c *Core) {
		c.SetMemory(memory)
		geo := m.Geometry()
		geo.Volatile = volatile
		m.geo.Store(&geo)
	})
}

// Submit begins a request; see block.Device.
func (m *Mirror) Submit(r *block.Request) {
	m.mu.Lock()
	m.core.Tick(time.Since(m.start))
	m.core.Submit(r)
	m.flush(false)
}

func (m *Mirror) callDone(c *peer.Call) {
	m.mu.Lock()
	m.core.Tick(time.Since(m.start))
	m.core.Answered(c)
	m.flush(false)
}

// tell makes an event of the core's, for the rare ones.
func (m *Mirror) tell(event func(*Core)) {
	m.mu.Lock()
	m.core.Tick(time.Since(m.start))
	event(m.core)
	m.flush(false)
}

// StartResync begins to bring a replica into the in-sync set; see Core.StartResync. Its node is reached through Sessions
// first. Resynced tells the end.
func (m *Mirror) StartResync(ctx context.Context, j Joiner) error {
	node := j.Node
	s, err := m.cfg.Sessions.Session(ctx, node)
	if err != nil {
		return err
	}
	m.mu.Lock()
	if m.closing {
		m.mu.Unlock()
		return ErrBusy
	}
	m.use(node, s)
	m.core.Tick(time.Since(m.start))
	err = m.core.StartResync(j)
	m.flush(false)
	return err
}

// StopResync ends the resync of node, unless its joining is proposed already.
func (m *Mirror) StopResync(node ids.Node) { m.tell(func(c *Core) { c.StopResync(node) }) }

// Retire has the replica of node leave the in-sync set; see Core.Retire.
func (m *Mirror) Retire(node ids.Node, set []ids.Node) {
	m.tell(func(c *Core) { c.Retire(node, set) })
}

// StartScrub begins to prove and compare all that is allocated; see Core.StartScrub. A Notice with Scrubbed tells the end, and Status
// how far it is.
func (m *Mirror) StartScrub(o ScrubOrder) (err error) {
	m.tell(func(c *Core) { err = c.StartScrub(o) })
	return err
}

// StopScrub ends it.
func (m *Mirror) StopScrub() { m.tell((*Core).StopScrub) }

// Drain prepares a hand-over: it returns when nothing is under way and marks are cleared (see Core.Drain), or with ctx's
// error, or with the cause of the mirror's end. New requests wait; Close ends them with block.ErrEnded.
func (m *Mirror) Drain(ctx context.Context) error {
	m.tell((*Core).Drain)
	select {
	case <-m.drained:
		return nil
	case <-m.ended:
		return m.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Done is closed when the mirror has ended, by itself (another epoch) or by Close; Err says why then.
func (m *Mirror) Done() <-chan struct{} { return m.ended }

// Err is the cause of the end, nil before it.
func (m *Mirror) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Close ends the mirror with a cause and waits until every request was answered and nothing of it runs any more. Calls
// under way are waited for: the owner of the sessions closes those that hang. It must not be called from a Done, Notify
// or Resynced.
func (m *Mirror) Close(cause error) {
	m.once.Do(func() {
		if cause == nil {
			cause = ErrClosed
		}
		m.cancel()
		m.mu.Lock()
		m.closing = true
		m.core.Tick(time.Since(m.start))
		m.core.Close(cause)
		m.end(cause)
		m.flush(false)
		<-m.idle
		close(m.quit)
		m.timer.Stop()
	})
	m.wg.Wait()
}

// end notes the cause. The lock is held.
func (m *Mirror) end(cause error) {
	if !m.hasEnded {
		m.hasEnded, m.err = true, cause
		close(m.ended)
	}
}

// Status describes the mirror.
func (m *Mirror) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.core.Status()
}

var _ block.Device = (*Mirror)(nil)

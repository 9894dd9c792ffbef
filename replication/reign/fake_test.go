package reign

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakes is everything around a Reign: the model's catalog and nodes, with bytes, behind one lock.
type fakes struct {
	mu       sync.Mutex
	w        *world
	r        *Reign
	latency  time.Duration // of proposals and sessions
	bytes    map[truth.Place]map[ids.Volume][]byte
	marks    map[truth.Place]map[ids.Volume]map[uint32]peer.Seq
	sessions map[ids.Node]*fakeSession
	hang     map[ids.Node]bool // opening a session hangs
	opens    int
	props    map[string]int
	seen     []string // what the observer was told
	devices  map[ids.Volume]block.Device
	transfer func(ids.Node) error
	reports  map[ids.Node]Report
}

func newFakes() *fakes {
	return &fakes{
		w: newWorld(), latency: time.Millisecond, bytes: make(map[truth.Place]map[ids.Volume][]byte),
		marks:    make(map[truth.Place]map[ids.Volume]map[uint32]peer.Seq),
		sessions: make(map[ids.Node]*fakeSession), hang: make(map[ids.Node]bool), props: make(map[string]int),
		devices: make(map[ids.Volume]block.Device), reports: make(map[ids.Node]Report),
	}
}

func (f *fakes) start(t testing.TB, self string, open func(context.Context, mirror.Config) (Mirror, error)) *Reign {
	t.Helper()
	r, err := New(Default(), Deps{
		Self: nodeID(self), Catalog: f, Dialer: f, Cluster: f, Observer: f, Log: slog.New(slog.DiscardHandler), OpenMirror: open,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.r = r
	return r
}

// View and Propose make fakes a truth.Catalog.
func (f *fakes) View() *truth.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.w.view
}

func (f *fakes) Propose(ctx context.Context, p truth.Proposal) (truth.Outcome, error) {
	time.Sleep(f.latency)
	f.mu.Lock()
	switch p.(type) {
	case truth.Served:
		f.props["served"]++
	case truth.RemoveUnfenced:
		f.props["remove"]++
	case truth.TakeOver:
		f.props["takeover"]++
	}
	out, err := f.w.apply(p)
	f.mu.Unlock()
	f.r.ViewChanged()
	return out, err
}

func (f *fakes) CreateVolume(ctx context.Context, e peer.Epoch, v truth.Volume) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.w.create(e, v)
}

func (f *fakes) DeleteVolume(ctx context.Context, e peer.Epoch, v ids.Volume, version uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.w.delete(e, v, version)
}

func (f *fakes) TransferLeadership(ctx context.Context, to ids.Node) error {
	if f.transfer == nil {
		return errors.New("no transfer")
	}
	return f.transfer(to)
}

func (f *fakes) Space(context.Context) []Space { return nil }

func (f *fakes) Report(ctx context.Context, n ids.Node) (Report, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.reports[n]
	if !ok {
		return Report{}, errDown
	}
	return r, nil
}

func (f *fakes) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, s)
}

func (f *fakes) Serving(v truth.Volume, dev block.Device) {
	f.note("serving " + name(v.ID))
	f.mu.Lock()
	f.devices[v.ID] = dev
	f.mu.Unlock()
}

func (f *fakes) Standby(v ids.Volume, cause string) { f.note("standby " + name(v)) }
func (f *fakes) Event(e Tell)                       {}

func (f *fakes) saw(s string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.seen, s)
}

// Open makes fakes a peer.Dialer.
func (f *fakes) Open(ctx context.Context, n ids.Node, e peer.Epoch) (peer.Session, error) {
	select {
	case <-time.After(f.latency):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f.mu.Lock()
	f.opens++
	hang := f.hang[n]
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	answer, err := f.w.nodes[n].fence(e)
	if err != nil {
		return nil, err
	}
	if old := f.sessions[n]; old != nil {
		old.end(peer.ErrLost)
	}
	s := &fakeSession{f: f, node: n, epoch: e, fenced: answer, done: make(chan struct{})}
	f.sessions[n] = s
	return s, nil
}

// kill stops a node: its session dies, and it refuses new ones until it is started.
func (f *fakes) kill(n string, down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.w.nodes[nodeID(n)].down = down
	if s := f.sessions[nodeID(n)]; s != nil && down {
		s.end(peer.ErrLost)
	}
}

type fakeSession struct {
	f      *fakes
	node   ids.Node
	epoch  peer.Epoch
	fenced peer.Fenced
	once   sync.Once
	done   chan struct{}
	err    error
}

func (s *fakeSession) end(err error) {
	s.once.Do(func() { s.err = err; close(s.done) })
}

func (s *fakeSession) Fenced() peer.Fenced   { return s.fenced }
func (s *fakeSession) Done() <-chan struct{} { return s.done }
func (s *fakeSession) Err() error            { <-s.done; return s.err }
func (s *fakeSession) Close()                { s.end(peer.ErrLost) }
func (s *fakeSession) Poll(ctx context.Context) (peer.Fenced, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return s.f.w.nodes[s.node].answer(), nil
}

func (s *fakeSession) Submit(c *peer.Call) {
	select {
	case <-s.done:
		c.Err = peer.ErrLost
	default:
		s.f.mu.Lock()
		s.f.execute(s.node, c)
		s.f.mu.Unlock()
	}
	c.Done(c)
}

// execute does what a replica does, in memory.
func (f *fakes) execute(n ids.Node, c *peer.Call) {
	c.Answer = peer.Answer{}
	if c.Kind == peer.Confirm {
		return
	}
	var at truth.Place
	if c.Kind == peer.Create || c.Kind == peer.Reset {
		at = truth.Place{Node: n, Pool: c.Spec.Pool}
		f.w.pool(at).put(c.Spec)
		delete(f.bytes[at], c.Volume)
		delete(f.marks[at], c.Volume)
		return
	}
	for _, p := range f.w.nodes[n].pools {
		if p.replica(c.Volume) != nil {
			at = truth.Place{Node: n, Pool: p.id}
		}
	}
	if c.Kind == peer.Delete {
		if !at.Pool.IsZero() {
			f.w.pool(at).remove(c.Volume)
		}
		return
	}
	if at.Pool.IsZero() {
		c.Err = peer.ErrNoReplica
		return
	}
	if f.bytes[at] == nil {
		f.bytes[at], f.marks[at] = make(map[ids.Volume][]byte), make(map[ids.Volume]map[uint32]peer.Seq)
	}
	if f.marks[at][c.Volume] == nil {
		f.marks[at][c.Volume] = make(map[uint32]peer.Seq)
	}
	if f.bytes[at][c.Volume] == nil && (c.Kind == peer.Read || c.Kind == peer.Write || c.Kind == peer.Zero) {
		f.bytes[at][c.Volume] = make([]byte, mib)
	}
	f.access(at, c)
}

func (f *fakes) access(at truth.Place, c *peer.Call) {
	data, marks, rep := f.bytes[at][c.Volume], f.marks[at][c.Volume], f.w.pool(at).replica(c.Volume)
	switch c.Kind {
	case peer.Read:
		copy(c.Data, data[c.Off:c.Off+c.Len])
	case peer.Write, peer.Zero:
		if _, ok := marks[0]; !ok { // one region
			marks[0] = c.Seq
			rep.Seq, rep.Durable = max(rep.Seq, c.Seq), max(rep.Durable, c.Durable)
		}
		if c.Kind == peer.Write {
			copy(data[c.Off:], c.Data)
		} else {
			clear(data[c.Off : c.Off+c.Len])
		}
	case peer.ReadMap:
		for r, s := range marks {
			c.Active = append(c.Active, peer.RegionSeq{Region: r, Seq: s})
		}
	case peer.Clear:
		for _, r := range c.Regions {
			if marks[r.Region] == r.Seq {
				delete(marks, r.Region)
				rep.Durable = max(rep.Durable, c.Durable)
			}
		}
	case peer.Extents:
		c.Extents = []peer.Extent{{Off: c.Off, Len: c.Len}}
	}
}

// fakeMirror is a mirror that only knows what it was told.
type fakeMirror struct {
	mu      sync.Mutex
	cfg     mirror.Config
	resyncs []ids.Node
	drained bool
	stuck   bool // Drain does not end
	once    sync.Once
	done    chan struct{}
	err     error
}

func newFakeMirror(cfg mirror.Config) *fakeMirror {
	return &fakeMirror{cfg: cfg, done: make(chan struct{})}
}

func (m *fakeMirror) Geometry() block.Geometry { return block.Geometry{} }
func (m *fakeMirror) Submit(r *block.Request)  { r.Err = block.ErrEnded; r.Done(r) }
func (m *fakeMirror) StartResync(ctx context.Context, j mirror.Joiner) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resyncs = append(m.resyncs, j.Node)
	return nil
}
func (m *fakeMirror) StopResync(n ids.Node)              {}
func (m *fakeMirror) Retire(n ids.Node, set []ids.Node)  {}
func (m *fakeMirror) Resize(int64)                       {}
func (m *fakeMirror) StartScrub(mirror.ScrubOrder) error { return nil }
func (m *fakeMirror) StopScrub()                         {}
func (m *fakeMirror) SetDurability(bool, bool)           {}
func (m *fakeMirror) Drain(ctx context.Context) error {
	m.mu.Lock()
	m.drained = true
	stuck := m.stuck
	m.mu.Unlock()
	if stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}
func (m *fakeMirror) Done() <-chan struct{} { return m.done }
func (m *fakeMirror) Err() error            { return m.err }
func (m *fakeMirror) Close(err error)       { m.once.Do(func() { m.err = err; close(m.done) }) }
func (m *fakeMirror) Status() mirror.Status { return mirror.Status{} }

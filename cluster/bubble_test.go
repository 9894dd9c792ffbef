package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// The real Raft, with this package's store, snapshots, state machine and transport, in virtual time: it shows that what
// systemtest/sim models of Raft is so. Seeds are printed; PMSAPP_RAFT_SEED repeats one.

// wires are the network between nodes in a bubble: pipes that can be cut.
type wires struct {
	mu    sync.Mutex
	nodes map[string]*wire
	cut   map[[2]string]bool // from, to
	pipes map[[2]string][]net.Conn
	all   nodes // that ever were
}

// wire is a node's end; it is Raft's StreamLayer.
type wire struct {
	w      *wires
	id     ids.Node
	addr   string
	accept chan net.Conn
	over   chan struct{}
	once   sync.Once
}

func newWires() *wires {
	return &wires{nodes: map[string]*wire{}, cut: map[[2]string]bool{}, pipes: map[[2]string][]net.Conn{}}
}

func (w *wires) join(addr string, id ids.Node) *wire {
	l := &wire{w: w, id: id, addr: addr, accept: make(chan net.Conn), over: make(chan struct{})}
	w.mu.Lock()
	w.nodes[addr] = l
	w.mu.Unlock()
	return l
}

// set cuts, or mends, the way from a to b: what is under way is lost.
func (w *wires) set(a, b string, cut bool) {
	w.mu.Lock()
	w.cut[[2]string{a, b}] = cut
	pipes := w.pipes[[2]string{a, b}]
	if cut {
		delete(w.pipes, [2]string{a, b})
	}
	w.mu.Unlock()
	if cut {
		for _, p := range pipes {
			p.Close()
		}
	}
}

func (l *wire) Dial(server raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, to, err := parseServer(server)
	if err != nil {
		return nil, err
	}
	l.w.mu.Lock()
	far, cut := l.w.nodes[to], l.w.cut[[2]string{l.addr, to}] || l.w.cut[[2]string{to, l.addr}]
	l.w.mu.Unlock()
	if far == nil {
		return nil, errors.New("nothing listens there")
	}
	if far.id != id { // as identity.dial finds by the certificate
		return nil, errors.New("another node is there")
	}
	if cut {
		time.Sleep(timeout) // within a bubble
		return nil, os.ErrDeadlineExceeded
	}
	near, end := net.Pipe()
	select {
	case far.accept <- end:
	case <-far.over:
		near.Close()
		return nil, errors.New("nothing listens there")
	case <-time.After(timeout):
		near.Close()
		return nil, os.ErrDeadlineExceeded
	}
	l.w.mu.Lock()
	for _, way := range [][2]string{{l.addr, to}, {to, l.addr}} {
		l.w.pipes[way] = append(l.w.pipes[way], near)
	}
	l.w.mu.Unlock()
	return near, nil
}

func (l *wire) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}

func (l *wire) Close() error {
	l.once.Do(func() {
		close(l.over)
		l.w.mu.Lock()
		var pipes []net.Conn
		for way, all := range l.w.pipes {
			if way[0] == l.addr {
				pipes = append(pipes, all...)
				delete(l.w.pipes, way)
			}
		}
		if l.w.nodes[l.addr] == l {
			delete(l.w.nodes, l.addr)
		}
		l.w.mu.Unlock()
		for _, p := range pipes {
			p.Close()
		}
	})
	return nil
}

func (l *wire) Addr() net.Addr { return advertised(l.addr) }

// voter is a node of the test.
type voter struct {
	t     *testing.T
	w     *wires
	name  string
	dir   string
	id    ids.Node
	store *store
	fsm   *fsm
	trans *watchedTransport
	raft  *raft.Raft
	small bool // snapshots come early

	written uint64 // what the store said last, before it was closed
}

func newVoter(t *testing.T, w *wires, name string) *voter {
	v := &voter{t: t, w: w, name: name, dir: t.TempDir(), id: ids.NewNode()}
	w.all = append(w.all, v)
	return v
}

func (v *voter) server() raft.Server {
	return raft.Server{ID: raft.ServerID(v.id.String()), Address: raft.ServerAddress(v.name)}
}

// start runs the node; first is the configuration that it begins a cluster with, if any.
func (v *voter) start(first ...raft.Server) {
	v.t.Helper()
	var err error
	if v.store, err = openStore(filepath.Join(v.dir, "catalog.db")); err != nil {
		v.t.Fatal(err)
	}
	v.fsm = newFSM(func() {}, slog.New(slog.DiscardHandler))
	log := hclog.New(&hclog.LoggerOptions{Output: io.Discard})
	started := make(chan struct{})
	var r *raft.Raft // set when started is closed
	v.trans = watch(raft.NewNetworkTransportWithLogger(v.w.join(v.name, v.id), 3, 500*time.Millisecond, log), func(id raft.ServerID, addr raft.ServerAddress, term uint64) bool {
		<-started
		time.Sleep(patience) // within a bubble
		return hopeful(r, id, addr, term)
	})
	rc := raft.DefaultConfig()
	rc.LocalID = v.server().ID
	rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 300*time.Millisecond
	rc.CommitTimeout, rc.Logger, rc.NoLegacyTelemetry = 20*time.Millisecond, log, true
	if v.small {
		rc.SnapshotThreshold, rc.TrailingLogs, rc.SnapshotInterval = 20, 5, time.Second
	}
	if len(first) > 0 {
		if err := raft.BootstrapCluster(rc, v.store, v.store, snapshots{v.store}, v.trans, raft.Configuration{Servers: first}); err != nil {
			v.t.Fatal(err)
		}
	}
	if r, err = raft.NewRaft(rc, v.fsm, v.store, v.store, snapshots{v.store}, v.trans); err != nil {
		v.t.Fatal(err)
	}
	close(started)
	v.raft = r
}

func (v *voter) runs() bool { return v.raft != nil }

// stop ends the node's process. What it had put into its store is there.
func (v *voter) stop() {
	if v.raft == nil {
		return
	}
	if err := v.raft.Shutdown().Error(); err != nil {
		v.t.Error(err)
	}
	v.trans.Close()
	if err := v.store.close(); err != nil {
		v.t.Error(err)
	}
	v.raft = nil
}

// propose brings one event with a text into the catalog. Its outcome is nil, an error that says no, or unknown.
func (v *voter) propose(text string) (index uint64, err error) {
	b, err := catalog.Encode(catalog.Command{Body: catalog.AddEvents{Events: []catalog.Event{{Text: text}}}})
	if err != nil {
		return 0, err
	}
	f := v.raft.Apply(b, time.Second)
	if err := f.Error(); err != nil {
		return 0, err
	}
	return f.Index(), nil
}

// texts are the events that a node has applied, in order.
func (v *voter) texts() (out []string) {
	for _, e := range v.fsm.state.Load().Events {
		out = append(out, e.Text)
	}
	return out
}

// nodes are a cluster in a bubble.
type nodes []*voter

func (n nodes) leader() *voter {
	var lead *voter
	for _, v := range n {
		if v.runs() && v.raft.State() == raft.Leader && (lead == nil || v.raft.CurrentTerm() > lead.raft.CurrentTerm()) {
			lead = v
		}
	}
	return lead
}

// wait waits, in virtual time, for a leader that a barrier has passed, and returns it with the time that took.
func (n nodes) wait(t *testing.T, limit time.Duration) (*voter, time.Duration) {
	t.Helper()
	began := time.Now()
	for time.Since(began) < limit {
		if v := n.leader(); v != nil && v.raft.Barrier(time.Second).Error() == nil {
			return v, time.Since(began)
		}
		time.Sleep(10 * time.Millisecond) // within a bubble
	}
	t.Fatalf("no leader within %v", limit)
	return nil, 0
}

func (w *wires) stop() {
	for _, v := range w.all {
		v.stop()
	}
}

// formVoters starts a cluster of three.
func formVoters(t *testing.T, w *wires, small bool) nodes {
	var n nodes
	var servers []raft.Server
	for i := range 3 {
		v := newVoter(t, w, fmt.Sprint("n", i))
		v.small = small
		n = append(n, v)
		servers = append(servers, v.server())
	}
	for _, v := range n {
		v.start(servers...)
	}
	return n
}

// inBubble runs a test with a seed.
func inBubble(t *testing.T, f func(t *testing.T, r *rand.Rand)) {
	seed := rand.Uint64()
	if s := os.Getenv("PMSAPP_RAFT_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("PMSAPP_RAFT_SEED=%d", seed)
	synctest.Test(t, func(t *testing.T) { f(t, rand.New(rand.NewPCG(seed, 1))) })
}

// TestElection: the leader dies again and again; another leads within the time that the failover targets leave for it, in a
// higher term, with everything that was committed.
func TestElection(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		var took []time.Duration
		var said []string
		term := uint64(0)
		for round := range 20 {
			lead, _ := n.wait(t, 10*time.Second)
			if lead.raft.CurrentTerm() <= term {
				t.Fatalf("term %d after %d", lead.raft.CurrentTerm(), term)
			}
			term = lead.raft.CurrentTerm()
			text := fmt.Sprint(round)
			if _, err := lead.propose(text); err != nil {
				t.Fatal(err)
			}
			said = append(said, text)
			time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond) // within a bubble
			lead.stop()
			next, d := n.wait(t, 10*time.Second)
			if next == lead {
				t.Fatal("the dead leads")
			}
			took = append(took, d)
			if got := next.texts(); !slices.Equal(got, said) {
				t.Fatalf("the new leader has %q, committed was %q", got, said)
			}
			lead.start()
			time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond) // within a bubble
		}
		slices.Sort(took)
		t.Logf("elections took %v at the median, %v at most", took[len(took)/2], took[len(took)-1])
		if took[len(took)-1] > 4*time.Second {
			t.Error("an election took longer than a failover may")
		}
	})
}

// TestTransfer: leadership goes to the node that is named, with everything committed, in less than an election; one that is cut off
// does not get it, and the leader goes on.
func TestTransfer(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		for round := range 10 {
			lead, _ := n.wait(t, 10*time.Second)
			if _, err := lead.propose(fmt.Sprint(round)); err != nil {
				t.Fatal(err)
			}
			to := n[r.IntN(3)]
			if to == lead {
				continue
			}
			began := time.Now()
			if err := lead.raft.LeadershipTransferToServer(to.server().ID, to.server().Address).Error(); err != nil {
				t.Fatal(err)
			}
			next, _ := n.wait(t, time.Second)
			if next != to || time.Since(began) > 300*time.Millisecond {
				t.Fatalf("%s leads after %v, it was given to %s", next.name, time.Since(began), to.name)
			}
			if got := next.texts(); got[len(got)-1] != fmt.Sprint(round) {
				t.Fatal(got)
			}
		}
		lead, _ := n.wait(t, 10*time.Second)
		to := n[(slices.Index(n, lead)+1)%3]
		for _, o := range n {
			w.set(o.name, to.name, true)
			w.set(to.name, o.name, true)
		}
		if err := lead.raft.LeadershipTransferToServer(to.server().ID, to.server().Address).Error(); err == nil {
			t.Fatal("a node that is cut off was given the leadership")
		}
		if got, _ := n.wait(t, 5*time.Second); got == to {
			t.Fatal("a node that is cut off leads")
		}
	})
}

// TestRestarts: voters end and come back at any moment, and ways are cut, while commands are proposed. What was committed is in every
// log, once, in one order, and a proposal that was said to have failed may only be one that was never taken.
func TestRestarts(t *testing.T) {
	for range 8 {
		t.Run("", func(t *testing.T) { inBubble(t, restarts) })
	}
}

func restarts(t *testing.T, r *rand.Rand) {
	w := newWires()
	defer w.stop()
	n := formVoters(t, w, true)
	committed := map[string]bool{}
	const steps = 400
	for step := range steps {
		if lead := n.leader(); lead != nil {
			text := fmt.Sprint(step)
			_, err := lead.propose(text)
			switch {
			case err == nil:
				committed[text] = true
			case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipLost),
				errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, raft.ErrLeadershipTransferInProgress):
			default:
				t.Fatal(err)
			}
		}
		switch v := n[r.IntN(3)]; r.IntN(15) {
		case 0, 5:
			if v.runs() {
				was := v.store.count()
				v.stop()
				v.written = was
			} else if v.start(); v.store.count() < v.written {
				t.Fatalf("%s was written %d times, and now it says %d times: it would give up its identity", v.name, v.written, v.store.count())
			}
		case 1:
			w.set(v.name, n[r.IntN(3)].name, true)
		case 2, 3, 4:
			for _, a := range n {
				w.set(v.name, a.name, false)
				w.set(a.name, v.name, false)
			}
		}
		time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond) // within a bubble
	}
	for _, a := range n {
		for _, b := range n {
			w.set(a.name, b.name, false)
		}
		if !a.runs() {
			a.start()
		}
	}
	lead, _ := n.wait(t, 20*time.Second)
	if _, err := lead.propose("last"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second) // within a bubble
	want := lead.texts()
	seen := map[string]int{}
	for _, s := range want {
		seen[s]++
	}
	for s := range committed {
		if seen[s] != 1 {
			t.Errorf("%q was committed, and is there %d times", s, seen[s])
		}
	}
	for _, v := range n {
		if got := v.texts(); !slices.Equal(got, want) {
			t.Errorf("%s has %d events, the leader %d, or another order", v.name, len(got), len(want))
		}
	}
	t.Logf("%d committed of %d", len(committed), steps)
}

// TestEmptyNode: a node with an empty disk under a new identity is filled by a snapshot, as a non-voter, and votes then; the old
// identity is taken out before: Raft has one server at an address.
func TestEmptyNode(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, true)
		lead, _ := n.wait(t, 10*time.Second)
		for i := range 200 {
			if _, err := lead.propose(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second) // within a bubble: snapshots are taken
		lead, _ = n.wait(t, 10*time.Second)
		if first, err := lead.store.FirstIndex(); err != nil || first < 50 {
			t.Fatalf("the log was not cut: it begins at %d (%v)", first, err)
		}
		lost := n[(slices.Index(n, lead)+1+r.IntN(2))%3]
		lost.stop()
		fresh := newVoter(t, w, lost.name)
		fresh.small = true
		fresh.start()
		if err := lead.raft.RemoveServer(lost.server().ID, 0, 5*time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		if err := lead.raft.AddNonvoter(fresh.server().ID, fresh.server().Address, 0, 5*time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // within a bubble
		if got := fresh.texts(); len(got) != 200 || got[199] != "199" {
			t.Fatalf("the empty node has %d of 200", len(got))
		}
		if first, err := fresh.store.FirstIndex(); err != nil || first == 1 {
			t.Fatalf("it was filled by the log, from %d on (%v)", first, err)
		}
		if err := lead.raft.AddVoter(fresh.server().ID, fresh.server().Address, 0, 5*time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		n = append(slices.DeleteFunc(slices.Clone(n), func(v *voter) bool { return v == lost }), fresh)
		// It is one half of a quorum now.
		other := n[0]
		if other == lead {
			other = n[1]
		}
		other.stop()
		if _, err := lead.propose("with the new one"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // within a bubble
		if got := fresh.texts(); got[len(got)-1] != "with the new one" {
			t.Fatal("the new voter lacks what it has helped to commit")
		}
	})
}

// TestBackAfterLong: a node that was away for minutes has the log within a second of its return (patience.go), and with it the
// cluster survives the loss of another at once.
func TestBackAfterLong(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		lead, _ := n.wait(t, 10*time.Second)
		away := n[(slices.Index(n, lead)+1)%3]
		away.stop()
		for i := range 10 {
			if _, err := lead.propose(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second) // within a bubble
		}
		away.start()
		time.Sleep(time.Second) // within a bubble
		if got := away.texts(); len(got) != 10 {
			t.Fatalf("a second after its return it has %d of 10", len(got))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		for _, v := range n {
			if v != away && v != lead {
				v.stop()
			}
		}
		for ctx.Err() == nil {
			if _, err := lead.propose("and on"); err == nil {
				return
			}
			time.Sleep(50 * time.Millisecond) // within a bubble
		}
		t.Fatal("two of three do not go on")
	})
}

// TestVoteIsOfAnIdentity: b was away when an entry was committed by a and c; c comes back empty under a new identity at its old address,
// and a dies before it has filled it. Raft gives the vote of a server that knows nothing to anybody: b must not get it as that of the old
// c, or the entry is lost (invariants 9, 6, 2).
func TestVoteIsOfAnIdentity(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		a, _ := n.wait(t, 10*time.Second)
		i := slices.Index(n, a)
		b, c := n[(i+1)%3], n[(i+2)%3]
		b.stop()
		if _, err := a.propose("acknowledged"); err != nil {
			t.Fatal(err)
		}
		c.stop()
		a.stop()
		newVoter(t, w, c.name).start()
		b.start()
		time.Sleep(10 * time.Second) // within a bubble
		if b.raft.State() == raft.Leader {
			t.Fatalf("b leads by the vote of an empty node, with %q", b.texts())
		}
		a.start()
		lead, _ := n[i:i+1].wait(t, 10*time.Second)
		if got := lead.texts(); !slices.Equal(got, []string{"acknowledged"}) {
			t.Fatalf("committed was one entry, and the leader has %q", got)
		}
	})
}

// TestNoDoubtAfterASnapshot: a follower whose log was behind the leader's, and that was filled by a snapshot, has a sound store.
func TestNoDoubtAfterASnapshot(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, true)
		a, _ := n.wait(t, 10*time.Second)
		for i := range 3 {
			if _, err := a.propose(fmt.Sprint("before", i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second) // within a bubble
		v := n[(slices.Index(n, a)+1)%3]
		v.stop()
		for i := range 200 {
			if _, err := a.propose(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second) // within a bubble
		v.small = false             // its trailing log is longer than what it has
		v.start()
		time.Sleep(5 * time.Second) // within a bubble
		if _, err := a.propose("after"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // within a bubble
		if _, err := v.store.sound(); err != nil || len(v.texts()) != 204 {
			t.Fatalf("%d events, %v", len(v.texts()), err)
		}
	})
}

// TestEvidence: every node remembers the term and the newest index of each other, the leader's and the followers' (invariant 9).
func TestEvidence(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		for round := range 3 {
			a, _ := n.wait(t, 10*time.Second)
			for i := range 20 {
				if _, err := a.propose(fmt.Sprint(round, i)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second) // within a bubble
			for _, v := range n {
				for _, o := range n {
					if v == o || v != a && o != a { // followers do not speak with each other
						continue
					}
					e := v.trans.about(o.server().ID)
					if e.Term != o.raft.CurrentTerm() || e.Index != o.raft.LastIndex() || e.Within != e.Term {
						t.Errorf("%s has term %d and index %d, and %s knows %+v", o.name, o.raft.CurrentTerm(), o.raft.LastIndex(), v.name, e)
					}
				}
			}
			a.stop()
			n.wait(t, 10*time.Second)
			a.start()
			time.Sleep(3 * time.Second) // within a bubble
		}
	})
}

func TestEvidenceOfAnEarlierTerm(t *testing.T) {
	e := evidence{}.with(evidence{Term: 3, Index: 100, Within: 3})
	if e = e.with(evidence{Term: 4}); e != (evidence{4, 100, 3}) {
		t.Error("a vote has no index:", e)
	}
	if e = e.with(evidence{Term: 5, Index: 90, Within: 5}); e != (evidence{5, 90, 5}) {
		t.Error("what was cut off since is no evidence:", e)
	}
	if e = e.with(evidence{Term: 3, Index: 120, Within: 3}); e != (evidence{5, 90, 5}) {
		t.Error("nor is a late message:", e)
	}
}

// TestHangIsSeenBehindAnother: one write transaction ends, and another, which had waited for it, hangs: that is seen, from the moment
// on at which it is looked for.
func TestHangIsSeenBehindAnother(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	began := time.Now()
	if s.hanging(began) != 0 {
		t.Fatal("nothing is under way")
	}
	var work sync.WaitGroup
	first, second, in := make(chan struct{}), make(chan struct{}), make(chan struct{}, 2)
	for _, end := range []chan struct{}{first, second} {
		work.Go(func() {
			if err := s.update(func(*bbolt.Tx) error { in <- struct{}{}; <-end; return nil }); err != nil {
				t.Error(err)
			}
		})
		if end == first {
			<-in
		}
	}
	close(first)
	<-in
	waitUntil := time.Now().Add(20 * time.Millisecond)
	for time.Now().Before(waitUntil) {
		runtime.Gosched()
	}
	if d := s.hanging(began); d < 20*time.Millisecond {
		t.Errorf("the second hangs, and %v is seen", d)
	}
	if d := s.hanging(time.Now()); d > 15*time.Millisecond {
		t.Errorf("what was before the moment counts: %v", d)
	}
	close(second)
	work.Wait()
	if s.hanging(began) != 0 {
		t.Error("nothing is under way any more")
	}
}

// TestBackAtAnotherAddress: a voter comes back at another address; once the leader knows it, it has the log soon, under the same leader.
func TestBackAtAnotherAddress(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *rand.Rand) {
		w := newWires()
		defer w.stop()
		n := formVoters(t, w, false)
		lead, _ := n.wait(t, 10*time.Second)
		term := lead.raft.CurrentTerm()
		v := n[(slices.Index(n, lead)+1)%3]
		v.stop()
		for i := range 10 {
			if _, err := lead.propose(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second) // within a bubble
		}
		v.name = "elsewhere"
		v.start()
		if err := lead.raft.AddVoter(v.server().ID, v.server().Address, 0, 5*time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // within a bubble
		if got := v.texts(); len(got) != 10 {
			t.Fatalf("it has %d of 10", len(got))
		}
		if lead.raft.State() != raft.Leader || lead.raft.CurrentTerm() != term {
			t.Error("that took an election")
		}
	})
}

// TestVoteIsNoEvidenceOfAnIndex: what a candidate has may be cut off by the winner of the same term.
func TestVoteIsNoEvidenceOfAnIndex(t *testing.T) {
	w := &watchedTransport{seen: map[raft.ServerID]evidence{}}
	w.heard(&raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte("a")}, Term: 7, LastLogIndex: 100})
	w.heard(&raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ID: []byte("b")}, Term: 7, PrevLogEntry: 90})
	if a, b := w.about("a"), w.about("b"); a != (evidence{Term: 7}) || b != (evidence{7, 90, 7}) {
		t.Errorf("%+v, %+v", a, b)
	}
}

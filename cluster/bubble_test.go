package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// The real Raft, with this package's store, snapshots, state machine and transport, in virtual time: it shows that what
// systemtest/sim models of Raft is so. Seeds are printed; PMSAPP_RAFT_SEED repeats one.

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

	cancel context.CancelFunc
	work   sync.WaitGroup

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
	byBytes(rc)
	if _, err := v.store.sound(v.fsm); err != nil {
		v.t.Fatal(err)
	}
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
	var ctx context.Context
	ctx, v.cancel = context.WithCancel(context.Background())
	v.work.Go(func() { keepShort(ctx, r, v.fsm, slog.New(slog.DiscardHandler)) })
}

func (v *voter) runs() bool { return v.raft != nil }

// stop ends the node's process. What it had put into its store is there.
func (v *voter) stop() {
	if v.raft == nil {
		return
	}
	v.cancel()
	if err := v.raft.Shutdown().Error(); err != nil {
		v.t.Error(err)
	}
	v.trans.Close()
	v.work.Wait()
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

package replica

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// stalling is a disk on which some steps take until release is closed.
type stalling struct {
	disk
	at      func(step, path string) bool
	stalled chan struct{} // closed when the first one has begun
	once    *sync.Once
	release chan struct{}
}

func newStalling(at func(step, path string) bool) stalling {
	return stalling{disk: osDisk{}, at: at, stalled: make(chan struct{}), once: new(sync.Once), release: make(chan struct{})}
}

func (s stalling) wait(step, path string) {
	if s.at(step, path) {
		s.once.Do(func() { close(s.stalled) })
		<-s.release
	}
}

func (s stalling) removeAll(path string) error {
	s.wait("removeAll", path)
	return s.disk.removeAll(path)
}

func (s stalling) open(path string, grain int) (file, error) {
	s.wait("open", path)
	return s.disk.open(path, grain)
}

// TestDeletesLeaveRoomForIO: as many replicas as a pool executes commands at a time are deleted, and the first of them takes
// long to give its space back. The deletions are answered, the next leader finds the pool fenced, and a replica of the same volume is made anew and deleted;
// after the end of the process the next one gives the space back.
func TestDeletesLeaveRoomForIO(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(1)
	kept := h.spec(0)
	must(t, s, peer.Command{Kind: peer.Create, Spec: kept})
	must(t, s, write(kept.Volume, 0, make([]byte, 4096), 1))
	p := h.node.pools[0]
	d := newStalling(func(step, path string) bool { return step == "removeAll" && strings.HasSuffix(path, ".gone") })
	p.freer.disk = d
	spec := h.spec(0)
	for range maxWorkers {
		spec.Volume = ids.NewVolume()
		must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
		must(t, s, peer.Command{Kind: peer.Delete, Volume: spec.Volume})
	}
	<-d.stalled
	x := h.open(2)
	if f := x.Fenced(); f.Pools[0].Busy || len(f.Pools[0].Replicas) != 1 {
		t.Errorf("%+v", f.Pools)
	}
	must(t, x, peer.Command{Kind: peer.Read, Volume: kept.Volume, Len: 4096, Data: make([]byte, 4096)})
	for range 2 {
		must(t, x, peer.Command{Kind: peer.Reset, Spec: spec})
	}
	must(t, x, peer.Command{Kind: peer.Delete, Volume: spec.Volume})
	left := func() (n int) {
		names, err := osDisk{}.list(filepath.Join(p.path, dirReplicas))
		if err != nil {
			t.Fatal(err)
		}
		return len(names) - 1
	}
	if n := left(); n != maxWorkers+2 {
		t.Errorf("%d directories wait for their end", n)
	}
	p.freer.cancel() // as Close does first
	close(d.release)
	h.node.Close()
	if left() < maxWorkers {
		t.Error("the end of the node waits for more than the one that was under way")
	}
	h.start()
	for end := time.Now().Add(20 * time.Second); left() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("what the process before has left is not freed")
		}
	}
}

// TestFenceBesideHangingPool: a pool that is added hangs, as one does whose disk is half gone. The others can be fenced.
func TestFenceBesideHangingPool(t *testing.T) {
	d := newStalling(func(step, path string) bool { return step == "open" && strings.Contains(path, "hangs") })
	n, err := OpenNode(Config{Dir: t.TempDir(), Cluster: ids.NewCluster(), Log: slog.New(slog.DiscardHandler), disk: d})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.AddPool(t.TempDir(), true); err != nil {
		t.Fatal(err)
	}
	added := make(chan struct{})
	go func() {
		defer close(added)
		n.AddPool("/hangs", false)
	}()
	<-d.stalled
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // as long as a leader waits for it
	defer cancel()
	s, err := n.Open(ctx, 1)
	if err != nil {
		t.Errorf("the node cannot be fenced: %v", err)
	} else if f := s.Fenced(); len(f.Pools) != 1 || f.Pools[0].Busy {
		t.Errorf("%+v", f)
	}
	close(d.release)
	<-added
}

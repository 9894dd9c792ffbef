package replica

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a machine whose node can be started again.
type host struct {
	t       *testing.T
	cluster ids.Cluster
	dir     string
	pools   []string
	node    *Node
	ids     []ids.Pool
	written func() Written
	cache   int64
	disk    disk
}

func newHost(t *testing.T, pools int) *host {
	t.Helper()
	h := &host{t: t, cluster: ids.NewCluster(), dir: t.TempDir()}
	for range pools {
		h.pools = append(h.pools, t.TempDir())
	}
	h.start()
	t.Cleanup(func() { h.node.Close() })
	return h
}

func (h *host) start() {
	h.t.Helper()
	n, err := OpenNode(Config{Dir: h.dir, Cluster: h.cluster, Written: h.written, Cache: h.cache, disk: h.disk, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.node, h.ids = n, nil
	for _, p := range h.pools {
		id, err := n.AddPool(p, true)
		if err != nil {
			h.t.Fatal(err)
		}
		h.ids = append(h.ids, id)
	}
}

func (h *host) restart() { h.t.Helper(); h.node.Close(); h.start() }

func (h *host) open(e peer.Epoch) peer.Session {
	h.t.Helper()
	s, err := h.node.Open(h.t.Context(), e)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func do(t *testing.T, s peer.Session, c peer.Command) peer.Answer {
	t.Helper()
	done := make(chan struct{})
	call := &peer.Call{Command: c, Done: func(*peer.Call) { close(done) }}
	s.Submit(call)
	select {
	case <-done:
	case <-t.Context().Done():
		t.Fatal("no answer")
	}
	return call.Answer
}

func must(t *testing.T, s peer.Session, c peer.Command) peer.Answer {
	t.Helper()
	a := do(t, s, c)
	if a.Err != nil {
		t.Fatalf("%+v: %v", c.Kind, a.Err)
	}
	return a
}

func (h *host) spec(pool int) peer.Spec {
	return peer.Spec{Volume: ids.NewVolume(), Lineage: ids.NewLineage(), Pool: h.ids[pool], Size: 100<<20 + 512, Region: 1 << 20}
}

func write(v ids.Volume, off int64, b []byte, seq peer.Seq) peer.Command {
	return peer.Command{Kind: peer.Write, Volume: v, Off: off, Len: int64(len(b)), Data: b, Seq: seq, Durable: seq - 1}
}

func TestReadsWhatWasWritten(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(1)
	spec := h.spec(0)
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	model := make([]byte, spec.Size)
	rnd := rand.New(rand.NewPCG(1, 2))
	check := func() {
		t.Helper()
		got := make([]byte, spec.Size)
		for off := int64(0); off < spec.Size; off += 4 << 20 {
			n := min(4<<20, spec.Size-off)
			must(t, s, peer.Command{Kind: peer.Read, Volume: spec.Volume, Off: off, Len: n, Data: got[off : off+n]})
		}
		if !bytes.Equal(got, model) {
			t.Fatal("it reads otherwise than it was written")
		}
		// What is not data reads as zeros.
		at := int64(0)
		for _, x := range must(t, s, peer.Command{Kind: peer.Extents, Volume: spec.Volume, Off: 0, Len: spec.Size}).Extents {
			if x.Off < at || !allZero(model[at:x.Off]) {
				t.Fatalf("a hole has data before %d", x.Off)
			}
			at = x.Off + x.Len
		}
		if at > spec.Size || !allZero(model[at:]) {
			t.Fatal("the last hole has data")
		}
	}
	for i := range 200 {
		n := 512 * (1 + rnd.Int64N(64))
		off := 512 * rnd.Int64N((spec.Size-n)/512+1)
		if rnd.IntN(4) == 0 {
			must(t, s, peer.Command{Kind: peer.Zero, Volume: spec.Volume, Off: off, Len: n, Seq: peer.Seq(i + 1)})
			clear(model[off : off+n])
			continue
		}
		raw := make([]byte, n+8)
		b := raw[rnd.IntN(2)*8:][:n] // sometimes not aligned
		for j := range b {
			b[j] = byte(rnd.Uint32())
		}
		must(t, s, write(spec.Volume, off, b, peer.Seq(i+1)))
		copy(model[off:], b)
	}
	check()
	h.restart()
	s = h.open(2)
	check()
	f := s.Fenced()
	r := f.Pools[0].Replicas[0]
	if r.Spec != spec || r.Seq != 200 || r.Durable == 0 || r.Active == 0 || r.Foreign || f.Highest != 1 || f.Pools[0].Previous != 1 {
		t.Fatalf("%+v", f)
	}
	must(t, s, peer.Command{Kind: peer.Reset, Spec: spec})
	clear(model)
	check()
	must(t, s, peer.Command{Kind: peer.Delete, Volume: spec.Volume})
	must(t, s, peer.Command{Kind: peer.Delete, Volume: spec.Volume})
	if a := do(t, s, peer.Command{Kind: peer.ReadMap, Volume: spec.Volume}); !errors.Is(a.Err, peer.ErrNoReplica) {
		t.Fatal(a.Err)
	}
}

func TestMarks(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(1)
	spec := h.spec(0)
	v := spec.Volume
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	b := make([]byte, 4096)
	active := func(want ...peer.RegionSeq) {
		t.Helper()
		if d := cmp.Diff(want, must(t, s, peer.Command{Kind: peer.ReadMap, Volume: v}).Active); d != "" {
			t.Fatal(d)
		}
	}
	active()
	must(t, s, write(v, 5<<20, b, 7))
	must(t, s, write(v, 6<<20-2048, b, 9)) // two regions
	active(peer.RegionSeq{Region: 5, Seq: 9}, peer.RegionSeq{Region: 6, Seq: 9})
	must(t, s, write(v, 5<<20, b, 8)) // lower: the mark stays
	must(t, s, peer.Command{Kind: peer.Clear, Volume: v, Durable: 9, Regions: []peer.RegionSeq{{Region: 5, Seq: 8}, {Region: 99, Seq: 1}, {Region: 7e6, Seq: 1}}})
	active(peer.RegionSeq{Region: 5, Seq: 9}, peer.RegionSeq{Region: 6, Seq: 9})
	must(t, s, peer.Command{Kind: peer.Clear, Volume: v, Regions: []peer.RegionSeq{{Region: 5, Seq: 9}}})
	active(peer.RegionSeq{Region: 6, Seq: 9})
	h.restart()
	s = h.open(2)
	active(peer.RegionSeq{Region: 6, Seq: 9})
	must(t, s, peer.Command{Kind: peer.Clear, Volume: v, Regions: []peer.RegionSeq{{Region: 6, Seq: 100}}, Durable: 9})
	h.restart()
	s = h.open(3)
	active()
	if r := s.Fenced().Pools[0].Replicas[0]; r.Seq != 9 || r.Durable != 9 { // with the last mark came 8, and with its clearing 9
		t.Fatalf("%+v", r)
	}
}

func TestFence(t *testing.T) {
	h := newHost(t, 2)
	s1 := h.open(3)
	spec := h.spec(1)
	must(t, s1, peer.Command{Kind: peer.Create, Spec: spec})
	var low *peer.EpochError
	if _, err := h.node.Open(t.Context(), 2); !errors.As(err, &low) || low.Accepted != 3 {
		t.Fatal(err)
	}
	again := h.open(3) // the same leader, again
	<-s1.Done()
	if a := do(t, s1, peer.Command{Kind: peer.Confirm}); !errors.Is(a.Err, peer.ErrLost) {
		t.Fatal(a.Err)
	}
	must(t, again, peer.Command{Kind: peer.Confirm})
	s2 := h.open(5)
	for _, c := range []peer.Command{{Kind: peer.Confirm}, {Kind: peer.Read, Volume: spec.Volume, Len: 512, Data: make([]byte, 512)},
		{Kind: peer.Create, Spec: h.spec(0)}, write(spec.Volume, 0, make([]byte, 512), 1)} {
		if a := do(t, again, c); !errors.Is(a.Err, peer.ErrEpoch) {
			t.Fatal(c.Kind, a.Err)
		}
	}
	f := s2.Fenced()
	want := []peer.EpochRange{{Lo: 3, Hi: 3}}
	if len(f.Pools) != 2 || !cmp.Equal(f.Pools[0].Accepted, want) || f.Pools[0].Previous != 3 || f.Pools[0].Busy || f.Highest != 3 {
		t.Fatalf("%+v", f)
	}
	h.restart()
	if h.node.Accepted() != 5 {
		t.Fatal(h.node.Accepted())
	}
	if _, err := h.node.Open(t.Context(), 4); !errors.Is(err, peer.ErrEpoch) {
		t.Fatal(err)
	}
}

// TestBusy: a command that hangs on the medium keeps its pool from being fenced, and no other.
func TestBusy(t *testing.T) {
	h := newHost(t, 2)
	s := h.open(1)
	a, b := h.spec(0), h.spec(1)
	must(t, s, peer.Command{Kind: peer.Create, Spec: a})
	must(t, s, peer.Command{Kind: peer.Create, Spec: b})
	r := h.node.pools[0].replicas[a.Volume]
	flush, release := r.flush.flush, make(chan struct{})
	hangs := make(chan struct{})
	r.flush.flush = func() error { close(hangs); <-release; return flush() }
	ended := make(chan error, 1)
	s.Submit(&peer.Call{Command: write(a.Volume, 0, make([]byte, 4096), 1), Done: func(c *peer.Call) { ended <- c.Err }})
	<-hangs
	s2 := h.open(2)
	if f := s2.Fenced(); !f.Pools[0].Busy || f.Pools[1].Busy || len(f.Pools[0].Replicas) != 0 {
		t.Fatalf("%+v", f)
	}
	if x := do(t, s2, write(a.Volume, 0, make([]byte, 4096), 2)); !errors.Is(x.Err, peer.ErrNoReplica) {
		t.Fatal(x.Err)
	}
	must(t, s2, write(b.Volume, 0, make([]byte, 4096), 2))
	close(release)
	if err := <-ended; !errors.Is(err, peer.ErrEpoch) {
		t.Fatal(err)
	}
	r.flush.flush = flush
	f, err := s2.Poll(t.Context())
	if err != nil || f.Pools[0].Busy || len(f.Pools[0].Replicas) != 1 || f.Pools[0].Replicas[0].Active != 1 {
		t.Fatalf("%+v %v", f, err)
	}
	must(t, s2, write(a.Volume, 0, make([]byte, 4096), 2))
}

// TestReverted: a pool that lost the epoch that it had recorded says so under that epoch, and tells what it has under the next.
func TestReverted(t *testing.T) {
	h := newHost(t, 1)
	h.open(3)
	h.node.Close()
	old, err := os.ReadFile(filepath.Join(h.pools[0], fileEpochs))
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	h.open(5)
	h.node.Close()
	if err := os.WriteFile(filepath.Join(h.pools[0], fileEpochs), old, 0o600); err != nil {
		t.Fatal(err)
	}
	h.start()
	for range 2 {
		if p := h.open(5).Fenced().Pools[0]; !p.Reverted || peer.Has(p.Accepted, 5) {
			t.Fatalf("%+v", p)
		}
	}
	for range 2 { // and a pool that was not reverted does not
		if p := h.open(6).Fenced().Pools[0]; p.Reverted || peer.Has(p.Accepted, 5) {
			t.Fatalf("%+v", p)
		}
	}
}

// TestWritten: the pools and the node's record keep what the catalog was when they recorded an epoch (9), also over a restart, and a
// record that says nothing of it, as older programs wrote it, is read as such.
func TestWritten(t *testing.T) {
	h := newHost(t, 2)
	if w := h.node.Written(); len(w) != 3 || w[0] != (Written{}) || w[1] != (Written{}) || w[2] != (Written{}) {
		t.Fatal("of new ones:", w)
	}
	h.open(1)
	catalog := Written{ids.Node{7}, 5}
	h.written = func() Written { return catalog }
	h.restart()
	if w := h.node.Written(); w[0] != (Written{}) || w[1] != (Written{}) {
		t.Fatal("of records that say nothing:", w)
	}
	h.open(2)
	want := []Written{catalog, catalog, catalog}
	catalog.Count = 9 // written after the fence
	if w := h.node.Written(); !slices.Equal(w, want) {
		t.Fatal(w)
	}
	h.restart()
	if w := h.node.Written(); !slices.Equal(w, want) {
		t.Fatal("after a restart:", w)
	}
	h.open(2) // the pools record again what they are told, with what holds now
	if w := h.node.Written(); w[0].Count != 5 || w[1].Count != 9 || w[2].Count != 9 {
		t.Fatal("the same epoch again:", w)
	}
}

func TestParallel(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(1)
	spec := h.spec(0)
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			b, got := block.Get(4096), block.Get(4096)
			for i := range 50 {
				off := int64(w*50+i) * 8192
				for j := range b {
					b[j] = byte(w + i + j)
				}
				a := do(t, s, write(spec.Volume, off, b, peer.Seq(w*50+i+1)))
				r := do(t, s, peer.Command{Kind: peer.Read, Volume: spec.Volume, Off: off, Len: 4096, Data: got})
				if a.Err != nil || r.Err != nil || !bytes.Equal(b, got) {
					t.Error(a.Err, r.Err)
				}
			}
		})
	}
	all.Wait()
	s.Close()
	if a := do(t, s, peer.Command{Kind: peer.ReadMap, Volume: spec.Volume}); !errors.Is(a.Err, peer.ErrLost) {
		t.Fatal(a.Err)
	}
}

func TestBadInput(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(1)
	spec := h.spec(0)
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	for _, c := range []peer.Command{
		write(spec.Volume, 1, make([]byte, 512), 1), write(spec.Volume, 0, make([]byte, 100), 1), write(spec.Volume, -512, make([]byte, 512), 1),
		write(spec.Volume, spec.Size, make([]byte, 512), 1), write(spec.Volume, 0, make([]byte, 512), 0),
		{Kind: peer.Write, Volume: spec.Volume, Len: 1 << 62, Seq: 1}, {Kind: peer.Read, Volume: spec.Volume, Off: 1 << 62, Len: 512},
		{Kind: 99, Volume: spec.Volume, Len: 512}, {Kind: peer.Create, Spec: peer.Spec{Pool: h.ids[0]}},
	} {
		if a := do(t, s, c); !errors.Is(a.Err, peer.ErrInvalid) {
			t.Errorf("%+v: %v", c.Kind, a.Err)
		}
	}
	if _, err := h.node.AddPool(h.pools[0], true); !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.node.AddPool(full, true); !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), `"letter"`) {
		t.Fatal(err)
	}
	if _, err := h.node.AddPool(t.TempDir(), false); !errors.Is(err, ErrNotPool) {
		t.Fatal(err)
	}
	other := newHost(t, 1)
	other.node.Close()
	if _, err := h.node.AddPool(other.pools[0], true); !errors.Is(err, ErrForeign) {
		t.Fatal(err)
	}
	// Damages are found, and nothing is lost by looking.
	h.node.Close()
	dir := filepath.Join(h.pools[0], dirReplicas, spec.Volume.String())
	for _, name := range []string{filepath.Join(dir, fileSuper), filepath.Join(dir, fileMap), filepath.Join(dir, fileData)} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c := bytes.Clone(b[:min(len(b), 8192)])
		for i := range c {
			c[i] ^= 0xa5
		}
		if filepath.Base(name) == fileData {
			c = []byte("short")
		} else {
			c = append(c, b[len(c):]...)
		}
		os.WriteFile(name, c, 0o600)
		h.start()
		s := h.open(h.node.Accepted() + 1)
		if r := s.Fenced().Pools[0].Replicas; len(r) != 1 || !r[0].Foreign || r[0].Spec.Volume != spec.Volume {
			t.Fatalf("%s: %+v", name, r)
		}
		if a := do(t, s, write(spec.Volume, 0, make([]byte, 512), 1)); !errors.Is(a.Err, peer.ErrNoReplica) {
			t.Fatal(a.Err)
		}
		h.node.Close()
		os.WriteFile(name, b, 0o600)
	}
	h.start()
	if r := h.open(99).Fenced().Pools[0].Replicas[0]; r.Foreign {
		t.Fatal("not usable after it was mended")
	}
	h.node.Close()
	super := filepath.Join(h.pools[0], filePool)
	os.WriteFile(super, bytes.Repeat([]byte("x"), blockSize), 0o600)
	n, err := OpenNode(Config{Dir: h.dir, Cluster: h.cluster, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.AddPool(h.pools[0], true); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "restore") {
		t.Fatal(err)
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	h := newHost(t, 1)
	h.node.fence <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.node.Open(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-h.node.fence
}

package replica

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// TestHungEpoch: a disk that hangs in recording an epoch holds up neither the fence, nor the next one, nor the other pool.
func TestHungEpoch(t *testing.T) {
	h := newHost(t, 2)
	s := h.open(1)
	a, b := h.spec(0), h.spec(1)
	must(t, s, peer.Command{Kind: peer.Create, Spec: a})
	must(t, s, peer.Command{Kind: peer.Create, Spec: b})
	p := h.node.pools[0]
	real := p.epochs.f
	hung := &failOnce{file: real, hangs: make(chan struct{}), release: make(chan struct{})}
	p.epochs.f = hung
	release := sync.OnceFunc(func() { close(hung.release) })
	defer release()
	for e := peer.Epoch(2); e < 5; e++ {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		x, err := h.node.Open(ctx, e)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if f := x.Fenced(); len(f.Pools) != 2 || !f.Pools[0].Busy || f.Pools[1].Busy {
			t.Fatalf("%+v", f)
		}
		if a := do(t, x, write(a.Volume, 0, make([]byte, 512), 1)); !errors.Is(a.Err, peer.ErrNoReplica) {
			t.Fatal(a.Err)
		}
		must(t, x, write(b.Volume, 0, make([]byte, 512), peer.Seq(e)))
		s = x
	}
	release()
	for {
		f, err := s.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !f.Pools[0].Busy { // epochs 3 was never begun there: 2 was under way
			if p := f.Pools[0]; !peer.Has(p.Accepted, 1) || !peer.Has(p.Accepted, 2) || peer.Has(p.Accepted, 4) {
				t.Fatalf("%+v", p)
			}
			break
		}
	}
	must(t, s, write(a.Volume, 0, make([]byte, 512), 9))
	if p.highest() != 4 {
		t.Fatal(p.highest())
	}
}

// TestFullPool: a full disk answers as such, keeps nobody from fencing and marking, and everything goes on when there is space.
func TestFullPool(t *testing.T) {
	m := newMachine(1)
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
	defer func() { m.node.Close() }()
	for len(m.vols) == 0 || m.vols[0].exists != yes {
		if err := m.work(); err != nil {
			t.Fatal(err)
		}
	}
	v := m.vols[0].spec.Volume
	m.d.full = true
	if a := m.call(write(v, 3*crashRegion, make([]byte, 4096), 1000)); !errors.Is(a.Err, peer.ErrNoSpace) {
		t.Fatal(a.Err)
	}
	if a := m.call(peer.Command{Kind: peer.ReadMap, Volume: v}); a.Err != nil || len(a.Active) == 0 || a.Active[len(a.Active)-1].Seq != 1000 {
		t.Fatalf("%+v", a)
	}
	if a := m.call(peer.Command{Kind: peer.Create, Spec: peer.Spec{Volume: ids.Volume{9}, Lineage: ids.Lineage{1}, Pool: m.pool, Size: 512, Region: 1 << 20}}); !errors.Is(a.Err, peer.ErrNoSpace) {
		t.Fatal(a.Err)
	}
	if err := m.open(); err != nil { // the epoch and the node's record have their space
		t.Fatal(err)
	}
	m.d.full = false
	if a := m.call(write(v, 3*crashRegion, make([]byte, 4096), 1001)); a.Err != nil {
		t.Fatal(a.Err)
	}
	for name, reserve := range map[string]bool{fileMap: true, fileEpochs: true, "epoch.new": true, fileData: false} {
		if m.d.reserved[name] != reserve {
			t.Errorf("the space of %s is reserved: %v", name, !reserve)
		}
	}
}

// TestDamagedRecords: what is damaged is named with what to do, and stays as it is.
func TestDamagedRecords(t *testing.T) {
	h := newHost(t, 1)
	h.open(3)
	h.open(4)
	h.node.Close()
	for _, path := range []string{filepath.Join(h.dir, "epoch"), filepath.Join(h.pools[0], fileEpochs)} {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := append([]byte(nil), good...)
		for _, at := range []int{50, blockSize + 50} {
			bad[at] ^= 1
		}
		os.WriteFile(path, bad, 0o600)
		n, err := OpenNode(Config{Dir: h.dir, Cluster: h.cluster, Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			_, err = n.AddPool(h.pools[0], true)
			n.Close()
		}
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "restore") {
			t.Fatal(path, err)
		}
		if got, _ := os.ReadFile(path); string(got) != string(bad) {
			t.Fatal("it was changed")
		}
		os.WriteFile(path, good, 0o600)
	}
	// A directory that has lost its superblock, or has a file of somebody else, is left alone.
	super := filepath.Join(h.pools[0], filePool)
	good, _ := os.ReadFile(super)
	os.Remove(super)
	other := t.TempDir()
	os.WriteFile(filepath.Join(other, fileEpochs), []byte("my own"), 0o600)
	n, err := OpenNode(Config{Dir: h.dir, Cluster: h.cluster, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.AddPool(h.pools[0], true); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "restore") {
		t.Fatal(err)
	}
	if _, err := n.AddPool(other, true); !errors.Is(err, ErrNotEmpty) {
		t.Fatal(err)
	}
	n.Close()
	os.WriteFile(super, good, 0o600)
	h.start()
	if f := h.open(5).Fenced(); f.Pools[0].Previous != 4 {
		t.Fatalf("%+v", f)
	}
}

// TestDeleteAgain: a deletion that failed is done by the next.
func TestDeleteAgain(t *testing.T) {
	m := newMachine(1)
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
	for m.vols == nil || m.vols[0].exists != yes {
		if err := m.work(); err != nil {
			t.Fatal(err)
		}
	}
	v := m.vols[0].spec
	p := m.node.pools[0]
	p.disk = failingDir{m.d, new(int)}
	if a := m.call(peer.Command{Kind: peer.Delete, Volume: v.Volume}); !errors.Is(a.Err, peer.ErrMedium) {
		t.Fatal(a.Err)
	}
	if a := m.call(peer.Command{Kind: peer.Delete, Volume: v.Volume}); a.Err != nil {
		t.Fatal(a.Err)
	}
	m.node.Close()
	m.vols[0].exists = no
	m.d.crash()
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
	m.node.Close()
}

type failingDir struct {
	disk
	n *int
}

func (f failingDir) syncDir(path string) error {
	if *f.n++; *f.n == 1 {
		return errors.New("injected")
	}
	return f.disk.syncDir(path)
}

package replica

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// hangDisk is the operating system's, on which no file below a path is opened until it is let go.
type hangDisk struct {
	osDisk
	mu    sync.Mutex
	below string
	let   chan struct{}
}

func (d *hangDisk) hang(below string) (let func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.below, d.let = below, make(chan struct{})
	return sync.OnceFunc(func() { close(d.let) })
}

func (d *hangDisk) open(path string, grain int) (file, error) {
	d.mu.Lock()
	below, let := d.below, d.let
	d.mu.Unlock()
	if below != "" && strings.HasPrefix(path, below) {
		<-let
	}
	return d.osDisk.open(path, grain)
}

// TestHungRenewal: a disk that failed a flush, and hangs when its replica is opened anew, keeps no other pool from being fenced; and
// what the session was told of a pool that it uses does not change meanwhile.
func TestHungRenewal(t *testing.T) {
	d := &hangDisk{}
	h := &host{t: t, cluster: ids.NewCluster(), dir: t.TempDir(), pools: []string{t.TempDir(), t.TempDir()}, disk: d}
	h.start()
	t.Cleanup(func() { h.node.Close() })
	s := h.open(1)
	a, b := h.spec(0), h.spec(1)
	must(t, s, peer.Command{Kind: peer.Create, Spec: a})
	must(t, s, peer.Command{Kind: peer.Create, Spec: b})
	let := d.hang(h.pools[0])
	t.Cleanup(let) // before Close, which waits
	h.node.pools[0].replicas[a.Volume].fail(errors.New("the disk is dying"))

	within := func(what string, f func(context.Context) error) {
		t.Helper()
		ended := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		go func() { ended <- f(ctx) }()
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(what, err)
			}
		case <-ctx.Done():
			t.Fatal(what + " hangs with the disk of one pool")
		}
	}
	within("asking again", func(ctx context.Context) error {
		f, err := s.Poll(ctx)
		if err == nil && (f.Pools[0].Busy || f.Pools[1].Busy) {
			t.Errorf("%+v", f)
		}
		return err
	})
	var next peer.Session
	within("the next fence", func(ctx context.Context) (err error) {
		next, err = h.node.Open(ctx, 2)
		return err
	})
	if f := next.Fenced(); !f.Pools[0].Busy || f.Pools[1].Busy {
		t.Fatalf("%+v", f)
	}
	must(t, next, write(b.Volume, 0, make([]byte, 4096), 1))
	let()
	for {
		f, err := next.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !f.Pools[0].Busy {
			if len(f.Pools[0].Replicas) != 1 || f.Pools[0].Replicas[0].Foreign {
				t.Fatalf("%+v", f.Pools[0])
			}
			break
		}
	}
	must(t, next, write(a.Volume, 0, make([]byte, 4096), 1))
}

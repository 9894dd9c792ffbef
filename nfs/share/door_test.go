package share

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/internal/nfsclient/nfstest"
	"pmsapp/nfs"
)

// served is what the front door asks: one share, whoever leads.
type served struct {
	mu      sync.Mutex
	share   *Share // nil between leaders
	changed chan struct{}
}

func (s *served) All() []*nfs.Export {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &nfs.Export{Path: "/vol", ID: ids.Volume{1}, Rules: []nfs.Rule{{Clients: netip.MustParsePrefix("127.0.0.0/8")}}}
	if s.share != nil {
		e.Share = s.share
	}
	return []*nfs.Export{e}
}

func (s *served) ByShare(ctx context.Context, _ ids.Volume) (*nfs.Export, error) {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if e := s.All()[0]; e.Share != nil {
			return e, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *served) set(sh *Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.share = sh
	close(s.changed)
	s.changed = make(chan struct{})
}

// TestBehindTheDoor has clients work over NFS while leader after leader dies, at any step of its disk and its catalog.
func TestBehindTheDoor(t *testing.T) {
	w := newWorld(t, 64<<20, 5)
	s := &served{changed: make(chan struct{})}
	sh, err := w.lead()
	if err != nil {
		t.Fatal(err)
	}
	s.set(sh)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door, err := nfs.New(nfs.Config{Exports: s, Ports: nfs.Ports{NFS: 1, Mount: 1, Portmap: 1}})
	if err != nil {
		t.Fatal(err)
	}
	go door.Serve(l)
	defer func() {
		if err := door.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		sh.Close(nil)
	}()
	cfg := nfsclient.Dial(l.Addr().String())
	cfg.Retry = time.Millisecond
	root := nfsclient.New(cfg)
	defer root.Close()
	h, _, err := root.Mount(t.Context(), "/vol")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	steps := make(chan struct{})
	var users sync.WaitGroup
	for i := range 4 {
		dir, err := root.Mkdir(t.Context(), h, fmt.Sprint("user", i), nfs3.SetAttr{})
		if err != nil {
			t.Fatal(err)
		}
		users.Go(func() {
			c := nfsclient.New(cfg)
			defer c.Close()
			u := nfstest.NewUser(c, dir.File, rand.New(rand.NewPCG(uint64(i), 9)))
			for ctx.Err() == nil {
				if err := u.Step(t.Context()); err != nil {
					t.Error(err)
					return
				}
				select {
				case steps <- struct{}{}:
				case <-ctx.Done():
				}
			}
			if err := u.Compare(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	rnd := rand.New(rand.NewPCG(4, 4))
	for range 40 {
		for range 20 {
			select {
			case <-steps:
			case <-time.After(20 * time.Second):
				t.Fatal("nobody gets on")
			}
		}
		w.mu.Lock()
		w.dieAt = w.step + 1 + rnd.IntN(40)
		w.mu.Unlock()
		for dead := false; !dead; {
			select {
			case <-steps:
			case <-sh.Done():
			case <-time.After(20 * time.Second):
				t.Fatal("nobody gets on, and the leader lives")
			}
			w.mu.Lock()
			dead = w.dead
			w.mu.Unlock()
		}
		s.set(nil)
		sh.Close(nil)
		door.Drop(errors.New("another leads"))
		w.mu.Lock()
		w.dieAt = 0
		w.mu.Unlock()
		if sh, err = w.lead(); err != nil {
			t.Fatal(err)
		}
		s.set(sh)
	}
	cancel()
	users.Wait()
}

package shares

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
	"pmsapp/nfs/share"
)

// catalog is what the newest state exports.
type catalog struct {
	mu      sync.Mutex
	exports map[ids.Volume]*nfs.Export
	certain bool
}

func (c *catalog) set(v ids.Volume, e *nfs.Export) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.exports[v] = e; e == nil {
		delete(c.exports, v)
	}
}

func (c *catalog) config() Config {
	return Config{Log: slog.New(slog.DiscardHandler), Hold: func() time.Duration { return 30 * time.Second },
		Exports: func() (all []*nfs.Export) {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, e := range c.exports {
				all = append(all, e)
			}
			return all
		},
		Export: func(v ids.Volume) *nfs.Export {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.exports[v]
		},
		Certain: func(context.Context) bool { return c.certain },
	}
}

func export(v ids.Volume, bits int) *nfs.Export {
	return &nfs.Export{Path: "/s", ID: v, Rules: []nfs.Rule{{Clients: netip.PrefixFrom(netip.MustParseAddr("192.0.2.0"), bits)}}}
}

// TestByShare: an export is made once for each of its versions, and every change of it, of the rules that hold for a while and of
// the open share shows at once.
func TestByShare(t *testing.T) {
	v := ids.Volume{1}
	c := &catalog{exports: map[ids.Volume]*nfs.Export{v: export(v, 24)}}
	s := New(c.config())
	x := &served{}
	s.serving[v] = x
	first := new(share.Share)
	s.set(x, first)
	get := func() *nfs.Export {
		t.Helper()
		e, err := s.ByShare(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	a := get()
	if a.Share != nfs.Share(first) || a.Rules[0].Clients.Bits() != 24 || get() != a || s.All()[0] != a {
		t.Fatalf("%+v", a)
	}
	if n := testing.AllocsPerRun(100, func() { get() }); n != 0 {
		t.Fatal(n, " allocations in each call")
	}
	undo := s.Restrict(v, export(v, 30).Rules)
	if e := get(); e.Rules[0].Clients.Bits() != 30 || e.Share == nil || s.All()[0].Rules[0].Clients.Bits() != 30 || a.Rules[0].Clients.Bits() != 24 {
		t.Fatalf("%+v, %+v", e, a)
	}
	undo()
	undo = s.Restrict(v, nil) // which may be undone: nobody is told that he may not use it
	if _, err := s.ByShare(t.Context(), v); !errors.Is(err, ErrNotServed) || len(s.All()[0].Rules) != 0 || len(a.Rules) != 1 {
		t.Fatal(err)
	}
	undo()
	if get() != a {
		t.Fatal("another export after the restriction")
	}
	c.set(v, export(v, 25))
	if e := get(); e.Rules[0].Clients.Bits() != 25 || e.Share != nfs.Share(first) || a.Rules[0].Clients.Bits() != 24 {
		t.Fatalf("%+v", e)
	}
	second := new(share.Share)
	s.set(x, second)
	if e := get(); e.Share != nfs.Share(second) {
		t.Fatalf("%+v", e)
	}
	s.set(x, nil)
	if _, err := s.ByShare(t.Context(), v); !errors.Is(err, ErrNotServed) {
		t.Fatal(err)
	}
	c.set(v, nil)
	if _, err := s.ByShare(t.Context(), v); !errors.Is(err, ErrNotServed) {
		t.Fatal(err)
	}
	c.certain = true
	if _, err := s.ByShare(t.Context(), v); !errors.Is(err, nfs3.ErrStale) {
		t.Fatal(err)
	}
}

// TestHeldAndClosed: a call that is held ends when the share is about to be exported no more, though it may be served the next moment.
func TestHeldAndClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := ids.Volume{1}
		c := &catalog{exports: map[ids.Volume]*nfs.Export{v: export(v, 24)}}
		s := New(c.config())
		s.Lead(true)
		ended := make(chan error)
		go func() {
			_, err := s.ByShare(t.Context(), v)
			ended <- err
		}()
		synctest.Wait()
		begun := time.Now()
		undo := s.Restrict(v, nil)
		if err := <-ended; !errors.Is(err, ErrNotServed) || time.Since(begun) != 0 {
			t.Fatal(err, time.Since(begun))
		}
		x := &served{}
		s.mu.Lock()
		s.serving[v] = x
		s.mu.Unlock()
		s.set(x, new(share.Share))
		if _, err := s.ByShare(t.Context(), v); !errors.Is(err, ErrNotServed) {
			t.Fatal(err)
		}
		undo()
		if e, err := s.ByShare(t.Context(), v); err != nil || len(e.Rules) != 1 {
			t.Fatal(e, err)
		}
	})
}

// TestHeld: at the leader a call waits for the share to be open, as long as I/O is held.
func TestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := ids.Volume{1}
		c := &catalog{exports: map[ids.Volume]*nfs.Export{v: export(v, 24)}}
		s := New(c.config())
		s.Lead(true)
		begun := time.Now()
		if _, err := s.ByShare(t.Context(), v); !errors.Is(err, block.ErrHeld) || time.Since(begun) != 30*time.Second {
			t.Fatal(err, time.Since(begun))
		}
		x := &served{}
		s.mu.Lock()
		s.serving[v] = x
		s.mu.Unlock()
		got := make(chan error)
		go func() {
			_, err := s.ByShare(t.Context(), v)
			got <- err
		}()
		time.Sleep(10 * time.Second)
		s.set(x, new(share.Share))
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	})
}

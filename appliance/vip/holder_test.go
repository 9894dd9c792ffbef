package vip

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// serve accepts until the listener is closed, and greets.
func serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		c.Close()
	}
}

func freePortal(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// TestFollows: the second holder gets the address when the first lets go, and not before.
func TestFollows(t *testing.T) {
	defer goleak.VerifyNone(t)
	c := Config{Portal: freePortal(t), Listen: true, Serve: serve, Log: slog.New(slog.DiscardHandler)}
	a, b := New(c), New(c)
	a.Hold()
	waitFor(t, "the first has it", a.Bound)
	b.Hold()
	conn, err := net.Dial("tcp", c.Portal.String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if b.Bound() {
		t.Fatal("both have it")
	}
	a.Release()
	if a.Bound() {
		t.Fatal("still bound after Release")
	}
	waitFor(t, "the second has it", b.Bound)
	a.Hold()
	b.Release()
	waitFor(t, "the first has it again", a.Bound)
	a.Release()
	a.Release()
	if _, err := net.Dial("tcp", c.Portal.String()); err == nil {
		t.Fatal("somebody listens after all have let go")
	}
}

// recorded is an interface that only counts.
type recorded struct {
	mu        sync.Mutex
	adds      []time.Duration
	begun     time.Time
	there     bool
	announced int
	fail      error
}

func (r *recorded) add(Config) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return false, r.fail
	}
	r.adds = append(r.adds, time.Since(r.begun))
	fresh := !r.there
	r.there = true
	return fresh, nil
}
func (r *recorded) remove(Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.there = false
	return nil
}

func (r *recorded) announce(Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.announced++
	return nil
}

func TestRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorded{begun: time.Now(), fail: errors.New("no such interface")}
		h := New(Config{Portal: netip.MustParseAddrPort("192.0.2.1:3260"), Prefix: 24, Interface: "eth9", Lifetime: 3 * time.Second,
			Log: slog.New(slog.DiscardHandler)})
		h.addrs = r
		h.Hold()
		time.Sleep(time.Second)
		if h.Bound() {
			t.Fatal("bound without an address")
		}
		r.mu.Lock()
		r.fail, r.begun = nil, time.Now()
		r.mu.Unlock()
		time.Sleep(10*time.Second + retry + retry/2) // between two renewals, never at one
		synctest.Wait()                              // orders what follows after all that was recorded
		if !h.Bound() || r.announced != 1 || len(r.adds) != 11 {
			t.Fatal(h.Bound(), r.announced, r.adds)
		}
		h.Release()
		if r.there || h.Bound() {
			t.Fatal("not removed")
		}
	})
}

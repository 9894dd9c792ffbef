package vip

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
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

// echo sends each datagram back.
func echo(p net.PacketConn) error {
	b := make([]byte, 100)
	for {
		n, from, err := p.ReadFrom(b)
		if err != nil {
			return err
		}
		p.WriteTo(b[:n], from)
	}
}

// ask sends "hello" to a UDP port, and returns the answer.
func ask(t *testing.T, to netip.AddrPort) string {
	t.Helper()
	c, err := net.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 100)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
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
	portal, share := freePortal(t), freePortal(t)
	c := Config{Addr: portal.Addr(), Services: []Service{{Port: portal.Port(), Stream: serve}, {Port: share.Port(), Stream: serve, Packet: echo}},
		Log: slog.New(slog.DiscardHandler)}
	a, b := New(c), New(c)
	a.Hold()
	waitFor(t, "the first has it", a.Bound)
	b.Hold()
	conn, err := net.Dial("tcp", portal.String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if got := ask(t, share); got != "hello" {
		t.Fatal("by UDP: ", got)
	}
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
	if _, err := net.Dial("tcp", portal.String()); err == nil {
		t.Fatal("somebody listens after all have let go")
	}
}

// TestOneInUse: a port that another program has keeps the others neither away nor closed, and is taken when it is free; a service
// that ends is served again.
func TestOneInUse(t *testing.T) {
	defer goleak.VerifyNone(t)
	portal, share := freePortal(t), freePortal(t)
	other, err := net.Listen("tcp", share.String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ends := make(chan struct{})
	h := New(Config{Addr: portal.Addr(), Services: []Service{{Port: share.Port(), Stream: serve}, {Port: portal.Port(), Stream: func(l net.Listener) error {
		select {
		case <-ends: // the second time
			return serve(l)
		default:
			close(ends)
			return errors.New("broken")
		}
	}}}, Log: slog.New(slog.DiscardHandler)})
	h.Hold()
	waitFor(t, "the portal is there again", func() bool {
		c, err := net.Dial("tcp", portal.String())
		if err == nil {
			c.SetDeadline(time.Now().Add(time.Second))
			_, err = c.Read(make([]byte, 1)) // serve closes, a socket that nobody serves does not
			c.Close()
		}
		return errors.Is(err, io.EOF)
	})
	if h.Bound() {
		t.Fatal("bound without one of its ports")
	}
	other.Close()
	waitFor(t, "all is there", h.Bound)
	h.Release()
}

// recorded is an interface that only counts.
type recorded struct {
	mu        sync.Mutex
	adds      []time.Duration
	begun     time.Time
	there     bool
	announced int
	woken     []Connection
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

func (r *recorded) wake(_ Config, all []Connection) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.woken = append(r.woken, all...)
	return nil
}

// connections are one more with each renewal.
func (r *recorded) connections(Config) ([]Connection, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return connectionsFrom(1, len(r.adds)), nil
}

// connectionsFrom are those of ports from one on, before another.
func connectionsFrom(first, end int) (all []Connection) {
	for i := first; i < end; i++ {
		all = append(all, Connection{2049, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), uint16(i))})
	}
	return all
}

func TestRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorded{begun: time.Now(), fail: errors.New("no such interface")}
		h := New(Config{Addr: netip.MustParseAddr("192.0.2.1"), Prefix: 24, Interface: "eth9", Lifetime: 3 * time.Second,
			Former: func() []Connection { return connectionsFrom(1, 4) }, Log: slog.New(slog.DiscardHandler)})
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
		if !h.Bound() || r.announced != announcements || len(r.adds) != 11 {
			t.Fatal(h.Bound(), r.announced, r.adds)
		}
		// With each announcement those that have not come.
		if want := slices.Concat(connectionsFrom(1, 4), connectionsFrom(2, 4), connectionsFrom(3, 4)); !slices.Equal(r.woken, want) {
			t.Fatal(r.woken)
		}
		h.Release()
		if r.there || h.Bound() {
			t.Fatal("not removed")
		}
	})
}

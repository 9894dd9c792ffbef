package accept

import (
	"errors"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// flaky is a listener that has no descriptors for a while, then one connection, and is closed then.
type flaky struct {
	fails int
	given bool
}

func (f *flaky) Accept() (net.Conn, error) {
	switch {
	case f.fails > 0:
		f.fails--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	case !f.given:
		f.given = true
		a, b := net.Pipe()
		b.Close()
		return a, nil
	}
	return nil, net.ErrClosed
}

func (f *flaky) Close() error   { return nil }
func (f *flaky) Addr() net.Addr { return &net.TCPAddr{} }

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, got := time.Now(), 0
		err := Loop(&flaky{fails: 3}, slog.New(slog.DiscardHandler), nil, func(c net.Conn) { got++; c.Close() })
		if !errors.Is(err, net.ErrClosed) || got != 1 {
			t.Fatalf("%d connections, then %v", got, err)
		}
		if d := time.Since(began); d != 35*time.Millisecond {
			t.Errorf("three failures were waited for %v, want 5 + 10 + 20 ms", d)
		}
	})
}

func TestStopEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		close(stop)
		began := time.Now()
		if err := Loop(&flaky{fails: 20}, slog.New(slog.DiscardHandler), stop, func(c net.Conn) { c.Close() }); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("stopped, it waited for %v", d)
		}
	})
}

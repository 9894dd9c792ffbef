package nfs_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmsapp/internal/nfsclient"
	"pmsapp/internal/nfsclient/nfstest"
	"pmsapp/internal/sunrpc"
)

// TestFailovers has clients work while connections are lost and one server takes over from another, the tree being kept.
// Each operation must have its effect once: a second MKDIR would say EXIST, a second REMOVE NOENT.
func TestFailovers(t *testing.T) {
	d := open(t)
	var current atomic.Pointer[string]
	current.Store(&d.addr)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var users sync.WaitGroup
	steps := make(chan struct{})
	for i := range 6 {
		cfg := sunrpc.ClientConfig{Cred: sunrpc.Cred{Flavor: sunrpc.AuthSys}, Retry: time.Millisecond, Timeout: 2 * time.Second,
			Dial: func(ctx context.Context) (net.Conn, error) {
				var n net.Dialer
				return n.DialContext(ctx, "tcp", *current.Load())
			}}
		c := nfsclient.New(cfg)
		t.Cleanup(c.Close)
		dir := d.mkdir(fmt.Sprint("client", i), 0o755)
		users.Go(func() {
			u := nfstest.NewUser(c, dir, rand.New(rand.NewPCG(uint64(i), 1)))
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
	rnd := rand.New(rand.NewPCG(1, 2))
	former := d.srv
	for round := range 30 {
		for range 100 {
			select {
			case <-steps:
			case <-time.After(20 * time.Second):
				t.Fatal("no client gets on")
			}
		}
		// Whatever is at this point when the connection is lost: not begun, done and not answered.
		lost := errors.New("the epoch has ended")
		var left atomic.Int64
		left.Store(rnd.Int64N(4))
		d.share.Before(func(context.Context, string) error {
			if left.Add(-1) >= 0 {
				return lost
			}
			return nil
		})
		if round%3 == 0 {
			next, addr := serve(t, d.exports)
			current.Store(&addr)
			former.Drop(lost)
			former = next
		} else {
			former.Drop(lost)
		}
	}
	cancel()
	users.Wait()
}

package mirror

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, c *fakeCluster, f func(*Config)) *Mirror {
	t.Helper()
	cfg := c.config(t)
	if f != nil {
		f(&cfg)
	}
	m, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWriteRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(8<<20, 2, 2)
		c.nodes[node(2)].delay = time.Millisecond
		m := open(t, c, nil)
		data := bytes.Repeat([]byte{7}, 3<<20)
		if err := do(m, block.Write, 1<<20, data); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes {
			if !bytes.Equal(n.bytes[1<<20:4<<20], data) {
				t.Fatal("a member lacks the write")
			}
		}
		got := make([]byte, 3<<20)
		if err := do(m, block.Read, 1<<20, got); err != nil || !bytes.Equal(got, data) {
			t.Fatal("read", err)
		}
		if err := do(m, block.Read, 1<<20, make([]byte, 100)); !errors.Is(err, block.ErrRange) {
			t.Fatal(err)
		}
		m.Close(nil)
		if err := do(m, block.Read, 0, make([]byte, 512)); !errors.Is(err, block.ErrEnded) {
			t.Fatal(err)
		}
	})
}

// A member whose host is dead refuses: it is gone at once. One that hangs is gone after the grace that follows the end
// of its session.
func TestLostMember(t *testing.T) {
	for _, refuse := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(8<<20, 2, 2)
			n := c.nodes[node(2)]
			m := open(t, c, nil)
			c.set(2, func(n *fakeNode) { n.hang = true })
			begun := time.Now()
			var wg sync.WaitGroup
			for i := range 32 {
				wg.Go(func() {
					if err := do(m, block.Write, int64(i)*4096, bytes.Repeat([]byte{byte(i + 1)}, 4096)); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			// A blip: it comes back, and the calls are sent again.
			c.set(2, func(n *fakeNode) { n.refuse, n.hang = refuse, refuse })
			n.session.die()
			wg.Wait()
			if d := time.Since(begun); d > 300*time.Millisecond {
				t.Errorf("it took %v", d)
			}
			if want := map[bool]int{true: 1, false: 2}[refuse]; len(c.vol.InSync) != want {
				t.Errorf("%d members", len(c.vol.InSync))
			}
			m.Close(nil)
		})
	}
}

func TestEpochEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(8<<20, 2, 2)
		m := open(t, c, nil)
		c.set(2, func(n *fakeNode) { n.epoch = 2 })
		if err := do(m, block.Read, 0, make([]byte, 4096)); !errors.Is(err, block.ErrEnded) {
			t.Fatal(err)
		}
		<-m.Done()
		if m.Err() == nil {
			t.Fatal("no cause")
		}
		m.Close(nil)
	})
}

func TestHeldThenClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(8<<20, 1, 1)
		m := open(t, c, func(cfg *Config) { cfg.Params.Tunables.Hold = 2 * time.Second })
		c.set(1, func(n *fakeNode) { n.refuse = true })
		c.nodes[node(1)].session.die()
		begun := time.Now()
		if err := do(m, block.Write, 0, make([]byte, 4096)); !errors.Is(err, block.ErrHeld) {
			t.Fatal(err)
		}
		if d := time.Since(begun); d < 2*time.Second || d > 2100*time.Millisecond {
			t.Fatal(d)
		}
		go func() {
			time.Sleep(time.Second)
			m.Close(nil)
		}()
		if err := do(m, block.Read, 0, make([]byte, 4096)); !errors.Is(err, block.ErrEnded) {
			t.Fatal(err)
		}
		m.Close(nil)
	})
}

// A hold ends when the last member is back: nothing has failed.
func TestHeldThenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(8<<20, 1, 1)
		m := open(t, c, nil)
		n := c.nodes[node(1)]
		c.set(1, func(n *fakeNode) { n.hang = true })
		go func() {
			time.Sleep(time.Second)
			c.set(1, func(n *fakeNode) { n.refuse, n.hang = true, false })
			n.session.die()
			time.Sleep(5 * time.Second)
			c.set(1, func(n *fakeNode) { n.refuse = false })
		}()
		if err := do(m, block.Write, 0, bytes.Repeat([]byte{1}, 4096)); err != nil {
			t.Fatal(err)
		}
		if n.bytes[0] != 1 {
			t.Fatal("not there")
		}
		m.Close(nil)
	})
}

func TestResyncAndDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(8<<20, 1, 2)
		for i := range c.nodes[node(1)].bytes {
			c.nodes[node(1)].bytes[i] = byte(i >> 13)
		}
		joined := make(chan error, 1)
		m := open(t, c, func(cfg *Config) {
			cfg.Budget = noBudget{}
			cfg.Resynced = func(_ ids.Node, _ ResyncStatus, err error) { joined <- err }
		})
		if err := do(m, block.Flush, 0, nil); err != nil {
			t.Fatal(err)
		}
		if err := m.StartResync(context.Background(), Joiner{Place: truth.Place{Node: node(2), Pool: ids.Pool{2}}}); err != nil {
			t.Fatal(err)
		}
		for i := range 64 {
			if err := do(m, block.Write, int64(i)*65536, bytes.Repeat([]byte{byte(i)}, 4096)); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-joined; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c.nodes[node(1)].bytes, c.nodes[node(2)].bytes) || len(c.vol.InSync) != 2 {
			t.Fatal("not equal, or no member")
		}
		if err := m.StartResync(context.Background(), Joiner{Place: truth.Place{Node: node(2), Pool: ids.Pool{2}}}); !errors.Is(err, ErrMember) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := m.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		if st := m.Status(); st.Active != 0 || st.Requests != 0 {
			t.Fatalf("%+v", st)
		}
		m.Close(nil)
	})
}

type noBudget struct{}

func (noBudget) Guest(time.Duration) {}

func (noBudget) Wait(ctx context.Context, n int64) error { return ctx.Err() }

// Clients that submit from Done, against sessions that answer within Submit.
func TestSynchronousSessions(t *testing.T) {
	c := newCluster(1<<20, 2, 2)
	m := open(t, c, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		left := 2000
		r := &block.Request{Op: block.Write, Off: int64(i) * 4096, Len: 4096, Data: make([]byte, 4096)}
		if i%2 == 1 {
			r.Op = block.Read
		}
		r.Done = func(r *block.Request) {
			if r.Err != nil {
				t.Error(r.Err)
			}
			if left--; left == 0 {
				wg.Done()
				return
			}
			r.Off = (r.Off + 4096) % (1 << 18)
			m.Submit(r)
		}
		go m.Submit(r)
	}
	wg.Wait()
	m.Close(nil)
}

func BenchmarkWrite4K(b *testing.B) { benchmark(b, block.Write) }
func BenchmarkRead4K(b *testing.B)  { benchmark(b, block.Read) }

// benchmark keeps 32 requests under way against sessions that answer at once: the cost of the mirror itself.
func benchmark(b *testing.B, op block.Op) {
	c := newCluster(64<<20, 2, 2)
	m := open(b, c, nil)
	done := make(chan *block.Request, 32)
	for i := range 32 {
		done <- &block.Request{Op: op, Off: int64(i) << 20, Len: 4096, Data: make([]byte, 4096), Done: func(r *block.Request) { done <- r }}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		r := <-done
		r.Off = (r.Off + 8192*7) % (64 << 20)
		m.Submit(r)
	}
	for range 32 {
		<-done
	}
	b.StopTimer()
	m.Close(nil)
}

// retaining are sessions of which those that die leave a write's data with a disk that hangs, where they may.
type retaining struct{ *fakeCluster }

type retainingSession struct{ peer.Session }

func (r retaining) Session(ctx context.Context, id ids.Node) (peer.Session, error) {
	s, err := r.fakeCluster.Session(ctx, id)
	if err != nil {
		return nil, err
	}
	return retainingSession{s}, nil
}

func (s retainingSession) Submit(k *peer.Call) {
	done := k.Done
	k.Done = func(k *peer.Call) {
		k.Retained = k.Err != nil && k.MayRetain
		done(k)
	}
	s.Session.Submit(k)
}

// TestRetained: that a disk that hangs still has a write's data is told to who brought the write, and only if he has said
// that he can do without them.
func TestRetained(t *testing.T) {
	for _, may := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(8<<20, 2, 2)
			m := open(t, c, func(cfg *Config) { cfg.Sessions = retaining{c} })
			defer m.Close(nil)
			c.set(1, func(n *fakeNode) { n.hang = true })
			ended := make(chan struct{})
			data := bytes.Repeat([]byte{3}, 4096)
			w := &block.Request{Op: block.Write, Len: 4096, Data: data, MayRetain: may, Done: func(*block.Request) { close(ended) }}
			m.Submit(w)
			synctest.Wait()
			c.set(1, func(n *fakeNode) {
				n.hang = false
				go n.session.Close()
			})
			<-ended
			if w.Err != nil || w.Retained != may || !bytes.Equal(c.nodes[node(2)].bytes[:4096], data) {
				t.Errorf("%v: %v, %v", may, w.Err, w.Retained)
			}
		})
	}
}

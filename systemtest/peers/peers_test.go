// Package peers tests sessions between nodes from end to end: the leader's end of package remote, our initiator, our
// target, the adapter of package front, and the node's end of package remote.
package peers

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pmsapp/internal/ids"
	"pmsapp/replication/initiator"
	"pmsapp/replication/peer"
	"pmsapp/replication/remote"
	"pmsapp/systemtest/peering"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node keeps one replica in memory, and is fenced as a node must be: a session ends the earlier ones.
type node struct {
	mu       sync.Mutex
	accepted peer.Epoch
	current  *local
	data     []byte
	hangs    func(*peer.Call) bool // commands that the disk does not answer before release
	held     []*peer.Call
}

// release ends what hangs.
func (n *node) release() {
	n.mu.Lock()
	held := n.held
	n.hangs, n.held = nil, nil
	n.mu.Unlock()
	for _, c := range held {
		c.Done(c)
	}
}

type local struct {
	n      *node
	e      peer.Epoch
	ended  error
	done   chan struct{}
	fenced peer.Fenced
}

func (n *node) Accepted() peer.Epoch {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.accepted
}

func (n *node) Open(_ context.Context, e peer.Epoch) (peer.Session, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e < n.accepted {
		return nil, &peer.EpochError{Accepted: n.accepted}
	}
	if n.current != nil {
		cause := error(peer.ErrLost)
		if e > n.accepted {
			cause = &peer.EpochError{Accepted: e}
		}
		n.current.end(cause)
	}
	s := &local{n: n, e: e, done: make(chan struct{}), fenced: peer.Fenced{Highest: n.accepted, Pools: []peer.FencedPool{}}}
	n.accepted, n.current = e, s
	return s, nil
}

// end is called with the lock held.
func (s *local) end(cause error) {
	if s.ended == nil {
		s.ended = cause
		close(s.done)
	}
}

func (s *local) Fenced() peer.Fenced                       { return s.fenced }
func (s *local) Poll(context.Context) (peer.Fenced, error) { return s.fenced, nil }
func (s *local) Done() <-chan struct{}                     { return s.done }
func (s *local) Err() error                                { s.n.mu.Lock(); defer s.n.mu.Unlock(); return s.ended }
func (s *local) Close()                                    { s.n.mu.Lock(); defer s.n.mu.Unlock(); s.end(peer.ErrLost) }

func (s *local) Submit(c *peer.Call) {
	s.n.mu.Lock()
	c.Err = s.ended
	switch {
	case c.Err != nil:
	case s.n.hangs != nil && s.n.hangs(c):
		s.n.held = append(s.n.held, c)
		s.n.mu.Unlock()
		return
	case c.Kind == peer.Read:
		copy(c.Data, s.n.data[c.Off:])
	case c.Kind == peer.Write:
		copy(s.n.data[c.Off:], c.Data)
	case c.Kind == peer.Zero:
		clear(s.n.data[c.Off : c.Off+c.Len])
	}
	s.n.mu.Unlock()
	c.Done(c)
}

const size = 64 << 20

// start serves a node over the real target, and returns how to reach it.
func start(t testing.TB) (*node, *remote.Dialer, ids.Node) {
	t.Helper()
	n := &node{data: make([]byte, size)}
	self := ids.NewNode()
	return n, peering.Serve(t, ids.NewCluster(), self, n), self
}

func open(t testing.TB, d *remote.Dialer, id ids.Node, e peer.Epoch) peer.Session {
	t.Helper()
	s, err := d.Open(t.Context(), id, e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		<-s.Done()
	})
	return s
}

func call(s peer.Session, c peer.Command) error {
	ch := make(chan struct{})
	k := &peer.Call{Command: c, Done: func(*peer.Call) { close(ch) }}
	s.Submit(k)
	<-ch
	return k.Err
}

func TestTransfers(t *testing.T) {
	_, d, id := start(t)
	s := open(t, d, id, 1)
	const workers, part = 16, 4 << 20
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(3, uint64(w)))
			for range 60 {
				n := 512 * (1 + rnd.IntN([]int{8, 64, 4096}[rnd.IntN(3)]))
				off := int64(w*part + 512*rnd.IntN((part-n)/512+1))
				data, got := make([]byte, n), make([]byte, n)
				for i := range data {
					data[i] = byte(rnd.Uint32())
				}
				if err := errors.Join(call(s, peer.Command{Kind: peer.Write, Off: off, Len: int64(n), Data: data}),
					call(s, peer.Command{Kind: peer.Confirm}),
					call(s, peer.Command{Kind: peer.Read, Off: off, Len: int64(n), Data: got})); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes at %d: %v", n, off, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestEpochs opens sessions that end each other: by a higher epoch, by the same, and not by a lower one.
func TestEpochs(t *testing.T) {
	n, d, id := start(t)
	first := open(t, d, id, 5)
	again := open(t, d, id, 5) // the same initiator port: the node ends the first session before it answers
	<-first.Done()
	if err := first.Err(); !errors.Is(err, peer.ErrLost) {
		t.Error(err)
	}
	if err := call(again, peer.Command{Kind: peer.Confirm}); err != nil {
		t.Error(err)
	}
	var epoch *peer.EpochError
	if _, err := d.Open(t.Context(), id, 4); !errors.As(err, &epoch) || epoch.Accepted != 5 {
		t.Error("lower:", err)
	}
	// Another leader, with the node's own door: the session learns it with its next command.
	if _, err := n.Open(t.Context(), 9); err != nil {
		t.Fatal(err)
	}
	if err := call(again, peer.Command{Kind: peer.Write, Len: 512, Data: make([]byte, 512)}); !errors.As(err, &epoch) || epoch.Accepted != 9 {
		t.Error("deposed:", err)
	}
	<-again.Done()
	if !errors.Is(again.Err(), peer.ErrEpoch) {
		t.Error(again.Err())
	}
}

// TestSilence has a node that stops answering: the session dies of an unanswered probe, of silence or of a hung command,
// whichever is noticed first, and every call with it.
func TestSilence(t *testing.T) {
	n, d, id := start(t)
	s := open(t, d, id, 1)
	n.mu.Lock() // the node hangs
	began := time.Now()
	err := call(s, peer.Command{Kind: peer.Confirm})
	n.mu.Unlock()
	timeout := errors.Is(err, initiator.ErrNoopTimeout) || errors.Is(err, initiator.ErrRecoveryTimeout) || errors.Is(err, initiator.ErrCommandTimeout)
	if !errors.Is(err, peer.ErrLost) || !timeout {
		t.Error(err)
	}
	if took := time.Since(began); took < 2*time.Second || took > 6*time.Second {
		t.Error("after", took)
	}
}

// TestHungWrite has a pool that never answers one write, and a node that answers everything else. The session dies of that
// write in the recovery timeout, and a new one works while the disk still hangs.
func TestHungWrite(t *testing.T) {
	n, d, id := start(t)
	defer n.release()
	s := open(t, d, id, 1)
	n.mu.Lock()
	n.hangs = func(c *peer.Call) bool { return c.Kind == peer.Write && c.Off == 1<<20 }
	n.mu.Unlock()
	began := time.Now()
	hung := make(chan error, 1)
	s.Submit(&peer.Call{Command: peer.Command{Kind: peer.Write, Off: 1 << 20, Len: 4096, Data: make([]byte, 4096)},
		Done: func(c *peer.Call) { hung <- c.Err }})
	answered := 0
	for data := make([]byte, 4096); time.Since(began) < 20*time.Second; answered++ {
		if call(s, peer.Command{Kind: peer.Confirm}) != nil ||
			call(s, peer.Command{Kind: peer.Write, Len: 4096, Data: data}) != nil ||
			call(s, peer.Command{Kind: peer.Read, Len: 4096, Data: data}) != nil {
			break
		}
	}
	err := <-hung
	if took := time.Since(began); took < 3*time.Second || took > 6*time.Second || answered == 0 {
		t.Errorf("after %v and %d answers", took, answered)
	}
	if !errors.Is(err, peer.ErrLost) || !errors.Is(err, initiator.ErrCommandTimeout) || !errors.Is(s.Err(), peer.ErrLost) {
		t.Error(err, s.Err())
	}
	<-s.Done()
	again := open(t, d, id, 1)
	if err := call(again, peer.Command{Kind: peer.Confirm}); err != nil {
		t.Error("a new session:", err)
	}
}

// TestHungFiles: commands that make and remove files may take any time, and there may be many of them. They take neither the
// target's window nor the places of other commands, which would wait with them for ever.
func TestHungFiles(t *testing.T) {
	n, d, id := start(t)
	s := open(t, d, id, 1)
	n.mu.Lock()
	n.hangs = func(c *peer.Call) bool {
		return c.Kind == peer.Create || c.Kind == peer.Delete || c.Kind == peer.Reset
	}
	n.mu.Unlock()
	const files = 600
	ended := make(chan error, files)
	for i := range files {
		kind := []peer.Kind{peer.Delete, peer.Create, peer.Reset}[i%3]
		s.Submit(&peer.Call{Command: peer.Command{Kind: kind, Volume: ids.NewVolume()}, Done: func(c *peer.Call) { ended <- c.Err }})
	}
	others := make(chan error, 1)
	go func() {
		for _, c := range []peer.Command{{Kind: peer.Confirm}, {Kind: peer.ReadMap}, {Kind: peer.Extents, Len: 4096},
			{Kind: peer.Clear, Regions: []peer.RegionSeq{{Region: 1, Seq: 1}}}, {Kind: peer.Write, Len: 512, Data: make([]byte, 512)}} {
			if err := call(s, c); err != nil {
				others <- err
				return
			}
		}
		others <- nil
	}()
	select {
	case err := <-others:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("other commands wait with them")
		s.Close()
		<-others
	}
	n.release()
	for range files {
		if err := <-ended; err != nil && s.Err() == nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkPeer(b *testing.B) {
	for _, c := range []struct {
		name  string
		kind  peer.Kind
		depth int
		size  int
	}{
		{"write4k/QD1", peer.Write, 1, 4096}, {"write4k/QD32", peer.Write, 32, 4096}, {"read4k/QD32", peer.Read, 32, 4096},
		{"confirm/QD32", peer.Confirm, 32, 0}, {"write256k/QD8", peer.Write, 8, 256 << 10}, {"read256k/QD8", peer.Read, 8, 256 << 10},
	} {
		b.Run(c.name, func(b *testing.B) {
			_, d, id := start(b)
			s := open(b, d, id, 1)
			b.ReportAllocs()
			b.SetBytes(int64(c.size))
			slots := make(chan *peer.Call, c.depth)
			for i := range c.depth {
				slots <- &peer.Call{Command: peer.Command{Kind: c.kind, Off: int64(i * c.size), Len: int64(c.size), Data: make([]byte, c.size)},
					Done: func(c *peer.Call) { slots <- c }}
			}
			for b.Loop() {
				k := <-slots
				if k.Err != nil {
					b.Fatal(k.Err)
				}
				s.Submit(k)
			}
			for range c.depth {
				<-slots
			}
		})
	}
}

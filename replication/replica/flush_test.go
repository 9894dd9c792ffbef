package replica

import (
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"pmsapp/replication/peer"
)

// TestFailedFlush: it is never repeated; the replica is opened anew. Its incarnation is what it was, for nothing was acknowledged
// that was not durable (invariant 10).
func TestFailedFlush(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(1)
	spec := h.spec(0)
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	r := h.node.pools[0].replicas[spec.Volume]
	inc := r.incarnation
	for i, errno := range []error{syscall.EIO, syscall.ENOSPC} {
		// Two writes are applied; the flush of the first fails, and the second must not be saved by one of its own.
		real := r.data
		failing := &failOnce{file: real, err: errno, hangs: make(chan struct{}), release: make(chan struct{})}
		r.data = failing
		ends := make(chan error, 2)
		send := func(off int64) {
			s.Submit(&peer.Call{Command: write(spec.Volume, off, make([]byte, 4096), peer.Seq(10*i+1)), Done: func(c *peer.Call) { ends <- c.Err }})
		}
		send(0)
		<-failing.hangs
		send(8192)
		for failing.writes.Load() < 2 { // it will wait for the next flush
			runtime.Gosched()
		}
		close(failing.release)
		for range 2 {
			if err := <-ends; !errors.Is(err, peer.ErrMedium) || errors.Is(err, peer.ErrNoSpace) {
				t.Fatal(err)
			}
		}
		if failing.flushes.Load() != 1 {
			t.Fatal("the flush was tried again")
		}
		must(t, s, write(spec.Volume, 0, make([]byte, 4096), peer.Seq(10*i+2))) // opened anew
		if r.data == failing {
			t.Fatal("it was not opened anew")
		}
		f, err := s.Poll(t.Context())
		if err != nil || inc != f.Pools[0].Replicas[0].Incarnation || f.Pools[0].Replicas[0].Foreign || f.Pools[0].Replicas[0].Active != 1 {
			t.Fatalf("%+v %v", f, err)
		}
	}
}

// failOnce is a file whose first flush waits, and fails.
type failOnce struct {
	file
	err             error
	hangs, release  chan struct{}
	writes, flushes atomic.Int32
}

func (f *failOnce) writeAt(b []byte, off int64) error {
	defer f.writes.Add(1)
	return f.file.writeAt(b, off)
}

func (f *failOnce) flush() error {
	if f.flushes.Add(1) > 1 {
		return nil
	}
	close(f.hangs)
	<-f.release
	return f.err
}

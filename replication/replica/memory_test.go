package replica

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// counted counts flushes, and fails them on demand.
type counted struct {
	file
	flushes int
	err     error
	during  func() // called once while a flush is under way
}

func (f *counted) flush() error {
	f.flushes++
	if fn := f.during; fn != nil {
		f.during = nil
		fn()
	}
	if f.err != nil {
		return f.err
	}
	return f.file.flush()
}

func volatile(c peer.Command) peer.Command {
	c.Volatile = true
	return c
}

func readAt(v ids.Volume, off int64, b []byte) peer.Command {
	return peer.Command{Kind: peer.Read, Volume: v, Off: off, Len: int64(len(b)), Data: b}
}

// fenced is what the first replica says of itself now.
func (h *host) fenced(s peer.Session) peer.FencedReplica {
	h.t.Helper()
	f, err := s.Poll(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return f.Pools[0].Replicas[0]
}

// TestVolatile: a write that may be volatile costs no flush; Flush, and the next reading of the map, make it durable; after a flush
// that failed the replica has another incarnation, and who knew the former one gets nothing of it (invariant 10).
func TestVolatile(t *testing.T) {
	h := newHost(t, 1)
	s := h.open(1)
	spec := h.spec(0)
	v := spec.Volume
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	r := h.node.pools[0].replicas[v]
	data := &counted{file: r.data}
	r.data = data
	first := h.fenced(s).Incarnation
	must(t, s, volatile(write(v, 0, bytes.Repeat([]byte{1}, 4096), 1)))
	must(t, s, volatile(peer.Command{Kind: peer.Zero, Volume: v, Off: 8192, Len: 4096, Seq: 1}))
	if data.flushes != 0 {
		t.Fatal("a volatile write was flushed")
	}
	must(t, s, peer.Command{Kind: peer.Flush, Volume: v})
	if data.flushes != 1 {
		t.Fatal("a flush did not flush")
	}
	must(t, s, volatile(write(v, 0, bytes.Repeat([]byte{1}, 4096), 1)))
	if a := must(t, s, peer.Command{Kind: peer.ReadMap, Volume: v}); data.flushes != 2 || a.Incarnation != first {
		t.Fatalf("%d flushes, %v", data.flushes, a)
	}
	if h.fenced(s).Incarnation != first {
		t.Fatal("it has another incarnation, and nothing failed")
	}
	must(t, s, volatile(write(v, 0, bytes.Repeat([]byte{1}, 4096), 1)))
	data.err = syscall.EIO
	if err := do(t, s, peer.Command{Kind: peer.Flush, Volume: v}).Err; !errors.Is(err, peer.ErrMedium) {
		t.Fatal(err)
	}
	// It may lack what it acknowledged. Polls do not make that undone: others may have asked.
	if now := h.fenced(s).Incarnation; now == first || now.IsZero() {
		t.Fatal(now)
	}
	b := make([]byte, 4096)
	for _, c := range []peer.Command{readAt(v, 0, b), write(v, 0, b, 2), volatile(write(v, 0, b, 2)), {Kind: peer.Flush, Volume: v},
		{Kind: peer.Clear, Volume: v, Regions: []peer.RegionSeq{{Region: 0, Seq: 9}}}} {
		if err := do(t, s, c).Err; !errors.Is(err, peer.ErrNoReplica) {
			t.Fatalf("kind %d: %v", c.Kind, err)
		}
	}
	if a := must(t, s, peer.Command{Kind: peer.ReadMap, Volume: v}); a.Incarnation != h.fenced(s).Incarnation || len(a.Active) != 1 {
		t.Fatalf("%+v", a)
	}
	must(t, s, readAt(v, 0, b)) // who has read the map begins anew
	// Another process is another incarnation, and has what this one had taken in.
	must(t, s, volatile(write(v, 0, bytes.Repeat([]byte{7}, 4096), 3)))
	before := h.fenced(s).Incarnation
	h.node.Close()
	h.start()
	s = h.open(2)
	if h.fenced(s).Incarnation == before {
		t.Fatal("it passes for the former process's")
	}
	if must(t, s, readAt(v, 0, b)); b[0] != 7 {
		t.Fatal("a process that died took its writes with it")
	}
}

// TestFlushedIsNotLost: what a flush has made durable is not lost by a later one that fails: the replica is the one that it was, and who
// knows it goes on. A write that came while the flush was under way is not covered by it.
func TestFlushedIsNotLost(t *testing.T) {
	for _, late := range []bool{false, true} {
		h := newHost(t, 1)
		s := h.open(1)
		spec := h.spec(0)
		v := spec.Volume
		must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
		r := h.node.pools[0].replicas[v]
		data := &counted{file: r.data}
		r.data = data
		first := h.fenced(s).Incarnation
		must(t, s, volatile(write(v, 0, make([]byte, 4096), 1)))
		if late {
			data.during = func() { must(t, s, volatile(write(v, 4096, make([]byte, 4096), 1))) }
		}
		must(t, s, peer.Command{Kind: peer.Flush, Volume: v})
		data.err = syscall.EIO
		if err := do(t, s, write(v, 8192, make([]byte, 4096), 1)).Err; !errors.Is(err, peer.ErrMedium) {
			t.Fatal(err)
		}
		err := do(t, s, write(v, 8192, make([]byte, 4096), 1)).Err
		if now := h.fenced(s).Incarnation; late && (now == first || !errors.Is(err, peer.ErrNoReplica)) {
			t.Fatal("a write that was answered from memory may be lost, and nobody is told:", err)
		} else if !late && (now != first || err != nil) {
			t.Fatal("all that was answered is durable, and the replica passes for another:", err)
		}
	}
}

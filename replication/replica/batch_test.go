package replica

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/replication/peer"
)

// steps is what files are asked for, and calls answered, in their order.
type steps struct {
	mu  sync.Mutex
	all []string
}

func (l *steps) add(format string, a ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprintf(format, a...))
}

// stepFile notes what it is asked for, and fails writes of some places.
type stepFile struct {
	file
	name  string
	to    *steps
	fails map[int64]error
}

func (f *stepFile) takesMany() bool { return true }

func (f *stepFile) writeMany(q *queues, list []fileWrite) {
	f.to.add("%s many %d", f.name, len(list))
	f.file.(manyWriter).writeMany(q, list)
	for i := range list {
		f.to.add("%s write %d", f.name, list[i].off)
		if err := f.fails[list[i].off]; err != nil {
			list[i].err = err
		}
	}
}

func (f *stepFile) writeAt(b []byte, off int64) error {
	err := f.file.writeAt(b, off)
	f.to.add("%s write %d", f.name, off)
	return err
}

func (f *stepFile) flush() error {
	f.to.add("%s flush", f.name)
	defer f.to.add("%s flushed", f.name)
	return f.file.flush()
}

// batchHost is a node with one pool, in which there is a new replica.
func batchHost(t *testing.T) (*host, peer.Session, *pool, *replica) {
	t.Helper()
	h := newHost(t, 1)
	s := h.open(1)
	spec := h.spec(0)
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	p := h.node.pools[0]
	return h, s, p, p.find(spec.Volume)
}

// TestBatch: writes that come together share one way to the disk and one flush; each is answered after a flush that began after its
// bytes were written, and is written after its mark is durable; one that fails fails alone.
func TestBatch(t *testing.T) {
	_, s, p, r := batchHost(t)
	spec := r.spec
	must(t, s, write(spec.Volume, 0, filled(4096, 1), 5)) // region 0 is marked
	if !r.batched.Load() {
		t.Skip("no direct I/O on this file system")
	}
	var l steps
	data, mapf := r.data, r.mapf
	r.data = &stepFile{file: data, name: "data", to: &l, fails: map[int64]error{8192: syscall.ENOSPC}}
	r.mapf = &stepFile{file: mapf, name: "map", to: &l}
	plain, marked := []int64{4096, 8192, 65536}, []int64{3 << 20, 3<<20 + 4096, 7 << 20}
	var ends sync.WaitGroup
	errs := map[int64]error{}
	r.batches.hold()
	for i, off := range slices.Concat(plain, marked) {
		c := write(spec.Volume, off, filled(4096, byte(10+i)), 5)
		if i >= len(plain) {
			c.Seq = 6
		}
		ends.Add(1)
		s.Submit(&peer.Call{Command: c, Done: func(c *peer.Call) {
			l.mu.Lock()
			errs[c.Off] = c.Err
			l.mu.Unlock()
			l.add("answer %d", c.Off)
			ends.Done()
		}})
	}
	r.batches.release(p, r)
	ends.Wait()
	r.data, r.mapf = data, mapf
	at := func(what string, from int) int {
		i := slices.Index(l.all[max(from, 0):], what)
		if i < 0 || from < 0 {
			return -1
		}
		return i + from
	}
	count := func(what string) (n int) {
		for _, x := range l.all {
			if x == what {
				n++
			}
		}
		return n
	}
	for i, off := range slices.Concat(plain, marked) {
		wrote := at(fmt.Sprint("data write ", off), 0)
		if off == 8192 {
			if !errors.Is(errs[off], peer.ErrNoSpace) {
				t.Errorf("%d: %v", off, errs[off])
			}
			continue
		}
		flushed := at("data flushed", at("data flush", wrote))
		if answer := at(fmt.Sprint("answer ", off), 0); errs[off] != nil || wrote < 0 || flushed < 0 || answer < flushed {
			t.Errorf("%d: written at step %d, durable at %d, answered at %d: %v", off, wrote, flushed, answer, errs[off])
		}
		if mark := at("map flushed", 0); i >= len(plain) && (mark < 0 || mark > wrote) {
			t.Errorf("%d: its mark is durable at step %d, and it was written at %d", off, mark, wrote)
		}
		b := make([]byte, 4096)
		must(t, s, peer.Command{Kind: peer.Read, Volume: spec.Volume, Off: off, Len: 4096, Data: b})
		if !bytes.Equal(b, filled(4096, byte(10+i))) {
			t.Errorf("%d reads as %d", off, b[0])
		}
	}
	if count("data many 3") != 2 || count("data flush") > 2 || count("map flush") != 1 {
		t.Errorf("not shared:\n%s", strings.Join(l.all, "\n"))
	}
	must(t, s, write(spec.Volume, 8192, filled(4096, 9), 5)) // nothing is left of the failure
}

func filled(n int, v byte) []byte { return bytes.Repeat([]byte{v}, n) }

// TestBatchAfterTheEnd: what waits when its session ends is not written, and the next epoch waits for its end.
func TestBatchAfterTheEnd(t *testing.T) {
	h, s, p, r := batchHost(t)
	spec := r.spec
	r.batched.Store(true) // whatever the file system: they wait
	r.batches.hold()
	ends := make(chan error, 3)
	for i := range int64(3) {
		s.Submit(&peer.Call{Command: write(spec.Volume, 4096*i, filled(4096, 7), 1), Done: func(c *peer.Call) { ends <- c.Err }})
	}
	next := h.open(2)
	if f := next.Fenced(); !f.Pools[0].Busy {
		t.Fatalf("%+v", f)
	}
	r.batches.release(p, r)
	for range 3 {
		if err := <-ends; !errors.Is(err, peer.ErrEpoch) {
			t.Error(err)
		}
	}
	if f, err := next.Poll(t.Context()); err != nil || f.Pools[0].Busy || f.Pools[0].Replicas[0].Active != 0 {
		t.Fatalf("%+v %v", f, err)
	}
	b := make([]byte, 12288)
	must(t, next, peer.Command{Kind: peer.Read, Volume: spec.Volume, Len: 12288, Data: b})
	if !bytes.Equal(b, make([]byte, 12288)) {
		t.Error("written after the end of its epoch")
	}
}

// TestNoQueues: where the kernel has none for us, writes have a worker each.
func TestNoQueues(t *testing.T) {
	_, s, p, r := batchHost(t)
	spec := r.spec
	r.batches.hold()
	p.queues.refused.Store(true)
	must(t, s, write(spec.Volume, 0, filled(4096, 1), 1)) // it does not wait for a runner
	r.batches.release(p, r)
}

// TestWriteMany: every list against a model: lengths, buffers that are not aligned, files that cannot be written.
func TestWriteMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	const size = 4 << 20
	if err := (osDisk{}).create(path, size, false); err != nil {
		t.Fatal(err)
	}
	f, err := osDisk{}.open(path, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	var q queues
	defer q.close()
	if one := q.get(); one == nil {
		t.Fatal("the kernel gives none")
	} else {
		q.put(one)
	}
	model, rnd := make([]byte, size), rand.New(rand.NewPCG(1, 2))
	for range 60 {
		var list []fileWrite
		for n := rnd.IntN(maxBatch + 1); n > 0; n-- {
			off := int64(n) * maxBatched // they do not overlap
			off -= off / size * size
			b := block.Get(4096 * (1 + rnd.IntN(maxBatched/4096)))
			if rnd.IntN(5) == 0 {
				b = make([]byte, len(b)+1)[1:]
			}
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			if slices.ContainsFunc(list, func(w fileWrite) bool { return w.off == off }) {
				continue
			}
			list = append(list, fileWrite{off: off, data: b, err: errCrashed})
			copy(model[off:], b)
		}
		f.(manyWriter).writeMany(&q, list)
		for _, w := range list {
			if w.err != nil {
				t.Fatal(w.err)
			}
		}
	}
	got := block.Get(size)
	if err := f.readAt(got, 0); err != nil || !bytes.Equal(got, model) {
		t.Fatal("it reads as something else", err)
	}
	list := []fileWrite{{off: 0, data: block.Get(4096)}, {off: 4096, data: block.Get(4096)}}
	if n := testing.AllocsPerRun(100, func() { f.(manyWriter).writeMany(&q, list) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	ro, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		t.Skip(err)
	}
	defer ro.Close()
	(&osFile{f: ro, direct: true, memory: 512}).writeMany(&q, list)
	for _, w := range list {
		if !errors.Is(w.err, syscall.EBADF) {
			t.Error(w.err)
		}
	}
	// Past the limit of a process the device cuts them short, or refuses them.
	wide := &osFile{f: f.(*osFile).f, direct: true, memory: 4096}
	list = append(list, fileWrite{off: 1<<62 + 4096, data: block.Get(4096)})
	wide.writeMany(&q, list)
	if list[0].err != nil || list[1].err != nil || !errors.Is(list[2].err, syscall.EFBIG) && !errors.Is(list[2].err, syscall.EINVAL) {
		t.Error(list[0].err, list[1].err, list[2].err)
	}
}

// gatedFile makes reads and writes wait until its gate is opened.
type gatedFile struct {
	file
	began atomic.Int32
	gate  chan struct{}
}

func (f *gatedFile) readAt(b []byte, off int64) error {
	f.began.Add(1)
	<-f.gate
	return f.file.readAt(b, off)
}

func (f *gatedFile) writeAt(b []byte, off int64) error {
	f.began.Add(1)
	<-f.gate
	return f.file.writeAt(b, off)
}

// TestBatchBesideWriter: all workers are at work and as many commands wait when a batch hands those on that need a mark; then somebody
// waits to have the replica alone. What was handed on holds the replica: it must not wait for a worker that waits for the replica.
func TestBatchBesideWriter(t *testing.T) {
	_, s, p, r := batchHost(t)
	spec := r.spec
	must(t, s, write(spec.Volume, 0, filled(4096, 1), 5)) // region 0 is marked
	r.batched.Store(true)
	r.batches.hold()
	f := &gatedFile{file: r.data, gate: make(chan struct{})}
	r.data = f
	ends := make(chan error, 3*maxWorkers)
	sent := 0
	send := func(c peer.Command) {
		sent++
		s.Submit(&peer.Call{Command: c, Done: func(c *peer.Call) { ends <- c.Err }})
	}
	read := func() {
		send(peer.Command{Kind: peer.Read, Volume: spec.Volume, Len: 4096, Data: make([]byte, 4096)})
	}
	for range maxWorkers - 1 {
		read()
	}
	for f.began.Load() < maxWorkers-1 {
		runtime.Gosched()
	}
	send(write(spec.Volume, 4096, filled(4096, 2), 5))
	send(write(spec.Volume, 3<<20, filled(4096, 3), 6))
	r.mu.Lock() // the runner stops at its first step
	r.batches.release(p, r)
	for range maxWorkers {
		read()
	}
	r.mu.Unlock()
	for f.began.Load() < maxWorkers {
		runtime.Gosched()
	}
	had := make(chan struct{})
	go func() { // as who opens it anew, or makes it larger
		defer close(had)
		r.use.Lock()
		r.data = f.file
		r.use.Unlock()
	}()
	for r.use.TryRLock() {
		r.use.RUnlock()
		runtime.Gosched()
	}
	close(f.gate)
	late := time.After(20 * time.Second)
	for range sent {
		select {
		case err := <-ends:
			if err != nil {
				t.Error(err)
			}
		case <-late:
			t.Fatal("commands wait for each other")
		}
	}
	<-had
}

// TestWriteEnded: a write that the kernel took and broke off for a signal, or cut short, is made as a whole; what the device says of one is its error.
func TestWriteEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := (osDisk{}).create(path, 8192, false); err != nil {
		t.Fatal(err)
	}
	opened, err := osDisk{}.open(path, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.close()
	o := opened.(*osFile)
	got := block.Get(4096)
	for i, result := range []int64{-int64(syscall.EINTR), 0, 512} {
		want := block.Get(4096)
		copy(want, filled(4096, byte(i+1)))
		if err := o.ended(&fileWrite{off: 4096, data: want}, result); err != nil {
			t.Errorf("%d: %v", result, err)
		}
		if err := o.readAt(got, 4096); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d: it reads as %d: %v", result, got[0], err)
		}
	}
	if err := o.ended(&fileWrite{off: 4096, data: block.Get(4096)}, -int64(syscall.EIO)); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if err := o.ended(&fileWrite{off: 4096, data: block.Get(4096)}, 4096); err != nil || o.readAt(got, 4096) != nil || got[0] != 3 {
		t.Errorf("written again: %d, %v", got[0], err)
	}
}

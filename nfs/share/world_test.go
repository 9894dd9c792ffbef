package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// world is a volume and a catalog that outlive their leaders. Every request to either is a step; at the step that was chosen
// the leader dies: what was under way may have its effect, wholly, in part or not, and is not answered.
type world struct {
	t  *testing.T
	mu sync.Mutex
	r  *rand.Rand

	disk []byte
	tree *filetree.Tree

	epoch  int
	dead   bool
	step   int
	dieAt  int          // 0: never
	failIn int          // the device's writes fail with ErrMedium when it comes to 0
	delay  atomic.Int64 // of each request and command, in ns
	clock  func() time.Time
	zeroed int                    // requests
	former bool                   // the nodes of former leaders hear no more of the tree than at their end
	at     map[int]*filetree.Tree // when each reign ended
	seen   map[uint64]nfs3.Attr

	volatile       bool
	losses         uint64
	loose, flushes int // writes that need not be durable; flushes
}

var errCrash = fmt.Errorf("the leader died: %w", block.ErrEnded)

func newWorld(t *testing.T, size int64, seed uint64) *world {
	return &world{t: t, r: rand.New(rand.NewPCG(seed, 3)), disk: make([]byte, size), tree: filetree.New(size, 7, 1000), dead: true,
		clock: time.Now, seen: map[uint64]nfs3.Attr{}, at: map[int]*filetree.Tree{}}
}

// lead begins a new leader's reign.
func (w *world) lead() (*Share, error) {
	w.mu.Lock()
	w.at[w.epoch] = w.tree
	w.epoch++
	w.dead = false
	h := handle{w, w.epoch}
	w.mu.Unlock()
	return Open(context.Background(), Config{ID: ids.Volume{5}, Device: h, Catalog: h, Now: w.clock, Log: slog.New(slog.DiscardHandler)})
}

// take counts a step. ok is false if the leader is dead; last is true if it dies with this one.
func (w *world) take(epoch int) (ok, last bool) {
	if w.dead || epoch != w.epoch {
		return false, false
	}
	w.step++
	last = w.step == w.dieAt
	w.dead = last
	return true, last
}

// disarm lets the leader live from now on, and tells whether it was to die later, and whether it is dead.
func (w *world) disarm() (lived, dead bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lived = w.step < w.dieAt
	w.dieAt = 0
	return lived, w.dead
}

// handle is the world as one leader has it.
type handle struct {
	w     *world
	epoch int
}

func (h handle) Geometry() block.Geometry {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return block.Geometry{Size: int64(len(h.w.disk)), Logical: 512, Physical: 4096, MaxLen: 4 << 20, Volatile: h.w.volatile, Losses: h.w.losses}
}

func (h handle) Submit(r *block.Request) {
	if d := h.w.delay.Load(); d > 0 {
		go func() {
			time.Sleep(time.Duration(d)) // within a bubble
			h.submit(r)
		}()
		return
	}
	h.submit(r)
}

func (h handle) submit(r *block.Request) {
	w := h.w
	w.mu.Lock()
	ok, last := w.take(h.epoch)
	n := r.Len
	switch {
	case !ok:
		r.Err = errCrash
	case n%512 != 0 || r.Off%512 != 0 || r.Off < 0 || r.Off+n > int64(len(w.disk)) || r.Op != block.Zero && n != int64(len(r.Data)):
		r.Err = block.ErrRange
		w.t.Errorf("op %d of %d bytes at %d", r.Op, n, r.Off)
	case r.Op == block.Read:
		copy(r.Data, w.disk[r.Off:])
	case r.Op == block.Flush:
		w.flushes++
	default:
		if !r.FUA {
			w.loose++
		}
		if r.Op == block.Zero {
			w.zeroed++
		}
		if w.failIn > 0 {
			if w.failIn--; w.failIn == 0 {
				r.Err = block.ErrMedium
			}
		}
		for at := int64(0); at < n; at += 512 {
			if (last || r.Err != nil) && w.r.IntN(2) == 0 {
				continue // torn
			}
			if r.Op == block.Zero {
				clear(w.disk[r.Off+at : r.Off+at+512])
			} else {
				copy(w.disk[r.Off+at:r.Off+at+512], r.Data[at:])
			}
		}
	}
	if last {
		r.Err = errCrash
	}
	w.mu.Unlock()
	r.Done(r)
}

func (h handle) Tree() *filetree.Tree {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if t := h.w.at[h.epoch]; t != nil && h.w.former {
		return t
	}
	return h.w.tree
}

func (w *world) now() *filetree.Tree {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tree
}

func (h handle) Propose(_ context.Context, b filetree.Batch) ([]filetree.Result, error) {
	w := h.w
	if d := w.delay.Load(); d > 0 {
		time.Sleep(time.Duration(d)) // within a bubble
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	ok, last := w.take(h.epoch)
	if !ok || last && w.r.IntN(2) == 0 {
		return nil, errCrash
	}
	d, err := filetree.DecodeBatch(b.Encode())
	if err != nil {
		w.t.Error(err)
		return nil, err
	}
	next, results := w.tree.Apply(d, filetree.MaxMeta)
	w.tree = next
	if last {
		return nil, errCrash
	}
	return results, nil
}

// check holds the space: nothing leaked, and what is free or unused reads as zeros. Call it when nothing is to be zeroed.
func (w *world) check() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.tree.Check(); err != nil {
		w.t.Fatal(err)
	}
	if _, _, freed := w.tree.Space(); freed != 0 || len(w.tree.Orphans(1)) > 0 {
		w.t.Fatalf("%d bytes are still to be zeroed", freed)
	}
	zero := make([]byte, len(w.disk))
	for _, s := range w.tree.Free(0, 1<<20) {
		if !bytes.Equal(w.disk[s.Vol:s.Vol+s.Len], zero[:s.Len]) {
			w.t.Fatalf("free space at %d does not read as zeros", s.Vol)
		}
	}
}

// client makes calls with XIDs of its own.
type client struct {
	xid  uint32
	addr netip.Addr
}

func (c *client) next() nfs.Caller {
	c.xid++
	return nfs.Caller{Client: c.addr, XID: c.xid, Sum: 99}
}

func newClient(i byte) *client { return &client{addr: netip.AddrFrom4([4]byte{192, 0, 2, i})} }

func ptr[T any](v T) *T { return &v }

func mode() nfs3.SetAttr {
	return nfs3.SetAttr{Mode: ptr(uint32(0o644)), UID: ptr(uint32(1)), GID: ptr(uint32(2))}
}

// fixture is a share that is open, with a file.
func fixture(t *testing.T, size int64) (*world, *Share, nfs.Ref, *client) {
	t.Helper()
	w := newWorld(t, size, 1)
	s, err := w.lead()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(nil) })
	c := newClient(1)
	m, err := s.Create(t.Context(), c.next(), nfs.Name{Dir: s.Root(), Name: "f"}, nfs.Create{Mode: nfs3.Guarded, Attr: mode()})
	if err != nil {
		t.Fatal(err)
	}
	return w, s, m.Node.Ref, c
}

func write(t *testing.T, s *Share, r nfs.Ref, off int64, p []byte) nfs.WriteResult {
	t.Helper()
	res, err := s.Write(t.Context(), r, uint64(off), p, nfs3.FileSync)
	if err != nil || res.Committed != nfs3.FileSync {
		t.Fatal(res, err)
	}
	return res
}

func read(t *testing.T, s *Share, r nfs.Ref, off int64, n int) []byte {
	t.Helper()
	p := bytes.Repeat([]byte{0xee}, n)
	res, err := s.Read(t.Context(), r, uint64(off), p)
	if err != nil {
		t.Fatal(err)
	}
	return p[:res.N]
}

func setSize(t *testing.T, s *Share, c *client, r nfs.Ref, size int64) {
	t.Helper()
	if _, err := s.Setattr(t.Context(), c.next(), r, nfs3.SetAttr{Size: ptr(uint64(size))}, nil); err != nil {
		t.Fatal(err)
	}
}

func ns(t nfs3.Time) int64 { return int64(t.Seconds)*1e9 + int64(t.Nseconds) }

func ended(err error) bool { return errors.Is(err, block.ErrEnded) }

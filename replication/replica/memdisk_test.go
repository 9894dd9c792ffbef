package replica

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"pmsapp/internal/sim"
	"pmsapp/replication/peer"
	"pmsapp/replication/poolfs"
)

var errCrashed = errors.New("the machine is gone")

// memDisk is a disk in memory that promises no more than disk does: a crash keeps of what was not flushed any sectors, and of
// the names that were not synced any.
type memDisk struct {
	mu    sync.Mutex
	rnd   *sim.Rand
	root  *memNode
	steps int // that change something, or make it durable
	stop  int // the step before which the machine dies; 0: never
	full  bool
	// device is the files of a pool on a file used like a block device.
	device *poolDisk
	blind  bool // plants a bug: its flushes that fail are not counted
	// skip plants a bug: the steps for which it is true do nothing, and succeed. what is "flush" or "syncDir".
	skip func(what, path string) bool
	// fails makes a flush fail.
	fails func(path string) bool
	// reserved is the paths that were made with their space.
	reserved map[string]bool
}

// pool is this disk for a directory; a file is used like a block device.
func (d *memDisk) pool(path string, may bool, accept func(disk) error) (disk, func() error, error) {
	f, err := d.open(path, 1)
	if errors.Is(err, syscall.EISDIR) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	dev := memDevice{f.(*memFile)}
	opt := poolfs.Options{Inline: true, Nonce: d.rnd.Uint64}
	if _, err := poolfs.Probe(dev); errors.Is(err, poolfs.ErrBlank) && may {
		l, err := poolfs.NewLayout(dev.Size(), 16<<10, 64<<10)
		if err == nil {
			err = poolfs.Format(dev, l, opt)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	p, err := openPoolDisk(dev, path, false, accept, opt)
	if err != nil {
		return nil, nil, err
	}
	d.device = p
	if d.blind {
		return blindDisk{p}, p.fs.Close, nil
	}
	return p, p.fs.Close, nil
}

type blindDisk struct{ *poolDisk }

func (blindDisk) failures() uint64 { return 0 }

func (d *memDisk) usage(string) (size, free int64, err error) { return 1 << 40, 1 << 40, nil }

func (d *memDisk) failures() uint64 { return 0 }

// memDevice is a file used like a block device, whose discards leave rubbish.
type memDevice struct{ *memFile }

func (d memDevice) ReadAt(b []byte, off int64, _ bool) error  { return d.readAt(b, off) }
func (d memDevice) WriteAt(b []byte, off int64, _ bool) error { return d.writeAt(b, off) }
func (d memDevice) Zero(off, n int64) error                   { return d.zero(off, n) }
func (d memDevice) Drop(off, n int64) error                   { return nil }
func (d memDevice) Flush() error                              { return d.flush() }
func (d memDevice) Grain() int                                { return 512 }

func (d memDevice) Size() int64 {
	return d.n.data.Size()
}

func (d memDevice) Discard(off, n int64) error {
	return d.writeAt(bytes.Repeat([]byte{0xdd}, int(n)), off)
}

type memNode struct {
	names   map[string]*memNode // of a directory
	durable map[string]*memNode
	pending []map[string]*memNode // changes of names that are not durable; nil: gone
	data    *sim.File             // of a file
	owned   bool                  // its space was reserved
}

func newDir() *memNode {
	return &memNode{names: map[string]*memNode{}, durable: map[string]*memNode{}}
}

func newMemDisk(seed uint64) *memDisk {
	return &memDisk{rnd: sim.NewRand(seed), root: newDir(), reserved: map[string]bool{}}
}

// step is called with mu before each step.
func (d *memDisk) step() error {
	if d.stop != 0 && d.steps >= d.stop-1 {
		d.steps = max(d.steps, d.stop)
		return errCrashed
	}
	d.steps++
	return nil
}

func (d *memDisk) dead() bool { return d.stop != 0 && d.steps >= d.stop }

// find returns the node of a path.
func (d *memDisk) find(path string) (*memNode, error) {
	if d.dead() {
		return nil, errCrashed
	}
	n := d.root
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		next := n.names[name]
		if next == nil {
			return nil, &os.PathError{Op: "find", Path: path, Err: os.ErrNotExist}
		}
		n = next
	}
	return n, nil
}

func (n *memNode) change(c map[string]*memNode) {
	apply(n.names, c)
	n.pending = append(n.pending, c)
}

func apply(names, c map[string]*memNode) {
	for k, v := range c {
		if v == nil {
			delete(names, k)
		} else {
			names[k] = v
		}
	}
}

func (d *memDisk) make(path string, child *memNode) error {
	dir, err := d.find(filepath.Dir(path))
	if err != nil {
		return err
	}
	if dir.names[filepath.Base(path)] != nil {
		return os.ErrExist
	}
	if err := d.step(); err != nil {
		return err
	}
	dir.change(map[string]*memNode{filepath.Base(path): child})
	return nil
}

func (d *memDisk) create(path string, size int64, reserve bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved[filepath.Base(path)] = reserve
	return d.make(path, &memNode{data: sim.NewFile(size), owned: reserve})
}

func (d *memDisk) mkdir(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.make(path, newDir())
}

func (d *memDisk) extend(path string, size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(path)
	if err != nil || n.data.Size() >= size {
		return err
	}
	if err := d.step(); err != nil {
		return err
	}
	n.data.Grow(size)
	return nil
}

func (d *memDisk) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(from)
	if err != nil {
		return err
	}
	dir, err := d.find(filepath.Dir(from))
	if err != nil || filepath.Dir(from) != filepath.Dir(to) {
		return errors.Join(err, os.ErrInvalid)
	}
	if old := dir.names[filepath.Base(to)]; old != nil && old.names != nil {
		return syscall.ENOTEMPTY
	}
	if err := d.step(); err != nil {
		return err
	}
	dir.change(map[string]*memNode{filepath.Base(from): nil, filepath.Base(to): n})
	return nil
}

func (d *memDisk) removeAll(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, err := d.find(filepath.Dir(path))
	if err != nil {
		return err
	}
	if dir.names[filepath.Base(path)] == nil {
		return nil
	}
	if err := d.step(); err != nil {
		return err
	}
	dir.change(map[string]*memNode{filepath.Base(path): nil})
	return nil
}

func (d *memDisk) list(path string) (out []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(path)
	if err != nil {
		return nil, err
	}
	if n.names == nil {
		return nil, syscall.ENOTDIR
	}
	for k := range n.names {
		out = append(out, k)
	}
	slices.Sort(out)
	return out, nil
}

func (d *memDisk) syncDir(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(path)
	if err != nil {
		return err
	}
	if err := d.step(); err != nil {
		return err
	}
	if d.skip != nil && d.skip("syncDir", path) {
		return nil
	}
	for _, c := range n.pending {
		apply(n.durable, c)
	}
	n.pending = nil
	return nil
}

// crash is the power failing: what is left is what a new process finds.
func (d *memDisk) crash() { d.mu.Lock(); defer d.mu.Unlock(); d.fail(d.root) }

func (d *memDisk) fail(n *memNode) {
	if n.data != nil {
		n.data.Crash(d.rnd, nil)
		return
	}
	for _, c := range n.pending {
		if d.rnd.Chance(0.5) {
			apply(n.durable, c)
		}
	}
	n.pending = nil
	n.names = map[string]*memNode{}
	for _, k := range slices.Sorted(maps.Keys(n.durable)) {
		n.names[k] = n.durable[k]
		d.fail(n.names[k])
	}
}

func (d *memDisk) open(path string, grain int) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(path)
	if err != nil {
		return nil, err
	}
	if n.data == nil {
		return nil, syscall.EISDIR
	}
	return &memFile{d: d, n: n, path: path, grain: int64(grain)}, nil
}

type memFile struct {
	d     *memDisk
	n     *memNode
	path  string
	grain int64
}

// in checks and runs a step on the file; change says whether it is one.
func (f *memFile) in(off, n int64, change bool, fn func()) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.dead() {
		return errCrashed
	}
	if off%f.grain != 0 || n%f.grain != 0 || off < 0 || off+n > f.n.data.Size() {
		return syscall.EINVAL
	}
	if change {
		if err := f.d.step(); err != nil {
			return err
		}
	}
	fn()
	return nil
}

func (f *memFile) readAt(b []byte, off int64) error {
	return f.in(off, int64(len(b)), false, func() { copy(b, f.n.data.Read(off, int64(len(b)))) })
}

func (f *memFile) writeAt(b []byte, off int64) error {
	if f.d.full && !f.n.owned {
		return syscall.ENOSPC
	}
	return f.in(off, int64(len(b)), true, func() { f.n.data.Write(off, b) })
}

func (f *memFile) takesMany() bool { return true }

// writeMany writes in any order.
func (f *memFile) writeMany(_ *queues, list []fileWrite) {
	f.d.mu.Lock()
	first := f.d.rnd.Intn(len(list))
	f.d.mu.Unlock()
	for i := range list {
		w := &list[(first+i)%len(list)]
		w.err = f.writeAt(w.data, w.off)
	}
}

func (f *memFile) zero(off, n int64) error {
	return f.in(off, n, true, func() { f.n.data.Zero(off, n) })
}

func (f *memFile) reserve(off, n int64) error {
	return f.in(off, n, false, func() {})
}

func (f *memFile) extents(off, end int64) (out []peer.Extent, err error) {
	err = f.in(off, end-off, false, func() {
		f.n.data.Extents(off, end-off, func(o, n int64) { out = append(out, peer.Extent{Off: o, Len: n}) })
	})
	return out, err
}

func (f *memFile) flush() (err error) {
	if e := f.in(0, 0, true, func() {
		if f.d.skip != nil && f.d.skip("flush", f.path) {
			return
		}
		fl := f.n.data.Flush()
		if f.d.fails != nil && f.d.fails(f.path) {
			fl.Failed(f.d.rnd)
			f.n.data.Reload(0, f.n.data.Size()) // as direct I/O reads it from now on
			err = syscall.EIO
			return
		}
		fl.Done()
	}); e != nil {
		return e
	}
	return err
}

func (f *memFile) size() (n int64, err error) {
	err = f.in(0, 0, false, func() { n = f.n.data.Size() })
	return n, err
}

func (f *memFile) lock() error  { return nil }
func (f *memFile) close() error { return nil }

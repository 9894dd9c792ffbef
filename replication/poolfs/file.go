package poolfs

import (
	"os"
	"syscall"

	"pmsapp/internal/block"
)

// Extent is a range of a file, in bytes.
type Extent struct{ Off, Len int64 }

// File is an open file. All methods but Close may be called concurrently.
type File struct {
	fs     *FS
	n      *node
	name   string
	cached bool

	lost bool // guarded by fs.mu
}

// Open opens a file that is used with offsets and lengths that are multiples of grain: past the cache if the device can.
func (fs *FS) Open(name string, grain int) (*File, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n, err := fs.find(name)
	if err != nil {
		return nil, err
	}
	if n.dir() {
		return nil, fail(name, syscall.EISDIR)
	}
	if fs.closed {
		return nil, ErrClosed
	}
	f := &File{fs: fs, n: n, name: name, cached: grain < fs.dev.Grain()}
	if !f.cached {
		return f, nil
	}
	// What a failed flush has left in the cache is not on the device: it is given up. What is yet to be flushed stays.
	var runs []op
	n.runs(func(o op) { runs = append(runs, o) })
	io := fs.space.begin()
	defer fs.end(io)
	fs.mu.Unlock()
	defer fs.mu.Lock()
	for _, o := range runs {
		if err := fs.dev.Drop(fs.l.unit(o.at), int64(o.count)*fs.l.Unit); err != nil {
			return nil, fail(name, err)
		}
	}
	return f, nil
}

// end ends an I/O. Called with mu.
func (fs *FS) end(io uint64) {
	delete(fs.space.active, io)
	if len(fs.space.limbo) > 0 {
		fs.gained.Broadcast()
		fs.maintain()
	}
}

// piece is a part of an I/O.
type piece struct {
	at   int64 // on the device; -1: a hole
	n    int64
	unit uint32 // of the file, the first
}

// pieces divides a range of a file, as it is now. Called with mu.
func (f *File) pieces(out []piece, off, n int64) []piece {
	u := f.fs.l.Unit
	for n > 0 {
		p := piece{at: -1, n: min(n, u-off%u), unit: uint32(off / u)}
		if at, ok := f.n.place(p.unit); ok {
			p.at = f.fs.l.unit(at) + off%u
		}
		if k := len(out) - 1; k >= 0 && (p.at < 0 && out[k].at < 0 || p.at >= 0 && out[k].at >= 0 && out[k].at+out[k].n == p.at) {
			out[k].n += p.n
		} else {
			out = append(out, p)
		}
		off, n = off+p.n, n-p.n
	}
	return out
}

// check is called with mu.
func (f *File) check(off, n int64) error {
	switch {
	case f.fs.closed:
		return ErrClosed
	case f.fs.st.nodes[f.n.id] != f.n:
		return fail(f.name, os.ErrNotExist)
	case f.cached && f.lost:
		return fail(f.name, ErrLost) // the cache and the device may differ
	case off < 0 || n < 0 || off > f.n.size || n > f.n.size-off:
		return fail(f.name, syscall.EINVAL)
	}
	return nil
}

// ReadAt reads all of b, which lies within the file.
func (f *File) ReadAt(b []byte, off int64) error {
	var room [4]piece
	fs := f.fs
	fs.mu.Lock()
	if err := f.check(off, int64(len(b))); err != nil {
		fs.mu.Unlock()
		return err
	}
	list := f.pieces(room[:0], off, int64(len(b)))
	io := fs.space.begin()
	fs.mu.Unlock()
	var err error
	for _, p := range list {
		if p.at < 0 {
			clear(b[:p.n])
		} else if err = fs.dev.ReadAt(b[:p.n], p.at, f.cached); err != nil {
			break
		}
		b = b[p.n:]
	}
	fs.mu.Lock()
	fs.end(io)
	fs.mu.Unlock()
	return err
}

// WriteAt writes all of b, which lies within the file.
func (f *File) WriteAt(b []byte, off int64) error {
	if len(b) == 0 {
		return nil
	}
	var room [4]piece
	fs := f.fs
	fs.mu.Lock()
	err := f.check(off, int64(len(b)))
	if err == nil {
		first := off / fs.l.Unit
		err = fs.fill(f.n, first, (off+int64(len(b))-1)/fs.l.Unit-first+1)
	}
	if err != nil {
		fs.mu.Unlock()
		return err
	}
	list := f.pieces(room[:0], off, int64(len(b)))
	io := fs.space.begin()
	fs.dirty[f] = struct{}{}
	fs.mu.Unlock()
	for _, p := range list {
		if p.at < 0 {
			err = fail(f.name, os.ErrNotExist) // punched meanwhile: nobody orders these two
		} else {
			err = fs.dev.WriteAt(b[:p.n], p.at, f.cached)
		}
		if err != nil {
			break
		}
		b = b[p.n:]
	}
	fs.mu.Lock()
	fs.end(io)
	fs.dirty[f] = struct{}{}
	fs.mu.Unlock()
	return err
}

// fill gives units of a file space that are holes. Called with mu, which it may give up meanwhile.
func (fs *FS) fill(n *node, first, count int64) error {
	for u := uint32(first); u < uint32(first+count); u++ {
		if _, ok := n.place(u); ok {
			continue
		}
		at, err := fs.take()
		if err != nil {
			return err
		}
		if _, ok := n.place(u); ok || fs.st.nodes[n.id] != n {
			fs.space.stock = append(fs.space.stock, at) // somebody else was faster
			fs.gained.Broadcast()
			if !ok {
				return os.ErrNotExist
			}
			continue
		}
		if err := fs.change(op{kind: opMap, id: n.id, unit: u, at: at, count: 1}); err != nil {
			fs.space.stock = append(fs.space.stock, at)
			return err
		}
	}
	return nil
}

// Zero makes a range read as zeros. Units that are wholly in it become holes.
func (f *File) Zero(off, n int64) error {
	if n == 0 {
		return nil
	}
	fs, u := f.fs, f.fs.l.Unit
	fs.mu.Lock()
	err := f.check(off, n)
	if err != nil {
		fs.mu.Unlock()
		return err
	}
	end := off + n
	first, last := roundUp(off, u)/u, end/u
	if end == f.n.size {
		last = fs.l.span(end)
	}
	if first < last && f.n.any(uint32(first), uint32(last-first)) {
		err = fs.change(op{kind: opUnmap, id: f.n.id, unit: uint32(first), count: uint32(last - first)})
	}
	var list []piece
	if first >= last {
		list = f.pieces(list, off, n)
	} else {
		list = f.pieces(list, off, first*u-off)
		list = f.pieces(list, min(last*u, end), end-min(last*u, end))
	}
	io := fs.space.begin()
	fs.dirty[f] = struct{}{}
	fs.mu.Unlock()
	for _, p := range list {
		if err == nil && p.at >= 0 {
			err = f.zero(p.at, p.n)
		}
	}
	fs.mu.Lock()
	fs.end(io)
	fs.dirty[f] = struct{}{}
	fs.mu.Unlock()
	return err
}

// zero zeroes a range of the device in the way in which the file is used.
func (f *File) zero(at, n int64) error {
	if !f.cached {
		return f.fs.dev.Zero(at, n)
	}
	b := block.Get(int(min(n, f.fs.l.Unit)))
	defer block.Put(b)
	clear(b)
	for n > 0 {
		part := min(n, int64(len(b)))
		if err := f.fs.dev.WriteAt(b[:part], at, true); err != nil {
			return err
		}
		at, n = at+part, n-part
	}
	return nil
}

// Extents returns where there may be data between off and end, in ascending order, at most limit ranges: the last has the rest.
func (f *File) Extents(off, end int64, limit int) (out []Extent, err error) {
	fs := f.fs
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if err := f.check(off, end-off); err != nil {
		return nil, err
	}
	u := fs.l.Unit
	for at := off; at < end; {
		unit := uint32(at / u)
		next := min(end, (int64(unit)+1)*u)
		switch _, ok := f.n.place(unit); {
		case !ok && f.n.units[unit/chunk] == nil:
			next = min(end, (int64(unit)/chunk+1)*chunk*u)
		case !ok:
		case len(out) > 0 && out[len(out)-1].Off+out[len(out)-1].Len == at:
			out[len(out)-1].Len = next - out[len(out)-1].Off
		case len(out) == limit-1:
			return append(out, Extent{at, end - at}), nil
		default:
			out = append(out, Extent{at, next - at})
		}
		at = next
	}
	return out, nil
}

// Flush makes durable what was written before it. Once one has failed while this file had something to lose, all do until it is
// opened anew.
func (f *File) Flush() error {
	err := f.fs.sync()
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err == nil && f.lost {
		err = fail(f.name, ErrLost)
	}
	if err == nil {
		err = f.check(0, 0)
	}
	return err
}

// Size is the file's, in bytes.
func (f *File) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.n.size, f.check(0, 0)
}

// Close gives the file up. What was written is not flushed.
func (f *File) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	delete(f.fs.dirty, f)
	return nil
}

// Where returns where a byte of a file is on the device; not ok where it is a hole, or there is no such file. It is for tests, and for
// those who look for a file by hand.
func (fs *FS) Where(name string, off int64) (at int64, ok bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n, err := fs.find(name)
	if err != nil || n.dir() || off < 0 || off >= n.size {
		return 0, false
	}
	unit, ok := n.place(uint32(off / fs.l.Unit))
	return fs.l.unit(unit) + off%fs.l.Unit, ok
}

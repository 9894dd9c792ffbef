package poolfs

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"pmsapp/internal/block"
)

// Options of Open.
type Options struct {
	// Nonce returns a number that nobody else returns; crypto/rand's if nil.
	Nonce func() uint64
	// Inline says that nothing happens beside the caller: what would be made ready or given back ahead waits until it is needed.
	Inline bool
	// Accept, if set, looks at what was found, and may read it, before anything is written: its error is Open's. A device may be
	// another's, and in use there.
	Accept func(*FS) error
}

// FS is the files on a device. Paths begin at the root of the device, with or without a slash. All methods may be called concurrently.
type FS struct {
	dev Device
	l   Layout
	opt Options

	failures atomic.Uint64 // see Failures

	work sync.WaitGroup // what happens beside the callers; ends by itself

	mu     sync.Mutex // guards what follows; not held over I/O
	turned *sync.Cond // a run has ended
	gained *sync.Cond // there may be space now
	closed bool
	st     *state
	space  space
	dirty  map[*File]struct{} // with bytes that were written since the newest run began
	log    log
}

// Format makes an empty set of files on a device, whatever it holds. Until the end the device has no superblock.
func Format(dev Device, l Layout, opt Options) error {
	if err := l.check(); err != nil {
		return err
	}
	if l.size() > dev.Size() {
		return fmt.Errorf("%w: it has %d bytes, and %d are needed", ErrTooSmall, dev.Size(), l.size())
	}
	err := dev.Zero(0, start+2*l.Area)
	if g := int64(dev.Grain()); err == nil { // other systems' signatures, but not our log
		end := dev.Size() / g * g
		from := max(l.Data, end-start)
		err = dev.Zero(from, end-from)
	}
	if err == nil {
		err = dev.Flush()
	}
	if err == nil {
		err = write(dev, putSectors(attempt{1, opt.nonce()}, 0, nil), l.area(0))
	}
	if err == nil {
		err = dev.Flush()
	}
	if err == nil {
		err = write(dev, l.encode(), 0)
	}
	if err == nil {
		err = dev.Flush()
	}
	return err
}

func (o Options) nonce() uint64 {
	if o.Nonce != nil {
		return o.Nonce()
	}
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// write writes whole blocks, piece by piece.
func write(dev Device, b []byte, off int64) error {
	p := block.Get(min(len(b), 1<<20))
	defer block.Put(p)
	for len(b) > 0 {
		n := copy(p, b)
		if err := dev.WriteAt(p[:n], off, false); err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// Probe reads the superblock. It returns ErrBlank or ErrOccupied where there is none: then nothing on the device is ours.
func Probe(dev Device) (Layout, error) {
	if dev.Size() < 2*start {
		return Layout{}, fmt.Errorf("%w: it has %d bytes", ErrTooSmall, dev.Size())
	}
	b := block.Get(start)
	defer block.Put(b)
	if err := dev.ReadAt(b, 0, false); err != nil {
		return Layout{}, err
	}
	if string(b[:8]) == magic {
		l, err := decodeLayout(b[:blockSize])
		if err == nil && l.size() > dev.Size() {
			err = fmt.Errorf("%w: it has %d bytes, and had %d", ErrTooSmall, dev.Size(), l.size())
		}
		return l, err
	}
	what := signature(b)
	if what == "" {
		if err := dev.ReadAt(b, dev.Size()/int64(dev.Grain())*int64(dev.Grain())-start, false); err != nil {
			return Layout{}, err
		}
		what = signature(b)
	}
	if what == "" {
		return Layout{}, ErrBlank
	}
	return Layout{}, fmt.Errorf("%w: %s", ErrOccupied, what)
}

// Open reads what is on a device. It is all made durable before it is relied upon, since a process may have died before a flush.
func Open(dev Device, opt Options) (*FS, error) {
	l, err := Probe(dev)
	if err != nil {
		return nil, err
	}
	// Or the newest log would be taken for durable, and the older one, which is, overwritten.
	if err := dev.Flush(); err != nil {
		return nil, err
	}
	var areas [2]area
	for i := range areas {
		if areas[i], err = loadArea(dev, l, i); err != nil {
			return nil, err
		}
	}
	use, err := choose(areas)
	if err != nil {
		return nil, err
	}
	st, err := replay(l, areas[use].batches)
	if err != nil {
		return nil, err
	}
	fs := &FS{dev: dev, l: l, opt: opt, st: st, dirty: map[*File]struct{}{}}
	fs.turned, fs.gained = sync.NewCond(&fs.mu), sync.NewCond(&fs.mu)
	fs.space = newSpace(st)
	// The log goes on in the other area, so that nothing is written behind what may be torn.
	fs.log = log{area: use, number: max(areas[0].number, areas[1].number), renew: true}
	if opt.Accept != nil {
		if err := opt.Accept(fs); err != nil {
			return nil, err
		}
	}
	if err := fs.sync(); err != nil {
		return nil, err
	}
	return fs, nil
}

// loadArea reads an area piece by piece.
func loadArea(dev Device, l Layout, i int) (area, error) {
	piece := block.Get(1 << 20)
	defer block.Put(piece)
	at := -int64(len(piece))
	return readArea(l.sectors(), func(k int) ([]byte, error) {
		off := int64(k) * sectorSize
		if off < at || off >= at+int64(len(piece)) {
			at = off / int64(len(piece)) * int64(len(piece))
			if err := dev.ReadAt(piece[:min(int64(len(piece)), l.Area-at)], l.area(i)+at, false); err != nil {
				return nil, err
			}
		}
		return piece[off-at : off-at+sectorSize], nil
	})
}

// Close makes the log durable and waits for what happens beside the callers. The device is not closed.
func (fs *FS) Close() error {
	err := fs.sync()
	fs.mu.Lock()
	fs.closed = true
	fs.gained.Broadcast()
	fs.mu.Unlock()
	fs.work.Wait()
	return err
}

// Usage returns the bytes that files may have, and how many of them none has.
func (fs *FS) Usage() (size, free int64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return int64(fs.l.Units) * fs.l.Unit, int64(fs.l.Units-fs.st.used.count) * fs.l.Unit
}

// find returns the node of a path. Called with mu.
func (fs *FS) find(name string) (*node, error) {
	n := fs.st.nodes[rootID]
	for _, part := range strings.Split(strings.Trim(name, "/"), "/") {
		if part == "" {
			continue
		}
		if !n.dir() {
			return nil, fail(name, os.ErrNotExist)
		}
		if n = n.names[part]; n == nil {
			return nil, fail(name, os.ErrNotExist)
		}
	}
	return n, nil
}

func fail(name string, err error) error { return &os.PathError{Op: "poolfs", Path: name, Err: err} }

// change applies an op and has it written with the next run. Called with mu.
func (fs *FS) change(o op) error {
	if fs.closed {
		return ErrClosed
	}
	freed, err := fs.st.apply(o)
	if err != nil {
		return err
	}
	fs.log.pending = o.append(fs.log.pending)
	fs.space.freed = append(fs.space.freed, freed...)
	return nil
}

func (fs *FS) make(name string, dir bool, size int64) (*node, error) {
	parent, err := fs.find(path.Dir(name))
	if err != nil {
		return nil, err
	}
	o := op{kind: opCreate, id: fs.st.next, parent: parent.id, name: path.Base(name), dir: dir, size: size}
	if err := fs.change(o); err != nil {
		return nil, fail(name, err)
	}
	return fs.st.nodes[o.id], nil
}

// Mkdir makes a directory.
func (fs *FS) Mkdir(name string) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	_, err := fs.make(name, true, 0)
	return err
}

// Create makes a file of zeros. reserve takes its space now.
func (fs *FS) Create(name string, size int64, reserve bool) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n, err := fs.make(name, false, size)
	if err == nil && reserve {
		if err = fs.fill(n, 0, fs.l.span(size)); err != nil {
			return errors.Join(fail(name, err), fs.change(op{kind: opRemove, id: n.id}))
		}
	}
	return err
}

// Extend makes a file as long as size, unless it is longer: what is new reads as zeros. It is durable when it returns.
func (fs *FS) Extend(name string, size int64) error {
	fs.mu.Lock()
	n, err := fs.find(name)
	if err == nil && n.size < size {
		if err = fs.change(op{kind: opResize, id: n.id, size: size}); err != nil {
			err = fail(name, err)
		}
	}
	fs.mu.Unlock()
	if err != nil {
		return err
	}
	return fs.sync()
}

// Rename gives a file or directory another name, and takes away a file that has it: both, or neither.
func (fs *FS) Rename(from, to string) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n, err := fs.find(from)
	if err != nil {
		return err
	}
	parent, err := fs.find(path.Dir(to))
	if err != nil {
		return err
	}
	if err := fs.change(op{kind: opRename, id: n.id, parent: parent.id, name: path.Base(to)}); err != nil {
		return fail(to, err)
	}
	return nil
}

// RemoveAll removes a file, or a directory with all in it, if it is there. Open files of it must not be used any more.
func (fs *FS) RemoveAll(name string) error {
	fs.mu.Lock()
	n, err := fs.find(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = nil
	case err == nil:
		if err = fs.change(op{kind: opRemove, id: n.id}); err != nil {
			err = fail(name, err)
		}
	}
	fs.maintain()
	fs.mu.Unlock()
	return err
}

// List returns the names in a directory, in order.
func (fs *FS) List(name string) (out []string, err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n, err := fs.find(name)
	if err != nil {
		return nil, err
	}
	if !n.dir() {
		return nil, fail(name, syscall.ENOTDIR)
	}
	for k := range n.names {
		out = append(out, k)
	}
	slices.Sort(out)
	return out, nil
}

// Failures counts the runs that failed. With each, nothing is known of any byte of any file that was not durable before; it is
// counted before anybody hears of it. It only grows, and takes no lock.
func (fs *FS) Failures() uint64 { return fs.failures.Load() }

// Err is why the newest run failed; nil if it did not.
func (fs *FS) Err() error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.log.ended > 0 && fs.log.failed == fs.log.ended {
		return fs.log.err
	}
	return nil
}

// Sync makes every change of names, and every byte written, durable.
func (fs *FS) Sync() error { return fs.sync() }

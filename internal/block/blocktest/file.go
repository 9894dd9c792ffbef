package blocktest

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"pmsapp/internal/block"
)

// fileWorkers is how many requests a File has under way: durable depth needs parallel direct writes.
const fileWorkers = 32

// File is a volume in a file, written durably and past the page cache. It keeps the order of block.Device by letting a
// request wait for the earlier ones that it overlaps.
type File struct {
	geo block.Geometry
	f   *os.File

	mu    sync.Mutex
	tail  *fileOp // all that were submitted and have not ended, newest first
	ready chan *fileOp
	work  sync.WaitGroup
}

type fileOp struct {
	r       *block.Request
	prev    *fileOp
	next    *fileOp
	waits   int
	waiters []*fileOp
}

// OpenFile makes or opens a volume of size bytes.
func OpenFile(path string, size int64) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_DIRECT|syscall.O_DSYNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a volume: %w", err)
	}
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		f.Close()
		return nil, fmt.Errorf("allocating a volume: %w", err)
	}
	d := &File{geo: block.Geometry{Size: size, Logical: 512, Physical: 4096, MaxLen: 8 << 20}, f: f, ready: make(chan *fileOp, 4096)}
	for range fileWorkers {
		d.work.Add(1)
		go d.run()
	}
	return d, nil
}

// Close ends the workers. Nothing may be submitted any more.
func (d *File) Close() error {
	close(d.ready)
	d.work.Wait()
	return d.f.Close()
}

// Geometry implements block.Device.
func (d *File) Geometry() block.Geometry { return d.geo }

// Submit implements block.Device.
func (d *File) Submit(r *block.Request) {
	op := &fileOp{r: r}
	d.mu.Lock()
	for o := d.tail; o != nil; o = o.prev {
		overlap := r.Off < o.r.Off+o.r.Len && o.r.Off < r.Off+r.Len
		if overlap && (changes(r) || changes(o.r)) || r.Op == block.Flush {
			o.waiters = append(o.waiters, op)
			op.waits++
		}
	}
	op.prev = d.tail
	if d.tail != nil {
		d.tail.next = op
	}
	d.tail = op
	start := op.waits == 0
	d.mu.Unlock()
	if start {
		d.ready <- op
	}
}

func changes(r *block.Request) bool { return r.Op != block.Read && r.Op != block.Map }

func (d *File) run() {
	defer d.work.Done()
	for op := range d.ready {
		r := op.r
		r.Err = nil
		var err error
		switch r.Op {
		case block.Read:
			_, err = d.f.ReadAt(r.Data, r.Off)
		case block.Write:
			_, err = d.f.WriteAt(r.Data, r.Off)
		case block.Zero:
			const punch, keep = 2, 1
			err = syscall.Fallocate(int(d.f.Fd()), punch|keep, r.Off, r.Len)
		case block.Update:
			if _, err = d.f.ReadAt(r.Data, r.Off); err == nil {
				if r.Err = r.Modify(r); r.Err == nil {
					_, err = d.f.WriteAt(r.Data, r.Off)
				}
			}
		case block.Map:
			r.Extents = append(r.Extents, block.Extent{Off: r.Off, Len: r.Len}) // its blocks are all allocated
		}
		if err != nil {
			r.Err = fmt.Errorf("%w: %w", block.ErrMedium, err)
		}
		d.mu.Lock()
		if op.next != nil {
			op.next.prev = op.prev
		} else {
			d.tail = op.prev
		}
		if op.prev != nil {
			op.prev.next = op.next
		}
		var free []*fileOp
		for _, w := range op.waiters {
			if w.waits--; w.waits == 0 {
				free = append(free, w)
			}
		}
		d.mu.Unlock()
		r.Done(r)
		for _, w := range free {
			d.ready <- w
		}
	}
}

package replica

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fileWrite is one of those that a file is given together.
type fileWrite struct {
	off  int64
	data []byte
	err  error // set by writeMany
}

// manyWriter is a file that may be given several writes at once.
type manyWriter interface {
	// takesMany tells whether that is worth it.
	takesMany() bool
	// writeMany writes all of a list, at most maxBatch that do not overlap, in any order, and sets each one's err. It returns when the
	// device has answered them all.
	writeMany(from *queues, list []fileWrite)
}

// queue is a context of the kernel's asynchronous I/O (io_setup(2)) for one list at a time: writes past the page cache are handed
// over by one system call and awaited by another, where a thread for each would be put to sleep and woken for each.
type queue struct {
	context uintptr
	blocks  [maxBatch]iocb
	order   [maxBatch]*iocb
	events  [maxBatch]ioEvent
}

// iocb and ioEvent are the kernel's (linux/aio_abi.h).
type iocb struct {
	data  uint64
	_     [2]uint32 // key and flags of the I/O, in the order of the machine's bytes
	op    uint16
	_     int16 // priority
	fd    uint32
	buf   uint64
	bytes uint64
	off   int64
	_     uint64
	_     [2]uint32 // flags and the descriptor that is told
}

type ioEvent struct {
	data, _   uint64
	result, _ int64
}

const iocbWrite = 1 // IOCB_CMD_PWRITE

func newQueue() (*queue, error) {
	q := new(queue)
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, maxBatch, uintptr(unsafe.Pointer(&q.context)), 0); e != 0 {
		return nil, fmt.Errorf("io_setup: %w", e)
	}
	return q, nil
}

func (q *queue) close() { _, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, q.context, 0, 0) }

// takesMany implements manyWriter: through the page cache the kernel would carry them out one after the other.
func (o *osFile) takesMany() bool { return o.direct }

// writeMany implements manyWriter. What the kernel refuses to take is written one by one, and so is what it cuts short.
func (o *osFile) writeMany(from *queues, list []fileWrite) {
	var q *queue
	if o.direct && len(list) > 1 {
		q = from.get()
	}
	if q == nil {
		for i := range list {
			list[i].err = o.writeAt(list[i].data, list[i].off)
		}
		return
	}
	defer from.put(q)
	fd, n := uint32(o.f.Fd()), 0
	for i := range list {
		w := &list[i]
		if w.err = nil; !aligned(w.data, o.memory) {
			w.err = o.writeAt(w.data, w.off)
			continue
		}
		q.blocks[n] = iocb{data: uint64(i), op: iocbWrite, fd: fd, buf: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(w.data)))), bytes: uint64(len(w.data)), off: w.off}
		q.order[n] = &q.blocks[n]
		n++
	}
	under := 0
	for at := 0; at < n; {
		taken, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, q.context, uintptr(n-at), uintptr(unsafe.Pointer(&q.order[at])))
		switch {
		case e == syscall.EINTR:
		case e != 0 || taken == 0: // it is about the first of them
			w := &list[q.order[at].data]
			w.err = o.writeAt(w.data, w.off)
			at++
		default:
			at, under = at+int(taken), under+int(taken)
		}
	}
	for under > 0 {
		came, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, q.context, uintptr(under), maxBatch, uintptr(unsafe.Pointer(&q.events[0])), 0, 0)
		if e != 0 && e != syscall.EINTR {
			// The device has buffers that would be used for something else: only the end of the process keeps that from the disk.
			panic(fmt.Sprintf("io_getevents: %v with %d writes under way", e, under))
		}
		if e != 0 {
			continue
		}
		under -= int(came)
		for _, x := range q.events[:came] {
			w := &list[x.data]
			w.err = o.ended(w, x.result)
		}
	}
	runtime.KeepAlive(list)
	runtime.KeepAlive(o)
}

// ended is what became of a write.
func (o *osFile) ended(w *fileWrite, result int64) error {
	switch {
	case result == -int64(syscall.EINTR): // of what a signal breaks off, only a write of its own is begun again by the kernel
		return o.writeAt(w.data, w.off)
	case result < 0:
		return &os.PathError{Op: "write", Path: o.f.Name(), Err: syscall.Errno(-result)}
	case result < int64(len(w.data)): // what follows tells why; to be aligned, all of it
		return o.writeAt(w.data, w.off)
	}
	return nil
}

// queues are those that are not used.
type queues struct {
	// refused says that the kernel had none for us (fs.aio-max-nr, or it was built without them): from then on nothing goes in batches.
	refused atomic.Bool

	mu   sync.Mutex // guards what follows
	idle []*queue
}

// get returns one, or nil where the kernel has none for us: writes go one by one then.
func (s *queues) get() *queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.idle); n > 0 {
		q := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return q
	}
	q, err := newQueue()
	if err != nil {
		s.refused.Store(true)
		return nil
	}
	return q
}

func (s *queues) put(q *queue) {
	s.mu.Lock()
	s.idle = append(s.idle, q)
	s.mu.Unlock()
}

// close gives them back. None is in use any more.
func (s *queues) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.idle {
		q.close()
	}
	s.idle = nil
}

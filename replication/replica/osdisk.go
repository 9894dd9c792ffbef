package replica

import (
	"errors"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"pmsapp/internal/block"
	"pmsapp/replication/peer"
)

// osDisk is the operating system's files.
type osDisk struct{}

// osFile is used with direct I/O where that works at its grain, and through the page cache otherwise, never both
// (invariant 3; docs/adr/direct-io.md).
type osFile struct {
	f      *os.File
	direct bool
	memory int // alignment of buffers, for direct I/O
}

func (osDisk) open(path string, grain int) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err == nil {
		var st unix.Statx_t
		if serr := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st); serr == nil &&
			st.Mask&unix.STATX_DIOALIGN != 0 && st.Dio_offset_align > 0 && int(st.Dio_offset_align) <= grain && st.Dio_mem_align <= block.Align {
			return &osFile{f: f, direct: true, memory: int(st.Dio_mem_align)}, nil
		}
		f.Close()
	}
	if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	o := &osFile{f: f}
	// What a former process or a failed flush has left in the page cache is not on the disk for certain: it is flushed or
	// given up, so that what is read from here on is what the disk has (invariant 10).
	if err := o.flush(); err != nil {
		f.Close()
		return nil, err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		f.Close()
		return nil, err
	}
	return o, nil
}

func (osDisk) create(path string, size int64, reserve bool) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil && reserve {
		if err = again(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) }); errors.Is(err, syscall.EOPNOTSUPP) {
			err = (&osFile{f: f}).writeZeros(0, size)
		}
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func (osDisk) extend(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() < size {
		err = f.Truncate(size)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func (osDisk) mkdir(path string) error      { return os.Mkdir(path, 0o700) }
func (osDisk) rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) removeAll(path string) error  { return os.RemoveAll(path) }

func (osDisk) list(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (osDisk) syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osDisk) usage(path string) (size, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	// As df reckons: what a file system keeps for itself is neither free nor used.
	return int64(st.Blocks-st.Bfree+st.Bavail) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

func (osDisk) failures() uint64 { return 0 }

// aligned tells whether b begins and ends at multiples of n, a power of two.
func aligned(b []byte, n int) bool {
	return n <= 1 || (uintptr(unsafe.Pointer(unsafe.SliceData(b)))|uintptr(len(b)))&uintptr(n-1) == 0
}

// fits tells whether a buffer can be used for direct I/O as it is.
func (o *osFile) fits(b []byte) bool { return !o.direct || aligned(b, o.memory) }

func (o *osFile) readAt(b []byte, off int64) error {
	if !o.fits(b) {
		p := block.Get(len(b))
		defer block.Put(p)
		if err := o.readAt(p, off); err != nil {
			return err
		}
		copy(b, p)
		return nil
	}
	if n, err := o.f.ReadAt(b, off); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
		return err
	}
	return nil
}

func (o *osFile) writeAt(b []byte, off int64) error {
	if !o.fits(b) {
		p := block.Get(len(b))
		defer block.Put(p)
		copy(p, b)
		b = p
	}
	_, err := o.f.WriteAt(b, off)
	return err
}

func (o *osFile) zero(off, n int64) error {
	err := again(func() error {
		return unix.Fallocate(int(o.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return o.writeZeros(off, n)
	}
	return err
}

// reserve: ext4 lets one writer at a time into a file's holes, and many into space that it has already.
func (o *osFile) reserve(off, n int64) error {
	err := again(func() error { return unix.Fallocate(int(o.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n) })
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return nil
	}
	return err
}

func (o *osFile) writeZeros(off, n int64) error {
	b := block.Get(int(min(n, 1<<20)))
	defer block.Put(b)
	clear(b)
	for n > 0 {
		part := min(n, int64(len(b)))
		if err := o.writeAt(b[:part], off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// maxExtents bounds an answer; past it what is left is called data.
const maxExtents = 1 << 16

func (o *osFile) extents(off, end int64) (out []peer.Extent, err error) {
	for at := off; at < end; {
		from, err := unix.Seek(int(o.f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) || err == nil && from >= end {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		from = max(off, from/512*512)
		if len(out) == maxExtents-1 {
			return append(out, peer.Extent{Off: from, Len: end - from}), nil
		}
		to, err := unix.Seek(int(o.f.Fd()), max(from, at), unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		to = min(end, (to+511)/512*512)
		if k := len(out); k > 0 && out[k-1].Off+out[k-1].Len >= from {
			out[k-1].Len = to - out[k-1].Off
		} else {
			out = append(out, peer.Extent{Off: from, Len: to - from})
		}
		at = to
	}
	return out, nil
}

func (o *osFile) flush() error {
	return again(func() error { return unix.Fdatasync(int(o.f.Fd())) })
}

func (o *osFile) size() (int64, error) {
	info, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (o *osFile) lock() error {
	if err := unix.Flock(int(o.f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrInUse
	} else if err != nil {
		return err
	}
	return nil
}

func (o *osFile) close() error { return o.f.Close() }

// again calls fn until no signal interrupts it.
func again(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

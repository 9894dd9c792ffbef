package replica

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"pmsapp/internal/block"
	"pmsapp/replication/peer"
)

// data is the file of a replica's bytes. It is used with direct I/O where that works at 512 bytes, and through the page cache
// otherwise, never both (invariant 3).
type data struct {
	f      *os.File
	direct bool
	memory int // alignment of buffers, for direct I/O
}

// openData opens the file.
func openData(path string) (*data, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err == nil {
		var st unix.Statx_t
		if serr := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st); serr == nil &&
			st.Mask&unix.STATX_DIOALIGN != 0 && st.Dio_offset_align > 0 && st.Dio_offset_align <= 512 && st.Dio_mem_align <= block.Align {
			return &data{f: f, direct: true, memory: int(st.Dio_mem_align)}, nil
		}
		f.Close()
	}
	if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	return &data{f: f}, nil
}

// fits tells whether a buffer can be used for direct I/O as it is.
func (d *data) fits(b []byte) bool {
	return !d.direct || aligned(b, d.memory)
}

func (d *data) readAt(b []byte, off int64) error {
	p := b
	if !d.fits(b) {
		p = block.Get(len(b))
		defer block.Put(p)
	}
	if n, err := d.f.ReadAt(p, off); err != nil && !(errors.Is(err, io.EOF) && n == len(p)) {
		return err
	}
	if &p[0] != &b[0] {
		copy(b, p)
	}
	return nil
}

func (d *data) writeAt(b []byte, off int64) error {
	if !d.fits(b) {
		p := block.Get(len(b))
		defer block.Put(p)
		copy(p, b)
		b = p
	}
	_, err := d.f.WriteAt(b, off)
	return err
}

// zero makes a range read as zeros and frees its space.
func (d *data) zero(off, n int64) error {
	for {
		err := unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP):
			return d.writeZeros(off, n)
		}
		return err
	}
}

func (d *data) writeZeros(off, n int64) error {
	b := block.Get(int(min(n, 1<<20)))
	defer block.Put(b)
	clear(b)
	for n > 0 {
		part := min(n, int64(len(b)))
		if err := d.writeAt(b[:part], off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// maxExtents bounds an answer; past it what is left is called data.
const maxExtents = 1 << 16

// extents returns where there is data between off and end.
func (d *data) extents(off, end int64) (out []peer.Extent, err error) {
	for at := off; at < end; {
		from, err := unix.Seek(int(d.f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) || err == nil && from >= end {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(out) == maxExtents-1 {
			return append(out, peer.Extent{Off: from / 512 * 512, Len: end - from/512*512}), nil
		}
		to, err := unix.Seek(int(d.f.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		from, to = max(off, from/512*512), min(end, (to+511)/512*512)
		out = append(out, peer.Extent{Off: from, Len: to - from})
		at = to
	}
	return out, nil
}

func (d *data) flush() error {
	for {
		if err := unix.Fdatasync(int(d.f.Fd())); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func (d *data) close() error { return d.f.Close() }

// makeFile makes a file of a size; reserved says that its space is taken now.
func makeFile(path string, size int64, reserved bool) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil && reserved {
		if err = unix.Fallocate(int(f.Fd()), 0, 0, size); errors.Is(err, syscall.EOPNOTSUPP) {
			_, err = f.WriteAt(make([]byte, size), 0)
		}
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// writeBlock writes and flushes a structure at a place of a file.
func writeBlock(f *os.File, b []byte, off int64) error {
	if _, err := f.WriteAt(b, off); err != nil {
		return err
	}
	return f.Sync()
}

// replaceFile replaces a file durably and as a whole.
func replaceFile(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readBlock reads the first block of a file.
func readBlock(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, blockSize)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%w: it is too short: %w", ErrDamaged, err)
	}
	return b, nil
}

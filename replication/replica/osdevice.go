package replica

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"pmsapp/internal/block"
	"pmsapp/replication/poolfs"
)

// osDevice is a block device, or a regular file that is used like one.
type osDevice struct {
	direct, cached *osFile // of the same bytes, but never of the same at once (invariant 3)
	block          bool
	size           int64
	grain          int
}

// openDevice opens a device for this process alone: against another of this program by a lock, against file systems, LVM and RAID by
// O_EXCL.
func openDevice(path string) (_ *osDevice, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	d := &osDevice{block: info.Mode()&os.ModeDevice != 0}
	if !info.Mode().IsRegular() && (!d.block || info.Mode()&os.ModeCharDevice != 0) {
		return nil, fmt.Errorf("%s is neither a directory nor a block device", path)
	}
	flags := os.O_RDWR
	if d.block {
		flags |= unix.O_EXCL
	}
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, syscall.EBUSY) {
		return nil, fmt.Errorf("%w: it is mounted, or a part of something, or another process has it", ErrInUse)
	}
	if err != nil {
		return nil, err
	}
	d.cached = &osFile{f: f}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if err := d.cached.lock(); err != nil {
		return nil, err
	}
	if d.size, err = f.Seek(0, io.SeekEnd); err != nil {
		return nil, err
	}
	if err := d.openDirect(path); err != nil {
		return nil, err
	}
	// What a former process has left in the page cache is flushed, or given up.
	if err := d.Flush(); err != nil {
		return nil, err
	}
	return d, d.Drop(0, d.size)
}

// openDirect opens the device past the page cache, where that works; else it is used through it.
func (d *osDevice) openDirect(path string) error {
	d.grain = 512
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, syscall.EINVAL) {
		f, err = os.OpenFile(path, os.O_RDWR, 0)
		d.direct = &osFile{f: f}
		return err
	}
	if err != nil {
		return err
	}
	d.direct = &osFile{f: f, direct: true, memory: block.Align}
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st); err == nil &&
		st.Mask&unix.STATX_DIOALIGN != 0 && st.Dio_offset_align > 0 {
		d.grain, d.direct.memory = int(st.Dio_offset_align), int(st.Dio_mem_align)
	} else if d.block {
		if d.grain, err = unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil {
			return err
		}
	} else {
		d.grain = blockSize
	}
	if d.grain > blockSize || d.grain < 512 || d.direct.memory > block.Align {
		return fmt.Errorf("a device with blocks of %d bytes cannot be used", d.grain)
	}
	return nil
}

func (d *osDevice) of(cached bool) *osFile {
	if cached {
		return d.cached
	}
	return d.direct
}

// ReadAt implements poolfs.Device.
func (d *osDevice) ReadAt(b []byte, off int64, cached bool) error { return d.of(cached).readAt(b, off) }

// WriteAt implements poolfs.Device.
func (d *osDevice) WriteAt(b []byte, off int64, cached bool) error {
	return d.of(cached).writeAt(b, off)
}

// Zero implements poolfs.Device. Devices that unmap and promise zeros do that; others are written. The kernel gives up what the page
// cache has of the range.
func (d *osDevice) Zero(off, n int64) error {
	err := again(func() error {
		return unix.Fallocate(int(d.cached.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if errors.Is(err, syscall.EOPNOTSUPP) {
		err = again(func() error {
			return unix.Fallocate(int(d.cached.f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		})
	}
	if errors.Is(err, syscall.EOPNOTSUPP) {
		if err = d.direct.writeZeros(off, n); err == nil {
			err = d.Drop(off, n)
		}
	}
	return err
}

// Discard implements poolfs.Device.
func (d *osDevice) Discard(off, n int64) error {
	if !d.block {
		return d.Zero(off, n)
	}
	r := [2]uint64{uint64(off), uint64(n)}
	return again(func() error {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, d.cached.f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&r))); e != 0 {
			return e
		}
		return nil
	})
}

// Drop implements poolfs.Device.
func (d *osDevice) Drop(off, n int64) error {
	return unix.Fadvise(int(d.cached.f.Fd()), off, n, unix.FADV_DONTNEED)
}

// Flush implements poolfs.Device. The page cache is the device's: one call for both ways of using it.
func (d *osDevice) Flush() error { return d.cached.flush() }

// Size implements poolfs.Device.
func (d *osDevice) Size() int64 { return d.size }

// Grain implements poolfs.Device.
func (d *osDevice) Grain() int { return d.grain }

func (d *osDevice) close() error {
	err := d.cached.close()
	if d.direct != nil && d.direct.f != nil {
		err = errors.Join(err, d.direct.close())
	}
	return err
}

// pool opens what a pool's files are on.
func (osDisk) pool(path string, may bool, accept func(disk) error) (disk, func() error, error) {
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return nil, nil, nil // a path that is missing is reported by who lists it
	}
	dev, err := openDevice(path)
	if err != nil {
		return nil, nil, err
	}
	d, err := openPoolDisk(dev, path, may, accept, poolfs.Options{})
	if err != nil {
		return nil, nil, errors.Join(err, dev.close())
	}
	return d, func() error { return errors.Join(d.fs.Close(), dev.close()) }, nil
}

// FormatDevice makes an empty pool's files on a block device, or a regular file used like one. Without wipe it refuses one that is
// not blank; with it, whatever the device holds is given up, except while it is in use.
func FormatDevice(path string, wipe bool) (err error) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory: only block devices are formatted", path)
	}
	if err != nil {
		return err
	}
	dev, err := openDevice(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer func() { err = errors.Join(err, dev.close()) }()
	switch _, err := poolfs.Probe(dev); {
	case errors.Is(err, poolfs.ErrBlank):
	case errors.Is(err, poolfs.ErrTooSmall) || errors.Is(err, poolfs.ErrVersion) || errors.Is(err, poolfs.ErrDamaged) || errors.Is(err, poolfs.ErrOccupied):
		if !wipe {
			return fmt.Errorf("%s: %w", path, err)
		}
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case !wipe:
		return fmt.Errorf("%s: %w: it is a pool", path, ErrNotEmpty)
	}
	if err := formatDevice(dev, poolfs.Options{}); err != nil {
		return fmt.Errorf("formatting %s: %w", path, err)
	}
	return nil
}

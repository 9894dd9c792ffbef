package replica

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"pmsapp/replication/peer"
	"pmsapp/replication/poolfs"
)

// poolDisk is the files of a pool on a block device (docs/adr/block-pools.md). What a dying process leaves is less than of a
// directory: what was not flushed may be lost with it, and each opening is another incarnation of its replicas (invariant 10).
type poolDisk struct {
	fs   *poolfs.FS
	root string // the device's path: the pool's names begin with it
}

// openPoolDisk opens the files on a device that the caller has for itself; may says that a blank one is formatted. It closes dev.
func openPoolDisk(dev poolfs.Device, path string, may bool, accept func(disk) error, opt poolfs.Options) (*poolDisk, error) {
	opt.Accept = func(fs *poolfs.FS) error { return accept(&poolDisk{fs, path}) }
	fs, err := poolfs.Open(dev, opt)
	if errors.Is(err, poolfs.ErrBlank) && may {
		if err = formatDevice(dev, opt); err == nil {
			fs, err = poolfs.Open(dev, opt)
		}
	}
	switch {
	case errors.Is(err, poolfs.ErrBlank):
		err = fmt.Errorf("%w (%w): is it the right device?", ErrNotPool, err)
	case errors.Is(err, poolfs.ErrOccupied):
		err = fmt.Errorf("%w (%w); `pmsapp pool format --wipe` gives up what it holds", ErrNotEmpty, err)
	case errors.Is(err, poolfs.ErrVersion):
		err = fmt.Errorf("%w (%w)", ErrVersion, err)
	case errors.Is(err, poolfs.ErrDamaged):
		err = fmt.Errorf("%w (%w): `pmsapp pool format --wipe` gives its replicas up", ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	return &poolDisk{fs, path}, nil
}

func formatDevice(dev poolfs.Device, opt poolfs.Options) error {
	l, err := poolfs.Standard(dev.Size())
	if err == nil {
		err = poolfs.Format(dev, l, opt)
	}
	return err
}

func (d *poolDisk) in(path string) string { return strings.TrimPrefix(path, d.root) }

func (d *poolDisk) open(path string, grain int) (file, error) {
	f, err := d.fs.Open(d.in(path), grain)
	if err != nil {
		return nil, err
	}
	return poolFile{f}, nil
}

func (d *poolDisk) create(path string, size int64, reserve bool) error {
	return d.fs.Create(d.in(path), size, reserve)
}

func (d *poolDisk) extend(path string, size int64) error { return d.fs.Extend(d.in(path), size) }
func (d *poolDisk) mkdir(path string) error              { return d.fs.Mkdir(d.in(path)) }
func (d *poolDisk) rename(from, to string) error         { return d.fs.Rename(d.in(from), d.in(to)) }
func (d *poolDisk) removeAll(path string) error          { return d.fs.RemoveAll(d.in(path)) }
func (d *poolDisk) list(path string) ([]string, error)   { return d.fs.List(d.in(path)) }
func (d *poolDisk) syncDir(string) error                 { return d.fs.Sync() }

func (d *poolDisk) usage(string) (size, free int64, err error) {
	size, free = d.fs.Usage()
	if err := d.fs.Err(); err != nil {
		return size, free, fmt.Errorf("its device failed to write: %w", err)
	}
	return size, free, nil
}

func (d *poolDisk) failures() uint64 { return d.fs.Failures() }

func (d *poolDisk) pool(string, bool, func(disk) error) (disk, func() error, error) {
	return nil, nil, os.ErrInvalid
}

// poolFile is a file of a poolDisk.
type poolFile struct{ f *poolfs.File }

func (f poolFile) readAt(b []byte, off int64) error  { return f.f.ReadAt(b, off) }
func (f poolFile) writeAt(b []byte, off int64) error { return f.f.WriteAt(b, off) }
func (f poolFile) zero(off, n int64) error           { return f.f.Zero(off, n) }
func (f poolFile) reserve(off, n int64) error        { return nil } // writers do not wait for each other's space
func (f poolFile) flush() error                      { return f.f.Flush() }
func (f poolFile) size() (int64, error)              { return f.f.Size() }
func (f poolFile) lock() error                       { return nil } // the device is
func (f poolFile) close() error                      { return f.f.Close() }

func (f poolFile) extents(off, end int64) ([]peer.Extent, error) {
	list, err := f.f.Extents(off, end, maxExtents)
	out := make([]peer.Extent, len(list))
	for i, x := range list {
		out[i] = peer.Extent(x)
	}
	return out, err
}

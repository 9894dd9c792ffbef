package soak

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"pmsapp/appliance/api"
	"pmsapp/replication/poolfs"
	"pmsapp/systemtest/powerdisk"
)

// onDevice tells whether the pools are devices, without files that others could find.
func (s *soak) onDevice() bool { return s.cfg.Raw || len(s.cfg.Devices) > 0 }

// device is that of a node's pool, at present.
func (s *soak) device(i int) string {
	if s.cfg.Raw {
		return s.disks[i].pool.Device()
	}
	return s.cfg.Devices[i]
}

// data says where on the disk of a pool a replica's data are.
func (s *soak) data(i int, v api.Volume, pool string) ([]powerdisk.Range, error) {
	name := path.Join("replicas", v.ID, "data")
	if s.onDevice() {
		return placesOn(s.device(i), name, s.cfg.Size)
	}
	return powerdisk.Places(filepath.Join(pool, name), 0, s.cfg.Size)
}

// everything says where on the disk of a pool all files of a replica are. Of a device it is all: its flushes are of all that it has.
func (s *soak) everything(v api.Volume, pool string) (where []powerdisk.Range, err error) {
	if s.onDevice() {
		return nil, nil
	}
	err = filepath.WalkDir(filepath.Join(pool, "replicas", v.ID), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		list, err := powerdisk.Places(path, 0, info.Size())
		where = append(where, list...)
		return err
	})
	return where, err
}

// errSeen ends the opening of a device before anything is written.
var errSeen = errors.New("soak: seen")

// placesOn says where on a device that a pool is on a file has its bytes, by the pool's log, which is only read. A node that has the pool open
// may be writing it: what does not fit together is read again.
func placesOn(device, name string, size int64) (list []powerdisk.Range, err error) {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Seek(0, 2)
	if err != nil {
		return nil, err
	}
	const step = 4096
	look := func(files *poolfs.FS) error {
		for off := int64(0); off < size; off += step {
			at, ok := files.Where(name, off)
			if n := len(list) - 1; ok && n >= 0 && list[n].Off+list[n].Len == at {
				list[n].Len += step
			} else if ok {
				list = append(list, powerdisk.Range{Off: at, Len: step})
			}
		}
		return errSeen
	}
	for range 20 {
		if _, err = poolfs.Open(logReader{f, info}, poolfs.Options{Inline: true, Accept: look}); !errors.Is(err, poolfs.ErrDamaged) {
			break
		}
	}
	if !errors.Is(err, errSeen) {
		return nil, fmt.Errorf("reading the log of %s: %w", device, err)
	}
	return list, nil
}

// logReader is a device that is only read.
type logReader struct {
	f    *os.File
	size int64
}

func (r logReader) ReadAt(b []byte, off int64, _ bool) error {
	_, err := r.f.ReadAt(b, off)
	return err
}

func (r logReader) WriteAt([]byte, int64, bool) error { return os.ErrPermission }
func (r logReader) Zero(int64, int64) error           { return os.ErrPermission }
func (r logReader) Discard(int64, int64) error        { return os.ErrPermission }
func (r logReader) Drop(int64, int64) error           { return nil }
func (r logReader) Flush() error                      { return nil }
func (r logReader) Size() int64                       { return r.size }
func (r logReader) Grain() int                        { return flipBlock }

var _ poolfs.Device = logReader{}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

type fsxConfig struct {
	file string
	ops  int
	size int64
	seed uint64
}

// runFSX does random operations on one file and compares each read with a model in memory, as the file system exercisers called
// fsx do: reads and writes, also by memory mapping and directly, cuts and extensions, synchronisation, closing and opening again,
// and dropping what the client has cached.
func runFSX(ctx context.Context, cfg fsxConfig, out io.Writer) (err error) {
	f, err := os.OpenFile(cfg.file, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	x := &fsx{cfg: cfg, f: f, rand: rand.New(rand.NewPCG(cfg.seed, 7)), p: newPulse(out)}
	defer func() { err = errors.Join(err, x.f.Close()) }()
	for n := 1; n <= cfg.ops && ctx.Err() == nil; n++ {
		kind, err := x.step()
		if err != nil {
			return fmt.Errorf("operation %d, %s: %w", n, kind, err)
		}
		x.p.beat(kind)
	}
	if err := x.drop(); err != nil {
		return err
	}
	if err := x.reads(0, len(x.model)); err != nil {
		return fmt.Errorf("in the end: %w", err)
	}
	return x.p.end()
}

type fsx struct {
	cfg   fsxConfig
	f     *os.File
	model []byte
	rand  *rand.Rand
	p     *pulse
}

func (x *fsx) step() (string, error) {
	at := x.rand.Int64N(x.cfg.size)
	n := 1 + x.rand.IntN(int(min(x.cfg.size-at, 64<<10)))
	within := int(at) < len(x.model)
	if within {
		n = min(n, len(x.model)-int(at))
	}
	switch x.rand.IntN(12) {
	case 0, 1, 2:
		if within {
			return "read", x.reads(int(at), n)
		}
	case 3, 4:
		return "write", x.writes(at, 1+x.rand.IntN(int(min(x.cfg.size-at, 64<<10))))
	case 5:
		if within {
			return "mapped read", x.mapped(int(at), n, false)
		}
	case 6:
		if within {
			return "mapped write", x.mapped(int(at), n, true)
		}
	case 7:
		return "truncate", x.truncate(at)
	case 8:
		return "fsync", x.f.Sync()
	case 9:
		return "drop", x.drop()
	case 10:
		return "direct write", x.direct(at &^ (block - 1))
	case 11:
		return "open", x.open()
	}
	return "write", x.writes(at, n)
}

func (x *fsx) reads(at, n int) error {
	got := make([]byte, n)
	if _, err := x.f.ReadAt(got, int64(at)); err != nil {
		return err
	}
	if err := x.compare(at, got); err != nil {
		return err
	}
	st, err := x.f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != int64(len(x.model)) {
		return fmt.Errorf("%w: the file has %d bytes instead of %d", errDiffers, st.Size(), len(x.model))
	}
	return nil
}

func (x *fsx) compare(at int, got []byte) error {
	want := x.model[at:][:len(got)]
	if bytes.Equal(got, want) {
		return nil
	}
	i := 0
	for got[i] == want[i] {
		i++
	}
	return fmt.Errorf("%w: byte %d of %d is %#x instead of %#x", errDiffers, at+i, len(x.model), got[i], want[i])
}

// data makes what is written next and notes it in the model.
func (x *fsx) data(at int64, n int) []byte {
	if need := int(at) + n; need > len(x.model) {
		x.model = append(x.model, make([]byte, need-len(x.model))...)
	}
	b := x.model[at:][:n]
	for i := range b {
		b[i] = byte(x.rand.Uint32())
	}
	return b
}

func (x *fsx) writes(at int64, n int) error {
	_, err := x.f.WriteAt(x.data(at, n), at)
	return err
}

// mapped reads or writes through a mapping of the file's pages.
func (x *fsx) mapped(at, n int, write bool) (err error) {
	begin := at &^ (os.Getpagesize() - 1)
	m, err := unix.Mmap(int(x.f.Fd()), int64(begin), at+n-begin, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping the file: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(m)) }()
	if !write {
		return x.compare(at, m[at-begin:])
	}
	copy(m[at-begin:], x.data(int64(at), n))
	return unix.Msync(m, unix.MS_SYNC)
}

func (x *fsx) truncate(to int64) error {
	if err := x.f.Truncate(to); err != nil {
		return err
	}
	if int(to) <= len(x.model) {
		x.model = x.model[:to:to] // what is appended later is new, and zeros where nothing is written
	} else {
		x.model = append(x.model, make([]byte, int(to)-len(x.model))...)
	}
	return nil
}

// drop makes the next reads go to the server.
func (x *fsx) drop() error {
	if err := x.f.Sync(); err != nil {
		return err
	}
	if err := unix.Fadvise(int(x.f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("dropping cached pages: %w", err)
	}
	return nil
}

// direct writes past the page cache.
func (x *fsx) direct(at int64) (err error) {
	f, err := os.OpenFile(x.cfg.file, os.O_WRONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf, err := unix.Mmap(-1, 0, 4*block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("aligned memory: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(buf)) }()
	n := copy(buf, x.data(at, block*(1+x.rand.IntN(4))))
	_, err = f.WriteAt(buf[:n], at)
	return err
}

func (x *fsx) open() error {
	f, err := os.OpenFile(x.cfg.file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	old := x.f
	x.f = f
	return old.Close()
}

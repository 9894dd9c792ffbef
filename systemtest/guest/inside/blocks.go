package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

const (
	block   = 4096
	longest = 16 // blocks in one call
	forms   = 3  // of synchronisation, see openFile
)

// errDiffers is returned when what was read is not what was written.
var errDiffers = errors.New("read something else than was written")

type blocksConfig struct {
	dir     string
	workers int
	size    int64
	seed    uint64
}

// runBlocks writes random pieces of files, one file for each worker, reads others back, and compares. Each block says whose it
// is, where it belongs and which write it is of, so that a write that was lost, came twice after another, or went
// elsewhere is seen. In the end all is read once more.
func runBlocks(ctx context.Context, cfg blocksConfig, out io.Writer) error {
	p := newPulse(out)
	errs := make([]error, cfg.workers)
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range cfg.workers {
		work.Go(func() {
			w := &blockWorker{seed: cfg.seed<<8 | uint64(i), form: i % forms, versions: make([]uint32, cfg.size/block),
				rand: rand.New(rand.NewPCG(cfg.seed, uint64(i))), p: p}
			if errs[i] = w.run(ctx, filepath.Join(cfg.dir, fmt.Sprintf("blocks-%d-%d", cfg.seed, i))); errs[i] != nil {
				cancel()
			}
		})
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return p.end()
}

type blockWorker struct {
	seed     uint64
	form     int
	versions []uint32 // of each block, as last acknowledged; 0 is never written
	rand     *rand.Rand
	p        *pulse
	f        *os.File
	buf      []byte // aligned to a page, for direct I/O
	want     [block]byte
}

// openFile opens a worker's file. The forms are: written directly and durable at once (a database, a hypervisor), buffered and
// durable at once, buffered and synchronised now and then (a file server).
func openFile(name string, form int) (*os.File, error) {
	flags := os.O_RDWR | os.O_CREATE
	switch form {
	case 0:
		flags |= syscall.O_DIRECT | syscall.O_DSYNC
	case 1:
		flags |= syscall.O_DSYNC
	}
	return os.OpenFile(name, flags, 0o644)
}

func (w *blockWorker) run(ctx context.Context, name string) (err error) {
	if w.f, err = openFile(name, w.form); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.f.Close()) }()
	if w.buf, err = syscall.Mmap(-1, 0, longest*block, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE); err != nil {
		return fmt.Errorf("aligned memory: %w", err)
	}
	defer syscall.Munmap(w.buf)
	if err := w.f.Truncate(int64(len(w.versions)) * block); err != nil {
		return err
	}
	for n := 1; ctx.Err() == nil; n++ {
		count := 1 + w.rand.IntN(longest)
		at := w.rand.IntN(len(w.versions) - count + 1)
		switch {
		case w.rand.IntN(10) < 3:
			err = w.read(at, count)
		default:
			err = w.write(at, count)
		}
		if err == nil && w.form == 2 && n%16 == 0 {
			if err = w.f.Sync(); err == nil {
				w.p.beat("syncs")
			}
		}
		if err != nil {
			return fmt.Errorf("%s, blocks %d to %d: %w", name, at, at+count-1, err)
		}
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	return w.proveAll(name)
}

// proveAll reads the whole file, from the server and not from the page cache.
func (w *blockWorker) proveAll(name string) (err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w.f, f = f, w.f
	defer func() { w.f, f = f, w.f }()
	for at := 0; at < len(w.versions); at += longest {
		if err := w.read(at, min(longest, len(w.versions)-at)); err != nil {
			return fmt.Errorf("in the end: %s, from block %d on: %w", name, at, err)
		}
	}
	return nil
}

func (w *blockWorker) write(at, count int) error {
	for i := range count {
		w.fill(w.buf[i*block:][:block], at+i, w.versions[at+i]+1)
	}
	if _, err := w.f.WriteAt(w.buf[:count*block], int64(at)*block); err != nil {
		return err
	}
	for i := range count {
		w.versions[at+i]++
	}
	w.p.beat("writes")
	return nil
}

func (w *blockWorker) read(at, count int) error {
	if _, err := w.f.ReadAt(w.buf[:count*block], int64(at)*block); err != nil {
		return err
	}
	for i := range count {
		w.fill(w.want[:], at+i, w.versions[at+i])
		if got := w.buf[i*block:][:block]; !bytes.Equal(got, w.want[:]) {
			return fmt.Errorf("%w: block %d begins with %x instead of %x", errDiffers, at+i, got[:24], w.want[:24])
		}
	}
	w.p.beat("reads")
	return nil
}

// fill makes the content of a version of a block: all zeros for version 0.
func (w *blockWorker) fill(b []byte, at int, version uint32) {
	clear(b)
	if version == 0 {
		return
	}
	x := w.seed*0x9e3779b97f4a7c15 ^ uint64(at)<<32 ^ uint64(version)
	binary.LittleEndian.PutUint64(b, w.seed)
	binary.LittleEndian.PutUint64(b[8:], uint64(at))
	binary.LittleEndian.PutUint64(b[16:], uint64(version))
	for i := 24; i < len(b); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/systemtest/bench/measure"
)

// side is one of those that are compared.
type side struct {
	name   string
	procs  []measure.Proc
	stop   func()
	client *nfsclient.Client // one connection
	root   nfs3.Handle
	file   nfs3.Handle
	dir    nfs3.Handle // of the files that are made

	next int64 // of a sequential run, in bytes
}

// result is what a run has shown.
type result struct {
	count int
	took  time.Duration
}

// runner is a run under way.
type runner struct {
	s     *side
	j     job
	until time.Time // zero: once over the whole file

	mu     sync.Mutex // guards what follows
	random *rand.Rand
	off    int64
	count  int
	err    error
}

// run keeps depth calls under way for a while, or, with no time, until the whole file was covered once.
func (s *side) run(ctx context.Context, j job, d time.Duration) (result, error) {
	r := &runner{s: s, j: j, random: rand.New(rand.NewPCG(1, 2)), off: s.next}
	if d > 0 {
		r.until = time.Now().Add(d)
	} else {
		r.off = 0
	}
	began := time.Now()
	var all sync.WaitGroup
	for range j.depth {
		buf := make([]byte, j.bytes)
		r.mu.Lock()
		for k := range buf {
			buf[k] = byte(r.random.Uint32())
		}
		r.mu.Unlock()
		all.Go(func() {
			for {
				off, n, more := r.begin(ctx)
				if !more {
					return
				}
				r.ended(r.do(ctx, off, n, buf))
			}
		})
	}
	all.Wait()
	if j.kind != files {
		s.next = r.off
	}
	return result{r.count, time.Since(began)}, r.err
}

// begin returns where the next call goes, and its number; false: the run is over.
func (r *runner) begin(ctx context.Context) (off int64, n int, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = ctx.Err()
	}
	if r.err != nil || !r.until.IsZero() && time.Now().After(r.until) {
		return 0, 0, false
	}
	each := int64(r.j.bytes)
	if r.j.kind == files {
		r.off++
		return 0, int(r.off), true
	}
	if r.j.random {
		return r.random.Int64N(*size/each) * each, 0, true
	}
	if r.off+each > *size {
		if r.until.IsZero() {
			return 0, 0, false
		}
		r.off = 0
	}
	off = r.off
	r.off += each
	return off, 0, true
}

func (r *runner) ended(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count++; err != nil && r.err == nil {
		r.err = err
	}
}

// do makes one call, or those that make a file.
func (r *runner) do(ctx context.Context, off int64, n int, buf []byte) error {
	c, file, at := r.s.client, r.s.file, uint64(off)
	switch r.j.kind {
	case read:
		d, err := c.Read(ctx, file, at, uint32(len(buf)))
		if err == nil && len(d.Data) != len(buf) {
			err = io.ErrUnexpectedEOF
		}
		return err
	case write:
		w, err := c.Write(ctx, file, at, buf, nfs3.FileSync)
		if err == nil && int(w.Count) != len(buf) {
			err = io.ErrShortWrite
		}
		return err
	}
	f, err := c.Create(ctx, nfs3.CreateArgs{Where: nfs3.DirOp{Dir: r.s.dir, Name: fmt.Sprint("file", n)}, How: nfs3.Guarded})
	if err != nil {
		return fmt.Errorf("CREATE: %w", err)
	}
	if _, err := c.Write(ctx, f.File, 0, buf, nfs3.Unstable); err != nil {
		return fmt.Errorf("WRITE: %w", err)
	}
	if _, err = c.Commit(ctx, f.File, 0, 0); err != nil {
		return fmt.Errorf("COMMIT: %w", err)
	}
	return nil
}

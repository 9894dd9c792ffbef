package demo

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// disk is the LUN, as a program that uses it sees it; *initiator.Disk is one.
type disk interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
}

const (
	blockSize = 4096
	writers   = 16
)

// load writes blocks of an area at random, many at a time, and remembers what was acknowledged. Each writer has blocks of
// its own, so that no two writes of one block are under way at once.
type load struct {
	disk   disk
	base   int64 // of the area, in bytes
	blocks int64 // a multiple of writers
	seed   uint64

	// versions has, for each block, the version that was acknowledged last; 0: none. Each is its writer's, until the load
	// has ended.
	versions []uint32
	meter
}

func newLoad(d disk, base, blocks int64, seed uint64) *load {
	blocks -= blocks % writers
	return &load{disk: d, base: base, blocks: blocks, seed: seed, versions: make([]uint32, blocks), meter: meter{begun: time.Now()}}
}

// run writes until ctx ends. A write that is under way then is finished, in finish at the latest.
func (l *load) run(ctx context.Context, finish time.Duration) error {
	// Acknowledgements that are awaited when the end comes are part of what is verified.
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(finish, cancel) })
	defer stop()
	errs := make(chan error, writers)
	for w := range writers {
		go func() { errs <- l.write(ctx, last, int64(w)) }()
	}
	var err error
	for range writers {
		err = errors.Join(err, <-errs)
	}
	return err
}

func (l *load) write(ctx, last context.Context, w int64) error {
	random := rand.New(rand.NewPCG(l.seed, uint64(w)))
	buf := make([]byte, blockSize)
	share := l.blocks / writers
	for ctx.Err() == nil {
		n := w + writers*random.Int64N(share)
		version := l.versions[n] + 1
		l.fill(buf, n, version)
		if err := l.disk.WriteAt(last, buf, l.base+n*blockSize); err != nil {
			return fmt.Errorf("writing block %d: %w", n, err)
		}
		l.versions[n] = version
		l.acknowledged()
	}
	return nil
}

// fill makes what a block holds at a version: its number, version and seed, and bytes that follow from them.
func (l *load) fill(b []byte, n int64, version uint32) {
	binary.BigEndian.PutUint64(b, uint64(n))
	binary.BigEndian.PutUint64(b[8:], uint64(version))
	binary.BigEndian.PutUint64(b[16:], l.seed)
	sum := sha256.Sum256(b[:24])
	for at := 24; at < len(b); {
		at += copy(b[at:], sum[:])
	}
}

// errLost is returned when an acknowledged write is not there.
var errLost = errors.New("AN ACKNOWLEDGED WRITE IS LOST")

// verify reads every block that was written and compares. It is called when run has ended.
func (l *load) verify(ctx context.Context) (blocks int64, err error) {
	var count atomic.Int64
	errs := make(chan error, writers)
	for w := range int64(writers) {
		go func() {
			got, want := make([]byte, blockSize), make([]byte, blockSize)
			for n := w; n < l.blocks; n += writers {
				if l.versions[n] == 0 {
					continue
				}
				if err := l.disk.ReadAt(ctx, got, l.base+n*blockSize); err != nil {
					errs <- fmt.Errorf("reading block %d: %w", n, err)
					return
				}
				l.fill(want, n, l.versions[n])
				if string(got) != string(want) {
					errs <- fmt.Errorf("%w: block %d should have version %d, and has number %d, version %d", errLost, n,
						l.versions[n], binary.BigEndian.Uint64(got), binary.BigEndian.Uint64(got[8:]))
					return
				}
				count.Add(1)
			}
			errs <- nil
		}()
	}
	for range writers {
		err = errors.Join(err, <-errs)
	}
	return count.Load(), err
}

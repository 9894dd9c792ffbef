package soak

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"pmsapp/replication/initiator"
)

const (
	depth     = 16 // writes under way, and as many reads
	groupSize = 16 // blocks that belong to one writer together: what a long write covers
)

// load writes and reads until it is stopped.
type load struct {
	rec    *record
	cancel context.CancelFunc // begins nothing new
	abort  context.CancelFunc // ends what is under way
	work   sync.WaitGroup

	memory  bool         // the volume's durability
	part    atomic.Int64 // only the volume's first 1/part is written
	full    atomic.Bool  // writes may be refused for want of space
	refused atomic.Int64 // how many were

	mu     sync.Mutex
	failed error
}

// confine has only the first 1/part of the volume be written.
func (l *load) confine(part int) { l.part.Store(int64(part)) }

// mayBeRefused says whether writes that begin now may find no space.
func (l *load) mayBeRefused(yes bool) { l.full.Store(yes) }

// noSpace tells whether an error is DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT.
func noSpace(err error) bool {
	var refused *initiator.StatusError
	return errors.As(err, &refused) && refused.Sense.Key == 7 && refused.Sense.ASC == 0x27 && refused.Sense.ASCQ == 7
}

// start begins the load: depth writers on one disk, as many readers on another; where acknowledged is in memory only, somebody flushes.
func start(ctx context.Context, rec *record, writes, reads *initiator.Disk, memory bool) *load {
	// What is under way when the load is stopped goes on to its end.
	ctx, abort := context.WithCancel(ctx)
	loop, cancel := context.WithCancel(ctx)
	l := &load{rec: rec, cancel: cancel, abort: abort, memory: memory}
	l.confine(1)
	if memory {
		l.work.Go(func() { l.fail(l.flush(loop, ctx, writes)) })
	}
	for w := range depth {
		l.work.Go(func() { l.fail(l.write(loop, ctx, writes, w)) })
		l.work.Go(func() { l.fail(l.read(loop, ctx, reads, w)) })
	}
	return l
}

func (l *load) fail(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	l.failed = errors.Join(l.failed, err)
	l.mu.Unlock()
	l.cancel()
}

func (l *load) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// stop ends the load and returns what went wrong. A host tries for ever: what does not end by itself is ended, so that a
// cluster that is stuck for good is reported.
func (l *load) stop() error {
	l.cancel()
	defer l.abort()
	late := time.AfterFunc(stuck, l.abort)
	l.work.Wait()
	if !late.Stop() {
		return errors.Join(fmt.Errorf("what was under way did not end within %v", stuck), l.err())
	}
	return l.err()
}

// write is one writer. Groups of blocks are divided among the writers, so that a block has one write at a time.
func (l *load) write(loop, ctx context.Context, d *initiator.Disk, w int) error {
	random := rand.New(rand.NewPCG(l.rec.seed, uint64(w)))
	groups := len(l.rec.blocks) / groupSize / depth
	buf := make([]byte, groupSize*blockSize)
	for loop.Err() == nil {
		n, count := (w+depth*random.IntN(groups/int(l.part.Load())))*groupSize, groupSize
		if random.IntN(20) != 0 {
			n, count = n+random.IntN(groupSize), 1
		}
		var versions [groupSize]since
		for i := range count {
			versions[i] = l.rec.issue(n + i)
			l.rec.fill(buf[i*blockSize:(i+1)*blockSize], n+i, versions[i].version)
		}
		full, durable := l.full.Load(), !l.memory || random.IntN(1000) == 0 // it flushes the whole disk: so rare that a flush shows between two
		write := d.WriteAt
		if durable && l.memory {
			write = func(ctx context.Context, p []byte, off int64) error { return writeFUA(ctx, d, p, off) }
		}
		if err := write(ctx, buf[:count*blockSize], int64(n)*blockSize); full && noSpace(err) {
			l.refused.Add(1) // any part of it may have been written
			continue
		} else if err != nil {
			return fmt.Errorf("an I/O error reached the host: writing block %d: %w", n, err)
		}
		for i := range count {
			l.rec.acknowledge(n+i, versions[i], durable)
		}
		l.rec.wrote()
	}
	return nil
}

// writeFUA is a WRITE(16) with FUA (SBC-4 5.50): it is on stable media when it is answered.
func writeFUA(ctx context.Context, d *initiator.Disk, p []byte, off int64) error {
	block := int64(d.Geometry().Block)
	cdb := [16]byte{0: 0x8a, 1: 0x08}
	binary.BigEndian.PutUint64(cdb[2:], uint64(off/block))
	binary.BigEndian.PutUint32(cdb[10:], uint32(int64(len(p))/block))
	_, err := d.Command(ctx, cdb[:], p, nil)
	return err
}

// flush has everything made durable every so often.
func (l *load) flush(loop, ctx context.Context, d *initiator.Disk) error {
	random := rand.New(rand.NewPCG(l.rec.seed, 2000))
	for loop.Err() == nil {
		time.Sleep(time.Duration(random.IntN(int(600 * time.Millisecond))))
		all := l.rec.flushing()
		if err := d.Flush(ctx); err != nil {
			return fmt.Errorf("an I/O error reached the host: flushing: %w", err)
		}
		l.rec.flushed(all)
	}
	return nil
}

// read is one reader, of any blocks, several at a time.
func (l *load) read(loop, ctx context.Context, d *initiator.Disk, w int) error {
	random := rand.New(rand.NewPCG(l.rec.seed, uint64(1000+w)))
	for loop.Err() == nil {
		count := 1 + random.IntN(8)
		n := random.IntN(len(l.rec.blocks) - count + 1)
		if err := l.rec.readBlocks(ctx, d, n, count); err != nil {
			return err
		}
		time.Sleep(time.Duration(random.IntN(int(2 * time.Millisecond)))) // the load is the writers'
	}
	return nil
}

// reader is what can be read from.
type reader interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
}

// readBlocks reads and checks.
func (r *record) readBlocks(ctx context.Context, d reader, n, count int) error {
	buf, scratch, floors := make([]byte, count*blockSize), make([]byte, blockSize), make([]since, count)
	for i := range count {
		floors[i] = r.before(n + i)
	}
	if err := d.ReadAt(ctx, buf, int64(n)*blockSize); err != nil {
		return fmt.Errorf("an I/O error reached the host: reading block %d: %w", n, err)
	}
	for i := range count {
		if err := r.check(n+i, buf[i*blockSize:(i+1)*blockSize], floors[i], scratch); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads and checks everything.
func (r *record) readAll(ctx context.Context, d reader) error {
	for n := 0; n < len(r.blocks); n += 64 {
		if err := r.readBlocks(ctx, d, n, min(64, len(r.blocks)-n)); err != nil {
			return err
		}
	}
	return nil
}

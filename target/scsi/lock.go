package scsi

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/gostor/gotgt/pkg/api"

	"pmsapp/internal/block"
	"pmsapp/internal/outcome"
)

// lock is a COMPARE AND WRITE under way at a unit whose outcomes are remembered. docs/adr/lock-outcomes.md argues why this is
// right:
//
//  1. it waits for earlier ones that it overlaps;
//  2. it reads, and compares; what does not match is a miscompare, or was written by the same command, of which its host has not heard: under an
//     earlier epoch, or under this one;
//  3. what matches is recorded, in place of whatever was recorded of the same bytes;
//  4. an update compares again and writes. If another kind of write came between, the record is taken back before the
//     miscompare is answered.
//
// Like a copy it submits a write after Execute has returned, and so has a Stop.
type lock struct {
	c   *io
	l   *locks
	dev block.Device
	out outcome.Outcome
	req block.Request
	buf []byte
	*hearer

	mu      sync.Mutex // guards stopped, and the order of Stop and the submission of the update
	stopped bool
}

func (c *io) lock(l *locks, port string) {
	t, half := c.task, int64(c.n<<c.st.shift)
	off := int64(c.lba << c.st.shift)
	k := &lock{c: c, l: l, dev: c.st.dev, out: outcome.Of(port, off, t.DataOut[:half], t.DataOut[half:]), buf: block.Get(int(half)),
		hearer: &hearer{flight: c.unit.flight, arbiter: c.unit.lu.arbiter}}
	t.Stop = k.stop
	l.enter(k)
}

// stop is Task.Stop: when it returns the update was submitted, and keeps its range, or never will be.
func (k *lock) stop() {
	k.mu.Lock()
	k.stopped = true
	k.mu.Unlock()
	k.unheard.Store(true)
}

// hearer is who is to be told what became of a COMPARE AND WRITE.
type hearer struct {
	flight  *flight
	arbiter *arbiter
	unheard atomic.Bool // it was told something else, or is told nothing
}

// lost tells whether he has not heard, or may not have, and will not.
func (h *hearer) lost() bool { return h.unheard.Load() || h.arbiter.left(h.flight) }

// request makes the next request.
func (k *lock) request(op block.Op, done func()) {
	k.req = block.Request{Op: op, Off: k.out.Off, Len: k.out.Len, Data: k.buf, FUA: true, Done: func(*block.Request) { done() }}
}

func (k *lock) compare() []byte { return k.c.task.DataOut[:k.out.Len] }
func (k *lock) write() []byte   { return k.c.task.DataOut[k.out.Len:] }

func (k *lock) read() {
	k.request(block.Read, func() {
		if k.req.Err != nil {
			k.end(k.req.Err)
			return
		}
		at := differs(k.buf, k.compare())
		switch {
		case at < 0:
			k.l.record(k)
		case differs(k.buf, k.write()) < 0 && k.l.recall(k):
			k.good()
		default:
			k.c.differ = uint32(at)
			k.end(errMiscompare)
		}
	})
	k.dev.Submit(&k.req)
}

// recorded goes on when the record is committed. If that will never be known nothing may be answered.
func (k *lock) recorded(err error) {
	if err != nil {
		k.end(block.ErrEnded)
		return
	}
	k.request(block.Update, func() {
		switch err := k.req.Err; {
		case err == nil:
			k.good()
		case errors.Is(err, errMiscompare):
			k.l.forget(k.out, func(err error) {
				if err != nil {
					k.end(block.ErrEnded)
					return
				}
				k.end(errMiscompare)
			})
		default:
			k.end(err)
		}
	})
	k.req.Modify = k.modify
	k.mu.Lock()
	if !k.stopped {
		defer k.mu.Unlock() // what ends it needs no lock of this one
		k.dev.Submit(&k.req)
		return
	}
	k.mu.Unlock()
	k.l.forget(k.out, nil) // it was recorded, and will not be done
	k.end(errStopped)
}

func (k *lock) modify(r *block.Request) error {
	if at := differs(r.Data, k.compare()); at >= 0 {
		k.c.differ = uint32(at)
		return errMiscompare
	}
	copy(r.Data, k.write())
	return nil
}

// good answers GOOD. When the host has the answer, the record has done its work.
func (k *lock) good() {
	l, out := k.l, k.out
	k.c.task.Delivered = func() { l.forget(out, nil) }
	k.end(nil)
}

func (k *lock) end(err error) {
	t := k.c.task
	block.Put(k.buf)
	k.buf = nil
	switch {
	case err == nil:
		t.Status = api.SAM_STAT_GOOD
	case errors.Is(err, errMiscompare):
		t.Status = api.SAM_STAT_CHECK_CONDITION
		t.Sense = miscompare().fixed(t.SenseBuf[:], k.c.differ, true)
	default:
		k.unheard.Store(true) // BUSY does not say that it was not written
		t.Moved = 0
		fail(t, err, true)
	}
	l := k.l
	t.Done(t)
	l.leave(k)
}

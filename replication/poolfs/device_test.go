package poolfs

import (
	"errors"
	"sync"
	"syscall"

	"pmsapp/internal/sim"
)

var errGone = errors.New("the machine is gone")

// simDevice is a device that forgets, at a crash, any sectors that were not flushed, and whose discards leave rubbish.
type simDevice struct {
	mu    sync.Mutex
	f     *sim.File
	rnd   *sim.Rand
	grain int
	steps int
	stop  int // the step before which the machine dies; 0: never
	// fails makes a step fail: "flush", "write", "zero".
	fails func(what string) bool
	// skip plants a bug: the step does nothing, and succeeds.
	skip func(what string) bool
	// hold is called without mu before a read, and may wait.
	hold func()
}

func newSimDevice(seed uint64, size int64) *simDevice {
	return &simDevice{f: sim.NewFile(size), rnd: sim.NewRand(seed), grain: 512}
}

func (d *simDevice) step(what string) (skip bool, err error) {
	if d.stop != 0 && d.steps >= d.stop-1 {
		d.steps = d.stop
		return false, errGone
	}
	d.steps++
	if d.fails != nil && d.fails(what) {
		return false, syscall.EIO
	}
	return d.skip != nil && d.skip(what), nil
}

func (d *simDevice) in(off, n int64, cached bool) error {
	if off < 0 || off+n > d.f.Size() || !cached && (off%int64(d.grain) != 0 || n%int64(d.grain) != 0) {
		return syscall.EINVAL
	}
	if d.stop != 0 && d.steps >= d.stop {
		return errGone
	}
	return nil
}

func (d *simDevice) ReadAt(b []byte, off int64, cached bool) error {
	if d.hold != nil {
		d.hold()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.in(off, int64(len(b)), cached); err != nil {
		return err
	}
	copy(b, d.f.Read(off, int64(len(b))))
	return nil
}

func (d *simDevice) change(what string, off, n int64, cached bool, fn func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.in(off, n, cached); err != nil {
		return err
	}
	if skip, err := d.step(what); err != nil || skip {
		return err
	}
	fn()
	return nil
}

func (d *simDevice) WriteAt(b []byte, off int64, cached bool) error {
	return d.change("write", off, int64(len(b)), cached, func() { d.f.Write(off, b) })
}

func (d *simDevice) Zero(off, n int64) error {
	return d.change("zero", off, n, false, func() { d.f.Zero(off, n) })
}

func (d *simDevice) Discard(off, n int64) error {
	return d.change("discard", off, n, false, func() {
		b := make([]byte, n)
		for i := range b {
			b[i] = 0xdd
		}
		d.f.Write(off, b)
	})
}

func (d *simDevice) Drop(off, n int64) error { return nil }

func (d *simDevice) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	skip, err := d.step("flush")
	if skip || errors.Is(err, errGone) {
		return err
	}
	fl := d.f.Flush()
	if err != nil {
		fl.Failed(d.rnd)
		d.f.Reload(0, d.f.Size())
		return err
	}
	fl.Done()
	return nil
}

func (d *simDevice) Size() int64 { return d.f.Size() }
func (d *simDevice) Grain() int  { return d.grain }

// crash is the power failing, or only the process dying.
func (d *simDevice) crash(power bool) {
	if power {
		// Blocks as a whole more often than chance would have it: or the log's would hardly ever be whole without the rest.
		whole := []float64{0, 0.5, 0.9}[d.rnd.Intn(3)]
		for off := int64(0); off < d.f.Size() && whole > 0; off += blockSize {
			if d.rnd.Chance(whole) {
				d.f.FlushRange(off, blockSize).Done()
			}
		}
		d.f.Crash(d.rnd, nil)
	}
	d.steps, d.stop = 0, 0
}

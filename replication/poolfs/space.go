package poolfs

import (
	"fmt"
	"math/bits"
	"slices"
	"syscall"
)

// bitmap is a set of units.
type bitmap struct {
	words []uint64
	count uint32
}

func newBitmap(n uint32) bitmap { return bitmap{words: make([]uint64, (int64(n)+63)/64)} }

func (b *bitmap) has(i uint32) bool { return b.words[i/64]&(1<<(i%64)) != 0 }

func (b *bitmap) set(i uint32) {
	if !b.has(i) {
		b.words[i/64] |= 1 << (i % 64)
		b.count++
	}
}

func (b *bitmap) clear(i uint32) {
	if b.has(i) {
		b.words[i/64] &^= 1 << (i % 64)
		b.count--
	}
}

// next returns the first member from i on.
func (b *bitmap) next(i uint32) (uint32, bool) {
	for w := int(i / 64); w < len(b.words); w++ {
		x := b.words[w]
		if w == int(i/64) {
			x &= ^uint64(0) << (i % 64)
		}
		if x != 0 {
			return uint32(w*64 + bits.TrailingZeros64(x)), true
		}
	}
	return 0, false
}

// takeNext takes up to n members out, the nearest from *cursor on, and round.
func (b *bitmap) takeNext(cursor *uint32, n int) (out []uint32) {
	for len(out) < n && b.count > 0 {
		u, ok := b.next(*cursor)
		if !ok {
			*cursor = 0
			continue
		}
		b.clear(u)
		out = append(out, u)
		if *cursor = u + 1; int64(*cursor) >= int64(len(b.words))*64 {
			*cursor = 0
		}
	}
	return out
}

// eachRun calls fn with the ranges of neighbours in a list, in the list's order.
func eachRun(list []uint32, fn func(first, count uint32) error) error {
	for i := 0; i < len(list); {
		k := i + 1
		for k < len(list) && list[k] == list[k-1]+1 {
			k++
		}
		if err := fn(list[i], uint32(k-i)); err != nil {
			return err
		}
		i = k
	}
	return nil
}

const (
	lowStock = 16 // units: fewer are added to beside the writers
	refill   = 32 // units at a time, then
	urgent   = 4  // units at a time, for a writer who waits
)

// space is whose the units are that no file has.
//
// Nothing is remembered on the device: a unit that no file has may hold anything, and reads as zeros, durably, before a file gets
// it. It is zeroed only when the log no longer gives it to a file, and nobody who found it there is still reading or writing.
type space struct {
	freed   []uint32 // the file has given it up, and the log is not yet written
	running []uint32 // it is being written
	limbo   []limbo  // somebody may still be reading or writing
	free    bitmap
	busy    bool // somebody takes units from limbo to free, and to stock
	stock   []uint32
	cursor  uint32 // where to look in free

	io     uint64              // I/Os that have begun
	active map[uint64]struct{} // those that have not ended
}

type limbo struct {
	units []uint32
	io    uint64 // the newest I/O that may have found them
}

func newSpace(st *state) space {
	s := space{free: newBitmap(st.l.Units), active: map[uint64]struct{}{}}
	for i := range st.l.Units {
		if !st.used.has(i) {
			s.free.set(i)
		}
	}
	return s
}

func (s *space) begin() uint64 {
	s.io++
	s.active[s.io] = struct{}{}
	return s.io
}

// forget takes units that the log no longer gives to a file.
func (s *space) forget(units []uint32) {
	if len(units) > 0 {
		s.limbo = append(s.limbo, limbo{units, s.io})
	}
}

// settled takes the units out of limbo that nobody touches any more.
func (s *space) settled() (units []uint32) {
	oldest := s.io + 1
	for io := range s.active {
		oldest = min(oldest, io)
	}
	n := 0
	for n < len(s.limbo) && s.limbo[n].io < oldest {
		units = append(units, s.limbo[n].units...)
		n++
	}
	s.limbo = append([]limbo(nil), s.limbo[n:]...)
	return units
}

// take returns a unit that reads as zeros. Called with mu, which it may give up meanwhile.
func (fs *FS) take() (uint32, error) {
	s := &fs.space
	for {
		switch {
		case fs.closed:
			return 0, ErrClosed
		case len(s.stock) > 0:
			u := s.stock[0]
			s.stock = s.stock[1:]
			fs.maintain()
			return u, nil
		case s.busy:
			fs.gained.Wait()
		case s.free.count == 0 && len(s.freed)+len(s.running)+len(s.limbo) == 0:
			return 0, syscall.ENOSPC
		default:
			if gained, err := fs.prepare(urgent); err != nil {
				return 0, fmt.Errorf("%w: %w", ErrNotReady, err)
			} else if !gained && len(s.stock) == 0 && len(s.limbo) > 0 {
				fs.gained.Wait() // for an I/O to end
			}
		}
	}
}

// prepare gives back what was given up, and puts up to n units in stock. Called with mu and without busy; it gives mu up meanwhile.
func (fs *FS) prepare(n int) (gained bool, err error) {
	s := &fs.space
	s.busy = true
	defer func() {
		s.busy = false
		fs.gained.Broadcast()
	}()
	if len(s.freed)+len(s.running) > 0 {
		if err := fs.syncLocked(); err != nil {
			return false, err
		}
	}
	back := s.settled()
	if len(back) > 0 {
		slices.Sort(back)
		fs.mu.Unlock()
		// A device that cannot, or fails, has only kept the space.
		_ = eachRun(back, func(first, count uint32) error {
			return fs.dev.Discard(fs.l.unit(first), int64(count)*fs.l.Unit)
		})
		fs.mu.Lock()
		for _, u := range back {
			s.free.set(u)
		}
	}
	if len(s.stock) >= lowStock {
		return len(back) > 0, nil
	}
	units := s.free.takeNext(&s.cursor, n)
	if len(units) == 0 {
		return len(back) > 0, nil
	}
	fs.mu.Unlock()
	err = eachRun(units, func(first, count uint32) error {
		return fs.dev.Zero(fs.l.unit(first), int64(count)*fs.l.Unit)
	})
	fs.mu.Lock()
	if err == nil {
		err = fs.syncLocked()
	}
	if err != nil {
		for _, u := range units {
			s.free.set(u)
		}
		return false, err
	}
	s.stock = append(s.stock, units...)
	return true, nil
}

// maintain gives back what was given up and fills the stock, beside the callers. Called with mu.
func (fs *FS) maintain() {
	if fs.opt.Inline || fs.closed || fs.space.busy || !fs.space.wanting() {
		return
	}
	fs.space.busy = true
	fs.work.Go(func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		for more := true; more && !fs.closed && fs.space.wanting(); {
			var err error
			if more, err = fs.prepare(refill); err != nil {
				break // whoever needs a unit hears of it
			}
		}
		fs.space.busy = false
		fs.gained.Broadcast()
	})
}

// wanting tells whether there is something to do.
func (s *space) wanting() bool {
	return len(s.stock) < lowStock && s.free.count > 0 || len(s.freed) > 0 || len(s.limbo) > 0
}

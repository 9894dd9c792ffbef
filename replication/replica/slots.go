package replica

import (
	"errors"
	"fmt"
)

// slots is a small record that is written in place, in turn to two blocks of a file, so that a write that is torn leaves the
// state before it, and needs no space. decode checks a block and returns its counter.
//
// One damaged block is taken for a torn write: nobody was told that it had been recorded. Should it be the newer one, and
// damaged later, then the record falls back by one write; for epochs that is a reverted pool, which a fence sees.
type slots struct {
	f     file
	count uint64
}

func (s *slots) load(decode func([]byte) (uint64, error)) error {
	if n, err := s.f.size(); err != nil {
		return err
	} else if n < 2*blockSize {
		return errShort(n)
	}
	// A process may have died between a write and its flush: what is read must be what a crash leaves.
	if err := s.f.flush(); err != nil {
		return err
	}
	var best []byte
	var last error
	damaged := 0
	for i := range int64(2) {
		b := make([]byte, blockSize)
		if err := s.f.readAt(b, i*blockSize); err != nil {
			return err
		}
		if allZero(b) {
			continue
		}
		count, err := decode(b)
		switch {
		case errors.Is(err, ErrVersion):
			return err
		case err != nil || count%2 != uint64(i):
			damaged++
			last = err
			if err == nil {
				last = fmt.Errorf("%w: write %d is in block %d", ErrDamaged, count, i)
			}
		case count > s.count:
			s.count, best = count, b
		}
	}
	if damaged == 2 || damaged == 1 && best == nil && s.secondSlot() {
		return last
	}
	if best != nil {
		_, err := decode(best)
		return err
	}
	return nil
}

// secondSlot tells whether the second write of all has been made: then a damaged block beside an empty one is no torn
// first write.
func (s *slots) secondSlot() bool {
	b := make([]byte, blockSize)
	return s.f.readAt(b, 0) != nil || !allZero(b)
}

// write makes a block the record; it holds count+1. After an error nothing is known, and it is not called again.
func (s *slots) write(b []byte) error {
	if err := s.f.writeAt(b, int64((s.count+1)%2)*blockSize); err != nil {
		return err
	}
	if err := s.f.flush(); err != nil {
		return err
	}
	s.count++
	return nil
}

package sim

import (
	"math/rand/v2"
	"time"
)

// Rand is the random source of a World.
type Rand struct{ r *rand.Rand }

// NewRand returns the source of a seed.
func NewRand(seed uint64) *Rand {
	return &Rand{rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))}
}

// Intn returns a number from [0, n); 0 if n is not positive.
func (r *Rand) Intn(n int) int {
	if n <= 0 {
		return 0
	}
	return r.r.IntN(n)
}

// Uint64 returns any number.
func (r *Rand) Uint64() uint64 { return r.r.Uint64() }

// Chance is true with probability p. It draws a number even where p is 0, so that switching a fault off changes little.
func (r *Rand) Chance(p float64) bool { return r.r.Float64() < p }

// Between returns a duration from [lo, hi].
func (r *Rand) Between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(r.r.Int64N(int64(hi-lo)+1))
}

// Long returns lo mostly, but with probability p something up to hi: a delay with a long tail.
func (r *Rand) Long(lo, hi time.Duration, p float64) time.Duration {
	if r.Chance(p) {
		return r.Between(lo, hi)
	}
	return r.Between(lo/2, lo)
}

// Weighted returns an index into ws with probability proportional to its weight; -1 if all are 0.
func (r *Rand) Weighted(ws []int) int {
	sum := 0
	for _, w := range ws {
		sum += w
	}
	if sum <= 0 {
		return -1
	}
	n := r.Intn(sum)
	for i, w := range ws {
		if n -= w; n < 0 {
			return i
		}
	}
	return -1
}

// ID returns 16 random bytes, never all zero.
func (r *Rand) ID() (id [16]byte) {
	for i := range id {
		id[i] = byte(r.r.Uint32())
	}
	id[0] |= 1
	return id
}

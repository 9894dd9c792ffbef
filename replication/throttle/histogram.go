package throttle

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts times in buckets of an eighth of a power of two of microseconds: a percentile is at most 12.5 % too high. It is for many
// at once, and without a lock: counts that come while it is read are in this window or the next.
type histogram struct {
	n [40 * 8]atomic.Int64
}

func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < 16 {
		return int(us)
	}
	e := bits.Len64(us) - 4 // us>>e is 8 to 15
	return min(e*8+int(us>>e), 40*8-1)
}

// topOf is the longest time of a bucket.
func topOf(i int) time.Duration {
	if i < 16 {
		return time.Duration(i+1) * time.Microsecond
	}
	e := i/8 - 1
	return time.Duration((i%8+8+1)<<e) * time.Microsecond
}

func (h *histogram) add(d time.Duration) { h.n[bucketOf(d)].Add(1) }

// drain empties it, and answers how many there were and the 99th percentile.
func (h *histogram) drain() (count int64, p99 time.Duration) {
	var n [len(h.n)]int64
	for i := range h.n {
		if h.n[i].Load() != 0 {
			n[i] = h.n[i].Swap(0)
			count += n[i]
		}
	}
	left := count / 100 // these may be slower
	for i := len(n) - 1; i >= 0; i-- {
		if left -= n[i]; left < 0 {
			return count, topOf(i)
		}
	}
	return count, 0
}

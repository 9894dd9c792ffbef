package demo

import (
	"sync"
	"sync/atomic"
	"time"
)

// meter counts what is acknowledged, and measures how long nothing is.
type meter struct {
	acked atomic.Int64
	last  atomic.Int64 // nanoseconds after begun: the newest acknowledgement
	begun time.Time

	mu   sync.Mutex
	gaps []gap // the long ones
}

// gap is a time in which nothing was acknowledged.
type gap struct {
	from time.Time
	long time.Duration
}

// longGap is what is remembered as a gap.
const longGap = 100 * time.Millisecond

func (m *meter) acknowledged() {
	now := int64(time.Since(m.begun))
	before := m.last.Swap(now)
	m.acked.Add(1)
	if d := time.Duration(now - before); d >= longGap && before > 0 {
		m.mu.Lock()
		m.gaps = append(m.gaps, gap{m.begun.Add(time.Duration(before)), d})
		m.mu.Unlock()
	}
}

// standstill is the longest time without an acknowledgement that touches the time after t.
func (m *meter) standstill(t time.Time) (longest time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.gaps {
		if g.from.Add(g.long).After(t) {
			longest = max(longest, g.long)
		}
	}
	return longest
}

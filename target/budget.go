package target

import (
	"sync"
	"sync/atomic"
)

// budget bounds the memory that the data of all commands takes. Half of it is for commands of at most FirstBurst bytes,
// half for longer ones, of which a session never has more than a quarter of that half, or one command.
//
// A command that cannot have its memory waits; its session is kicked when some has come back. A write whose data comes
// unasked cannot wait: it is answered TASK SET FULL, and its data is thrown away. So no memory is set aside for commands
// that may never come, nothing waits for itself, and a thousand idle sessions cost nothing here.
type budget struct {
	small atomic.Int64 // bytes left

	mu      sync.Mutex
	large   int64 // bytes left
	perSess int64
	waiting []*session // those that were told no; each is there once (session.waits)
	any     atomic.Bool
}

func newBudget(l Limits) *budget {
	half := l.Memory / 2
	b := &budget{large: half, perSess: max(half/4, l.MaxData)}
	b.small.Store(half)
	return b
}

// takeSmall takes n bytes of the first half.
func (b *budget) takeSmall(s *session, n int64) bool {
	if left := b.small.Add(-n); left >= 0 || s.trusted {
		return true
	}
	b.small.Add(n)
	return false
}

// await makes s be kicked when memory comes back. Whoever was told no must ask again after it: some may have come back
// in between.
func (b *budget) await(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !s.waits {
		s.waits = true
		b.waiting = append(b.waiting, s)
		b.any.Store(true)
	}
}

// takeLarge takes n bytes of the second half for s, which has got have of it already.
func (b *budget) takeLarge(s *session, have, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n <= b.large && (have == 0 || have+n <= b.perSess) || s.trusted {
		b.large -= n
		return true
	}
	return false
}

// give returns memory. The sessions that wait are kicked; each asks again for its oldest command.
func (b *budget) give(small, large int64) {
	if small > 0 {
		b.small.Add(small)
	}
	if large == 0 && !b.any.Load() {
		return
	}
	b.mu.Lock()
	b.large += large
	waiting := b.waiting
	b.waiting = nil
	b.any.Store(false)
	for _, s := range waiting {
		s.waits = false
	}
	b.mu.Unlock()
	for _, s := range waiting {
		s.kick()
	}
}

// forget removes a session that has ended.
func (b *budget) forget(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, w := range b.waiting {
		if w == s {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			s.waits = false
			return
		}
	}
}

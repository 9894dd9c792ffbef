package target

import "sync"

// budget bounds the memory that the data of all sessions takes. One half is given to sessions for good when they log in:
// FirstBurst bytes for each command of their window. What a command takes beyond FirstBurst comes from the other half, in
// the order of asking within a session; a session never has more than a quarter of that half, or one command.
type budget struct {
	mu      sync.Mutex
	slots   int64 // of the first half, not given away
	large   int64 // of the second half, not given away
	perSess int64
	waiting []*session // those that were told no; each is there once (session.waits)
}

func newBudget(l Limits) *budget {
	half := l.Memory / 2
	return &budget{slots: half, large: half, perSess: max(half/4, l.MaxData)}
}

// window gives a new session its commands: as many as wanted, but at most a quarter of what is left, so that early
// sessions leave something for later ones. It returns 0 if not even min are left.
func (b *budget) window(want, min int, each int64) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := int64(want)
	if n*each > b.slots/4 {
		n = b.slots / 4 / each
	}
	if n < int64(min) {
		n = int64(min)
	}
	if n*each > b.slots {
		return 0
	}
	b.slots -= n * each
	return int(n)
}

func (b *budget) giveWindow(n int, each int64) {
	b.mu.Lock()
	b.slots += int64(n) * each
	b.mu.Unlock()
}

// take asks for n bytes for s, which has got have already. If there are none s is kicked when some come back.
func (b *budget) take(s *session, have, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n <= b.large && (have == 0 || have+n <= b.perSess) {
		b.large -= n
		return true
	}
	if !s.waits {
		s.waits = true
		b.waiting = append(b.waiting, s)
	}
	return false
}

// give returns n bytes. The sessions that wait are kicked; each asks again for its oldest command.
func (b *budget) give(n int64) {
	b.mu.Lock()
	b.large += n
	waiting := b.waiting
	b.waiting = nil
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

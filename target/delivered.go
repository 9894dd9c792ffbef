package target

import "sync/atomic"

// maxUnacked bounds the answers of a session whose receipt is waited for; of the oldest nobody learns any more.
const maxUnacked = 256

// unacked are the answers that were sent and not yet acknowledged by ExpStatSN (RFC 7143 4.2.2.2), as far as somebody wants to
// know: the oldest first. list is guarded by session.mu.
type unacked struct {
	any  atomic.Bool
	list []receipt
}

type receipt struct {
	statSN    uint32
	delivered func()
}

// sent notes an answer. Called before it leaves.
func (s *session) sent(statSN uint32, delivered func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &s.unacked
	if len(u.list) == maxUnacked {
		u.list = u.list[1:]
	}
	u.list = append(u.list, receipt{statSN, delivered})
	u.any.Store(true)
}

// acknowledge takes the ExpStatSN of a PDU: the initiator has every answer below it.
func (s *session) acknowledge(exp uint32) {
	if !s.unacked.any.Load() {
		return
	}
	s.mu.Lock()
	u, n := &s.unacked, 0
	for n < len(u.list) && int32(exp-u.list[n].statSN) > 0 {
		n++
	}
	done := u.list[:n:n]
	u.list = u.list[n:]
	u.any.Store(len(u.list) > 0)
	s.mu.Unlock()
	for _, r := range done {
		r.delivered()
	}
}

package sim

import (
	"maps"
	"slices"
	"time"

	"pmsapp/internal/ids"
	simworld "pmsapp/internal/sim"
	"pmsapp/replication/peer"
)

// session is the leader's end of a session with a node, as replication/remote makes it over iSCSI: calls are answered in
// any order, a dead session answers them with ErrLost, and probes find out that it is dead.
type session struct {
	n      *node
	node   ids.Node
	epoch  peer.Epoch
	end    *simworld.End
	fenced *peer.Fenced
	opened func(peer.Fenced, error)
	lost   func(error)

	out             map[uint64]*peer.Call
	since           map[uint64]time.Duration // by tag
	polls           map[uint64]func(peer.Fenced, error)
	tag             uint64
	heard           time.Duration
	asked, fencedAt time.Duration // when the fence was asked for, and that again once it was answered; by the world's clock
	probe           *simworld.Timer
	dead            bool
}

// What the ends of a session between nodes say to each other.
type (
	msgFence struct {
		node  ids.Node
		epoch peer.Epoch
	}
	msgFenced  struct{ fenced peer.Fenced }
	msgRefused struct{ err *peer.EpochError }
	msgCommand struct {
		tag uint64
		c   peer.Command
	}
	msgAnswer struct {
		tag  uint64
		a    peer.Answer
		data []byte
	}
	msgPoll   struct{ tag uint64 }
	msgPolled struct {
		tag    uint64
		fenced peer.Fenced
		err    error
	}
	msgNoop     struct{}
	msgNoopBack struct{}
)

const (
	openTimeout     = 2 * time.Second
	recoveryTimeout = 3 * time.Second
)

// openSession logs in to a node; opened is called once, later.
func (n *node) openSession(to ids.Node, e peer.Epoch, opened func(peer.Fenced, error)) *session {
	s := &session{n: n, node: to, epoch: e, opened: opened, heard: n.proc.Now()}
	s.since = map[uint64]time.Duration{}
	s.out, s.polls = map[uint64]*peer.Call{}, map[uint64]func(peer.Fenced, error){}
	host, ok := n.hostOf(to)
	if !ok {
		n.proc.After(time.Millisecond, func() { s.die(peer.ErrLost) })
		return s
	}
	peerNode := n.c.nodes[host]
	if !peerNode.listening() || !n.c.net.Open(n.host, host) || !n.c.net.Open(host, n.host) {
		wait := openTimeout
		if n.c.net.Open(n.host, host) && n.c.net.Open(host, n.host) {
			wait = time.Millisecond // the connection is refused
		}
		n.proc.After(wait, func() { s.die(peer.ErrLost) })
		return s
	}
	n.proc.After(n.c.net.Delay()+n.c.net.Delay(), func() {
		if s.dead || !peerNode.listening() {
			s.die(peer.ErrLost)
			return
		}
		mine, theirs := n.c.net.Connect(n.host, n.proc, host, peerNode.proc)
		peerNode.store.accept(theirs)
		s.end = mine
		mine.Recv = s.recv
		mine.Closed = func() { s.die(peer.ErrLost) }
		s.asked = n.c.w.Now()
		mine.Send(msgFence{to, e})
	})
	n.proc.After(openTimeout, func() {
		if s.fenced == nil {
			s.die(peer.ErrLost)
		}
	})
	return s
}

func (s *session) recv(m any) {
	s.heard = s.n.proc.Now()
	switch m := m.(type) {
	case msgFenced:
		s.fenced, s.fencedAt = &m.fenced, s.asked
		s.watch()
		s.opened(s.n.breakFenced(m.fenced), nil)
	case msgRefused:
		if s.n.c.breaks(BreakEpoch) {
			m.err = &peer.EpochError{Accepted: max(2*m.err.Accepted, 1) - 1}
		}
		s.die(m.err)
	case msgAnswer:
		c := s.out[m.tag]
		if c == nil {
			return
		}
		delete(s.out, m.tag)
		delete(s.since, m.tag)
		if s.spoiled(&m.data) {
			s.out[m.tag] = c
			s.die(peer.ErrLost)
			return
		}
		c.Answer = m.a
		if c.Kind == peer.Read && m.a.Err == nil {
			copy(c.Data, m.data)
		}
		c.Done(c)
	case msgPolled:
		if done := s.polls[m.tag]; done != nil {
			delete(s.polls, m.tag)
			done(s.n.breakFenced(m.fenced), m.err)
		}
	}
}

// watch probes an idle session and ends one that is silent (noop_timeout, recovery_timeout).
func (s *session) watch() {
	if s.dead {
		return
	}
	now := s.n.proc.Now()
	silent, oldest := now-s.heard, now
	for _, at := range s.since {
		oldest = min(oldest, at)
	}
	if silent >= recoveryTimeout || now-oldest >= recoveryTimeout {
		s.die(peer.ErrLost)
		return
	}
	if silent >= time.Second || len(s.out) > 0 {
		s.end.Send(msgNoop{})
	}
	s.probe = s.n.proc.After(time.Second, s.watch)
}

// submit begins a call; Done is called later, never from here.
func (s *session) submit(c *peer.Call) {
	if s.dead {
		s.n.proc.After(0, func() {
			c.Answer = peer.Answer{Err: peer.ErrLost}
			c.Done(c)
		})
		return
	}
	s.tag++
	s.out[s.tag], s.since[s.tag] = c, s.n.proc.Now()
	cmd := c.Command
	if c.Kind == peer.Write && !s.lends(c) {
		cmd.Data = slices.Clone(c.Data)
	} else if c.Kind != peer.Write {
		cmd.Data = nil
	}
	cmd.Regions = slices.Clone(c.Regions)
	s.end.Send(msgCommand{s.tag, cmd})
}

// lends tells whether the own node's disk reads the data of a write where they are, at any time until it has answered, also if
// the session is dead by then. To other nodes they are sent.
func (s *session) lends(c *peer.Call) bool {
	return c.Kind == peer.Write && c.MayRetain && s.node == s.n.id()
}

func (s *session) poll(done func(peer.Fenced, error)) {
	if s.dead {
		s.n.proc.After(0, func() { done(peer.Fenced{}, peer.ErrLost) })
		return
	}
	s.tag++
	s.polls[s.tag] = done
	s.end.Send(msgPoll{s.tag})
}

// spoiled tells whether the wire has spoiled data on its way. Digests see it (16).
func (s *session) spoiled(data *[]byte) bool {
	c := s.n.c
	if len(*data) == 0 || !c.w.Rand.Chance(c.faults.spoil) {
		return false
	}
	c.stats["spoiled on the wire"]++
	if !c.breaks(BreakDigest) {
		return true
	}
	*data = slices.Clone(*data)
	(*data)[c.w.Rand.Intn(len(*data))] ^= 1
	return false
}

// die ends the session here, and everything that waits for it. The node may learn of it much later.
func (s *session) die(err error) {
	if s.dead {
		return
	}
	s.dead = true
	s.probe.Stop()
	if s.end != nil {
		if s.n.c.w.Rand.Chance(0.5) {
			s.end.Close()
		} else {
			s.end.Reset()
		}
	}
	s.n.proc.After(0, func() {
		if s.fenced == nil {
			s.opened(peer.Fenced{}, err)
		} else if s.lost != nil {
			s.lost(err)
		}
		for _, tag := range slices.Sorted(maps.Keys(s.polls)) {
			s.polls[tag](peer.Fenced{}, peer.ErrLost)
		}
	})
	for _, tag := range slices.Sorted(maps.Keys(s.out)) {
		c := s.out[tag]
		s.n.proc.After(s.n.c.w.Rand.Between(0, time.Millisecond), func() {
			c.Answer = peer.Answer{Err: peer.ErrLost, Retained: s.lends(c)}
			c.Done(c)
		})
	}
	clear(s.out)
	clear(s.since)
}

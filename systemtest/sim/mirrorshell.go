package sim

import (
	"errors"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	simworld "pmsapp/internal/sim"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// mirrorShell carries out what a mirror.Core says.
type mirrorShell struct {
	n      *node
	r      *reignShell
	core   *mirror.Core
	vol    int
	id     ids.Volume
	epoch  peer.Epoch
	timer  *simworld.Timer
	buf    []mirror.Effect
	busy   bool
	closed bool
	ended  bool

	since    map[*block.Request]time.Duration // requests that are not over
	drained  func(error)
	resynced map[ids.Node]func(error)

	wished   time.Duration // when the last member was to leave, or it was not known whether it has left, by the world's clock
	retiring bool          // the core is being told so

	// For what is broken on purpose: writes that the mirror believes done, and answers that wait for them.
	ghosts int
	held   []func()
}

func (m *mirrorShell) submit(r *block.Request) {
	m.since[r] = m.n.proc.Now()
	if m.breakUpdate(r) {
		return
	}
	m.do(func() { m.core.Submit(r) })
}

func (m *mirrorShell) complete(r *block.Request) {
	if !m.breakLost(r) {
		m.completed(r)
	}
}

func (m *mirrorShell) completed(r *block.Request) {
	delete(m.since, r)
	r.Done(r)
}

// retire has a member leave, if the others say that they are there.
func (m *mirrorShell) retire(node ids.Node, set []ids.Node) {
	m.do(func() {
		m.wished, m.retiring = m.n.c.w.Now(), true
		m.core.Retire(node, set)
	})
}

// do calls the core, carries out its effects, and sets the timer. Calls from within effects are queued by the event loop.
func (m *mirrorShell) do(fn func()) {
	if m.busy {
		m.n.proc.After(0, func() { m.do(fn) })
		return
	}
	m.busy = true
	m.core.Tick(m.n.proc.Now())
	fn()
	for {
		m.buf = m.core.Effects(m.buf[:0])
		if len(m.buf) == 0 {
			break
		}
		for _, e := range m.buf {
			m.effect(e)
		}
	}
	m.busy, m.retiring = false, false
	m.timer.Stop()
	if at, ok := m.core.Next(); ok {
		// Time goes on before a timer fires: a Tick at the same moment says nothing new.
		m.timer = m.n.proc.After(max(at-m.n.proc.Now(), 10*time.Microsecond), func() { m.do(func() {}) })
	}
}

func (m *mirrorShell) effect(e mirror.Effect) {
	switch e.Kind {
	case mirror.Send:
		m.send(e.Node, e.Call)
	case mirror.Complete:
		if m.ghosts > 0 && m.n.c.breaks(BreakOrder) {
			m.held = append(m.held, func() { m.complete(e.Request) })
		} else {
			m.complete(e.Request)
		}
	case mirror.Propose:
		m.checkRetired(e.Proposal)
		m.n.propose(e.Proposal, func(out truth.Outcome, err error) {
			if retires(e.Proposal) && errors.Is(err, truth.ErrUnknown) {
				m.wished = m.n.c.w.Now()
			}
			m.do(func() { m.core.Decided(e.ID, out, err) })
		})
	case mirror.Reconnect:
		m.r.reach(m, e.Node)
	case mirror.Report:
		m.n.c.trace(m.n.host, "mirror %d.%d: notice %d node %s off %d count %d: %v", m.vol, m.epoch, e.Notice.Code,
			m.n.c.nameOf(e.Notice.Node), e.Notice.Off, e.Notice.Count, e.Notice.Err)
		switch e.Notice.Code {
		case mirror.Unreadable:
			m.n.c.stats["times that nobody could read a block"]++
		case mirror.Differ:
			if !m.n.c.anyTainted(m.vol) {
				m.n.c.fail("invariant 13: a scrub of volume %d found in-sync members that differ at %d", m.vol, e.Notice.Off)
			}
		case mirror.Holding:
			why := "holds"
			if e.Notice.Err != nil {
				why = e.Notice.Err.Error()
			}
			m.r.later(func() { m.r.mirrorHolds(m, why) })
		case mirror.MemberAdded, mirror.MemberRemoved:
			m.tellSet(e.Notice.Node, e.Notice.Code == mirror.MemberAdded)
		case mirror.Resumed:
			m.r.later(func() { m.r.mirrorHolds(m, "") })
		}
	case mirror.Drained:
		if m.drained != nil {
			done := m.drained
			m.drained = nil
			m.r.later(func() { done(nil) })
		}
	case mirror.Ended:
		if !m.ended {
			m.ended = true
			m.r.later(func() { m.r.mirrorEnded(m, e.Err) })
		}
	case mirror.ResyncDone:
		if e.Err == nil {
			m.n.c.checkJoined(m, e.Node)
		}
		if done := m.resynced[e.Node]; done != nil {
			delete(m.resynced, e.Node)
			m.r.later(func() { done(e.Err) })
		}
	case mirror.Ask:
		m.n.proc.After(0, func() { m.do(func() { m.core.Granted(e.Asker) }) })
	}
}

// tellSet tells the reign whether the mirror takes a node's replica for a member.
func (m *mirrorShell) tellSet(n ids.Node, member bool) {
	m.r.later(func() {
		if m.r.mirrors[m.id] == m {
			m.r.step(reign.MirrorSet{Volume: m.id, Node: n, Epoch: m.epoch, Member: member})
		}
	})
}

func (m *mirrorShell) send(to ids.Node, call *peer.Call) {
	call.Done = func(c *peer.Call) {
		m.do(func() { m.core.Answered(c) })
	}
	if m.breakSend(to, call) {
		return
	}
	s := m.r.sessionWith(to)
	if s == nil || s.dead {
		m.n.proc.After(0, func() {
			call.Answer = peer.Answer{Err: peer.ErrLost}
			call.Done(call)
		})
		return
	}
	s.submit(call)
}

// reached is the end of a Reconnect.
func (m *mirrorShell) reached(to ids.Node, err error) {
	if m.closed {
		return
	}
	if err != nil {
		m.do(func() { m.core.Unreachable(to, err) })
		return
	}
	s := m.r.sessionWith(to)
	if s == nil {
		m.do(func() { m.core.Unreachable(to, peer.ErrLost) })
		return
	}
	// As the shell does: what the session said when it was opened may be old.
	s.poll(func(f peer.Fenced, err error) {
		switch {
		case m.closed:
		case err != nil:
			m.do(func() { m.core.Unreachable(to, err) })
		default:
			m.r.fencedAgain(s, f)
			m.do(func() { m.back(to) })
		}
	})
}

// back judges the replica behind the newest session with a node.
func (m *mirrorShell) back(to ids.Node) {
	v, place, ok := m.n.volumePlace(m.id, to)
	if !ok {
		m.core.Back(to, 0, ids.ID{})
		return
	}
	member, err := m.r.core.Usable(v, place)
	switch {
	case err == nil:
		m.core.Back(to, member.Replica.Seq, member.Replica.Incarnation)
	case to == m.n.id() && !m.isMember(to):
		m.core.Back(to, 0, ids.ID{})
	default:
		m.core.Unreachable(to, errors.Join(peer.ErrNoReplica, err))
	}
}

func (m *mirrorShell) isMember(id ids.Node) bool {
	for _, s := range m.core.Status().Members {
		if s.Node == id {
			return true
		}
	}
	return false
}

func (m *mirrorShell) close(cause error) {
	if m.closed {
		return
	}
	m.closed = true
	m.do(func() { m.core.Close(cause) })
}

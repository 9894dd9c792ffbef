package sim

import (
	"errors"
	"fmt"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	simworld "pmsapp/internal/sim"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// reignShell carries out what a reign.Core says.
type reignShell struct {
	n        *node
	core     *reign.Core
	timer    *simworld.Timer
	queue    []reign.Event
	busy     bool
	sessions map[uint64]*session // by attempt
	newest   map[ids.Node]*session
	waiting  map[ids.Node][]func(error) // mirrors that want to reach a node
	mirrors  map[ids.Volume]*mirrorShell
	replies  map[uint64]func(error)
	requests uint64
}

func newReignShell(n *node) *reignShell {
	return &reignShell{
		n: n, core: reign.NewCore(n.c.reignConfig(), n.id()),
		sessions: map[uint64]*session{}, newest: map[ids.Node]*session{}, waiting: map[ids.Node][]func(error){},
		mirrors: map[ids.Volume]*mirrorShell{}, replies: map[uint64]func(error){},
	}
}

// step hands an event to the core. Events that come while effects are carried out wait.
func (r *reignShell) step(ev reign.Event) {
	r.queue = append(r.queue, ev)
	if r.busy {
		return
	}
	r.busy = true
	for len(r.queue) > 0 {
		ev := r.queue[0]
		r.queue = r.queue[1:]
		for _, e := range r.core.Step(r.n.proc.Now(), ev) {
			r.effect(e)
		}
	}
	r.busy = false
	r.timer.Stop()
	if at, ok := r.core.Next(); ok {
		r.timer = r.n.proc.After(max(at-r.n.proc.Now(), 10*time.Microsecond), func() { r.step(reign.Tick{}) })
	}
}

// later runs fn after what runs now.
func (r *reignShell) later(fn func()) { r.n.proc.After(0, fn) }

func (r *reignShell) effect(e reign.Effect) {
	n := r.n
	switch e := e.(type) {
	case reign.Propose:
		n.propose(e.P, func(out truth.Outcome, err error) {
			r.step(reign.Decided{ID: e.ID, Outcome: out, Err: err, View: n.view()})
		})
	case reign.OpenSession:
		r.open(e)
	case reign.CloseSession:
		r.closeSession(e)
	case reign.Poll:
		r.poll(e)
	case reign.OpenMirror:
		r.openMirror(e)
	case reign.DrainMirror:
		r.drain(e.Volume)
	case reign.CloseMirror:
		if m := r.mirrors[e.Volume]; m != nil {
			r.closeMirror(m, errors.New(e.Cause))
		}
	case reign.StartResync:
		r.resync(e)
	case reign.StopResync:
		if m := r.mirrors[e.Volume]; m != nil {
			m.do(func() { m.core.StopResync(e.Node) })
		}
	case reign.AskSpace:
		r.n.proc.After(r.n.c.w.Rand.Between(time.Millisecond, 50*time.Millisecond), func() { r.step(reign.Spaced{Space: r.n.c.space()}) })
	case reign.ResizeMirror:
		if m := r.mirrors[e.Volume.ID]; m != nil {
			m.do(func() { m.core.Resize(e.Volume.Size) })
		}
	case reign.SetDurability:
		if m := r.mirrors[e.Volume.ID]; m != nil {
			m.do(func() { m.core.SetMemory(e.Memory) })
		}
	case reign.RetireMember:
		if m := r.mirrors[e.Volume]; m != nil {
			m.retire(e.Node, e.Set)
		}
	case reign.Command:
		if r.breakCommand(e) {
			return
		}
		call := &peer.Call{Command: e.C, Done: func(c *peer.Call) { r.step(reign.CommandDone{ID: e.ID, Err: c.Err}) }}
		if s := r.newest[e.Node]; s != nil {
			s.submit(call)
		} else {
			r.later(func() { r.step(reign.CommandDone{ID: e.ID, Err: peer.ErrLost}) })
		}
	case reign.ProposeCreate:
		n.proposeVolume(e, func(err error) {
			r.step(reign.VolumeDecided{Volume: e.Volume.ID, Epoch: e.Epoch, Err: err, View: n.view()})
		})
	case reign.ProposeDelete:
		n.proposeVolume(deletion{e, n.c.plan.keep}, func(err error) {
			r.step(reign.VolumeDecided{Volume: e.Volume, Epoch: e.Epoch, Err: err, View: n.view()})
		})
	case reign.AskReports:
		for _, to := range e.Nodes {
			n.askReport(to, func(rep reign.Report) { r.step(reign.Reported{Node: to, Report: rep}) })
		}
	case reign.TransferLeadership:
		r.transfer(e.To)
	case reign.Reply:
		if done := r.replies[e.Request]; done != nil {
			delete(r.replies, e.Request)
			done(e.Err)
		}
	case reign.Tell:
		n.c.trace(n.host, "reign: %s %s %s %s", e.Kind, n.c.volName(e.Volume), n.c.nameOf(e.Node), e.Text)
	default:
		n.c.fail("reign: an effect that the simulation does not know: %T", e)
	}
}

func (r *reignShell) open(e reign.OpenSession) {
	s := r.n.openSession(e.Node, r.n.c.halved(e.Epoch), nil)
	r.sessions[e.Attempt] = s
	s.opened = func(f peer.Fenced, err error) {
		if r.sessions[e.Attempt] != s {
			return
		}
		if err != nil {
			delete(r.sessions, e.Attempt)
			r.step(reign.Failed{Attempt: e.Attempt, Err: err})
			r.reached(e.Node, err)
			return
		}
		r.newest[e.Node] = s
		r.step(reign.Opened{Attempt: e.Attempt, Fenced: f})
		r.reached(e.Node, nil)
	}
	s.lost = func(err error) {
		if r.sessions[e.Attempt] != s {
			return
		}
		r.forget(e.Attempt, e.Node, s)
		r.mirrorsLost(e.Node)
		r.step(reign.Lost{Attempt: e.Attempt, Err: err})
	}
}

func (r *reignShell) forget(attempt uint64, id ids.Node, s *session) {
	delete(r.sessions, attempt)
	if r.newest[id] == s {
		delete(r.newest, id)
	}
}

func (r *reignShell) closeSession(e reign.CloseSession) {
	s := r.sessions[e.Attempt]
	if s == nil {
		return
	}
	r.forget(e.Attempt, e.Node, s)
	s.die(peer.ErrLost)
	r.mirrorsLost(e.Node)
}

func (r *reignShell) mirrorsLost(id ids.Node) {
	for _, m := range r.inOrder() {
		m.do(func() { m.core.Lost(id) })
	}
}

func (r *reignShell) poll(e reign.Poll) {
	s := r.sessions[e.Attempt]
	if s == nil {
		return
	}
	s.poll(func(f peer.Fenced, err error) {
		if r.sessions[e.Attempt] == s {
			r.step(reign.Polled{Attempt: e.Attempt, Fenced: f, Err: err})
		}
	})
}

// sessionWith is the live session with a node, or nil.
func (r *reignShell) sessionWith(id ids.Node) *session { return r.newest[id] }

// reach answers a mirror's Reconnect: at once where there is a session, otherwise at the end of the core's next attempt.
func (r *reignShell) reach(m *mirrorShell, id ids.Node) {
	if s := r.newest[id]; s != nil && !s.dead {
		r.later(func() { m.reached(id, nil) })
		return
	}
	answered := false
	done := func(err error) {
		if !answered {
			answered = true
			m.reached(id, err)
		}
	}
	r.waiting[id] = append(r.waiting[id], done)
	r.n.proc.After(openTimeout+time.Second, func() { done(fmt.Errorf("no attempt was made: %w", peer.ErrLost)) })
}

func (r *reignShell) reached(id ids.Node, err error) {
	w := r.waiting[id]
	delete(r.waiting, id)
	for _, done := range w {
		done(err)
	}
}

func (r *reignShell) inOrder() []*mirrorShell {
	var out []*mirrorShell
	for _, id := range r.n.c.volIDs {
		if m := r.mirrors[id]; m != nil {
			out = append(out, m)
		}
	}
	return out
}

func (r *reignShell) openMirror(e reign.OpenMirror) {
	p := mirror.Params{Volume: e.Volume, Epoch: e.Epoch, Prior: e.Prior, Self: r.n.id(), Physical: physicalBlock, Tunables: r.n.c.tunables()}
	for _, m := range e.Members {
		p.Members = append(p.Members, mirror.Member{Node: m.Place.Node, Seq: m.Replica.Seq, Durable: m.Replica.Durable, Incarnation: m.Replica.Incarnation})
	}
	core, err := mirror.New(p)
	if err != nil {
		r.n.c.fail("a mirror cannot be opened: %v", err)
		return
	}
	m := &mirrorShell{n: r.n, r: r, core: core, id: e.Volume.ID, vol: r.n.c.volIndex(e.Volume.ID), epoch: e.Epoch,
		since: map[*block.Request]time.Duration{}, resynced: map[ids.Node]func(error){}}
	if old := r.mirrors[m.id]; old != nil {
		r.n.c.fail("reign opens a mirror of volume %d while one is open", m.vol)
		return
	}
	r.mirrors[m.id] = m
	r.n.c.noteServed(m, e)
	m.do(func() {})
	r.later(func() { r.step(reign.MirrorOpened{Volume: e.Volume.ID, Epoch: e.Epoch}) })
}

func (r *reignShell) closeMirror(m *mirrorShell, cause error) {
	if r.mirrors[m.id] == m {
		delete(r.mirrors, m.id)
	}
	m.close(cause)
	r.n.fe.standby(m.id)
}

func (r *reignShell) mirrorEnded(m *mirrorShell, err error) {
	if r.mirrors[m.id] != m {
		return
	}
	r.closeMirror(m, err)
	r.step(reign.MirrorEnded{Volume: m.id, Epoch: m.epoch, Err: err})
}

func (r *reignShell) mirrorHolds(m *mirrorShell, why string) {
	if r.mirrors[m.id] == m {
		r.step(reign.MirrorHolds{Volume: m.id, Epoch: m.epoch, Why: why})
	}
}

func (r *reignShell) drain(id ids.Volume) {
	m := r.mirrors[id]
	if m == nil {
		return
	}
	if r.n.c.breaks(BreakServeFirst) {
		r.later(func() { r.step(reign.MirrorDrained{Volume: id, Epoch: m.epoch}) })
		return
	}
	ended := false
	end := func(err error) {
		if !ended && r.mirrors[id] == m {
			ended = true
			r.step(reign.MirrorDrained{Volume: id, Epoch: m.epoch, Err: err})
		}
	}
	m.drained = end
	m.do(func() { m.core.Drain() })
	r.n.proc.After(r.n.c.reignConfig().DrainTimeout, func() { end(reign.ErrTimeout) })
}

func (r *reignShell) resync(e reign.StartResync) {
	m, id := r.mirrors[e.Volume], e.Member.Place.Node
	if m == nil {
		return
	}
	end := func(err error) {
		if r.mirrors[e.Volume] == m {
			r.step(reign.ResyncEnded{Volume: e.Volume, Node: id, Epoch: m.epoch, Err: err})
		}
	}
	m.resynced[id] = end
	r.n.c.mixed[taint{e.Member.Place.Pool, m.vol}] = true
	m.do(func() {
		// The mirror is told of the session first, as Mirror.StartResync does.
		m.back(id)
		if err := m.core.StartResync(mirror.Joiner{Place: e.Member.Place, Empty: e.Empty, Accepted: r.n.breakAccepted(e.Accepted)}); err != nil {
			delete(m.resynced, id)
			r.later(func() { end(err) })
		}
	})
}

func (r *reignShell) transfer(to ids.Node) {
	n := r.n
	if n.c.breaks(BreakYield) && n.witness {
		return
	}
	ok := n.raft.handOver(to)
	wait := time.Millisecond
	if ok {
		wait = 1100 * time.Millisecond
	}
	n.proc.After(wait, func() {
		if n.raft.role == leader {
			r.step(reign.TransferFailed{Err: errors.New("the transfer did not happen")})
		}
	})
}

// ask makes an admin's request; done is called once if this node lives on.
func (r *reignShell) ask(done func(error), ev func(request uint64) reign.Event) {
	r.requests++
	id := r.requests
	r.replies[id] = done
	r.step(ev(id))
}

package mirror

import (
	"context"
	"errors"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

const (
	// flushBound is how many effects a goroutine carries out that is not the mirror's own.
	flushBound = 256
	// proposeWait is how long the outcome of a proposal is waited for before it is unknown.
	proposeWait = 3 * time.Second
	// busyPolls and busyPause bound the wait for a pool that is not fenced yet.
	busyPolls = 20
	busyPause = 100 * time.Millisecond
)

// flush carries out the core's effects, unless somebody does already. The lock is held when it is called, and not when
// it returns.
func (m *Mirror) flush(own bool) {
	m.queue = m.core.Effects(m.queue)
	if m.busy && !own {
		m.mu.Unlock()
		return
	}
	m.busy = true
	for n := 0; len(m.queue) > 0; {
		if n >= flushBound && !own {
			select {
			case m.wake <- struct{}{}: // busy stays set: it goes on
			default:
			}
			m.mu.Unlock()
			return
		}
		batch := m.queue
		m.queue = m.spare[:0]
		m.mu.Unlock()
		for i := range batch {
			m.carryOut(&batch[i])
		}
		n += len(batch)
		clear(batch)
		m.mu.Lock()
		m.spare = batch
	}
	m.busy = false
	m.arm()
	if m.closing && !m.isIdle && m.core.Idle() {
		m.isIdle = true
		close(m.idle)
	}
	m.mu.Unlock()
}

// arm sets the timer for the core's next deadline, if that is earlier than what it is set to.
func (m *Mirror) arm() {
	at, ok := m.core.Next()
	if !ok || at >= m.timerAt {
		return
	}
	m.timerAt = at
	m.timer.Reset(max(at-time.Since(m.start), time.Millisecond))
}

// loop is the mirror's own goroutine: the timer, and effects that are too many for others.
func (m *Mirror) loop() {
	for {
		select {
		case <-m.timer.C:
			m.mu.Lock()
			m.timerAt = 1<<63 - 1
			m.core.Tick(time.Since(m.start))
			m.flush(false)
			m.mu.Lock()
			m.arm() // also if somebody else is at it
			m.mu.Unlock()
		case <-m.wake:
			m.mu.Lock()
			m.flush(true)
		case <-m.quit:
			return
		}
	}
}

func (m *Mirror) carryOut(e *Effect) {
	switch e.Kind {
	case Send:
		e.Call.Done = m.answered
		if s := m.session(e.Node); s != nil {
			s.Submit(e.Call)
			return
		}
		e.Call.Err = peer.ErrLost
		m.callDone(e.Call)
	case Complete:
		if m.cfg.Budget != nil {
			m.cfg.Budget.Guest(e.Took)
		}
		e.Request.Done(e.Request)
	case Propose:
		p := *e
		m.wg.Go(func() { m.propose(p) })
	case Reconnect:
		node := e.Node
		m.wg.Go(func() { m.reconnect(node) })
	case Ask:
		n, who := e.Bytes, e.Asker
		m.wg.Go(func() {
			if m.cfg.Budget.Wait(m.ctx, n) == nil {
				m.tell(func(c *Core) { c.Granted(who) })
			}
		})
	case Report:
		m.notice(e.Notice)
	case Drained:
		close(m.drained)
	case Ended:
		m.log.Warn("mirror ended", "error", e.Err)
		m.mu.Lock()
		m.end(e.Err)
		m.mu.Unlock()
	case ResyncDone:
		if m.cfg.Resynced != nil {
			m.cfg.Resynced(e.Node, e.Resync, e.Err)
		}
	}
}

func (m *Mirror) propose(e Effect) {
	ctx, cancel := context.WithTimeout(m.ctx, proposeWait)
	defer cancel()
	out, err := m.cfg.Catalog.Propose(ctx, e.Proposal)
	m.tell(func(c *Core) { c.Decided(e.ID, out, err) })
}

// session is the session in use with a node, or nil.
func (m *Mirror) session(node ids.Node) peer.Session {
	for _, l := range *m.links.Load() {
		if l.node == node {
			return l.session
		}
	}
	return nil
}

// use makes s the session with node and watches it. The lock is held.
func (m *Mirror) use(node ids.Node, s peer.Session) {
	if m.session(node) == s || m.closing {
		return
	}
	m.replace(node, s)
	m.wg.Go(func() {
		select {
		case <-s.Done():
		case <-m.quit:
			return
		}
		m.mu.Lock()
		if m.session(node) != s { // another has replaced it
			m.mu.Unlock()
			return
		}
		m.replace(node, nil)
		m.core.Tick(time.Since(m.start))
		m.core.Lost(node)
		m.flush(false)
	})
}

// replace stores a new list of links: it is read without the lock.
func (m *Mirror) replace(node ids.Node, s peer.Session) {
	var links []link
	for _, l := range *m.links.Load() {
		if l.node != node {
			links = append(links, l)
		}
	}
	if s != nil {
		links = append(links, link{node, s})
	}
	m.links.Store(&links)
}

// reconnect makes one attempt to have a session and, behind it, a replica.
func (m *Mirror) reconnect(node ids.Node) {
	s, err := m.cfg.Sessions.Session(m.ctx, node)
	if err != nil {
		m.tell(func(c *Core) { c.Unreachable(node, err) })
		return
	}
	seq, inc, err := m.replica(node, s)
	if err != nil {
		m.tell(func(c *Core) { c.Unreachable(node, err) })
		return
	}
	m.mu.Lock()
	m.use(node, s)
	m.core.Tick(time.Since(m.start))
	m.core.Back(node, seq, inc)
	m.flush(false)
}

// replica looks for a usable replica of the volume behind a session.
func (m *Mirror) replica(node ids.Node, s peer.Session) (peer.Seq, ids.ID, error) {
	m.mu.Lock()
	needed := m.core.NeedsReplica(node)
	f := s.Fenced()
	again := m.session(node) == s // the fence's answer is old
	m.mu.Unlock()
	if !needed {
		return 0, ids.ID{}, nil
	}
	for range busyPolls {
		if again {
			var err error
			if f, err = s.Poll(m.ctx); err != nil {
				return 0, ids.ID{}, err
			}
		}
		seq, inc, busy, err := m.find(f)
		if !busy && (err == nil || again) {
			return seq, inc, err
		}
		again = true // also where there was none: its pool may have come since the session was opened
		select {
		case <-time.After(busyPause):
		case <-m.ctx.Done():
			return 0, ids.ID{}, peer.ErrLost
		}
	}
	return 0, ids.ID{}, errBusyPool
}

var errBusyPool = errors.New("mirror: the member's pool is not fenced")

func (m *Mirror) find(f peer.Fenced) (seq peer.Seq, inc ids.ID, busy bool, err error) {
	v := &m.cfg.Params.Volume
	for _, p := range f.Pools {
		for _, r := range p.Replicas {
			if r.Spec.Volume == v.ID && !r.Foreign && v.Owns(p.Pool, r.Spec.Lineage) {
				return r.Seq, r.Incarnation, p.Busy, nil
			}
		}
		busy = busy || p.Busy // it might be there
	}
	return 0, ids.ID{}, busy, peer.ErrNoReplica
}

func (m *Mirror) notice(n *Notice) {
	a := []any{"notice", n.Code.String()}
	if !n.Node.IsZero() {
		a = append(a, "node", n.Node.String())
	}
	if n.Off != 0 {
		a = append(a, "offset", n.Off)
	}
	if n.Count != 0 {
		a = append(a, "count", n.Count)
	}
	if n.Err != nil {
		a = append(a, "error", n.Err)
	}
	m.log.Info("mirror", a...)
	if m.cfg.Notify != nil {
		m.cfg.Notify(*n)
	}
}

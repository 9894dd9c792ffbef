package reign

import (
	"slices"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// fence answers one attempt, or loses the answer after the fence was recorded.
func (c *chaos) fence(s *site) {
	o, ok := pick(c, s.open)
	if !ok || s.node.down {
		return
	}
	s.open = slices.DeleteFunc(s.open, func(x OpenSession) bool { return x.Attempt == o.Attempt })
	n := c.w.nodes[o.Node]
	was := n.accepted
	f, err := n.fence(o.Epoch)
	if err == nil && o.Epoch > was {
		for _, x := range c.sites { // it ends every session of a lower epoch
			if l, ok := x.live[o.Node]; ok && l.Epoch < o.Epoch {
				c.cut(x, l)
			}
		}
	}
	if err == nil && c.r.IntN(6) == 0 && !c.healed {
		err = peer.ErrLost
	}
	if err != nil {
		c.tell(s, Failed{Attempt: o.Attempt, Err: err})
		return
	}
	s.live[o.Node] = o
	c.tell(s, Opened{Attempt: o.Attempt, Fenced: f})
}

// cut ends a session; its leader learns later.
func (c *chaos) cut(s *site, o OpenSession) {
	delete(s.live, o.Node)
	s.dying = append(s.dying, o.Attempt)
}

func (c *chaos) poll(s *site) {
	p, ok := pick(c, s.polls)
	if !ok {
		return
	}
	s.polls = slices.DeleteFunc(s.polls, func(x Poll) bool { return x == p })
	l := s.live[p.Node]
	if l.Attempt != p.Attempt || c.w.nodes[p.Node].accepted != l.Epoch {
		c.tell(s, Polled{Attempt: p.Attempt, Err: peer.ErrLost})
		return
	}
	c.tell(s, Polled{Attempt: p.Attempt, Fenced: c.w.nodes[p.Node].answer()})
}

// write is a client's write: to all members, and acknowledged when all have it, or after the others were removed.
func (c *chaos) write(s *site) {
	id := c.w.view.Volumes[c.r.IntN(len(c.w.view.Volumes))].ID
	m := s.mirrors[id]
	if m == nil || s.node.down {
		return
	}
	if !m.opened {
		m.opened = true
		c.tell(s, MirrorOpened{Volume: id, Epoch: m.epoch})
		return
	}
	value := 0
	for _, p := range m.members {
		value = max(value, c.have[p][id])
	}
	value++
	durable := m.seq
	if c.r.IntN(2) == 0 {
		m.seq++
	}
	var missed []truth.Place
	for _, p := range m.members {
		rep := c.w.pool(p).replica(id)
		if _, err := s.core.Usable(*find(c.w.view, id), p); err != nil || rep == nil || !c.reaches(s, p, m.epoch) || c.r.IntN(30) == 0 {
			missed = append(missed, p)
			continue
		}
		c.have[p][id] = value
		if m.seq > rep.Seq {
			rep.Seq, rep.Durable = m.seq, durable
		}
	}
	if len(missed) == len(m.members) {
		return
	}
	for _, p := range missed { // shrink first (2)
		if s != c.leader {
			return
		}
		if _, err := c.w.apply(truth.RemoveMember{Epoch: m.epoch, Volume: id, Version: m.version, Node: p.Node}); err != nil {
			return
		}
		m.version++
		m.members = slices.DeleteFunc(slices.Clone(m.members), func(x truth.Place) bool { return x == p })
		c.logf("mirror of %s removes %s", name(id), name(p.Pool))
		c.check()
		c.tell(s, Changed{View: c.w.view})
	}
	if s.mirrors[id] == m {
		c.data[id] = value
	}
}

// resync copies all at once.
func (c *chaos) resync(s *site) {
	r, ok := pick(c, s.resyncs)
	if !ok || s.node.down {
		return
	}
	s.resyncs = slices.DeleteFunc(s.resyncs, func(x StartResync) bool { return x.Volume == r.Volume })
	m, p := s.mirrors[r.Volume], r.Member.Place
	rep := c.w.pool(p).replica(r.Volume)
	var err error = peer.ErrLost
	if m != nil && m.opened && rep != nil && c.reaches(s, p, m.epoch) && s == c.leader && c.reaches(s, m.members[0], m.epoch) {
		m.seq++ // the seal
		c.have[p][r.Volume] = c.have[m.members[0]][r.Volume]
		rep.Seq = max(rep.Seq, m.seq)
		if _, err = c.w.apply(truth.AddMember{Epoch: m.epoch, Volume: r.Volume, Version: m.version, Node: p.Node}); err == nil {
			m.version++
			m.members = append(slices.Clone(m.members), p)
			c.check()
		}
	}
	c.tell(s, ResyncEnded{Volume: r.Volume, Node: p.Node, Epoch: s.core.Status().Epoch, Err: err})
	c.tell(s, Changed{View: c.w.view})
}

func (c *chaos) command(s *site) {
	if len(s.cmds) == 0 {
		return
	}
	e := s.cmds[0]
	s.cmds = s.cmds[1:]
	var err error = peer.ErrLost
	if p := (truth.Place{Node: e.Node, Pool: e.C.Spec.Pool}); e.C.Kind == peer.Reset && s.live[e.Node].Epoch == c.w.nodes[e.Node].accepted && !c.w.nodes[e.Node].down {
		c.w.pool(p).put(e.C.Spec)
		c.have[p][e.C.Volume] = 0
		err = nil
	}
	c.tell(s, CommandDone{ID: e.ID, Err: err})
}

// crash stops a node, and may put an old state of one of its pools back.
func (c *chaos) crash(s *site, revert bool) {
	revert = revert && len(c.raft) == 0 // a removal under way may be of its last companion: no rule can help then
	c.logf("%s crashes", name(s.node.id))
	if c.leader == s {
		c.depose()
	}
	s.node.down = true
	for _, x := range c.sites {
		if l, ok := x.live[s.node.id]; ok {
			c.cut(x, l)
		}
	}
	c.raft = slices.DeleteFunc(c.raft, func(x raftEntry) bool { return x.s == s })
	c.boot(s)
	for _, x := range c.sites { // putting back an old disk takes longer than to notice that its node is gone
		for len(x.dying) > 0 && revert {
			at := x.dying[0]
			x.dying = x.dying[1:]
			c.tell(x, Lost{Attempt: at, Err: peer.ErrLost})
		}
	}
	p := s.node.pools[c.r.IntN(2)]
	at := truth.Place{Node: s.node.id, Pool: p.id}
	if snap, ok := c.snaps[p.id]; ok && revert && c.detectable(at, snap) {
		c.logf("%s is reverted", name(p.id))
		p.accepted, p.replicas, c.have[at] = snap.accepted, slices.Clone(snap.replicas), clone(snap.have)
	}
	c.snaps[p.id] = snapshot{accepted: p.accepted, replicas: slices.Clone(p.replicas), have: clone(c.have[at])}
}

// detectable tells whether the rules can find out that a pool was reverted, and whether that is survivable.
func (c *chaos) detectable(at truth.Place, snap snapshot) bool {
	for i := range c.w.view.Volumes {
		v := &c.w.view.Volumes[i]
		if !slices.Contains(v.InSync, at) {
			continue
		}
		known := v.LastServed == 0 || peer.Has(snap.accepted, v.LastServed)
		if known && snap.have[v.ID] < c.data[v.ID] {
			return false // writes that left no mark
		}
		if !slices.ContainsFunc(v.InSync, func(p truth.Place) bool {
			return p != at && c.have[p][v.ID] >= c.data[v.ID] && peer.Has(c.w.pool(p).accepted, v.LastServed)
		}) {
			return false
		}
	}
	return true
}

func clone(m map[ids.Volume]int) map[ids.Volume]int {
	out := make(map[ids.Volume]int, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

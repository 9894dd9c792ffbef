package sim

import (
	"bytes"
	"slices"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// fault is a kind of misfortune.
type fault struct {
	name   string
	weight int
	strike func(c *Cluster, n *node)
}

// catalogue is all of them. A seed takes some (each with a chance of one half), so that runs differ in kind.
func catalogue() []fault {
	return []fault{
		{"process crash", 10, func(c *Cluster, n *node) { c.crash(n, false) }},
		{"power loss", 6, func(c *Cluster, n *node) { c.crash(n, true) }},
		{"power loss everywhere", 1, func(c *Cluster, n *node) {
			for _, x := range c.nodes {
				c.crash(x, true)
			}
		}},
		{"pause", 8, func(c *Cluster, n *node) { c.pause(n, false) }},
		{"suspension", 8, func(c *Cluster, n *node) { c.pause(n, true) }},
		{"pause of the leader", 4, func(c *Cluster, n *node) {
			if l := c.leader(); l != nil {
				c.pause(l, c.w.Rand.Chance(0.5))
			}
		}},
		{"crash of the leader", 4, func(c *Cluster, n *node) {
			if l := c.leader(); l != nil {
				c.crash(l, c.w.Rand.Chance(0.5))
			}
		}},
		{"one-way cut", 8, (*Cluster).cutOneWay},
		{"isolation", 5, (*Cluster).isolate},
		{"broken connections", 12, func(c *Cluster, n *node) {
			for range 1 + c.w.Rand.Intn(3) {
				c.net.Break()
			}
		}},
		{"slow disk", 10, (*Cluster).slowDisk},
		{"full pool", 4, (*Cluster).fillPool},
		{"bad disk", 5, (*Cluster).badDisk},
		{"flipped bits", 12, (*Cluster).flipBits},
		{"scrub", 12, (*Cluster).startScrub},
		{"reverted pool", 5, (*Cluster).revertPool},
		{"reverted catalog", 4, (*Cluster).revertCatalog},
		{"lost catalog", 1, (*Cluster).loseCatalog},
		{"new session of a host", 6, func(c *Cluster, n *node) {
			if cl := c.clients[c.w.Rand.Intn(len(c.clients))]; cl.ready {
				cl.drop()
				cl.wait.Stop()
				cl.connect()
			}
		}},
		{"hand-over", 5, (*Cluster).handOver},
		{"another candidate", 6, func(c *Cluster, n *node) {
			if n.raft != nil && n.proc.Running() && n.raft.isVoter(n.id()) {
				n.raft.campaign(true)
			}
		}},
	}
}

func (c *Cluster) startChaos() {
	var use []fault
	// A member whose disk cannot be read, and bits that flip on another: then nobody has the bytes.
	not := []string{"bad disk", "flipped bits"}[c.w.Rand.Intn(2)]
	var weights []int
	for _, f := range catalogue() {
		if f.name == "power loss everywhere" && c.plan.memory {
			f.weight = 5
		}
		if f.name == "isolation" && c.breaks(BreakConfirm) || f.name == "bad disk" && c.breaks(BreakLost) || f.name == "slow disk" && c.breaks(BreakClear) {
			f.weight *= 10 // in which it shows
			c.plan.mediums = c.plan.mediums || f.name == "bad disk"
			use, weights = append(use, f), append(weights, f.weight)
		} else if c.w.Rand.Chance(0.5) && f.name != not {
			use = append(use, f)
			weights = append(weights, f.weight)
			c.plan.fulls = c.plan.fulls || f.name == "full pool"
			c.plan.mediums = c.plan.mediums || f.name == "bad disk" || f.name == "flipped bits"
		}
	}
	if c.w.Rand.Chance(0.5) {
		c.faults.unknown = 0.1
	}
	if c.w.Rand.Chance(0.3) {
		c.faults.gossip = 0.05
	}
	if c.w.Rand.Chance(0.3) {
		c.net.Loss = 0.1
	}
	if c.w.Rand.Chance(0.2) {
		c.faults.spoil = 0.01
	}
	pace := []time.Duration{200 * time.Millisecond, 800 * time.Millisecond, 2 * time.Second}[c.w.Rand.Intn(3)]
	var strike func()
	strike = func() {
		if c.calmed {
			return
		}
		for _, n := range c.nodes {
			if n.snapshot == nil && n.disk.conf() != nil && c.w.Rand.Chance(0.1) {
				n.takeSnapshot()
			}
			for _, p := range n.pools {
				if p.snapshot == nil && c.w.Rand.Chance(0.1) {
					p.snapshot = p.clone(c.volIDs)
				}
			}
		}
		if i := c.w.Rand.Weighted(weights); i >= 0 {
			n := c.nodes[c.w.Rand.Intn(len(c.nodes))]
			c.stats[use[i].name]++
			c.trace(n.host, "fault: %s", use[i].name)
			use[i].strike(c, n)
		}
		c.w.After(c.w.Rand.Between(pace/10, pace), strike)
	}
	if c.breaks(BreakRelay) {
		c.relay()
	} else {
		strike()
	}
	c.startChanges()
	c.changeDurability()
	if c.plan.forces {
		c.impatient()
	}
	if len(c.vols) > 1 && c.w.Rand.Chance(0.4) {
		c.w.After(c.w.Rand.Between(0, c.plan.chaos), c.deleteVolume)
	}
}

// relay has each of three members be away in such an order that one has to get from the second what only the third knew that it missed:
// where that is left out it shows, and by chance it hardly ever comes about.
func (c *Cluster) relay() {
	i, way := c.w.Rand.Intn(3), 1+c.w.Rand.Intn(2)
	first, second, third := c.nodes[i], c.nodes[(i+way)%3], c.nodes[(i+2*way)%3]
	at := time.Duration(0)
	step := func(pause time.Duration, fn func()) {
		at += pause
		c.w.After(at, func() {
			if !c.calmed {
				fn()
			}
		})
	}
	stop := func(n *node) func() {
		return func() {
			if n.proc.Alive() {
				n.stop(false)
			}
		}
	}
	start := func(n *node) func() {
		return func() {
			if !n.proc.Alive() {
				n.start()
			}
		}
	}
	step(time.Second, stop(first))
	bad := func(share float64) func() { // its disk is away, and its vote is not: else nobody leads
		return func() {
			for _, p := range second.pools {
				p.bad = share
			}
		}
	}
	c.plan.mediums = true
	step(2*time.Second, bad(1))
	step(2*time.Second, bad(0))
	step(3*time.Second, stop(third))
	step(0, start(first))
	step(4*time.Second, start(third))
	step(4*time.Second, c.relay)
}

// after runs fn later, unless the faults are over by then: calm mends everything itself.
func (c *Cluster) after(lo, hi time.Duration, fn func()) {
	c.w.After(c.w.Rand.Long(lo, hi*time.Duration(c.plan.stretch), 0.4), func() {
		if !c.calmed {
			fn()
		}
	})
}

func (c *Cluster) crash(n *node, power bool) {
	if n.proc.Alive() && !c.isProtected(n.host) {
		n.stop(power)
		c.after(200*time.Millisecond, 4*time.Second, func() {
			if !n.proc.Alive() {
				n.start()
			}
		})
	}
}

func (c *Cluster) pause(n *node, frozen bool) {
	if !n.proc.Running() || c.isProtected(n.host) {
		return
	}
	p := n.proc
	p.Pause(frozen)
	c.trace(n.host, "node: stands still, its clock too: %v", frozen)
	c.after(300*time.Millisecond, 8*time.Second, func() {
		c.trace(n.host, "node: goes on")
		p.Resume()
		n.resumed = c.w.Now()
	})
}

func (c *Cluster) cutOneWay(n *node) {
	a, b := n.host, c.w.Rand.Intn(len(c.nodes)+len(c.clients))
	if c.w.Rand.Chance(0.5) {
		a, b = b, a
	}
	if c.isProtected(a) || c.isProtected(b) {
		return
	}
	c.net.Cut(a, b)
	c.trace(n.host, "network: nothing goes from %s to %s", c.hostName(a), c.hostName(b))
	c.after(500*time.Millisecond, 8*time.Second, func() { c.net.HealPath(a, b) })
}

// isolate cuts a node, often the leader, off from the others, and perhaps from the clients. It still reaches itself.
func (c *Cluster) isolate(n *node) {
	clients := c.w.Rand.Chance(0.5)
	if c.protector != nil {
		return
	}
	if l := c.leader(); l != nil && (c.w.Rand.Chance(0.5) || c.breaks(BreakConfirm)) {
		n = l
	}
	if c.breaks(BreakConfirm) {
		clients, c.plan.lease = false, 3*time.Second // as long as any
	}
	for h := range len(c.nodes) + maxClients {
		if h == n.host {
			continue
		}
		if h >= len(c.nodes) && !clients {
			break
		}
		c.net.Cut(n.host, h)
		c.net.Cut(h, n.host)
	}
	c.after(500*time.Millisecond, 8*time.Second, func() {
		for h := range len(c.nodes) + maxClients {
			c.net.HealPath(n.host, h)
			c.net.HealPath(h, n.host)
		}
	})
}

func (c *Cluster) slowDisk(n *node) {
	for _, p := range n.pools {
		p.hang = c.w.Rand.Long(50*time.Millisecond, 4*time.Second, 0.5)
		c.after(50*time.Millisecond, 3*time.Second, func() { p.hang = 0 })
	}
}

func (c *Cluster) fillPool(n *node) {
	for _, p := range n.pools {
		p.full = true
		c.after(300*time.Millisecond, 5*time.Second, func() { p.full = false })
	}
}

// startScrub is no fault: nothing that is in sync may be found to differ.
func (c *Cluster) startScrub(*node) {
	l := c.leader()
	if l == nil || l.reign == nil {
		return
	}
	for _, m := range l.reign.inOrder() {
		m.do(func() {
			if m.core.StartScrub(mirror.ScrubOrder{Rate: []int64{4 << 20, 1 << 30}[c.w.Rand.Intn(2)]}) == nil {
				c.stats["scrubs"]++
			}
		})
	}
}

func (c *Cluster) badDisk(n *node) {
	bad := []*node{n}
	if c.plan.badAll || c.breaks(BreakLost) { // in which it shows
		bad = c.nodes
	}
	for _, n := range bad {
		for _, p := range n.pools {
			p.bad = []float64{0.05, 0.5, 1}[c.w.Rand.Intn(3)]
			c.after(100*time.Millisecond, 4*time.Second, func() { p.bad = 0 })
		}
	}
}

// revertPool brings a pool back as it was a while ago, where that can and must be noticed: an in-sync replica in it does not
// know the epoch under which its volume was last served (14), and there is another member that was not reverted.
func (c *Cluster) revertPool(n *node) {
	if len(n.pools) == 0 {
		return
	}
	p := n.pools[c.w.Rand.Intn(len(n.pools))]
	if p.snapshot == nil || !c.mayRevert(p) || c.isProtected(n.host) {
		return
	}
	if c.crash(n, true); n.proc.Alive() || !c.mayRevert(p) {
		return
	}
	c.trace(n.host, "pool: reverted to epochs %v", p.snapshot.accepted)
	c.stats["pools that were reverted"]++
	p.reverted = true
	p.accepted, p.written, p.replicas = p.snapshot.accepted, p.snapshot.written, p.snapshot.replicas
	p.snapshot = nil
	for vol := range c.volIDs {
		if v := c.trueVolume(vol); v != nil && memberPool(v, p.id) {
			c.tainted[taint{p.id, vol}] = c.w.Now()
		}
	}
}

func memberPool(v *truth.Volume, p ids.Pool) bool {
	return slices.ContainsFunc(v.InSync, func(x truth.Place) bool { return x.Pool == p })
}

// joins tells whether a replica is being brought into an in-sync set, or is proposed for one. Whether its pool was reverted
// before or after the copy is not known here.
func (c *Cluster) joins() bool {
	for _, n := range c.nodes {
		for _, e := range n.disk.log[min(len(c.log), len(n.disk.log)):] {
			if bytes.Contains(e.cmd, []byte(`"add-member"`)) {
				return true
			}
		}
		if n.reign == nil {
			continue
		}
		for _, m := range n.reign.inOrder() {
			if st := m.core.Status(); st.Resync != nil || st.Changing {
				return true
			}
		}
	}
	return false
}

func (c *Cluster) mayRevert(p *simPool) bool {
	if c.joins() {
		return false
	}
	for vol := range c.volIDs {
		v := c.trueVolume(vol)
		if v == nil {
			return false
		}
		if !memberPool(v, p.id) {
			continue
		}
		others := slices.ContainsFunc(v.InSync, func(x truth.Place) bool { return x.Pool != p.id && !c.isTainted(x.Pool, vol) })
		if at := c.opened[vol]; !others || at == 0 || peer.Has(p.snapshot.accepted, at) || v.LastServed != 0 && peer.Has(p.snapshot.accepted, v.LastServed) {
			return false
		}
	}
	return true
}

// lookAgain has the leadership change where blocks could not be read anywhere when they were reconciled: the next leader reconciles them again.
func (c *Cluster) lookAgain() {
	c.w.After(5*time.Second, func() {
		if l := c.leader(); l != nil && slices.ContainsFunc(l.reign.inOrder(), func(m *mirrorShell) bool { return m.core.Status().Lost > 0 }) {
			c.stats["hand-overs for what could not be read"]++
			c.handOver(nil)
		}
		c.lookAgain()
	})
}

// isProtected spares the nodes that hold the evidence against a reverted catalog, and the reverted one, until it was asked for.
func (c *Cluster) isProtected(host int) bool {
	if c.protector == nil || !c.protected.reverting {
		c.protector = nil
		return false
	}
	return host == c.protector.host || host == c.protected.host
}

// oneAtATime tells whether every node is a voter and knows that all are: no other catalog is being mended.
func (c *Cluster) oneAtATime(n *node) bool {
	c.isProtected(0)
	var conf []raftPeer
	since := 0 // the entry's index
	for i, e := range c.log {
		if e.conf != nil {
			conf, since = e.conf, i+1
		}
	}
	for _, o := range c.nodes {
		at := slices.IndexFunc(conf, func(p raftPeer) bool { return p.id == o.id() && p.voter })
		if at < 0 || o.reverting || o.raft == nil || o.raft.commit < uint64(since) {
			return false
		}
	}
	return c.protector == nil
}

// revertCatalog brings a catalog disk back as it was, where some node that is up and reachable knows better (9), or a pool of its own.
func (c *Cluster) revertCatalog(n *node) {
	s := n.snapshot
	if s == nil || s.disk.id != n.id() {
		n.snapshot = nil
		return
	}
	if !c.oneAtATime(n) || !n.proc.Running() {
		return
	}
	revert := func(o *node, who string) {
		c.crash(n, true)
		n.disk, n.epoch, n.recorded, n.snapshot = s.disk, s.epoch, s.recorded, nil
		n.reverting, c.protector, c.protected = true, o, n
		c.trace(n.host, "catalog: reverted to term %d, index %d; %s", n.disk.term, len(n.disk.log), who)
		c.stats["catalogs that were reverted"]++
	}
	if slices.ContainsFunc(n.pools, func(p *simPool) bool { return p.written.id == s.disk.id && p.written.count > s.disk.written }) &&
		c.w.Rand.Chance(0.5) {
		c.stats["catalogs of which only a pool knows better"]++
		revert(n, "its pool knows better")
		for _, o := range c.nodes { // nobody else does
			if o.raft != nil {
				delete(o.raft.known, n.id())
			}
		}
		return
	}
	for _, o := range c.nodes {
		if o == n || !o.proc.Running() || !c.net.Open(n.host, o.host) || !c.net.Open(o.host, n.host) {
			continue
		}
		if o.raft.known[n.id()].against(s.disk) {
			revert(o, c.hostName(o.host)+" knows better")
			return
		}
	}
}

// loseCatalog empties a catalog disk.
func (c *Cluster) loseCatalog(n *node) {
	if !c.oneAtATime(n) || !n.proc.Running() {
		return
	}
	c.crash(n, true)
	n.disk, n.epoch, n.recorded, n.snapshot = &raftDisk{id: n.id()}, 0, nil, nil
	c.stats["catalogs that were lost"]++
	c.trace(n.host, "catalog: lost")
}

func (c *Cluster) handOver(*node) {
	l := c.leader()
	if l == nil {
		return
	}
	l.proc.After(0, func() {
		l.reign.ask(func(err error) { c.trace(l.host, "hand-over: %v", err) }, func(id uint64) reign.Event {
			return reign.HandOver{Request: id, To: ids.Node{}}
		})
	})
}

package sim

import (
	"time"

	"pmsapp/internal/ids"
	simworld "pmsapp/internal/sim"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// node is one machine: its disks, which outlive crashes, and the process that runs on it.
type node struct {
	c        *Cluster
	host     int
	witness  bool
	up       bool // its kernel runs
	disk     *raftDisk
	epoch    peer.Epoch        // accepted, as the catalog disk has it
	recorded map[ids.Pool]bool // the pools that have recorded it
	pools    []*simPool
	flushes  []*simworld.Flush // under way

	booted    bool
	former    ids.Node      // the identity that it gave up last
	reverting bool          // its catalog disk was reverted, and it has not started since
	snapshot  *snapshot     // of the catalog disk
	died      time.Duration // when its process died last, by the world's clock
	resumed   time.Duration // when it went on after it had stood still, by the world's clock

	// The process; nil or dead when there is none.
	proc    *simworld.Proc
	raft    *raft
	machine *machine
	reign   *reignShell
	store   *modelStore
	fe      *frontend
	suspect map[int]bool
}

func (n *node) id() ids.Node { return n.disk.id }

// currentProc is the process that runs, or one that is dead.
func (n *node) currentProc() *simworld.Proc { return n.proc }

// listening tells whether its portals accept connections: the kernel does so for a paused process too.
func (n *node) listening() bool { return n.up && n.proc != nil && n.proc.Alive() && n.store != nil }

// start boots the process. It serves nothing before it knows whether its catalog disk is what it was.
func (n *node) start() {
	c := n.c
	if !n.up {
		n.up = true
		c.w.Rand.ID() // which is not used any more: seeds stay what they were
		c.net.SetHost(n.host, true)
	}
	n.proc = c.w.Proc("node")
	n.flushes = nil
	for _, p := range n.pools {
		p.running = 0
		for _, v := range c.volIDs {
			r := p.replicas[v]
			if r == nil {
				continue
			}
			clear(r.writing)
			c.renew(r)
		}
	}
	c.trace(n.host, "node: starts")
	if !n.booted || c.breaks(BreakVotes) {
		n.booted = true
		n.launch()
		return
	}
	n.seekEvidence()
}

// launch starts everything under the identity that the catalog disk has.
func (n *node) launch() {
	n.reverting = false
	n.machine = newMachine()
	n.store = &modelStore{n: n, keeps: map[*simReplica]*keeps{}}
	n.fe = &frontend{n: n}
	n.reign = newReignShell(n)
	n.suspect = map[int]bool{}
	n.raft = newRaft(n.c, n.host, n.proc, n.disk, n)
	n.gossip()
	n.join()
}

// stop kills the process; with power the machine, whose disks lose what was not flushed.
func (n *node) stop(power bool) {
	c := n.c
	if n.proc == nil || !n.proc.Alive() {
		return
	}
	n.proc.Kill()
	n.died = c.w.Now()
	if n.raft != nil {
		n.raft.close()
	}
	what := "process"
	if power {
		what = "machine"
		n.up = false
		c.net.SetHost(n.host, false)
	}
	c.trace(n.host, "node: its %s dies", what)
	n.breakDisks(power)
	n.voidSums()
	c.net.Died(n.proc, power)
	// What a disk had been given may have reached it.
	for _, p := range n.pools {
		for _, v := range c.volIDs {
			if r := p.replicas[v]; r != nil {
				n.crashFile(r.data, power)
				r.reloaded()
				c.renew(r)
			}
		}
	}
	n.flushes = []*simworld.Flush{}
	n.store, n.raft, n.reign, n.fe = nil, nil, nil, nil
}

func (n *node) crashFile(f *simworld.File, power bool) {
	if power {
		f.Crash(n.c.w.Rand, n.flushes)
		return
	}
	for _, fl := range n.flushes { // the page cache outlives the process
		if fl.Of(f) {
			fl.Done()
		}
	}
	f.Flush().Done() // with what was written since
}

// apply is the state machine of the catalog.
func (n *node) apply(index uint64, cmd []byte) any {
	out, err := n.machine.apply(index, cmd)
	n.reign.later(func() { n.reign.step(reign.Changed{View: n.view()}) })
	return applied{out, err}
}

type applied struct {
	out truth.Outcome
	err error
}

func (n *node) view() *truth.View { return n.breakView(n.machine.view) }

func (n *node) leading() {
	n.c.trace(n.host, "node: leads")
	n.reign.step(reign.Leading{View: n.view()})
}

func (n *node) following() {
	n.reign.step(reign.Following{})
}

func (n *node) campaigns() (time.Duration, bool) {
	if n.witness {
		return 600 * time.Millisecond, true
	}
	return 0, true
}

func (n *node) propose(p any, done func(truth.Outcome, error)) {
	n.c.trace(n.host, "proposes %T %+v", p, p)
	if n.breakProposal(p, done) {
		return
	}
	cmd, err := command(p)
	if err != nil {
		n.c.fail("%T cannot be encoded: %v", p, err)
		return
	}
	n.raft.propose(cmd, func(res any, err error) {
		if err != nil {
			n.c.trace(n.host, "%T: %v", p, err)
			done(truth.Outcome{}, err)
			return
		}
		a := res.(applied)
		n.c.trace(n.host, "%T: %+v %v", p, a.out, a.err)
		n.breakRetired(p, a.err)
		if add, ok := p.(truth.AddReplica); ok && a.err == nil && add.Why != truth.WhyAsked && add.Why != "" {
			n.c.stats["moves of replicas because they are "+map[string]string{truth.WhyLost: "lost", truth.WhyDrain: "on a drained node"}[add.Why]]++
		}
		done(a.out, a.err)
	})
}

func (n *node) proposeVolume(p any, done func(error)) {
	n.propose(p, func(_ truth.Outcome, err error) { done(err) })
}

func (n *node) hostOf(id ids.Node) (int, bool) {
	for _, o := range n.c.nodes {
		if o.id() == id {
			return o.host, true
		}
	}
	return 0, false
}

func (n *node) volumePlace(v ids.Volume, id ids.Node) (truth.Volume, truth.Place, bool) {
	for _, x := range n.view().Volumes {
		if x.ID != v {
			continue
		}
		for _, p := range x.Replicas {
			if p.Node == id {
				return x, p, true
			}
		}
	}
	return truth.Volume{}, truth.Place{}, false
}

func (n *node) mirrorOf(vol int) *mirrorShell {
	if n.reign == nil || vol >= len(n.c.volIDs) {
		return nil
	}
	if m := n.reign.mirrors[n.c.volIDs[vol]]; m != nil && !m.ended {
		return m
	}
	return nil
}

// askReport asks another node for its report.
func (n *node) askReport(to ids.Node, done func(reign.Report)) {
	h, ok := n.hostOf(to)
	if !ok {
		return
	}
	o, proc := n.c.nodes[h], n.proc
	n.c.net.Datagram(n.host, h, o.proc, func() {
		if o.raft == nil {
			return
		}
		li, _ := o.disk.last()
		rep := reign.Report{Electable: o.raft.isVoter(o.id()), LastIndex: li}
		for _, x := range n.c.nodes {
			if x.listening() && x.proc.Running() && n.c.net.Open(o.host, x.host) && n.c.net.Open(x.host, o.host) {
				rep.Reaches = append(rep.Reaches, x.id())
			}
		}
		n.c.net.Datagram(h, n.host, proc, func() { done(rep) })
	})
}

// gossip forms an opinion of the other nodes, sometimes a wrong one.
func (n *node) gossip() {
	for _, o := range n.c.nodes {
		if o == n {
			continue
		}
		bad := !o.listening() || !o.proc.Running() || !n.c.net.Open(n.host, o.host) || !n.c.net.Open(o.host, n.host) ||
			n.c.w.Rand.Chance(n.c.faults.gossip)
		if bad != n.suspect[o.host] {
			n.suspect[o.host] = bad
			if bad {
				n.reign.step(reign.Suspected{Node: o.id()})
			} else {
				n.reign.step(reign.Alive{Node: o.id()})
			}
		}
	}
	n.proc.After(n.c.w.Rand.Between(150*time.Millisecond, 400*time.Millisecond), n.gossip)
}

// poolEpoch is the highest epoch that a pool of the node has accepted.
func (n *node) poolEpoch() (e peer.Epoch) {
	for _, p := range n.pools {
		e = max(e, p.epoch())
	}
	return e
}

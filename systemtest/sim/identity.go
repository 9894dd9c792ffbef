package sim

import (
	"maps"
	"slices"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// snapshot is a catalog disk as it was.
type snapshot struct {
	disk     *raftDisk
	epoch    peer.Epoch
	recorded map[ids.Pool]bool
}

func (n *node) takeSnapshot() {
	n.snapshot = &snapshot{n.disk.clone(), n.epoch, maps.Clone(n.recorded)}
}

// seekEvidence asks the other nodes what they know of this identity, for at most 2 s, and then starts: under a new identity
// if its catalog disk was lost or reverted (9).
func (n *node) seekEvidence() {
	id, proc := n.id(), n.proc
	answers := map[int]acked{}
	done := false
	decide := func() {
		if done {
			return
		}
		done = true
		bad := n.disk.conf() == nil || n.poolsKnowBetter(n.disk)
		for _, k := range answers {
			bad = bad || k.against(n.disk)
		}
		switch {
		case bad && n.disk.conf() != nil && !n.reverting:
			n.c.fail("invariant 9: node %d gives up its identity, and its catalog is whole", n.host)
			return
		case !bad && n.reverting: // who knows better has been spared
			n.c.fail("invariant 9: node %d votes with a catalog that was reverted", n.host)
			return
		}
		if bad {
			n.former = n.id()
			n.disk = &raftDisk{id: ids.Node(n.c.w.Rand.ID())}
			n.epoch, n.recorded, n.snapshot = 0, nil, nil
			n.c.trace(n.host, "node: its catalog was lost or reverted; it comes back under a new identity")
			n.c.stats["new identities"]++
		}
		n.launch()
	}
	tries := 0
	var ask func()
	ask = func() {
		if done {
			return
		}
		for _, o := range n.c.nodes {
			if o == n || o.proc == nil {
				continue
			}
			n.c.net.Datagram(n.host, o.host, o.proc, func() {
				if o.raft == nil {
					return
				}
				k := o.raft.known[id]
				n.c.net.Datagram(o.host, n.host, proc, func() {
					answers[o.host] = k
					if len(answers) == len(n.c.nodes)-1 {
						decide()
					}
				})
			})
		}
		if tries++; tries <= 10 {
			proc.After(200*time.Millisecond, ask)
		} else {
			decide()
		}
	}
	ask()
}

// poolsKnowBetter tells whether a pool of the node recorded an epoch when its catalog had been written more often than d.
func (n *node) poolsKnowBetter(d *raftDisk) bool {
	if n.c.breaks(BreakPoolsForget) {
		return false
	}
	if n.c.breaks(BreakPoolsEpoch) {
		return n.poolEpoch() > d.logEpoch()
	}
	return slices.ContainsFunc(n.pools, func(p *simPool) bool { return p.written.id == d.id && p.written.count > d.written })
}

// join asks the leader, again and again, to be taken in, as long as it is not a voter.
func (n *node) join() {
	r := n.raft
	if !r.isVoter(n.id()) {
		id, applied := n.id(), r.applied
		for _, o := range n.c.nodes {
			if o != n {
				n.c.net.Datagram(n.host, o.host, o.proc, func() {
					if o.raft != nil && o.raft.role == leader {
						o.takeIn(n, id, applied)
					}
				})
			}
		}
	}
	n.proc.After(300*time.Millisecond, n.join)
}

func knows(id ids.Node) func(truth.Node) bool { return func(n truth.Node) bool { return n.ID == id } }

func (l *node) proposeNode(n *node, id ids.Node) {
	var pools []ids.Pool
	for _, p := range n.pools {
		pools = append(pools, p.id)
	}
	l.propose(nodeCommand(id, n.former, l.c.hostName(n.host), n.witness, pools), func(truth.Outcome, error) {})
}

// caughtUp is how many entries a node may lack when it becomes a voter.
const caughtUp = 64

// takeIn is the leader's part of a join, as in cluster: the catalog learns of the node, its former identity leaves Raft's
// configuration, it becomes a non-voter, and a voter when it has caught up.
func (l *node) takeIn(n *node, id ids.Node, applied uint64) {
	r := l.raft
	conf := r.d.conf()
	if !slices.ContainsFunc(l.view().Nodes, knows(id)) {
		l.proposeNode(n, id)
		return
	}
	for i, p := range conf {
		if p.host == n.host && p.id != id {
			r.reconfigure(slices.Delete(slices.Clone(conf), i, i+1))
			return
		}
	}
	at := slices.IndexFunc(conf, func(p raftPeer) bool { return p.id == id })
	switch {
	case at < 0:
		r.reconfigure(append(slices.Clone(conf), raftPeer{id: id, host: n.host}))
	case !conf[at].voter && applied+caughtUp >= r.applied && applied > 0:
		next := slices.Clone(conf)
		next[at].voter = true
		if r.reconfigure(next) {
			l.c.trace(n.host, "raft: becomes a voter")
		}
	}
}

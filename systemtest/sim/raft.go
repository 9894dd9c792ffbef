package sim

import (
	"maps"
	"slices"
	"time"

	"pmsapp/internal/ids"
	simworld "pmsapp/internal/sim"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// The model of Raft: logs, terms, votes and configurations as in the paper, messages that are lost, late and doubled, and
// durable writes that take no time. What the product sees of hashicorp/raft is here: an old leader that does not know yet,
// proposals whose outcome is unknown and that are committed later or never, applied indexes that lag, transfers. The tests
// of cluster/ show that the real one behaves so.

const (
	raftBeat     = 60 * time.Millisecond
	raftElection = 400 * time.Millisecond // the least; up to twice that
)

// entry is one entry of a Raft log.
type entry struct {
	term uint64
	cmd  []byte     // nil for a no-op and a configuration
	conf []raftPeer // a new configuration
}

// raftPeer is a member of a Raft configuration.
type raftPeer struct {
	id    ids.Node
	host  int
	voter bool
}

// raftDisk is what a node's catalog disk holds.
type raftDisk struct {
	id    ids.Node
	term  uint64
	voted ids.Node
	log   []entry // log[0] is index 1
	// written is how many durable transactions there have been.
	written uint64
}

// wrote says that something was made durable.
func (d *raftDisk) wrote() { d.written++ }

// acked is what a node has learned of an identity, as in cluster: the highest term in which it spoke, and the highest index that it
// had in the newest term in which it named one.
type acked struct{ term, index, within uint64 }

// against tells whether a disk lacks what is known of it.
func (k acked) against(d *raftDisk) bool {
	li, _ := d.last()
	return k.term > d.term || k.index > li && k.within >= d.term
}

func (d *raftDisk) clone() *raftDisk {
	c := *d
	c.log = slices.Clone(d.log)
	return &c
}

func (d *raftDisk) last() (index, term uint64) {
	if n := len(d.log); n > 0 {
		return uint64(n), d.log[n-1].term
	}
	return 0, 0
}

// logEpoch is the highest epoch in the log.
func (d *raftDisk) logEpoch() peer.Epoch {
	m := newMachine()
	for i, x := range d.log {
		if x.cmd != nil {
			m.apply(uint64(i+1), x.cmd)
		}
	}
	return m.view.Epoch
}

func (d *raftDisk) conf() []raftPeer {
	for i := len(d.log) - 1; i >= 0; i-- {
		if d.log[i].conf != nil {
			return d.log[i].conf
		}
	}
	return nil
}

// raftUser is the node above a raft.
type raftUser interface {
	// apply applies a command to the state machine of the node.
	apply(index uint64, cmd []byte) any
	// leading says that the node leads, and that everything committed before is applied.
	leading()
	following()
	// campaigns tells whether the node stands for election, and how much later than others.
	campaigns() (later time.Duration, ok bool)
}

// raft is a running Raft node.
type raft struct {
	c    *Cluster
	host int
	proc *simworld.Proc
	d    *raftDisk
	user raftUser

	role     raftRole
	leader   ids.Node
	heard    time.Duration // when a leader was heard last
	commit   uint64
	applied  uint64
	votes    map[ids.Node]bool
	next     map[ids.Node]uint64
	match    map[ids.Node]uint64
	contact  map[ids.Node]time.Duration
	pending  map[uint64]func(any, error)
	first    uint64 // the no-op of this reign; leading is said when it is applied
	transfer ids.Node
	election *simworld.Timer
	beat     *simworld.Timer
	applying bool
	closed   bool
	known    map[ids.Node]acked // of the others: the evidence of invariant 9
}

type raftRole uint8

const (
	follower raftRole = iota
	candidate
	leader
)

func newRaft(c *Cluster, host int, proc *simworld.Proc, d *raftDisk, user raftUser) *raft {
	r := &raft{c: c, host: host, proc: proc, d: d, user: user, heard: -raftElection, known: map[ids.Node]acked{}}
	r.pending = map[uint64]func(any, error){}
	r.arm()
	return r
}

func (r *raft) arm() {
	r.election.Stop()
	wait := r.c.w.Rand.Between(raftElection, 2*raftElection)
	if later, ok := r.user.campaigns(); ok {
		wait += later
	}
	r.election = r.proc.After(wait, r.expired)
}

// send has fn run on the raft that runs at host then.
func (r *raft) send(host int, fn func(*raft)) {
	n := r.c.nodes[host]
	r.c.net.Datagram(r.host, host, n.currentProc(), func() {
		if n.raft != nil && !n.raft.closed {
			fn(n.raft)
		}
	})
}

func (r *raft) learn(id ids.Node, term, index uint64) {
	k := r.known[id]
	k.term = max(k.term, term)
	switch {
	case index == 0 || term < k.within:
	case term > k.within:
		k.index, k.within = index, term
	default:
		k.index = max(k.index, index)
	}
	r.known[id] = k
}

func (r *raft) isVoter(id ids.Node) bool {
	for _, p := range r.d.conf() {
		if p.id == id {
			return p.voter
		}
	}
	return false
}

func (r *raft) hostOf(id ids.Node) (int, bool) {
	for _, p := range r.d.conf() {
		if p.id == id {
			return p.host, true
		}
	}
	return 0, false
}

// expired is the election timer.
func (r *raft) expired() {
	r.arm()
	if _, ok := r.user.campaigns(); !ok || r.role == leader || !r.isVoter(r.d.id) {
		return
	}
	r.campaign(false)
}

func (r *raft) campaign(forced bool) {
	if r.role == leader {
		return
	}
	r.role = candidate
	r.leader = ids.Node{}
	r.d.term++
	r.d.voted = r.d.id
	r.d.wrote()
	r.votes = map[ids.Node]bool{r.d.id: true}
	term := r.d.term
	r.c.trace(r.host, "raft: stands for term %d", term)
	li, lt := r.d.last()
	me, myHost := r.d.id, r.host
	for _, p := range r.d.conf() {
		if p.voter && p.id != me {
			to := p.id
			r.send(p.host, func(v *raft) { v.onVote(to, me, myHost, term, li, lt, forced) })
		}
	}
	r.tally()
}

func (r *raft) onVote(to, cand ids.Node, host int, term, li, lt uint64, forced bool) {
	if r.d.id != to {
		return
	}
	r.learn(cand, term, 0)
	if !forced && r.role != leader && r.proc.Now()-r.heard < raftElection || !forced && r.role == leader && term <= r.d.term {
		return // it hears a leader
	}
	if term > r.d.term {
		r.stepDown(term)
	}
	mi, mt := r.d.last()
	grant := term == r.d.term && (r.d.voted == (ids.Node{}) || r.d.voted == cand) &&
		(lt > mt || lt == mt && li >= mi)
	if grant {
		r.d.voted = cand
		r.d.wrote()
		r.arm()
	}
	myTerm, me := r.d.term, r.d.id
	r.send(host, func(c *raft) { c.onVoted(cand, me, myTerm, grant) })
}

func (r *raft) onVoted(to, from ids.Node, term uint64, grant bool) {
	if r.d.id != to {
		return
	}
	if term > r.d.term {
		r.stepDown(term)
		return
	}
	if grant {
		r.learn(from, term, 0)
	}
	if grant && term == r.d.term && r.role == candidate {
		r.votes[from] = true
		r.tally()
	}
}

func (r *raft) quorum(has func(ids.Node) bool) bool {
	n, got := 0, 0
	for _, p := range r.d.conf() {
		if p.voter {
			n++
			if has(p.id) {
				got++
			}
		}
	}
	return n > 0 && got > n/2
}

func (r *raft) tally() {
	if r.role != candidate || !r.quorum(func(id ids.Node) bool { return r.votes[id] }) {
		return
	}
	r.role, r.leader = leader, r.d.id
	r.transfer = ids.Node{}
	r.next, r.match, r.contact = map[ids.Node]uint64{}, map[ids.Node]uint64{}, map[ids.Node]time.Duration{}
	li, _ := r.d.last()
	for _, p := range r.d.conf() {
		r.next[p.id] = li + 1
		r.contact[p.id] = r.proc.Now()
	}
	r.c.trace(r.host, "raft: leads term %d", r.d.term)
	r.c.noteLeader(r)
	r.first = r.append(entry{term: r.d.term})
	r.heartbeat()
}

func (r *raft) append(e entry) uint64 {
	r.d.log = append(r.d.log, e)
	r.d.wrote()
	i := uint64(len(r.d.log))
	if e.conf != nil {
		for _, p := range e.conf {
			if _, ok := r.next[p.id]; !ok {
				r.next[p.id], r.contact[p.id] = 1, r.proc.Now()
			}
		}
	}
	r.advance()
	return i
}

// heartbeat replicates to all, and steps down when no quorum was heard of for a lease.
func (r *raft) heartbeat() {
	r.beat.Stop()
	if r.role != leader {
		return
	}
	now := r.proc.Now()
	if !r.quorum(func(id ids.Node) bool { return id == r.d.id || now-r.contact[id] < r.c.plan.lease }) {
		r.c.trace(r.host, "raft: no quorum, steps down")
		r.stepDown(r.d.term)
		return
	}
	for _, p := range r.d.conf() {
		if p.id != r.d.id {
			r.replicate(p)
		}
	}
	r.beat = r.proc.After(raftBeat, r.heartbeat)
}

func (r *raft) replicate(p raftPeer) {
	term, me, myHost, to, commit := r.d.term, r.d.id, r.host, p.id, r.commit
	prev := min(r.next[p.id], uint64(len(r.d.log))+1) - 1
	var prevTerm uint64
	if prev > 0 {
		prevTerm = r.d.log[prev-1].term
	}
	more := slices.Clone(r.d.log[prev:])
	r.send(p.host, func(f *raft) { f.onAppend(to, me, myHost, term, prev, prevTerm, more, commit) })
}

func (r *raft) onAppend(to, from ids.Node, host int, term, prev, prevTerm uint64, more []entry, commit uint64) {
	if r.d.id != to {
		return
	}
	r.learn(from, term, prev+uint64(len(more)))
	reply := func(ok bool, match uint64) {
		myTerm, me := r.d.term, r.d.id
		r.send(host, func(l *raft) { l.onAppended(from, me, myTerm, term, ok, match) })
	}
	if term < r.d.term {
		reply(false, 0)
		return
	}
	if term > r.d.term || r.role != follower {
		r.stepDown(term)
	}
	r.leader, r.heard = from, r.proc.Now()
	r.arm()
	if prev > uint64(len(r.d.log)) || prev > 0 && r.d.log[prev-1].term != prevTerm {
		reply(false, min(prev, uint64(len(r.d.log))))
		return
	}
	for i, e := range more {
		at := prev + uint64(i)
		if at < uint64(len(r.d.log)) {
			if r.d.log[at].term == e.term {
				continue
			}
			if at < r.commit {
				r.c.fail("raft: node %d gives up entry %d, which is committed", r.host, at+1)
				return
			}
			r.d.log = r.d.log[:at:at]
			r.d.wrote()
		}
		r.d.log = append(r.d.log, e)
		r.d.wrote()
	}
	r.setCommit(min(commit, prev+uint64(len(more))))
	reply(true, prev+uint64(len(more)))
}

func (r *raft) onAppended(to, from ids.Node, term, sent uint64, ok bool, match uint64) {
	if r.d.id != to {
		return
	}
	if term > r.d.term {
		r.stepDown(term)
		return
	}
	if r.role != leader || sent != r.d.term {
		return
	}
	r.contact[from] = r.proc.Now()
	r.learn(from, term, 0)
	if !ok {
		r.next[from] = max(1, min(r.next[from]-1, match))
		return
	}
	r.match[from] = max(r.match[from], match)
	r.learn(from, term, match)
	r.next[from] = r.match[from] + 1
	r.advance()
	if r.transfer == from && match == uint64(len(r.d.log)) {
		r.transfer = ids.Node{}
		if h, ok := r.hostOf(from); ok {
			term := r.d.term
			r.send(h, func(t *raft) {
				if t.d.id == from && t.d.term == term && t.isVoter(from) {
					t.campaign(true)
				}
			})
		}
	}
}

// advance commits what a quorum has.
func (r *raft) advance() {
	if r.role != leader {
		return
	}
	for i := uint64(len(r.d.log)); i > r.commit && r.d.log[i-1].term == r.d.term; i-- {
		if r.quorum(func(id ids.Node) bool { return id == r.d.id || r.match[id] >= i }) {
			r.setCommit(i)
			return
		}
	}
}

func (r *raft) setCommit(i uint64) {
	if i <= r.commit {
		return
	}
	r.commit = i
	r.c.noteCommit(r, i)
	r.kick()
}

// kick applies committed entries, a little later.
func (r *raft) kick() {
	if r.applying || r.applied >= r.commit {
		return
	}
	r.applying = true
	lag := 20 * time.Microsecond
	if r.role != leader {
		lag = r.c.w.Rand.Long(time.Millisecond, 300*time.Millisecond, 0.05)
	}
	r.proc.After(lag, func() {
		r.applying = false
		for r.applied < r.commit && !r.closed {
			r.applied++
			e := r.d.log[r.applied-1]
			var res any
			if e.cmd != nil {
				res = r.user.apply(r.applied, e.cmd)
			}
			if done := r.pending[r.applied]; done != nil {
				delete(r.pending, r.applied)
				done(res, nil)
			}
			if r.role == leader && r.applied == r.first {
				r.user.leading()
			}
		}
	})
}

// stepDown follows, in a term not below its own.
func (r *raft) stepDown(term uint64) {
	was := r.role
	if term > r.d.term {
		r.d.term, r.d.voted = term, ids.Node{}
		r.d.wrote()
	}
	r.role, r.leader = follower, ids.Node{}
	if was != leader {
		return
	}
	r.beat.Stop()
	r.c.trace(r.host, "raft: leads no more")
	lost := r.pending
	r.pending = map[uint64]func(any, error){}
	for _, i := range slices.Sorted(maps.Keys(lost)) {
		lost[i](nil, truth.ErrUnknown)
	}
	r.arm()
	r.user.following()
}

// propose appends cmd and calls done when it was applied here, or with truth.ErrUnknown.
func (r *raft) propose(cmd []byte, done func(any, error)) {
	if r.role != leader || r.transfer != (ids.Node{}) {
		r.proc.After(0, func() { done(nil, truth.ErrUnknown) })
		return
	}
	if r.c.w.Rand.Chance(r.c.faults.unknown) {
		// The answer is lost, and perhaps the proposal; in its leader's log it has its place before every later one.
		if r.c.w.Rand.Chance(0.7) {
			r.append(entry{term: r.d.term, cmd: cmd})
		}
		r.proc.After(r.c.w.Rand.Between(0, 50*time.Millisecond), func() { done(nil, truth.ErrUnknown) })
		return
	}
	// The entry gets its place, then its callback; append may commit it at once, but it is applied later.
	i := r.append(entry{term: r.d.term, cmd: cmd})
	r.pending[i] = done
	for _, p := range r.d.conf() {
		if p.id != r.d.id {
			r.replicate(p)
		}
	}
}

// reconfigure proposes another configuration, one change at a time.
func (r *raft) reconfigure(conf []raftPeer) bool {
	if r.role != leader || r.applied < r.first {
		return false
	}
	for i := r.commit; i < uint64(len(r.d.log)); i++ {
		if r.d.log[i].conf != nil {
			return false
		}
	}
	r.append(entry{term: r.d.term, conf: conf})
	return true
}

// handOver has another voter stand for election at once, when it has the whole log.
func (r *raft) handOver(to ids.Node) bool {
	if r.role != leader || to == r.d.id || !r.isVoter(to) {
		return false
	}
	r.transfer = to
	r.proc.After(time.Second, func() {
		if r.transfer == to {
			r.transfer = ids.Node{}
		}
	})
	for _, p := range r.d.conf() {
		if p.id == to {
			r.replicate(p)
		}
	}
	return true
}

func (r *raft) close() {
	r.closed = true
	r.election.Stop()
	r.beat.Stop()
}

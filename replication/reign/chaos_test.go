package reign

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

var (
	chaosSeed  = flag.Uint64("chaos.seed", 0, "replay this seed only")
	chaosSeeds = flag.Int("chaos.seeds", 300, "how many seeds to run")
	chaosLog   = flag.Bool("chaos.log", false, "log what happens")
)

// TestChaos runs three nodes, each with a Core, against a model of Raft, of fences and of mirrors that write, while leaders
// change at any moment, outcomes are unknown, answers to fences are lost after they were recorded, nodes restart and pools
// are reverted. At every step some in-sync member of every volume holds all that was acknowledged; every mirror that opens
// has only such members; and when all is well again, all volumes are served.
func TestChaos(t *testing.T) {
	first, n := uint64(1), *chaosSeeds
	if *chaosSeed != 0 {
		first, n = *chaosSeed, 1
	}
	for seed := first; seed < first+uint64(n); seed++ {
		c := newChaos(t, seed)
		for range 600 {
			c.step()
		}
		c.heal()
	}
}

type chaos struct {
	t      *testing.T
	seed   uint64
	r      *rand.Rand
	w      *world
	now    time.Duration
	sites  []*site
	leader *site
	raft   []raftEntry        // of the leader, not committed
	data   map[ids.Volume]int // acknowledged
	have   map[truth.Place]map[ids.Volume]int
	snaps  map[ids.Pool]snapshot
	healed bool
}

// site is one node with its Core and what that Core has asked for.
type site struct {
	node    *mnode
	core    *Core
	deposed bool // Following is on its way
	open    []OpenSession
	live    map[ids.Node]OpenSession
	dying   []uint64 // Lost is on its way
	polls   []Poll
	cmds    []Command
	mirrors map[ids.Volume]*mmirror
	resyncs []StartResync
}

// mmirror is a mirror of the model.
type mmirror struct {
	epoch   peer.Epoch
	members []truth.Place
	version uint64
	seq     peer.Seq
	opened  bool
}

type raftEntry struct {
	s *site
	e Propose
}

type snapshot struct {
	accepted []peer.EpochRange
	replicas []peer.FencedReplica
	have     map[ids.Volume]int
}

func newChaos(t *testing.T, seed uint64) *chaos {
	c := &chaos{
		t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 1)), w: newWorld(), data: make(map[ids.Volume]int),
		have: make(map[truth.Place]map[ids.Volume]int), snaps: make(map[ids.Pool]snapshot),
	}
	for _, n := range []string{"a", "b", "c"} {
		c.w.addNode(n, false, n+".1", n+".2")
		for _, p := range []string{".1", ".2"} {
			c.have[place(n+p)] = make(map[ids.Volume]int)
		}
	}
	for i, ps := range [][]string{{"a.1", "b.1"}, {"b.1", "c.1"}, {"a.1", "b.2", "c.1"}, {"c.2"}, {"a.2", "c.2"}} {
		c.w.addVolume(fmt.Sprintf("v%d", i+1), ps...)
	}
	for _, n := range c.w.order {
		s := &site{node: c.w.nodes[n]}
		c.sites = append(c.sites, s)
		c.boot(s)
	}
	return c
}

func (c *chaos) boot(s *site) {
	*s = site{node: s.node, core: NewCore(Default(), s.node.id), live: make(map[ids.Node]OpenSession), mirrors: make(map[ids.Volume]*mmirror)}
	s.core.Step(c.now, Changed{View: c.w.view})
}

func (c *chaos) logf(format string, a ...any) {
	if *chaosLog {
		c.t.Logf("%8v "+format, append([]any{c.now}, a...)...)
	}
}

func (c *chaos) fatalf(format string, a ...any) {
	c.t.Helper()
	c.t.Fatalf("seed %d: "+format, append([]any{c.seed}, a...)...)
}

func (c *chaos) tell(s *site, ev Event) {
	for _, e := range s.core.Step(c.now, ev) {
		if _, ok := e.(Tell); !ok || *chaosLog {
			c.logf("%s: %s", name(s.node.id), show(e))
		}
		c.take(s, e)
	}
}

func (c *chaos) take(s *site, e Effect) {
	switch e := e.(type) {
	case Propose:
		c.raft = append(c.raft, raftEntry{s, e})
	case OpenSession:
		s.open = append(s.open, e)
	case CloseSession:
		s.open = slices.DeleteFunc(s.open, func(o OpenSession) bool { return o.Attempt == e.Attempt })
		if s.live[e.Node].Attempt == e.Attempt {
			delete(s.live, e.Node)
		}
	case Poll:
		s.polls = append(s.polls, e)
	case Command:
		s.cmds = append(s.cmds, e)
	case OpenMirror:
		c.openMirror(s, e)
	case CloseMirror:
		if s.mirrors[e.Volume] == nil {
			c.fatalf("%s closes a mirror of %s that is not open", name(s.node.id), name(e.Volume))
		}
		delete(s.mirrors, e.Volume)
		s.resyncs = slices.DeleteFunc(s.resyncs, func(r StartResync) bool { return r.Volume == e.Volume })
	case StartResync:
		s.resyncs = append(s.resyncs, e)
	case AskReports, TransferLeadership, Reply, Tell:
	default:
		c.fatalf("unexpected effect %s", show(e))
	}
}

// openMirror checks what matters (7, 14), and makes the members equal, as a mirror does (13).
func (c *chaos) openMirror(s *site, e OpenMirror) {
	if s.mirrors[e.Volume.ID] != nil {
		c.fatalf("second mirror of %s", name(e.Volume.ID))
	}
	m := &mmirror{epoch: e.Epoch, version: e.Volume.Version}
	best := 0
	for i, p := range e.Volume.InSync {
		if e.Members[i].Place != p {
			c.fatalf("members of %s are not its set", name(e.Volume.ID))
		}
		if c.w.nodes[p.Node].accepted < e.Epoch {
			c.fatalf("%s serves %s with %s not fenced", name(s.node.id), name(e.Volume.ID), name(p.Pool))
		}
		if e.Epoch == c.w.view.Epoch {
			if got := c.have[p][e.Volume.ID]; got < c.data[e.Volume.ID] {
				c.fatalf("%s serves %s with %s that has %d of %d writes", name(s.node.id), name(e.Volume.ID), name(p.Pool), got, c.data[e.Volume.ID])
			}
		}
		m.members = append(m.members, p)
		m.seq = max(m.seq, e.Members[i].Replica.Seq)
		best = max(best, c.have[p][e.Volume.ID])
	}
	s.mirrors[e.Volume.ID] = m
	for _, p := range m.members {
		if c.reaches(s, p, e.Epoch) && c.have[p][e.Volume.ID] < best { // not equal: marks are there, a copy marks as well
			c.have[p][e.Volume.ID] = best
		}
	}
}

// reaches tells whether a leader's session can make a node do something.
func (c *chaos) reaches(s *site, p truth.Place, e peer.Epoch) bool {
	n := c.w.nodes[p.Node]
	return s.live[p.Node].Epoch == e && !n.down && n.accepted == e
}

func pick[T any](c *chaos, xs []T) (x T, ok bool) {
	if len(xs) == 0 {
		return x, false
	}
	return xs[c.r.IntN(len(xs))], true
}

func (c *chaos) step() {
	s := c.sites[c.r.IntN(len(c.sites))]
	switch k := c.r.IntN(100); {
	case k < 2:
		c.elect(c.sites[c.r.IntN(len(c.sites))])
	case k < 22:
		c.commit()
	case k < 42:
		c.fence(s)
	case k < 44 && len(s.live) > 0:
		for _, n := range c.w.order { // the first of them, in order
			if o, ok := s.live[n]; ok && c.r.IntN(2) == 0 {
				c.cut(s, o)
				break
			}
		}
	case k < 50:
		c.poll(s)
	case k < 62:
		c.write(s)
	case k < 66:
		c.resync(s)
	case k < 70:
		c.command(s)
	case k < 74 && s.deposed:
		s.deposed = false
		c.tell(s, Following{})
	case k < 78 && len(s.dying) > 0:
		at := s.dying[0]
		s.dying = s.dying[1:]
		c.tell(s, Lost{Attempt: at, Err: peer.ErrLost})
	case k < 79 && !s.node.down && !c.healed:
		c.crash(s, c.r.IntN(2) == 0)
	case k < 84:
		for _, s := range c.sites {
			if s.node.down {
				s.node.down = false
				c.boot(s)
				break
			}
		}
	case k < 86 && !c.healed:
		p := s.node.pools[c.r.IntN(2)]
		p.busy = !p.busy && c.r.IntN(2) == 0
	case k < 88:
		n := c.sites[c.r.IntN(len(c.sites))].node.id
		if c.r.IntN(2) == 0 {
			c.tell(s, Suspected{Node: n})
		} else {
			c.tell(s, Alive{Node: n})
		}
	default:
		c.now += ms(c.r.IntN(150))
		for _, s := range c.sites {
			if at, ok := s.core.Next(); ok && at <= c.now {
				c.tell(s, Tick{})
			}
		}
	}
	c.check()
}

// check: the last good member of a set is never lost.
func (c *chaos) check() {
	for i := range c.w.view.Volumes {
		v := &c.w.view.Volumes[i]
		if !slices.ContainsFunc(v.InSync, func(p truth.Place) bool { return c.have[p][v.ID] >= c.data[v.ID] }) {
			c.fatalf("no member of %s in %s holds all %d writes", name(v.ID), placeNames(v.InSync), c.data[v.ID])
		}
	}
}

func (c *chaos) elect(s *site) {
	if s.node.down || c.leader == s {
		return
	}
	c.depose()
	c.leader = s
	s.deposed = false
	c.logf("%s leads", name(s.node.id))
	c.tell(s, Leading{View: c.w.view})
}

// depose ends a leadership: some of what was proposed is committed, the rest never will be; nobody learns which.
func (c *chaos) depose() {
	entries := c.raft
	c.raft = nil
	k := c.r.IntN(len(entries) + 1)
	for i, x := range entries {
		if i < k && x.s == c.leader {
			c.w.apply(x.e.P)
			c.check()
		}
	}
	old := c.leader
	c.leader = nil
	if old != nil {
		old.deposed = true
	}
	for _, x := range entries {
		if !x.s.node.down && x.s.core != nil {
			c.tell(x.s, Decided{ID: x.e.ID, Err: truth.ErrUnknown, View: nil})
		}
	}
}

func (c *chaos) commit() {
	if len(c.raft) == 0 {
		return
	}
	x := c.raft[0]
	c.raft = c.raft[1:]
	if x.s.node.down {
		return
	}
	if x.s != c.leader {
		c.tell(x.s, Decided{ID: x.e.ID, Err: truth.ErrUnknown})
		return
	}
	out, err := c.w.apply(x.e.P)
	c.logf("commit %s: %v", showProposal(x.e.P), err)
	c.check()
	for _, s := range c.sites { // the others learn of it now or later
		if s != x.s && c.r.IntN(2) == 0 && !s.node.down {
			c.tell(s, Changed{View: c.w.view})
		}
	}
	if c.r.IntN(8) == 0 && !c.healed {
		out, err = truth.Outcome{}, truth.ErrUnknown
	}
	c.tell(x.s, Decided{ID: x.e.ID, Outcome: out, Err: err, View: c.w.view})
}

// heal ends all trouble; then every volume has to be served, with all its replicas.
func (c *chaos) heal() {
	c.healed = true
	for _, s := range c.sites {
		if s.node.down {
			s.node.down = false
			c.boot(s)
		}
		s.node.pools[0].busy, s.node.pools[1].busy = false, false
	}
	c.leader = nil
	for _, s := range c.sites {
		c.tell(s, Following{})
		s.dying = nil
	}
	c.raft = nil
	s := c.sites[c.r.IntN(len(c.sites))]
	c.elect(s)
	for range 20000 {
		switch c.r.IntN(6) {
		case 0:
			c.commit()
		case 1:
			c.fence(s)
		case 2:
			c.poll(s)
		case 3:
			c.resync(s)
			c.command(s)
		case 4:
			c.write(s)
		default:
			c.now += ms(c.r.IntN(150))
			if at, ok := s.core.Next(); ok && at <= c.now {
				c.tell(s, Tick{})
			}
		}
		c.check()
		if c.well(s) {
			return
		}
	}
	c.fatalf("not well in the end: %+v", s.core.Status())
}

func (c *chaos) well(s *site) bool {
	for _, v := range s.core.Status().Volumes {
		if tv := find(c.w.view, v.Volume); v.State != Serving || len(tv.InSync) != len(tv.Replicas) {
			return false
		}
	}
	return true
}

package sim

import (
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"pmsapp/internal/ids"
	simworld "pmsapp/internal/sim"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
)

// Options are of one run.
type Options struct {
	Seed  uint64
	Break Break        // an invariant to break
	Lines int          // of the trace that are kept
	Live  func(string) // gets every line of the trace at once
}

// Result is what came of a run.
type Result struct {
	Err    error
	Trace  string
	Events int
	Ops    int // commands of clients that were answered with success
	Stats  map[string]int
}

// Run runs one seed.
func Run(o Options) Result {
	w := simworld.NewWorld(o.Seed, max(o.Lines, 1))
	w.Trace.Live = o.Live
	w.Limit = 400_000
	c := &Cluster{w: w, broken: o.Break, terms: map[uint64]ids.Node{}, tainted: map[taint]time.Duration{},
		stats: map[string]int{}, deleted: map[int]bool{}, losses: map[int]uint64{}, forces: map[int]*forced{}, mixed: map[taint]bool{}, opened: map[int]peer.Epoch{}}
	c.truth = newMachine()
	c.plan = newPlan(c)
	c.plan.swaps = o.Seed%2 == 0 // not drawn: the seeds of the other half stay what they were
	c.plan.badAll = o.Seed%8 == 5
	c.plan.memory = o.Seed%4 >= 2 && !c.plan.forces
	c.plan.toggles = c.plan.memory && o.Seed%3 == 0
	c.plan.build()
	err := c.guarded()
	res := Result{Err: err, Events: w.Events(), Stats: c.stats}
	for _, x := range c.hist.ops {
		if x.ret != 0 {
			res.Ops++
		}
	}
	if err != nil {
		res.Trace = w.Trace.String()
	}
	return res
}

// guarded makes an error of a panic, so that a run that ends so tells its seed too.
func (c *Cluster) guarded() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return c.run()
}

func (c *Cluster) run() error {
	c.net = simworld.NewNet(c.w, len(c.nodes)+maxClients)
	c.net.Loss, c.net.Double = 0.002, 0.01
	for _, n := range c.nodes {
		n.start()
	}
	if err := c.until("the volumes are created", 60*time.Second, c.createVolumes()); err != nil {
		return err
	}
	for i := range 1 + c.w.Rand.Intn(maxClients) {
		c.clients = append(c.clients, newClient(c, i))
	}
	c.watch()
	c.startChaos()
	c.w.RunUntil(c.w.Now()+c.plan.chaos, c.never)
	c.calm()
	if err := c.orForce("clients are answered again after the faults", 40*time.Second, c.progress); err != nil {
		return err
	}
	for _, cl := range c.clients {
		cl.stopped = true
	}
	if err := c.orForce("all is in sync, answered and clean", 120*time.Second, func() func() bool { return c.settled }); err != nil {
		return err
	}
	if err := c.finalReads(); err != nil {
		return err
	}
	if err := c.compareAll(); err != nil {
		return err
	}
	return c.judge()
}

const maxClients = 3

func (c *Cluster) never() bool { return false }

// until runs until done is true, for at most the given virtual time.
func (c *Cluster) until(what string, limit time.Duration, done func() bool) error {
	if c.w.RunUntil(c.w.Now()+limit, done) {
		return nil
	}
	if err := c.w.Failed(); err != nil {
		return err
	}
	return fmt.Errorf("liveness: in %v it did not come about that %s\n%s", limit, what, c.situation())
}

// createVolumes asks the leader of the moment, again and again, until every volume is in the catalog.
func (c *Cluster) createVolumes() func() bool {
	asked := map[int]time.Duration{}
	return func() bool {
		if len(c.truth.view.Volumes) == len(c.vols) {
			return true
		}
		n := c.leader()
		if n == nil || n.reign.core.Status().Epoch == 0 {
			return false
		}
		for i, v := range c.vols {
			if at, ok := asked[i]; ok && c.w.Now() < at || c.trueVolume(i) != nil {
				continue
			}
			asked[i] = c.w.Now() + 2*time.Second
			n.reign.later(func() {
				n.reign.ask(func(err error) { c.trace(n.host, "creation of volume %d: %v", i, err) }, func(id uint64) reign.Event {
					return reign.CreateVolume{Request: id, Volume: v, Copies: c.plan.copies[i], Space: c.space()}
				})
			})
		}
		return false
	}
}

// leader is the leader of the highest term, if it runs.
func (c *Cluster) leader() *node {
	var l *node
	for _, n := range c.nodes {
		if n.raft != nil && n.proc.Running() && n.raft.role == leader && (l == nil || n.disk.term > l.disk.term) {
			l = n
		}
	}
	return l
}

// calm ends all faults and mends everything.
func (c *Cluster) calm() {
	c.trace(0, "---- all faults end ----")
	c.calmed = true
	c.undrain()
	c.lookAgain()
	c.faults = faults{}
	c.net.Loss, c.net.Double = 0, 0
	c.net.Heal()
	for _, n := range c.nodes {
		if n.proc.Alive() {
			n.proc.Resume()
		} else {
			n.start()
		}
		for _, p := range n.pools {
			p.hang, p.full, p.bad = 0, false, 0
		}
	}
	c.healAll()
}

// progress is true when every client has got an answer since.
func (c *Cluster) progress() func() bool {
	before := map[*client]int{}
	for _, cl := range c.clients {
		before[cl] = cl.done
	}
	return func() bool {
		for _, cl := range c.clients {
			if cl.done == before[cl] {
				return false
			}
		}
		return true
	}
}

// settled is true when everything is as it should be in peace.
func (c *Cluster) settled() bool {
	for _, cl := range c.clients {
		if !cl.quiet() {
			return false
		}
	}
	if c.leftBehind() != "" {
		return false
	}
	for i := range c.vols {
		v := c.trueVolume(i)
		if c.deleted[i] && v == nil {
			continue
		}
		if v == nil || len(v.InSync) != len(v.Replicas) || len(v.Leaving) > 0 || len(v.Gone) > 0 {
			return false
		}
		for _, p := range v.InSync {
			if c.replicaAt(p, i) == nil {
				return false
			}
		}
		l := c.leader()
		if l == nil || l.mirrorOf(i) == nil {
			return false
		}
		if st := l.mirrorOf(i).core.Status(); st.Active > 0 || st.Dirty > 0 {
			return false
		}
	}
	return true
}

// finalReads has a client read every block that was ever written.
func (c *Cluster) finalReads() error {
	cl := c.clients[0]
	if err := c.until("a client is logged in for the last reads", 20*time.Second, func() bool { return cl.ready }); err != nil {
		return err
	}
	for vol := range c.vols {
		if c.trueVolume(vol) == nil {
			continue
		}
		for b := 0; b < c.blocks(vol); b += 64 {
			for tries := 0; ; tries++ {
				if err := c.until("a client is logged in", 20*time.Second, func() bool { return cl.ready }); err != nil {
					return err
				}
				c.plan.nextID++
				o := &op{id: c.plan.nextID, kind: opRead, vol: vol, block: b, n: min(64, c.blocks(vol)-b)}
				cl.issue(o)
				if err := c.until("the last reads are answered", 20*time.Second, cl.quiet); err != nil {
					return err
				}
				if o.ret != 0 || c.trueVolume(vol) == nil { // answered, or deleted meanwhile
					break
				}
				if tries > 10 {
					return fmt.Errorf("liveness: the last reads are not answered\n%s", c.situation())
				}
			}
		}
	}
	return nil
}

// compareAll compares the replicas byte by byte.
func (c *Cluster) compareAll() error {
	for i := range c.vols {
		v := c.trueVolume(i)
		if v == nil {
			continue
		}
		first := c.replicaAt(v.InSync[0], i)
		for _, p := range v.InSync[1:] {
			r := c.replicaAt(p, i)
			if !slices.Equal(first.data.Durable(0, v.Size), r.data.Durable(0, v.Size)) {
				return fmt.Errorf("the replicas of volume %d differ after all is in sync: %s and %s", i, c.nameOf(v.InSync[0].Node), c.nameOf(p.Node))
			}
		}
	}
	return nil
}

// judge has porcupine judge every block that somebody wrote.
func (c *Cluster) judge() error {
	for vol := range c.vols {
		written := map[int]bool{}
		for _, o := range c.hist.ops {
			if o.vol == vol && o.kind != opRead {
				for b := range o.n {
					written[o.block+b] = true
				}
			}
		}
		for _, s := range c.eras(vol) {
			if err := c.hist.check(vol, s, slices.Sorted(maps.Keys(written))); err != nil {
				return err
			}
		}
	}
	return nil
}

// situation describes the cluster for a report.
func (c *Cluster) situation() string {
	s := fmt.Sprintf("  catalog: epoch %d of %s\n", c.truth.view.Epoch, c.nameOf(c.truth.view.Leader))
	if left := c.leftBehind(); left != "" {
		s += "  " + left + "\n"
	}
	for i := range c.truth.view.Volumes {
		v := &c.truth.view.Volumes[i]
		s += fmt.Sprintf("  %s version %d: replicas %v, in sync %v, last served %d\n", c.volName(v.ID), v.Version, c.places(v.Replicas), c.places(v.InSync), v.LastServed)
		if len(v.Leaving)+len(v.Gone) > 0 {
			s += fmt.Sprintf("    leaving %v, gone from %v\n", v.Leaving, c.places(v.Gone))
		}
		for _, p := range v.Replicas {
			if r := c.replicaAt(p, c.volIndex(v.ID)); r != nil {
				s += fmt.Sprintf("    %s: seq %d durable %d marks %v\n", c.nameOf(p.Node), r.seq, r.durable, r.marks)
			}
		}
	}
	for _, n := range c.nodes {
		if n.raft == nil {
			s += fmt.Sprintf("  n%d is down\n", n.host)
			continue
		}
		s += fmt.Sprintf("  n%d: running %v, raft role %d term %d commit %d, pools at epoch %d\n", n.host, n.proc.Running(), n.raft.role, n.disk.term, n.raft.commit, n.poolEpoch())
		st := n.reign.core.Status()
		if st.Leading {
			s += fmt.Sprintf("    reign: %+v\n", st)
		}
		for _, m := range n.reign.inOrder() {
			s += fmt.Sprintf("    mirror %d: %+v\n", m.vol, m.core.Status())
		}
	}
	for _, cl := range c.clients {
		s += fmt.Sprintf("  client %d: portal %d ready %v, in flight %d\n", cl.id, cl.portal, cl.ready, len(cl.out))
		for _, id := range slices.Sorted(maps.Keys(cl.out)) {
			s += fmt.Sprintf("    %v since %v\n", cl.out[id], cl.out[id].at)
		}
	}
	return s
}

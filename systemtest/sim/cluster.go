package sim

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"pmsapp/internal/ids"
	simworld "pmsapp/internal/sim"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// physicalBlock is the largest physical block of the simulated disks, in bytes.
const physicalBlock = 4096

// Cluster is a simulated cluster with its clients, and all that the simulation knows and they do not.
type Cluster struct {
	w       *simworld.World
	net     *simworld.Net
	nodes   []*node
	clients []*client
	plan    *plan
	faults  faults
	hist    history

	volIDs []ids.Volume
	vols   []truth.Volume // as they are to be created

	log     []entry // the committed one
	truth   *machine
	terms   map[uint64]ids.Node // leaders
	broken  Break
	tainted map[taint]time.Duration // when it was reverted; it is in the in-sync set since
	stats   map[string]int
	opened  map[int]peer.Epoch // by volume, the highest under which a mirror was opened
	deleted map[int]bool       // volumes whose deletion was asked for
	forces  map[int]*forced    // by volume, the newest
	mixed   map[taint]bool     // replicas to which a copy was begun, and which were not in sync since

	incarnations uint64         // the last that was given
	losses       map[int]uint64 // by volume, as the catalog has them

	goneAt int64 // when volume 1 was deleted

	// While a reverted catalog is being found out, its node and one that knows better.
	protected, protector *node
	calmed               bool
}

// taint names a replica that lost what it had.
type taint struct {
	pool ids.Pool
	vol  int
}

func (c *Cluster) fail(format string, args ...any) { c.w.Fail(fmt.Errorf(format, args...)) }

func (c *Cluster) trace(host int, format string, args ...any) {
	c.w.Trace.Add(c.hostName(host), format, args...)
}

func (c *Cluster) hostName(h int) string {
	if h < len(c.nodes) {
		return fmt.Sprintf("n%d", h)
	}
	return fmt.Sprintf("c%d", h-len(c.nodes))
}

func (c *Cluster) nameOf(id ids.Node) string {
	for _, n := range c.nodes {
		if n.id() == id {
			return c.hostName(n.host)
		}
	}
	return "-"
}

func (c *Cluster) volIndex(id ids.Volume) int { return slices.Index(c.volIDs, id) }

func (c *Cluster) volName(id ids.Volume) string { return fmt.Sprint("v", c.volIndex(id)) }

func (c *Cluster) reignConfig() reign.Config {
	cfg := reign.Default()
	cfg.ReplaceAfter, cfg.Replacements = c.plan.replace, c.plan.replacements
	return cfg
}

func (c *Cluster) tunables() mirror.Tunables { return c.breakTunables(c.plan.tunables) }

// noteLeader checks that a term has one leader.
func (c *Cluster) noteLeader(r *raft) {
	if l, ok := c.terms[r.d.term]; ok && l != r.d.id {
		c.fail("raft: two leaders in term %d", r.d.term)
	}
	c.terms[r.d.term] = r.d.id
}

// noteCommit keeps the committed log, which never changes, and the true state of the catalog.
func (c *Cluster) noteCommit(r *raft, index uint64) {
	for i := range min(index, uint64(len(c.log))) {
		if c.log[i].term != r.d.log[i].term {
			c.fail("raft: node %d has committed another entry %d", r.host, i+1)
			return
		}
	}
	for i := uint64(len(c.log)); i < index; i++ {
		e := r.d.log[i]
		c.log = append(c.log, e)
		if e.cmd != nil {
			var members []truth.Place
			if v := c.trueVolume(1); v != nil {
				members = slices.Clone(v.InSync)
			}
			gone := c.goneAt != 0
			lineages := map[int]ids.Lineage{}
			for vol := range c.volIDs {
				if v := c.trueVolume(vol); v != nil {
					lineages[vol] = v.Lineage
				}
			}
			c.truth.apply(i+1, e.cmd)
			if gone && c.trueVolume(1) != nil {
				c.noteRestored()
			}
			for vol := range c.volIDs {
				if v := c.trueVolume(vol); v != nil && lineages[vol] != (ids.Lineage{}) && v.Lineage != lineages[vol] {
					c.noteForced(vol, bytes.Contains(e.cmd, []byte(`"Incomplete":true`)))
				}
				c.unmix(vol)
			}
			if members != nil && c.trueVolume(1) == nil {
				c.goneAt = c.hist.tick()
				c.noteDeleted(r, members)
			}
			c.untaint()
			c.noteLosses()
		}
	}
}

// noteDeleted checks that a volume is deleted only after its I/O has drained (17). What a resync that was stopped has still
// under way, reads and writes to no member, harms nobody.
func (c *Cluster) noteDeleted(r *raft, members []truth.Place) {
	n := c.nodes[r.host]
	if n.id() != c.truth.view.Leader {
		return // another leader commits what the last one has proposed
	}
	for _, to := range c.nodes {
		s := n.reign.newest[to.id()]
		if s == nil || !slices.ContainsFunc(members, func(p truth.Place) bool { return p.Node == to.id() }) {
			continue
		}
		for _, call := range s.out {
			if call.Volume == c.volIDs[1] && (call.Kind == peer.Write || call.Kind == peer.Zero) {
				c.fail("invariant 17: volume 1 is deleted, and I/O to it is under way: %v of %d+%d to %s", call.Kind, call.Off, call.Len, c.hostName(to.host))
				return
			}
		}
	}
}

// untaint forgets what left the in-sync sets: it comes back by a copy only.
func (c *Cluster) untaint() {
	for t := range c.tainted {
		if v := c.trueVolume(t.vol); (v == nil || !memberPool(v, t.pool)) && !(t.vol == 1 && c.keptIn(t.pool)) {
			delete(c.tainted, t)
		}
	}
}

func (c *Cluster) isTainted(p ids.Pool, vol int) bool {
	_, bad := c.tainted[taint{p, vol}]
	return bad
}

// forsaken tells whether a volume has no member left that was not reverted: its last good one was removed before anybody
// could know that the other was reverted. That is two faults at once; nothing wrong is served, and only force helps.
func (c *Cluster) forsaken() bool {
	for vol := range c.vols {
		v := c.trueVolume(vol)
		if v != nil && !slices.ContainsFunc(v.InSync, func(p truth.Place) bool { return !c.isTainted(p.Pool, vol) }) {
			return true
		}
	}
	return false
}

// noteServed checks that nothing stale is served (14).
func (c *Cluster) noteServed(m *mirrorShell, e reign.OpenMirror) {
	c.opened[m.vol] = max(c.opened[m.vol], m.epoch)
	c.noteFirst(m.vol, m.epoch)
	if v := c.trueVolume(m.vol); v != nil && v.Version == e.Volume.Version {
		for _, p := range e.Volume.InSync {
			at, bad := c.tainted[taint{p.Pool, m.vol}]
			if s := m.r.sessionWith(p.Node); bad && s != nil && s.fencedAt > at {
				c.fail("invariant 14: volume %d is served under epoch %d with the reverted replica of %s", m.vol, m.epoch, c.nameOf(p.Node))
			}
		}
	}
	c.trace(m.n.host, "serves volume %d under epoch %d, members %v", m.vol, m.epoch, c.places(e.Volume.InSync))
}

func (c *Cluster) places(ps []truth.Place) []string {
	var out []string
	for _, p := range ps {
		out = append(out, c.nameOf(p.Node))
	}
	return out
}

// settle says that from now on nobody sees o change a byte.
func (c *Cluster) settle(o *op) {
	if o.settled == 0 {
		o.settled = c.hist.tick()
	}
}

// answered checks a success that a mirror answers (1), and settles what was begun under lower epochs (7, 8).
func (c *Cluster) answered(n *node, o *op) {
	if c.goneAt != 0 && o.vol == 1 && o.call > c.goneAt {
		c.fail("invariant 17: %v is answered with success, and came after its volume was deleted", o)
	}
	for _, x := range c.hist.ops {
		if x.vol == o.vol && x.epoch != 0 && x.epoch < o.epoch && x.ret == 0 {
			c.settle(x)
		}
	}
	if o.kind != opRead {
		c.checkAcknowledged(o)
	}
}

func (c *Cluster) trueVolume(vol int) *truth.Volume {
	if vol >= len(c.volIDs) {
		return nil
	}
	for i := range c.truth.view.Volumes {
		if v := &c.truth.view.Volumes[i]; v.ID == c.volIDs[vol] {
			return v
		}
	}
	return nil
}

func (c *Cluster) replicaAt(p truth.Place, vol int) *simReplica {
	for _, n := range c.nodes {
		for _, pool := range n.pools {
			if pool.id == p.Pool {
				return pool.replicas[c.volIDs[vol]]
			}
		}
	}
	return nil
}

// checkAcknowledged checks invariant 1: every member of the committed set has the write on stable media, or a later one.
func (c *Cluster) checkAcknowledged(o *op) {
	if c.forcedSince(o.vol, o.epoch) {
		return
	}
	v := c.trueVolume(o.vol)
	if v == nil && o.vol == 1 && c.goneAt != 0 {
		return // a leader that stood still tells late what the members did before the deletion
	}
	if v == nil || len(v.InSync) == 0 {
		c.fail("invariant 1: %v is acknowledged, and the volume has no in-sync set", o)
		return
	}
	for _, p := range v.InSync {
		if c.isTainted(p.Pool, o.vol) {
			continue
		}
		r := c.replicaAt(p, o.vol)
		if r == nil {
			c.fail("invariant 1: %v is acknowledged, and in-sync member %s has no replica", o, c.nameOf(p.Node))
			return
		}
		if mayLack(v, p, r) {
			continue // it has restarted since, and is to leave
		}
		if lacks := c.lacking(o, r); lacks != "" {
			c.fail("invariant 1: %v is acknowledged, and in-sync member %s has %s", o, c.nameOf(p.Node), lacks)
			return
		}
		c.checkVouched(o, v, p, r)
	}
}

// lacking tells where a replica has neither an acknowledged write nor a later one; empty if nowhere.
func (c *Cluster) lacking(o *op, r *simReplica) string {
	for b := o.block; b < o.block+o.n; b++ {
		got, err := readBlock(r.has(int64(b)*blockSize, blockSize), b)
		want := o.id
		if o.kind == opZero {
			want = 0
		}
		if err != nil || got != want && !c.laterValue(o, b, got) {
			return fmt.Sprintf("%d at block %d (%v)", got, b, err)
		}
	}
	return ""
}

// statVouched counts what checkVouched has checked.
const statVouched = "writes on replicas that others have on record"

// checkVouched checks what volume force relies upon after the catalog was restored: whom an in-sync member has on record as present has all that
// is acknowledged (12).
func (c *Cluster) checkVouched(o *op, v *truth.Volume, by truth.Place, r *simReplica) {
	if v.Memory || len(v.Volatile) > 0 {
		return // a replica may have lost from its memory what it acknowledged, and leaves for it after that was acknowledged
	}
	for _, e := range r.rec.Others() {
		if e.Absent {
			continue
		}
		for _, n := range c.nodes {
			for _, pool := range n.pools {
				x, p := pool.replicas[c.volIDs[o.vol]], truth.Place{Node: n.id(), Pool: pool.id}
				if x == nil || x.rec.Birth != e.ID.Birth || c.isTainted(p.Pool, o.vol) || mayLack(v, p, x) {
					continue
				}
				if lacks := c.lacking(o, x); lacks != "" {
					c.fail("12: %v is acknowledged, and in-sync member %s has that on %s on record as present, which has %s", o, c.nameOf(by.Node), c.nameOf(p.Node), lacks)
					return
				}
				c.stats[statVouched]++
			}
		}
	}
}

// laterValue tells whether a block may hold value though o was acknowledged: it was written by a command that came later,
// or under a higher epoch.
func (c *Cluster) laterValue(o *op, block int, value uint32) bool {
	for _, x := range c.hist.ops {
		if (x.epoch > o.epoch || x.epoch == o.epoch && x.order > o.order) && x.covers(o.vol, block) && ((x.kind == opWrite || x.kind == opSwap) && x.id == value || x.kind == opZero && value == 0) {
			return true
		}
	}
	return false
}

// checkMarks checks invariant 12: where in-sync members differ, one of them has a mark.
func (c *Cluster) checkMarks() {
	for vol := range c.volIDs {
		v := c.trueVolume(vol)
		if v == nil {
			continue
		}
		var rs []*simReplica
		for _, p := range v.InSync {
			if r := c.replicaAt(p, vol); r != nil && !c.isTainted(p.Pool, vol) {
				rs = append(rs, r)
			}
		}
		for _, r := range rs[min(1, len(rs)):] {
			c.compareReplicas(vol, rs, rs[0], r)
		}
	}
}

func (c *Cluster) compareReplicas(vol int, all []*simReplica, a, b *simReplica) {
	size, region := min(a.spec.Size, b.spec.Size), a.spec.Region
	for off := int64(0); off < size; off += region {
		n := min(region, size-off)
		if slices.Equal(a.proper(off, n), b.proper(off, n)) {
			continue
		}
		g := uint32(off / region)
		if !slices.ContainsFunc(all, func(r *simReplica) bool { _, ok := r.marks[g]; return ok }) {
			c.fail("invariant 12: in-sync members of volume %d differ in region %d, which none of them has marked", vol, g)
			return
		}
	}
}

// checkHeld checks invariant 5: a command is answered when hold_timeout is over, and what it has at the members was answered
// or given up (recovery_timeout).
func (c *Cluster) checkHeld() {
	for _, n := range c.nodes {
		if n.reign == nil || !n.proc.Running() || c.w.Now()-n.resumed < 1500*time.Millisecond {
			continue
		}
		for _, m := range n.reign.inOrder() {
			for r, at := range m.since {
				if held := n.proc.Now() - at; held > c.plan.tunables.Hold+recoveryTimeout+1500*time.Millisecond {
					c.fail("invariant 5: %v is held for %v, and hold_timeout is %v", r.Owner.(*hostCmd).o, held, c.plan.tunables.Hold)
					return
				}
			}
		}
	}
}

// watch checks what can be checked at any time, often.
func (c *Cluster) watch() {
	c.checkMarks()
	c.checkSizes()
	c.checkHeld()
	c.w.After(c.w.Rand.Between(time.Millisecond, 60*time.Millisecond), c.watch)
}

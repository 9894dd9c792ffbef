package reign

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// resync is the way back of one replica of a volume that has a mirror (invariant 15).
type resync struct {
	node    ids.Node
	running bool // a Reset or a StartResync is under way
	retry   pace
	err     string
}

// resyncMin and resyncMax bound the pause after a resync that failed.
const (
	resyncMin = time.Second
	resyncMax = time.Minute
)

// driveResyncs starts the resyncs that are due: at most one per node and one per volume, and a bounded number in all.
func (c *Core) driveResyncs() {
	r := c.r
	if r.handing != nil {
		return
	}
	if !r.resyncDue && c.now < r.resyncAt {
		c.at(r.resyncAt)
		return
	}
	r.resyncDue, r.resyncAt = false, never
	for i := range c.view.Volumes {
		tv := &c.view.Volumes[i]
		v := r.vols[tv.ID]
		if v.growth != nil {
			continue // none may join with the old size
		}
		if len(v.resyncs) == 0 && (len(tv.InSync) == len(tv.Replicas) || v.stage != open) {
			continue
		}
		c.forgetResyncs(v, tv)
		if v.stage != open || v.resyncing() {
			continue
		}
		for _, p := range tv.Replicas {
			if !holds(tv.InSync, p.Node) && !c.parting(tv, p.Node) && c.startResync(v, tv, p) {
				break
			}
		}
	}
	c.at(r.resyncAt)
}

// startResync starts one if it can run now.
func (c *Core) startResync(v *vol, tv *truth.Volume, p truth.Place) bool {
	r := c.r
	n := r.nodes[p.Node]
	if n == nil || c.fencedPool(p) == nil || r.removal.pools[p.Pool] {
		return false // a RemoveUnfenced that is not decided could take it out again, behind the mirror
	}
	if !slices.ContainsFunc(tv.InSync, func(m truth.Place) bool { return c.fencedPool(m) != nil }) {
		return false // there is no source: the replica stays what it is, a copy of the moment at which it left the set
	}
	rs := v.resyncOf(p.Node)
	if rs == nil {
		rs = &resync{node: p.Node}
		v.resyncs = append(v.resyncs, rs)
	}
	if until := n.probation(p.Pool, c.now); until > 0 {
		rs.err = "its disk was far slower than the others': it is on probation"
		r.resyncAt = min(r.resyncAt, until)
		return false
	}
	if c.now < rs.retry.next {
		r.resyncAt = min(r.resyncAt, rs.retry.next)
		return false
	}
	if !n.resync.IsZero() || r.resyncs >= c.cfg.Resyncs {
		return false // the end of that one comes back here
	}
	rs.running, rs.err, n.resync = true, "", v.id
	r.resyncs++
	if b, _ := tv.BehindIn(p.Pool); b.Copying {
		c.copyTo(v, tv, rs, p)
		return true
	}
	c.propose(truth.BeginCopy{Epoch: r.epoch, Volume: v.id, Pool: p.Pool}, func(d Decided) { c.copyBegun(v, rs, p, d.Err) })
	return true
}

// copyBegun goes on with a resync: the catalog knows that its replica is no copy of any one moment any more (DESIGN.md, "Force").
func (c *Core) copyBegun(v *vol, rs *resync, p truth.Place, err error) {
	tv := c.byID[v.id]
	switch {
	case err != nil:
		c.endResync(v, rs, err)
	case v.stage != open || tv == nil || v.growth != nil || !slices.Contains(tv.Replicas, p) || holds(tv.InSync, p.Node) || c.parting(tv, p.Node),
		c.fencedPool(p) == nil || c.r.removal.pools[p.Pool]:
		c.endResync(v, rs, mirror.ErrStopped)
	default:
		c.copyTo(v, tv, rs, p)
	}
}

// copyTo begins a resync that is running by now, its replica being fenced.
func (c *Core) copyTo(v *vol, tv *truth.Volume, rs *resync, p truth.Place) {
	k, rep, why := c.look(tv, p)
	if k != foreign && rep.Spec.Size < tv.Size { // the volume has grown while it was away
		c.command(p, peer.Command{Kind: peer.Grow, Volume: v.id, Spec: grown(tv, p, rep)}, command{reset: rs, vol: v})
		return
	}
	if k != foreign {
		c.tell(ResyncStarted, v.id, p.Node, fmt.Sprintf("resync of volume %s to node %s", tv.Name, c.nodeName(p.Node)))
		c.emit(StartResync{Volume: v.id, Member: c.member(p, rep), Accepted: c.proved(p)})
		return
	}
	c.tell(ResyncStarted, v.id, p.Node, fmt.Sprintf("full resync of volume %s to an empty replica on node %s: %s", tv.Name, c.nodeName(p.Node), why))
	c.command(p, peer.Command{Kind: peer.Reset, Volume: v.id, Spec: specOf(tv, p)}, command{reset: rs, vol: v})
}

// proved is what the pool of a replica proves to have accepted. Of one that lost an epoch nothing is believed.
func (c *Core) proved(p truth.Place) []peer.EpochRange {
	pl := c.fencedPool(p)
	if pl == nil || len(c.distrusted[p.Pool]) > 0 {
		return nil
	}
	return pl.Accepted
}

// resetDone goes on with the copy to the replica that is empty now.
func (c *Core) resetDone(cmd command, err error) {
	tv := c.byID[cmd.vol.id]
	switch {
	case err != nil:
		c.endResync(cmd.vol, cmd.reset, err)
	case cmd.vol.stage != open || tv == nil:
		c.endResync(cmd.vol, cmd.reset, mirror.ErrStopped)
	default:
		rep := c.created(cmd.place, specOf(tv, cmd.place))
		c.emit(StartResync{Volume: cmd.vol.id, Member: c.member(cmd.place, rep), Empty: true, Accepted: c.proved(cmd.place)})
	}
}

// catchUp goes on with the resync of a replica that is as large as the volume now.
func (c *Core) catchUp(cmd command, err error) {
	tv := c.byID[cmd.vol.id]
	switch {
	case err != nil:
		c.endResync(cmd.vol, cmd.reset, err)
		return
	case cmd.vol.stage != open || tv == nil:
		c.endResync(cmd.vol, cmd.reset, mirror.ErrStopped)
		return
	}
	c.noteSize(cmd.place, tv.ID, tv.Size)
	k, rep, why := c.look(tv, cmd.place)
	if k == foreign || k == unfenced || rep.Spec.Size < tv.Size {
		c.endResync(cmd.vol, cmd.reset, fmt.Errorf("%w: %s", ErrUnusable, why))
		return
	}
	c.tell(ResyncStarted, tv.ID, cmd.place.Node, fmt.Sprintf("resync of volume %s to node %s", tv.Name, c.nodeName(cmd.place.Node)))
	c.emit(StartResync{Volume: tv.ID, Member: c.member(cmd.place, rep), Accepted: c.proved(cmd.place)})
}

func (c *Core) resyncEnded(ev ResyncEnded) {
	if c.r == nil || c.r.epoch != ev.Epoch || c.r.vols[ev.Volume] == nil {
		return
	}
	v := c.r.vols[ev.Volume]
	if rs := v.resyncOf(ev.Node); rs != nil && rs.running {
		if ev.Err == nil {
			c.tell(ResyncDone, v.id, rs.node, fmt.Sprintf("the replica on node %s is in sync%s", c.nodeName(rs.node), howItWent(ev.Status)))
		}
		c.endResync(v, rs, ev.Err)
	}
}

// howItWent is what a resync took, beside what it was said to take.
func howItWent(s mirror.ResyncStatus) string {
	if s.Total == 0 {
		return ""
	}
	out := fmt.Sprintf(": %d KiB written of %d in %.1f s", s.Copied>>10, s.Total>>10, s.Seconds)
	if s.Expected > 0 {
		out += fmt.Sprintf("; after a tenth it was to take %.1f s", s.Expected)
	}
	return out
}

func (c *Core) endResync(v *vol, rs *resync, err error) {
	r := c.r
	if !rs.running {
		return
	}
	rs.running = false
	r.resyncs--
	r.resyncDue, r.placesDue = true, true
	n := r.nodes[rs.node]
	if n != nil && n.resync == v.id {
		n.resync = ids.Volume{}
	}
	if err == nil || errors.Is(err, mirror.ErrMember) {
		rs.retry = pace{next: c.now + resyncMin} // by then the view shows it
		return
	}
	if v.stage == ended {
		return
	}
	rs.err = err.Error()
	rs.retry.later(c.now, resyncMin, resyncMax)
	if n != nil {
		n.asking = true // what is there now?
	}
	c.tell(ResyncFailed, v.id, rs.node, fmt.Sprintf("the resync to node %s ended: %v", c.nodeName(rs.node), err))
}

// restartResync has a resync that failed tried again now.
func (c *Core) restartResync(ev RestartResync) {
	reply := Reply{Request: ev.Request}
	tv := c.byID[ev.Volume]
	switch {
	case c.r == nil || !c.r.applied:
		reply.Err = ErrNotLeading
	case tv == nil || !holds(tv.Replicas, ev.Node):
		reply.Err = ErrUnknownVolume
	case c.r.vols[ev.Volume].stage != open:
		reply.Err = ErrNotServed
	default:
		if rs := c.r.vols[ev.Volume].resyncOf(ev.Node); rs != nil {
			rs.retry = pace{}
			if n := c.r.nodes[ev.Node]; n != nil {
				clear(n.slow)
			}
		}
		c.r.resyncDue = true
	}
	c.emit(reply)
}

// forgetResyncs drops what is known of replicas that are in sync or gone.
func (c *Core) forgetResyncs(v *vol, tv *truth.Volume) {
	kept := v.resyncs[:0]
	for _, rs := range v.resyncs {
		if rs.running || (holds(tv.Replicas, rs.node) && !holds(tv.InSync, rs.node)) {
			kept = append(kept, rs)
		}
	}
	v.resyncs = kept
}

func (v *vol) resyncOf(n ids.Node) *resync {
	for _, rs := range v.resyncs {
		if rs.node == n {
			return rs
		}
	}
	return nil
}

func (v *vol) resyncing() bool {
	for _, rs := range v.resyncs {
		if rs.running {
			return true
		}
	}
	return false
}

func holds(ps []truth.Place, n ids.Node) bool {
	for _, p := range ps {
		if p.Node == n {
			return true
		}
	}
	return false
}

func specOf(v *truth.Volume, p truth.Place) peer.Spec {
	return peer.Spec{Volume: v.ID, Lineage: v.Lineage, Pool: p.Pool, Size: v.Size, Region: v.Region}
}

// grown is what a replica is to be like when it is as large as its volume: its lineage stays what it is, if it was adopted.
func grown(v *truth.Volume, p truth.Place, rep peer.FencedReplica) peer.Spec {
	spec := specOf(v, p)
	if !rep.Spec.Lineage.IsZero() {
		spec.Lineage = rep.Spec.Lineage
	}
	return spec
}

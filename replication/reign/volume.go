package reign

import (
	"fmt"
	"slices"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// stage is how far a volume has come in this reign. It never goes back from opening: what a fence said about a replica is
// not true any more once a mirror has written to it, so only a new reign, with a new fence, judges it again.
type stage uint8

const (
	idle     stage = iota // members are being fenced, removed or judged
	proposed              // Served is under way
	opening
	open
	draining
	drained
	ended
)

// vol is a volume during one reign.
type vol struct {
	id      ids.Volume
	stage   stage
	state   State
	reason  string
	holds   string
	lineage ids.Lineage
	version uint64     // of the set that members are of
	prior   peer.Epoch // under which it was last served before this reign
	members []Member
	places  []truth.Place // of its replicas since its mirror was opened

	expulsion        // the last that was proposed
	proposal  uint64 // of the RemoveMember under way
	doubt     bool   // the outcome of expulsion is unknown
	retry     pace

	uses []ids.Node // whose replicas its mirror takes for members

	resyncs []*resync
	change  change
	size    int64      // of its mirror
	lost    bool       // no member has what was acknowledged and not flushed
	losses  uint64     // as the catalog had them before
	told    durability // to its mirror
	growth  *growth
	growing bool // a Grow of the replica that was adopted is under way
	knows   []*knowledge
	sweep   pace // of strangers
	there   bool // while volumes are adopted
}

// moved tells whether a pool of a served volume is another node's by now: that machine came back under a new identity
// (invariant 9). The mirror knows the old one only and would wait for it for ever, if it was the last member.
func (v *vol) moved(tv *truth.Volume) bool {
	for _, p := range tv.InSync {
		for _, q := range v.places {
			if p.Pool == q.Pool && p.Node != q.Node {
				return true
			}
		}
	}
	return false
}

// learn adds the places of replicas that were added since its mirror was opened.
func (v *vol) learn(ps []truth.Place) {
	for _, p := range ps {
		if v.hasMirror() && !slices.ContainsFunc(v.places, func(q truth.Place) bool { return q.Pool == p.Pool }) {
			v.places = append(slices.Clip(v.places), p)
		}
	}
}

func (v *vol) hasMirror() bool { return opening <= v.stage && v.stage <= drained }

// adoptVolumes follows the catalog's list of volumes.
func (c *Core) adoptVolumes() {
	r := c.r
	for _, v := range r.list {
		v.there = false
	}
	for i := range c.view.Volumes {
		id := c.view.Volumes[i].ID
		v := r.vols[id]
		if v == nil {
			v = &vol{id: id, state: TakingOver, lineage: c.view.Volumes[i].Lineage, losses: c.view.Volumes[i].Losses}
			r.vols[id] = v
			r.list = append(r.list, v)
			r.back = r.back || r.restored(id)
		}
		v.there = true
		r.back = r.back || v.lineage != c.view.Volumes[i].Lineage
		if v.hasMirror() && v.moved(&c.view.Volumes[i]) {
			r.moved = true
		}
		v.learn(c.view.Volumes[i].Replicas)
	}
	r.list = slices.DeleteFunc(r.list, func(v *vol) bool {
		if v.there {
			return false
		}
		if v.hasMirror() {
			c.emit(CloseMirror{Volume: v.id, Cause: "the volume is deleted"})
			r.retired[v.id] = true
		}
		delete(r.vols, v.id)
		v.stage = ended
		if v.change.wish != nil {
			c.granted(v, ErrUnknownVolume)
		}
		if v.growth != nil {
			c.grown(v, ErrUnknownVolume)
		}
		for _, rs := range v.resyncs {
			c.endResync(v, rs, mirror.ErrStopped)
		}
		return true
	})
}

// plan is what a pass over all volumes found to do.
type plan struct {
	ready   []*vol            // all members fenced and good
	expel   []expulsion       // at most one of each volume
	overdue []expulsion       // unfenced members whose grace is over; a good one is there
	spared  map[ids.Pool]bool // pools with a bad member of a volume that also has an unfenced one
	waiting map[ids.Pool]bool // those of them that may have one for long: it waits for the unfenced one
	inUse   map[ids.Pool]bool // pools with members, or members to be, of volumes that are past judging
	news    []*vol            // cannot be served, newly
}

// expulsion is the removal of one member.
type expulsion struct {
	v       *vol
	version uint64 // of the set
	member  truth.Place
	why     string
	kind    Kind
	helpers []truth.Place // its good members: one of them has to be named as fenced
}

// driveVolumes brings all volumes that have no mirror nearer to one (invariant 7).
func (c *Core) driveVolumes() {
	r := c.r
	if r.handing != nil {
		return // they are the next leader's
	}
	if !r.judgeDue && c.now < r.judgeAt {
		c.at(r.judgeAt)
		return
	}
	r.judgeDue, r.judgeAt = false, never
	p := plan{spared: make(map[ids.Pool]bool), waiting: make(map[ids.Pool]bool), inUse: make(map[ids.Pool]bool)}
	var j judgement
	for i := range c.view.Volumes {
		tv := &c.view.Volumes[i]
		v := r.vols[tv.ID]
		if v.stage == idle {
			c.judgeVolume(tv, v, &j, &p)
			continue
		}
		for _, m := range tv.InSync {
			p.inUse[m.Pool] = true
		}
		for _, m := range tv.Replicas {
			if rs := v.resyncOf(m.Node); rs != nil && rs.running {
				p.inUse[m.Pool] = true // it may enter the set at any time
			}
		}
	}
	c.removeUnfenced(&p)
	c.expel(&p)
	c.serve(&p)
	c.tellWaiting(p.news)
	c.at(r.judgeAt)
}

// soon has the volumes judged again at t.
func (c *Core) soon(t time.Duration) { c.r.judgeAt = min(c.r.judgeAt, t) }

// judgeVolume adds to the plan what one volume needs.
func (c *Core) judgeVolume(tv *truth.Volume, v *vol, j *judgement, p *plan) {
	if tv.Foreign {
		c.askReplicas(tv, v)
	}
	if tv.Foreign || len(tv.InSync) > maxMembers {
		v.say(p, NeedsForce, "the catalog was restored: volume force adopts one of its replicas")
		return
	}
	if tv.LastServed != c.r.epoch {
		v.prior = tv.LastServed
	}
	c.judge(tv, j)
	if j.bad()+j.count[restarted] > 0 && j.count[unfenced] > 0 {
		// Named as fenced, a bad member could become the last one, in place of an unfenced one that may be good.
		for i, m := range tv.InSync {
			if j.isBad(i) {
				p.spared[m.Pool] = true
				p.waiting[m.Pool] = p.waiting[m.Pool] || j.verdicts[i] == restarted
			}
		}
	}
	v.doubt = v.doubt && v.expulsion.version == tv.Version // a changed set: what was proposed for the old one has no effect
	switch {
	case v.proposal != 0:
		v.say(p, TakingOver, "a member is being removed")
	case v.doubt:
		v.say(p, TakingOver, "the outcome of a removal is unknown")
		c.planExpulsion(v.expulsion, p) // once a later one is decided, so is this one
	case j.bad() == len(tv.InSync):
		v.say(p, NeedsForce, "no in-sync replica is usable: "+c.describe(j))
	case j.bad() > 0 && j.count[good] == 0 && c.now < c.patience(j):
		v.say(p, TakingOver, "waits a moment for "+c.awaited(j)+"; "+c.describe(j))
		c.soon(c.patience(j))
	case j.bad() > 0:
		v.say(p, TakingOver, "a member has to be removed: "+c.describe(j))
		c.planExpulsion(worst(j, v), p)
	case j.count[good] == 0 && j.count[unfenced] > 0:
		c.sayAwaited(v, j, p)
	case j.count[unfenced] > 0:
		v.say(p, TakingOver, "waits a moment for "+c.awaited(j))
		c.planRemoval(v, j, p)
	case c.contested(tv):
		v.say(p, TakingOver, "the removal of a member is not decided")
	case c.crowded(tv):
		c.sayCrowded(tv, v, p)
	case c.growAdopted(tv, v, j):
	default:
		v.say(p, TakingOver, "all members are fenced")
		v.version, v.members, v.lost = tv.Version, v.members[:0], j.count[good] == 0
		for i, m := range tv.InSync {
			v.members = append(v.members, c.member(m, j.reps[i]))
		}
		p.ready = append(p.ready, v)
	}
}

// worst chooses the bad member to remove first: one that holds nothing before one that holds something.
func worst(j *judgement, v *vol) expulsion {
	for _, k := range []verdict{foreign, stale, restarted} {
		for i, m := range j.tv.InSync {
			if j.verdicts[i] == k {
				e := expulsion{v: v, version: j.tv.Version, member: m, why: j.whys[i], kind: MemberStale}
				switch k {
				case foreign:
					e.kind = MemberForeign
				case restarted:
					e.kind = MemberRestarted
				}
				return e
			}
		}
	}
	panic("reign: no bad member to remove") // the caller has counted one
}

// patience is when the last grace of the members that are not fenced ends.
func (c *Core) patience(j *judgement) time.Duration {
	var due time.Duration
	for i, m := range j.tv.InSync {
		if j.verdicts[i] == unfenced {
			due = max(due, c.deadline(m.Node))
		}
	}
	return due
}

// sayAwaited says for whom a volume waits, none of whose members is fenced: aloud when the grace is over.
func (c *Core) sayAwaited(v *vol, j *judgement, p *plan) {
	if due := c.patience(j); c.now < due {
		v.say(p, TakingOver, "waits for "+c.awaited(j)+c.because(j))
		c.soon(due)
		return
	}
	v.say(p, Waits, "waits for "+c.awaited(j)+c.because(j))
}

// because says why a volume waits although some members are there.
func (c *Core) because(j *judgement) string {
	if j.count[restarted] == 0 {
		return ""
	}
	return ", in whose memory may be what was acknowledged; " + c.describe(j)
}

func (c *Core) planExpulsion(e expulsion, p *plan) {
	if c.now < e.v.retry.next {
		c.soon(e.v.retry.next)
		return
	}
	p.expel = append(p.expel, e)
}

// planRemoval notes the unfenced members whose grace is over.
func (c *Core) planRemoval(v *vol, j *judgement, p *plan) {
	var helpers []truth.Place
	for i, m := range j.tv.InSync {
		if j.verdicts[i] == good {
			helpers = append(helpers, m)
		}
	}
	for i, m := range j.tv.InSync {
		if j.verdicts[i] != unfenced {
			continue
		}
		if d := c.deadline(m.Node); c.now < d {
			c.soon(d)
			continue
		}
		p.overdue = append(p.overdue, expulsion{
			v: v, version: j.tv.Version, member: m, why: "it could not be fenced", kind: MembersRemoved, helpers: helpers,
		})
	}
}

// say sets what status shows.
func (v *vol) say(p *plan, s State, reason string) {
	if v.state != s && (s == Waits || s == NeedsForce) {
		p.news = append(p.news, v)
	}
	v.state, v.reason = s, reason
}

// tellWaiting tells of volumes that cannot be served: of a few each, of the others their number.
func (c *Core) tellWaiting(vs []*vol) {
	const few = 8
	for i, v := range vs {
		if i == few {
			c.tell(VolumeWaits, ids.Volume{}, ids.Node{}, fmt.Sprintf("%d more volumes are not served: see status", len(vs)-few))
			return
		}
		c.tell(VolumeWaits, v.id, ids.Node{}, fmt.Sprintf("volume %s is not served: %s", c.byID[v.id].Name, v.reason))
	}
}

package sim

import (
	"fmt"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
)

// forced is what the simulation knows of a volume force. Two histories are judged from then on, each by itself: what was answered
// under the epochs before, for the old members may go on serving where nobody has fenced them, and what is answered under those
// after, which begins with the bytes of the adopted replica.
type forced struct {
	epoch  peer.Epoch // of the catalog when it was committed
	pool   ids.Pool
	first  []uint32 // the blocks' values when it was first served again; nil before
	before *forced  // an earlier one
}

// noteForced follows the commit of a force; said tells whether its admin knew that the replica may be a copy of no one moment.
func (c *Cluster) noteForced(vol int, said bool) {
	v := c.trueVolume(vol)
	if c.mixed[taint{v.Adopted.Pool, vol}] && !said {
		c.fail("invariant 15: volume %d goes on with the replica on %s, to which a copy was begun, and nobody was told", vol, c.nameOf(v.InSync[0].Node))
		return
	}
	if v.Adopted.Short {
		c.stats["volumes that were forced to a replica that is too small"]++
	}
	if said {
		c.stats["volumes that were forced to an incomplete copy"]++
	}
	c.forces[vol] = &forced{epoch: c.truth.view.Epoch, pool: v.Adopted.Pool, before: c.forces[vol]}
	for t := range c.tainted {
		if t.vol == vol {
			delete(c.tainted, t) // what it lacks is lost, by command
		}
	}
	if r := c.replicaAt(v.InSync[0], vol); r != nil {
		r.heal(r.within(0, v.Size)) // nobody else has its flipped blocks any more
	}
	c.stats["volumes that were forced"]++
	c.trace(0, "volume %d goes on with the replica on %s alone, under lineage %v", vol, c.nameOf(v.InSync[0].Node), v.Lineage)
}

// unmix forgets that a copy was begun to what is in sync by now.
func (c *Cluster) unmix(vol int) {
	if v := c.trueVolume(vol); v != nil {
		for _, p := range v.InSync {
			delete(c.mixed, taint{p.Pool, vol})
		}
	}
}

// noteFirst keeps what a forced volume begins with.
func (c *Cluster) noteFirst(vol int, epoch peer.Epoch) {
	f := c.forces[vol]
	if f == nil || f.first != nil || epoch <= f.epoch {
		return
	}
	v := c.trueVolume(vol)
	r := c.replicaAt(v.InSync[0], vol)
	if len(v.InSync) != 1 || v.InSync[0].Pool != f.pool || r == nil {
		c.fail("volume %d was forced to one replica, and is served with %v", vol, c.places(v.InSync))
		return
	}
	data := r.data.Read(0, v.Size)
	for b := range int(v.Size / blockSize) {
		value, err := readBlock(data[b*blockSize:(b+1)*blockSize], b)
		if err != nil {
			c.fail("the adopted replica of volume %d: %v", vol, err)
			return
		}
		f.first = append(f.first, value)
	}
}

// forcedSince tells whether a volume was forced after an epoch: what was answered under it may be lost.
func (c *Cluster) forcedSince(vol int, e peer.Epoch) bool {
	f := c.forces[vol]
	return f != nil && e <= f.epoch
}

// forceVolume is an admin who sees that a volume waits, and has it go on with any replica that may be adopted.
func (c *Cluster) forceVolume(vol int, whatever bool) (asked bool) {
	l := c.leader()
	v := c.trueVolume(vol)
	if l == nil || v == nil {
		return false
	}
	all, err := l.reign.core.Candidates(v.ID)
	if err != nil {
		return false
	}
	var may []reign.Candidate
	for _, k := range all {
		if k.Why == "" {
			may = append(may, k)
		}
	}
	if len(may) == 0 {
		return false
	}
	k := may[c.w.Rand.Intn(len(may))]
	incomplete := !k.Complete() && (whatever || c.w.Rand.Chance(0.3))
	l.reign.ask(func(err error) { c.trace(l.host, "force of volume %d: %v", vol, err) }, func(id uint64) reign.Event {
		return reign.ForceVolume{Request: id, Volume: v.ID, Node: k.Place.Node, Lineage: ids.Lineage(c.w.Rand.ID()), Incomplete: incomplete}
	})
	return true
}

// impatient is such an admin during the faults.
func (c *Cluster) impatient() {
	if c.calmed {
		return
	}
	for vol := range c.volIDs {
		if c.w.Rand.Chance(0.5) {
			c.forceVolume(vol, false)
		}
	}
	c.w.After(c.w.Rand.Between(200*time.Millisecond, 3*time.Second), c.impatient)
}

// orForce is until; where no good replica of a volume is left, it is forced, and then it must come about.
func (c *Cluster) orForce(what string, limit time.Duration, done func() func() bool) error {
	err := c.until(what, limit, done())
	if err == nil || c.w.Failed() != nil || !c.forsaken() {
		return err
	}
	c.stats["volumes that only force brings back"]++
	if err := c.rescue(); err != nil {
		return err
	}
	return c.until(what+", after volume force", limit, done())
}

// rescue forces the volumes of which no good replica is left, and waits until all are served.
func (c *Cluster) rescue() error {
	asked := map[int]time.Duration{}
	return c.until("a volume that was forced is served", 60*time.Second, func() bool {
		served := true
		l := c.leader()
		for vol := range c.volIDs {
			if c.trueVolume(vol) == nil || l != nil && l.mirrorOf(vol) != nil {
				continue
			}
			served = false
			if at, ok := asked[vol]; (!ok || c.w.Now() >= at) && c.forceVolume(vol, true) {
				asked[vol] = c.w.Now() + 2*time.Second
			}
		}
		return served
	})
}

// spans cuts the history of a volume at its forces: epochs above from and up to, and what its blocks have at the begin.
func (c *Cluster) eras(vol int) (out []era) {
	to := ^peer.Epoch(0)
	for f := c.forces[vol]; f != nil; f = f.before {
		out = append(out, era{from: f.epoch, to: to, first: f.first})
		to = f.epoch
	}
	return append(out, era{to: to})
}

type era struct {
	from, to peer.Epoch
	first    []uint32
}

func (s era) has(o *op) bool {
	return o.epoch > s.from && o.epoch <= s.to || o.epoch == 0 && s.from == 0
}

// begin is what a block has at the begin.
func (s era) begin(block int) uint32 {
	if block >= len(s.first) {
		return 0
	}
	return s.first[block]
}

func (s era) String() string { return fmt.Sprintf("epochs %d to %d", s.from+1, s.to) }

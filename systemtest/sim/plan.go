package sim

import (
	"fmt"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/truth"
)

// plan is what a seed decides before the run: the shape of the cluster, the workload, which faults there are.
type plan struct {
	c            *Cluster
	storage      int
	witness      bool
	copies       []int // by volume
	blocks       int   // of each volume
	think        time.Duration
	lease        time.Duration // a leader that reached no quorum for so long steps down
	chaos        time.Duration
	stretch      int // how much longer than usual the faults last at most
	tunables     mirror.Tunables
	hot          []int // first blocks
	nextID       uint32
	keep         int64 // how long deleted volumes stay in the trash, in seconds; 0: not at all
	forces       bool  // an admin forces volumes that wait
	fulls        bool
	mediums      bool
	badAll       bool          // where a disk is bad, all are
	swaps        bool          // some writes are updates
	memory       bool          // the durability of volume 0, at first
	toggles      bool          // an admin changes durabilities
	replace      time.Duration // replace_after
	replacements int
}

// faults are the rates of what happens all the time.
type faults struct {
	unknown float64 // proposals whose outcome is unknown
	gossip  float64 // wrong suspicions
	spoil   float64 // messages whose bytes a wire spoils
}

const region = 64 << 10

func newPlan(c *Cluster) *plan {
	r := c.w.Rand
	p := &plan{c: c, storage: 3, blocks: 320, chaos: 12 * time.Second}
	if r.Chance(0.35) {
		p.storage, p.witness = 2, true
	}
	for range 1 + r.Intn(2) {
		p.copies = append(p.copies, 2+r.Intn(p.storage-1))
	}
	if c.breaks(BreakRelay) { // it shows where two of three are away, one after the other
		p.storage, p.witness = 3, false
		for i := range p.copies {
			p.copies[i] = 3
		}
	}
	p.think = []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond}[r.Intn(3)]
	p.stretch = 1
	if r.Chance(0.2) {
		p.stretch, p.chaos, p.think = 3, 25*time.Second, max(p.think, 100*time.Millisecond)
	}
	p.replace = []time.Duration{0, 1500 * time.Millisecond, 5 * time.Second}[r.Intn(3)]
	if c.breaks(BreakRelay) {
		p.replace, p.chaos = 0, 20*time.Second
	}
	p.replacements = 1 + r.Intn(2)
	p.lease = []time.Duration{500 * time.Millisecond, time.Second, 3 * time.Second}[r.Intn(3)]
	if r.Chance(0.6) {
		p.keep = 3600
	}
	p.forces = r.Chance(0.15) || c.breaks(BreakForce) || c.breaks(BreakCopying) // in which they show
	per := int64(region / blockSize)
	p.hot = []int{0, 3, 8, int(per) - 3, int(per), int(2*per) + 5, p.blocks - 6}
	p.tunables = mirror.Tunables{
		Hold: r.Between(time.Second, 8*time.Second), Grace: r.Between(20*time.Millisecond, 400*time.Millisecond),
		LastGrace: 2 * time.Second, Cool: r.Between(30*time.Millisecond, 2*time.Second), HotRegions: 1 + r.Intn(3),
		MaxIO: 64 << 10, MaxZero: 64 << 10, Chunk: []int64{16 << 10, 64 << 10}[r.Intn(2)], Reconcilers: 1 + r.Intn(3), Resyncers: 1 + r.Intn(8),
		Budgeted: r.Chance(0.5), Progress: r.Between(10*time.Millisecond, time.Second), FlushEvery: 300 * time.Millisecond,
	}
	if c.breaks(BreakRelay) { // and where a resync takes its time
		p.tunables.Resyncers = 1
	}
	if p.tunables.Chunk == 16<<10 {
		p.tunables.Lookup = 1 // the extents of all that was missed are looked up, else of nothing
		p.tunables.Window, p.tunables.Reserve = 64<<10, 8<<10
	} else {
		p.tunables.CoolMost = p.tunables.Cool // marks are cleared as soon as may be
	}
	if c.breaks(BreakClear) { // it shows where a write comes while its region is being cleared
		p.tunables.HotRegions, p.tunables.Cool, p.tunables.CoolMost = 1, 30*time.Millisecond, 30*time.Millisecond
	}
	if c.breaks(BreakRelay) { // and in its time nothing is looked up ahead, nor do marks hide what is not handed on
		p.tunables.Window, p.tunables.Reserve, p.tunables.CoolMost = 64<<20, 1<<40, p.tunables.Cool
	}
	return p
}

func (p *plan) mayFail(s status) bool { return s == noSpace && p.fulls || s == medium && p.mediums }

// next makes the next command of a client.
func (p *plan) next(cl *client) *op {
	r := p.c.w.Rand
	p.nextID++
	o := &op{id: p.nextID, vol: r.Intn(len(p.c.volIDs))}
	if p.c.deleted[o.vol] && p.c.trueVolume(o.vol) == nil {
		o.vol = 0 // which is never deleted
	}
	o.kind = []opKind{opRead, opWrite, opZero}[r.Weighted([]int{45, 47, 8})]
	if o.kind == opWrite && p.swaps && o.id%4 == 0 {
		o.kind = opSwap
	}
	if p.memory {
		o.fua = o.kind == opWrite && o.id%5 == 0
		if o.id%9 == 0 {
			o.kind = opFlush
			return o
		}
	}
	o.block = p.hot[r.Intn(len(p.hot))] + r.Intn(3)
	o.n = 1 + r.Intn(6)
	if r.Chance(0.02) {
		o.block, o.n = r.Intn(8), 100+r.Intn(100)
	}
	if large := p.c.blocks(o.vol); large > p.blocks && r.Chance(0.3) { // what it has grown by
		o.block = []int{p.blocks - 3, p.blocks, large - 6, p.blocks + r.Intn(large-p.blocks)}[r.Intn(4)]
		o.n = min(o.n, large-o.block)
		return o
	}
	o.n = min(o.n, p.blocks-o.block)
	return o
}

// build makes the cluster, not started.
func (p *plan) build() {
	c := p.c
	var conf []raftPeer
	n := p.storage
	if p.witness {
		n++
	}
	first := []entry{{term: 1}}
	for i := range n {
		x := &node{c: c, host: i, witness: i == p.storage, disk: &raftDisk{id: ids.Node(c.w.Rand.ID())}}
		var pools []ids.Pool
		if !x.witness {
			pool := &simPool{id: ids.Pool(c.w.Rand.ID()), replicas: map[ids.Volume]*simReplica{}}
			x.pools = append(x.pools, pool)
			pools = append(pools, pool.id)
		}
		c.nodes = append(c.nodes, x)
		conf = append(conf, raftPeer{id: x.disk.id, host: i, voter: true})
		cmd, err := command(nodeCommand(x.disk.id, ids.Node{}, c.hostName(i), x.witness, pools))
		if err != nil {
			c.fail("%v", err)
		}
		first = append(first, entry{term: 1, cmd: cmd})
	}
	first[0].conf = conf
	for _, x := range c.nodes {
		x.disk.term = 1
		x.disk.log = append(x.disk.log, first...)
	}
	for range p.copies {
		v := truth.Volume{ID: ids.Volume(c.w.Rand.ID()), Lineage: ids.Lineage(c.w.Rand.ID()), Name: fmt.Sprint("v", len(c.vols)), Size: int64(p.blocks) * blockSize,
			Region: region, Logical: blockSize,
			Memory: p.memory && len(c.vols) == 0}
		c.vols = append(c.vols, v)
		c.volIDs = append(c.volIDs, v.ID)
	}
}

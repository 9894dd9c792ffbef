package mirror

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/peer/model"
	"pmsapp/replication/truth"
)

// The world of the self-check: nodes as byte arrays with marks kept by the contract of package peer, a catalog, and one
// leader after the other. Everything happens in one thread, in an order drawn from a seed.

const (
	wBlock   = 4096
	wRegion  = 64 << 10
	wRegions = 9
	wSize    = 512<<10 + 5*wBlock // the last region is short
)

type wNode struct {
	id      ids.Node
	bytes   []byte
	marks   map[uint32]peer.Seq
	seq     peer.Seq
	durable peer.Seq
	session int // 0: none; counts up
	cut     bool
	full    bool
	sick    int            // chance in 100 that a command fails with ErrMedium
	bad     map[int64]bool // blocks that cannot be read until they are written
	epoch   peer.Epoch
	rec     *model.Records
	accepts []peer.EpochRange // what it has accepted before
	kept    *wKept
}

// wKept is what a replica was under an epoch.
type wKept struct {
	epoch        peer.Epoch
	bytes        []byte
	marks        map[uint32]peer.Seq
	seq, durable peer.Seq
	rec          *model.Records
}

func (n *wNode) keep(e peer.Epoch) {
	n.kept = &wKept{e, slices.Clone(n.bytes), maps.Clone(n.marks), n.seq, n.durable, n.rec.Clone()}
}

// putBack makes an absent replica what it was earlier in this reign: no epoch shows it (14).
func (w *world) putBack(n *wNode) {
	if k := n.kept; k != nil && k.epoch == w.epoch {
		w.logf("put back %x to seq %d from %d", n.id[0], k.seq, n.seq)
		n.bytes, n.marks, n.seq, n.durable, n.rec, n.kept = k.bytes, k.marks, k.seq, k.durable, k.rec, nil
		w.putBacks++
	}
}

type wCall struct {
	n       *wNode
	session int
	c       *peer.Call
	done    bool // executed
}

type wOp struct {
	r         *block.Request
	value     uint64
	submitted int
	ended     bool
	err       error
	write     bool
	swap      bool     // an update; write says whether it changed anything
	got       []uint64 // a read's values, per block
	deposed   bool     // arrived after a newer epoch was accepted somewhere
}

type world struct {
	rng      *rand.Rand
	nodes    []*wNode
	vol      truth.Volume // the catalog's
	epoch    peer.Epoch
	deposed  bool
	core     *Core
	now      time.Duration
	calls    []*wCall
	props    []Effect
	dials    []ids.Node
	ops      int
	value    uint64
	blocks   [][]*wOp          // per block, in the order of submission, what is not settled
	cands    []map[uint64]bool // per block, what it may be
	live     map[*block.Request]*wOp
	ended    error
	drained  bool
	resyncs  int
	joined   int
	removed  int
	calm     bool // no faults any more
	trace    []string
	fail     func(format string, a ...any)
	buf      []Effect
	acks     int
	reads    int
	spoilt   int
	takeover int
	mended   int
	scrubs   []ScrubReport
	damaged  bool // replicas differ, and nobody has written
	cool     time.Duration
	shunned  int // a replica that seldom comes back, by index; -1: none
	often    int // take-overs, in 1000 steps
	putBacks int
	lost     int // times that a step began with blocks that no member can read, in a region that is not dirty
	eager    int // attempts to reach who is lost, in 1000 steps
}

func newWorld(seed uint64, nodes, members int, fail func(string, ...any)) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 7)), epoch: 0, fail: fail,
		blocks: make([][]*wOp, wSize/wBlock), cands: make([]map[uint64]bool, wSize/wBlock),
		live: map[*block.Request]*wOp{},
	}
	w.cool = []time.Duration{30 * time.Millisecond, 200 * time.Millisecond, time.Second}[w.rng.IntN(3)]
	w.often = []int{0, 1, 5}[w.rng.IntN(3)]
	w.shunned = w.rng.IntN(6) - 3
	w.eager = []int{1, 5, 40}[w.rng.IntN(3)]
	for i := range w.cands {
		w.cands[i] = map[uint64]bool{0: true}
	}
	w.vol = truth.Volume{ID: ids.Volume{1}, Name: "v", Size: wSize, Region: wRegion, Logical: 512, Version: 1}
	for i := range nodes {
		n := &wNode{id: ids.Node{byte(i + 1)}, bytes: make([]byte, wSize), marks: map[uint32]peer.Seq{}, bad: map[int64]bool{},
			rec: model.New(ids.ID{byte(i + 1)}, wRegions)}
		w.nodes = append(w.nodes, n)
		if i < 3 {
			w.vol.Replicas = append(w.vol.Replicas, truth.Place{Node: n.id, Pool: ids.Pool{byte(i + 1)}})
		}
		if i < members {
			w.vol.InSync = append(w.vol.InSync, w.vol.Replicas[i])
		}
	}
	return w
}

func (w *world) logf(format string, a ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%v ", w.now)+fmt.Sprintf(format, a...))
	if len(w.trace) > 400 {
		w.trace = w.trace[100:]
	}
}

// clock is the time of day.
func (w *world) clock() time.Time { return time.Unix(1e9, 0).Add(w.now) }

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func (w *world) node(id ids.Node) *wNode {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	panic("no such node")
}

func (w *world) inSet(id ids.Node) bool { return inSet(w.vol.InSync, id) }

// takeOver begins a new reign on a random node: fence, stale check, removal of who is out of reach, a new Core.
func (w *world) takeOver() {
	w.takeover++
	w.epoch++
	w.deposed = false
	for _, k := range w.calls { // a command is executed before the fence is answered, or never
		if !k.done && w.chance(50) && k.session == k.n.session {
			w.execute(k)
		}
	}
	w.calls, w.props, w.dials, w.core = nil, nil, nil, nil
	for r, op := range w.live {
		r.Err = block.ErrEnded
		op.ended, op.err = true, block.ErrEnded
		w.settleOp(op)
	}
	clear(w.live)
	var best peer.Seq
	for _, n := range w.nodes {
		n.session++
		n.epoch = w.epoch
		n.cut = !w.calm && w.chance(25)
		if !n.cut || w.inSet(n.id) { // a member that is out now was there when it was served last
			n.accepts = peer.Accept(n.accepts, w.epoch-1)
		}
		if w.inSet(n.id) && !n.cut {
			best = max(best, n.durable)
		}
	}
	var in []truth.Place
	for _, p := range w.vol.InSync {
		n := w.node(p.Node)
		if n.cut {
			continue
		}
		if n.seq < best {
			w.fail("node %v in the set would be called stale: seq %d below %d", n.id, n.seq, best)
		}
		in = append(in, p)
	}
	if len(in) == 0 {
		p := w.vol.InSync[w.rng.IntN(len(w.vol.InSync))]
		w.node(p.Node).cut = false
		in = append(in, p)
	}
	if len(in) != len(w.vol.InSync) {
		w.vol.InSync = in
		w.vol.Version++
	}
	w.checkMarks()
	w.checkMissed()
	self := w.nodes[w.rng.IntN(len(w.nodes))]
	self.cut = false
	p := Params{
		Volume: w.vol, Epoch: w.epoch, Self: self.id, Prior: w.epoch - 1,
		Tunables: Tunables{
			Hold: 3 * time.Second, Chunk: 16 << 10, MaxIO: 64 << 10, MaxZero: 64 << 10, HotRegions: 4,
			Cool: w.cool, Progress: 20 * time.Millisecond, LastGrace: time.Second, Reconcilers: 3,
			Lookup: int64(w.epoch % 2), // of everything, or of nothing
			Window: 64 << 10 << (w.epoch % 4), Reserve: 8 << 10,
		},
	}
	p.Volume.InSync = slices.Clone(in)
	for _, pl := range in {
		n := w.node(pl.Node)
		p.Members = append(p.Members, Member{Node: n.id, Seq: n.seq, Durable: n.durable})
	}
	w.now += time.Millisecond
	var err error
	if w.core, err = New(p); err != nil {
		w.fail("%v", err)
	}
	w.core.now = w.now // as if its time had begun with it
	w.ended, w.drained = nil, false
	w.logf("take-over %d on %x with %v", w.epoch, self.id[0], in)
	for _, n := range w.nodes {
		if n.cut && (n.id == self.id || w.inSet(n.id)) {
			w.core.Lost(n.id)
		}
	}
	w.effects()
}

// checkMarks: members that differ in a region have it marked on one of them (12, 13).
func (w *world) checkMarks() {
	for r := range uint32((wSize + wRegion - 1) / wRegion) {
		w.checkRegion(r)
	}
}

func (w *world) checkRegion(r uint32) {
	if w.damaged {
		return
	}
	lo, hi := int(r)*wRegion, min(int(r+1)*wRegion, wSize)
	for i, a := range w.vol.InSync {
		for _, b := range w.vol.InSync[i+1:] {
			x, y := w.node(a.Node), w.node(b.Node)
			if x.marks[r] == 0 && y.marks[r] == 0 && string(x.bytes[lo:hi]) != string(y.bytes[lo:hi]) {
				w.fail("region %d differs on %x and %x and neither has marked it", r, x.id[0], y.id[0])
			}
		}
	}
}

// checkMissed: what an absent replica lacks of a member's bytes is in the member's missed map of it, or marked on the absent
// one (12, 15); with a member that takes it for present yet, marked on one of them.
func (w *world) checkMissed() {
	for _, pl := range w.vol.InSync {
		m := w.node(pl.Node)
		for _, e := range m.rec.Others() {
			a := w.node(e.ID.Node)
			if w.inSet(a.id) || a.rec.Birth != e.ID.Birth || e.Absent && e.Seq > a.seq {
				continue // it was put back, and that shows
			}
			has := map[uint32]bool{}
			if e.Absent {
				x, _ := m.rec.Missed(&peer.Command{Len: wSize, Others: []peer.Other{e}}, wRegion, wSize, nil)
				for _, x := range x {
					has[uint32(x.Off/wRegion)] = true
				}
			}
			for r := range uint32(wRegions) {
				lo, hi := int(r)*wRegion, min(int(r+1)*wRegion, wSize)
				if !has[r] && a.marks[r] == 0 && (e.Absent || m.marks[r] == 0) && string(m.bytes[lo:hi]) != string(a.bytes[lo:hi]) {
					w.fail("region %d differs on %x and the absent %x, which is not recorded: %+v", r, m.id[0], a.id[0], e)
				}
			}
		}
	}
}

// checkRecorded: when a write is acknowledged, every member has on record who missed it (12).
func (w *world) checkRecorded(op *wOp) {
	missed := func(n *wNode) bool {
		for at := op.r.Off; at < op.r.Off+op.r.Len; at += wBlock {
			if v := binary.LittleEndian.Uint64(n.bytes[at:]); v != op.value && !w.laterValue(op, at/wBlock, v) {
				return true
			}
		}
		return false
	}
	for _, pl := range w.vol.InSync {
		for _, e := range w.node(pl.Node).rec.Others() {
			if !e.Absent && !w.inSet(e.ID.Node) && w.node(e.ID.Node).rec.Birth == e.ID.Birth && missed(w.node(e.ID.Node)) {
				w.fail("a write is acknowledged, and %x takes %x for present", pl.Node[0], e.ID.Node[0])
			}
		}
	}
}

// execute carries out a command on the model.
func (w *world) execute(k *wCall) {
	k.done = true
	n, c := k.n, k.c
	defer func() { w.logf("exec %s", w.describe(k)) }()
	c.Answer = peer.Answer{}
	switch {
	case n.epoch > w.epoch:
		c.Err = peer.ErrEpoch
		return
	case !w.calm && c.Kind != peer.Confirm && w.rng.IntN(100) < n.sick:
		c.Err = peer.ErrMedium
		if c.Kind != peer.Write && c.Kind != peer.Zero {
			return
		}
	}
	switch c.Kind {
	case peer.Read:
		for b := c.Off / wBlock; b*wBlock < c.Off+c.Len; b++ {
			if n.bad[b] {
				c.Err = peer.ErrMedium
				return
			}
		}
		copy(c.Data, n.bytes[c.Off:c.Off+c.Len])
	case peer.Sums:
		for b := c.Off / wBlock; b*wBlock < c.Off+c.Len; b++ {
			if n.bad[b] {
				c.Err, c.Sums = peer.ErrMedium, nil
				return
			}
			c.Sums = append(c.Sums, crc32.ChecksumIEEE(n.bytes[b*wBlock:min((b+1)*wBlock, c.Off+c.Len)]))
		}
	case peer.Write, peer.Zero:
		for r := uint32(c.Off / wRegion); int64(r)*wRegion < c.Off+c.Len; r++ {
			if n.marks[r] < c.Seq {
				n.rec.Marked(r)
				n.marks[r] = c.Seq
				n.seq = max(n.seq, c.Seq)
				n.durable = max(n.durable, c.Durable)
			}
		}
		for at := int64(0); at < c.Len; at += wBlock {
			end := min(at+wBlock, c.Len)
			to := n.bytes[c.Off+at : c.Off+end]
			if c.Err != nil && w.chance(50) { // some of a failed write
				continue
			}
			if c.Kind == peer.Zero {
				clear(to)
				delete(n.bad, (c.Off+at)/wBlock)
				continue
			}
			if n.full && allZero(to) {
				c.Err = peer.ErrNoSpace
				continue
			}
			copy(to, c.Data[at:end])
			delete(n.bad, (c.Off+at)/wBlock)
		}
	case peer.Clear:
		for _, r := range c.Regions {
			if at, ok := n.marks[r.Region]; ok && at <= r.Seq {
				delete(n.marks, r.Region)
				n.durable = max(n.durable, c.Durable)
			}
			w.checkRegion(r.Region) // the leader might die now
		}
		w.checkMissed()
	case peer.ReadMap:
		c.Birth, c.Highest, c.Known = n.rec.Birth, n.seq, n.rec.Others()
		for r := range uint32(64) {
			if s := n.marks[r]; s != 0 {
				c.Active = append(c.Active, peer.RegionSeq{Region: r, Seq: s})
			}
		}
	case peer.Know:
		c.Err = n.rec.Know(c.Others, n.marks)
		w.checkMissed()
	case peer.ReadMissed:
		c.Extents, c.Err = n.rec.Missed(&c.Command, wRegion, wSize, n.marks)
	case peer.AddMissed, peer.DropMissed:
		c.Err = n.rec.Change(&c.Command, wRegion, n.marks)
		w.checkMissed()
	case peer.Extents:
		for at := c.Off; at < c.Off+c.Len; at += wBlock {
			if n.bad[at/wBlock] || !allZero(n.bytes[at:min(at+wBlock, c.Off+c.Len)]) || w.chance(5) {
				c.Extents = append(c.Extents, peer.Extent{Off: at, Len: min(wBlock, c.Off+c.Len-at)})
			}
		}
	}
}

func (w *world) answer(i int) {
	k := w.calls[i]
	w.calls = slices.Delete(w.calls, i, i+1)
	if !k.done {
		w.execute(k)
	}
	w.logf("answer %s", w.describe(k))
	w.core.Answered(k.c)
	w.effects()
}

func (w *world) describe(k *wCall) string {
	v := uint64(0)
	if len(k.c.Data) >= 8 {
		v = binary.LittleEndian.Uint64(k.c.Data)
	}
	return fmt.Sprintf("%x kind %d off %d len %d seq %d value %d done %v err %v", k.n.id[0], k.c.Kind, k.c.Off/wBlock, k.c.Len/wBlock, k.c.Seq, v, k.done, k.c.Err)
}

// cut loses the session with a node: what was not executed never will be.
func (w *world) cutNode(n *wNode, err error) {
	w.logf("cut %x", n.id[0])
	var mine []*wCall
	w.calls = slices.DeleteFunc(w.calls, func(k *wCall) bool {
		if k.n == n {
			mine = append(mine, k)
		}
		return k.n == n
	})
	n.session++
	n.cut = true
	if w.chance(50) {
		w.core.Lost(n.id)
		w.effects()
	}
	w.rng.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
	for _, k := range mine {
		if !k.done && w.chance(50) {
			w.execute(k)
		}
		k.c.Answer = peer.Answer{Err: err}
		w.core.Answered(k.c)
		w.effects()
	}
}

func (w *world) effects() {
	if w.core.lost > 0 {
		w.lost++
	}
	for {
		w.buf = w.core.Effects(w.buf[:0])
		if len(w.buf) == 0 {
			return
		}
		for _, e := range slices.Clone(w.buf) {
			w.effect(e)
		}
	}
}

func (w *world) effect(e Effect) {
	switch e.Kind {
	case Send:
		n := w.node(e.Node)
		k := &wCall{n: n, session: n.session, c: e.Call}
		w.checkOverlap(k)
		if n.cut {
			e.Call.Answer = peer.Answer{Err: peer.ErrLost}
			w.core.Answered(e.Call)
			return
		}
		w.logf("send %s", w.describe(k))
		w.calls = append(w.calls, k)
	case Complete:
		op := w.live[e.Request]
		delete(w.live, e.Request)
		op.ended, op.err = true, e.Request.Err
		w.completed(op)
	case Propose:
		w.props = append(w.props, e)
	case Reconnect:
		w.dials = append(w.dials, e.Node)
	case Ended:
		w.ended = e.Err
		w.logf("ended %v", e.Err)
	case Drained:
		w.drained = true
	case ResyncDone:
		w.logf("resync done %x %v", e.Node[0], e.Err)
		if e.Err == nil {
			w.joined++
			w.checkMissed()
			w.checkMarks() // it is equal but for what is marked, whatever was copied
		}
	case Report:
		if e.Notice.Code == Mended {
			w.mended++
		}
		if e.Notice.Code == Scrubbed {
			r := *e.Notice.Scrub
			if !r.Ended.Equal(w.clock()) || r.Ended.Sub(r.Began).Seconds() != r.Seconds {
				w.fail("a scrub that ends at %v says %+v", w.clock(), r)
			}
			w.scrubs = append(w.scrubs, r)
		}
		w.logf("notice %d node %x off %d %v", e.Notice.Code, e.Notice.Node[0], e.Notice.Off/wBlock, e.Notice.Err)
	}
}

// checkOverlap: on one node, a write never is under way beside anything that overlaps it (3).
func (w *world) checkOverlap(k *wCall) {
	changes := func(c *peer.Call) bool { return c.Kind == peer.Write || c.Kind == peer.Zero }
	touches := func(c *peer.Call) bool { return changes(c) || c.Kind == peer.Read || c.Kind == peer.Sums }
	for _, o := range w.calls {
		if o.n == k.n && touches(o.c) && touches(k.c) && (changes(o.c) || changes(k.c)) &&
			o.c.Off < k.c.Off+k.c.Len && k.c.Off < o.c.Off+o.c.Len {
			w.fail("overlap: %s beside %s", w.describe(k), w.describe(o))
		}
	}
}

func (w *world) decide(i int, unknown bool) {
	e := w.props[i]
	w.props = slices.Delete(w.props, i, i+1)
	apply := !unknown || w.chance(50)
	var out truth.Outcome
	var err error
	if apply {
		out, err = w.apply(e.Proposal)
	}
	if unknown {
		out, err = truth.Outcome{}, truth.ErrUnknown
	}
	w.logf("decide %T %x: %v", e.Proposal, e.Node[0], err)
	w.core.Decided(e.ID, out, err)
	w.effects()
}

// apply is the state machine of the catalog.
func (w *world) apply(p truth.Proposal) (truth.Outcome, error) {
	reject := func(why truth.Why) (truth.Outcome, error) {
		v := w.vol
		v.InSync = slices.Clone(v.InSync)
		return truth.Outcome{}, &truth.Rejection{Why: why, Epoch: w.epoch, Current: v}
	}
	if w.deposed {
		return reject(truth.WrongEpoch)
	}
	set := slices.Clone(w.vol.InSync)
	switch p := p.(type) {
	case truth.RemoveMember:
		i := slices.IndexFunc(set, func(pl truth.Place) bool { return pl.Node == p.Node })
		switch {
		case p.Version != w.vol.Version:
			return reject(truth.WrongVersion)
		case i < 0:
			return reject(truth.NotAReplica)
		case len(set) == 1:
			return reject(truth.LastMember)
		}
		set = slices.Delete(set, i, i+1)
		w.removed++
	case truth.AddMember:
		if p.Version != w.vol.Version {
			return reject(truth.WrongVersion)
		}
		i := slices.IndexFunc(w.vol.Replicas, func(pl truth.Place) bool { return pl.Node == p.Node })
		if i < 0 {
			return reject(truth.NotAReplica)
		}
		set = append(set, w.vol.Replicas[i])
	}
	w.vol.InSync = set
	w.vol.Version++
	w.logf("set is %v", set)
	return truth.Outcome{Version: w.vol.Version, InSync: slices.Clone(set)}, nil
}

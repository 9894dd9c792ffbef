package mirror

import (
	"errors"
	"slices"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// Errors of a resync, and causes of an end.
var (
	// ErrBusy is returned when a resync is under way already, or the mirror drains or has ended.
	ErrBusy = errors.New("mirror: not now")
	// ErrMember is returned when the node is in the in-sync set already.
	ErrMember = errors.New("mirror: the node is a member already")
	// ErrStopped ends a resync that StopResync or a drain stopped.
	ErrStopped = errors.New("mirror: stopped")
	// ErrClosed is the cause of a mirror that was closed with none.
	ErrClosed = errors.New("mirror: closed")
	// ErrStale is the reason for removing a member whose disk lost marks that it had (14).
	ErrStale = errors.New("mirror: the replica lost marks that it had: its disk was reverted")
	// ErrSet is the cause of a mirror that ended because the catalog's set has a member that it does not know.
	ErrSet = errors.New("mirror: the in-sync set has an unknown member")
)

// Core is the pure state machine of one open volume. Every method may produce effects; the caller takes them with
// Effects after each call. Calls and requests are identified by their addresses and used again: nothing is allocated per
// I/O once the Core is warm.
type Core struct {
	p       Params
	t       Tunables
	now     time.Duration
	effects []Effect

	slots     [maxSlots]slot // 0 is Self
	members   mask           // as the catalog last told: the in-sync set
	version   uint64
	opened    bool // the members' maps are known
	joiner    int  // slot, -1 if none
	required  bool // the joiner counts for acknowledgements
	prop      proposal
	proposals uint64 // the number of the last
	retiring  retirement

	arrival uint64 // requests and spans, numbered as they come
	reqs    requestList
	live    int           // requests admitted and not over
	askedAt time.Duration // when the last one of a client came
	order   order
	ready   spanQueue
	parked  parkedList
	waiting copierList // copies parked
	rescan  bool       // parked parts and copies may be able to start

	seq       peer.Seq // the highest assigned
	durable   peer.Seq
	regions   map[uint32]*region
	hot       regionList // active, most recently written first
	demand    regionList // dirty and waited for
	backlog   regionList // dirty
	clearing  clearBatch
	cooling   cooling
	copying   int           // chunks of reconciliations under way
	lost      int           // blocks that no member can read, in regions that are not dirty
	retryAt   time.Duration // a region that could not be reconciled is tried again; 0 if none
	announced bool

	writes int // parts sent and not answered by all targets
	cohort uint32
	older  int // those of them that were sent before the last barrier

	mends     []mendRange // that wait
	mending   *mend       // the one under way; nil if none is
	mendWaits bool        // it waits for a reconciliation

	scrub      *scrub      // nil if none
	scrubWaits *scrubChunk // for a reconciliation
	scrubbed   *ScrubReport

	cache cache

	slowAt time.Duration // when the members' speeds are compared next
	// What the members have on record of the others (missed.go).
	left     map[ids.Node]evidence // of members that left
	before   evidence              // of those that left before
	places   []truth.Place         // of the replicas
	owing    bool                  // a member has somebody for present that is not
	retell   bool                  // somebody may have to be told
	tellAt   time.Duration         // not before
	dropping int                   // DropMissed under way

	asking      [2]bool // by Asker: the budget was asked
	granted     [2]bool // and what it gave was not used yet
	rs          *resync
	joinBytes   int64 // copies of data under way to the joiner
	draining    bool
	drained     bool
	ended       bool
	cause       error
	holding     bool
	toldLacking bool          // that it is for what nobody in reach has
	holdAt      time.Duration // when to look again whether it still is so
	calls       int           // under way
	free        pools
}

// New makes a Core. Its first effects read the members' active maps; requests wait for them.
func New(p Params) (*Core, error) {
	p.Tunables = p.Tunables.withDefaults()
	if err := p.validate(); err != nil {
		return nil, err
	}
	c := &Core{
		p: p, t: p.Tunables, version: p.Volume.Version, joiner: -1,
		regions: make(map[uint32]*region), left: make(map[ids.Node]evidence), places: slices.Clone(p.Volume.Replicas),
		order: order{seed: 0x9e3779b97f4a7c15},
	}
	c.cooling.least, c.cooling.most, c.cooling.pause = c.t.Cool, c.t.CoolMost, c.t.Cool
	c.slots[0] = slot{node: p.Self, used: true, up: true}
	c.askedAt = -idleAfter
	for i, m := range p.Members {
		s := 0
		if m.Node != p.Self {
			s = c.newSlot(m.Node)
		}
		c.members |= bit(s)
		for _, pl := range p.Volume.InSync {
			if pl.Node == m.Node {
				c.place(s, pl)
			}
		}
		c.slots[s].inc = m.Incarnation
		c.before = evidence{p.Prior, max(c.before.seq, m.Durable)}
		c.seq = max(c.seq, m.Seq, m.Durable)
		if i == 0 {
			c.durable = m.Seq
		}
		c.durable = min(c.durable, m.Seq) // each of them has recorded this one or a higher one
	}
	c.openCache()
	for i := range c.slots {
		if c.members.has(i) {
			c.readMap(i)
		}
	}
	return c, nil
}

// Resize says that the volume is larger: the catalog has that size, and every member.
func (c *Core) Resize(size int64) {
	if size > c.p.Volume.Size && !c.ended {
		c.abortResync(ErrStopped) // what it has looked at ends where the volume ended
		c.p.Volume.Size = size
	}
	c.run()
}

// Geometry describes the device.
func (c *Core) Geometry() block.Geometry { return c.p.geometry(c.t) }

// Effects appends what is to be done to buf, in the order in which it was decided, and forgets it.
func (c *Core) Effects(buf []Effect) []Effect {
	buf = append(buf, c.effects...)
	clear(c.effects)
	c.effects = c.effects[:0]
	return buf
}

func (c *Core) emit(e Effect) { c.effects = append(c.effects, e) }

func (c *Core) report(n Notice) { c.emit(Effect{Kind: Report, Node: n.Node, Notice: &n}) }

// run does what the last event made possible. It is the last step of every method: what is let run by others never runs
// inside their steps.
func (c *Core) run() {
	for {
		if s := c.ready.pop(); s != nil {
			s.queued = false
			switch {
			case s.req != nil:
				c.begin(s.req)
			case s.mend != nil:
				c.beginMend(s.mend)
			case s.scrub != nil:
				c.beginScrub(s.scrub)
			default:
				c.beginCopy(s.copy)
			}
			continue
		}
		if c.rescan {
			c.rescan = false
			c.unpark()
			continue
		}
		if c.ended {
			return
		}
		c.adjust()
		c.pumpKnow()
		c.pumpReconcile()
		c.pumpResync()
		c.pumpMend()
		c.pumpScrub()
		c.pumpClear()
		c.pumpRecord()
		c.pumpFlush()
		c.pumpDrain()
		if c.ready.head == nil && !c.rescan {
			return
		}
	}
}

// Answered says that a call is over, whose Answer is set.
func (c *Core) Answered(pc *peer.Call) {
	k := pc.Owner.(*call)
	s := &c.slots[k.slot]
	s.out--
	c.calls--
	o := outcomeOf(pc.Err)
	if o == fine && c.rs != nil && int(k.slot) == c.rs.slot && (pc.Kind == peer.Write || pc.Kind == peer.Zero) {
		c.rs.high = max(c.rs.high, pc.Seq)
	}
	switch {
	case o == epochOver:
		c.end(pc.Err, true)
		o = lost
	case o == lost && s.up && k.gen == s.gen:
		c.lose(int(k.slot), pc.Err)
	}
	switch k.user {
	case forPart:
		c.partAnswered(k, o)
	case forCopy:
		c.copyAnswered(k, o)
	case forConfirm:
		c.confirmAnswered(k, o)
	case forClear:
		c.clearAnswered(k)
	case forMap:
		c.mapAnswered(k, o)
	case forExtents:
		c.extentsAnswered(k, o)
	case forMend:
		c.mendAnswered(k, o)
	case forScrub:
		c.scrubAnswered(k, o)
	case forKnow:
		c.knowAnswered(k, o)
	case forMissed:
		c.missedAnswered(k, o)
	case forReserve: // nothing rests upon it
	case forDrop:
		c.dropAnswered(k, o)
	}
	c.freeCall(k)
	c.retire(s)
	c.run()
}

// outcome is what an answer means to the mirror.
type outcome uint8

const (
	fine outcome = iota
	lost         // not known whether it was executed; there is no session, or no replica behind it
	medium
	full
	epochOver
)

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return fine
	case errors.Is(err, peer.ErrEpoch):
		return epochOver
	case errors.Is(err, peer.ErrLost), errors.Is(err, peer.ErrNoReplica):
		return lost
	case errors.Is(err, peer.ErrNoSpace):
		return full
	}
	return medium
}

// Drain begins a hand-over: requests that come from now on wait (and end with block.ErrEnded at Close), those before are
// finished, the resync is stopped, and marks are cleared, but for regions that no request waits for and that are still to
// be reconciled. Drained tells the end; the caller bounds the wait.
func (c *Core) Drain() {
	if !c.draining && !c.ended {
		c.draining, c.rescan = true, true // a mend that waits for a region ends
		c.abortResync(ErrStopped)
	}
	c.run()
}

func (c *Core) pumpDrain() {
	if !c.draining || c.drained || c.live > 0 || c.rs != nil || c.prop.active || c.copying > 0 || c.mending != nil || c.scrub != nil ||
		c.clearing.out > 0 || c.hot.n > 0 || c.unflushed() || c.cache.record.active {
		return
	}
	c.drained = true
	c.emit(Effect{Kind: Drained})
}

// Close ends the mirror. Every request ends with block.ErrEnded, at once or when its last call was answered. The sessions
// are the caller's: it closes them where it wants an end soon. Idle tells when nothing is under way any more.
func (c *Core) Close(cause error) {
	if cause == nil {
		cause = ErrClosed
	}
	c.end(cause, false)
	c.run()
}

func (c *Core) end(cause error, tell bool) {
	if c.ended {
		return
	}
	if tell {
		c.emit(Effect{Kind: Ended, Err: cause})
	}
	c.ended, c.cause = true, cause
	if c.rs != nil {
		c.endResync(cause)
	}
	c.endScrub(cause)
	for p := c.parked.head; p != nil; p = c.parked.head {
		c.failPart(p, block.ErrEnded)
	}
	for q := c.reqs.head; q != nil; {
		next := q.next
		c.endRequest(q, block.ErrEnded)
		q = next
	}
	c.rescan = true // parked copies
}

// Idle says that no request, call or proposal is under way.
func (c *Core) Idle() bool {
	return c.reqs.head == nil && c.calls == 0 && !c.prop.sent && !c.cache.record.sent
}

// Status describes the state.
func (c *Core) Status() Status {
	st := Status{
		Version: c.version, Requests: c.reqs.n, Active: len(c.regions), Dirty: c.demand.n + c.backlog.n, Lost: c.lost,
		Changing: c.prop.active, Draining: c.draining, Holding: c.holding, Opened: c.opened,
	}
	for i := range c.slots {
		if s := &c.slots[i]; c.members.has(i) {
			st.Members = append(st.Members, MemberStatus{Node: s.node, Reached: s.up, Failed: s.failed || s.stale})
		}
	}
	if err := c.obstacle(); err != nil {
		st.HoldCause = err.Error()
	}
	st.Resync = c.resyncStatus()
	st.Scrub, st.Scrubbed = c.scrubStatus(), c.scrubbed
	return st
}

// Node ids are looked up among at most maxSlots slots.
func (c *Core) slotOf(n ids.Node) int {
	for i := range c.slots {
		if s := &c.slots[i]; s.used && !s.gone && s.node == n {
			return i
		}
	}
	return -1
}

package reign

import (
	"errors"
	"fmt"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// ErrUnusable is returned when the newest fence of a node does not show a usable replica.
var ErrUnusable = errors.New("reign: the replica is not usable")

// never is later than any time that Step is given.
const never = time.Duration(1<<63 - 1)

// Core is the leader's decisions. One caller at a time.
type Core struct {
	cfg  Config
	self ids.Node
	now  time.Duration
	out  []Effect
	last uint64        // the last id given to an attempt, a proposal or a command
	wake time.Duration // when the next Tick is due

	leading    bool
	view       *truth.View // never nil
	byID       map[ids.Volume]*truth.Volume
	distrusted map[ids.Pool][]peer.Epoch // that a pool knows them proves nothing: it was reverted under them
	known      peer.Epoch                // the highest epoch that was ever heard of: by the catalog, a report, or our own proposals
	suspected  map[ids.Node]bool
	r          *reign                         // nil unless a take-over is under way or done
	again      pace                           // of take-overs
	tries      int                            // take-overs since the last reign that lasted
	endings    map[ids.Volume][]time.Duration // when mirrors ended by themselves under this leadership
	through    map[ids.Volume]bool            // their disks failed to flush: under this leadership every write is durable when it is answered
	reports    map[ids.Node]stamped
	witness    witness
	yield      yielding
	auto       moving
}

// reign is one take-over and what came of it. Nothing in it outlives its epoch.
type reign struct {
	epoch    peer.Epoch
	proposal uint64 // the TakeOver
	applied  bool
	began    time.Duration // when it was applied here

	nodes map[ids.Node]*node
	order []*node // of nodes, by id
	vols  map[ids.Volume]*vol
	list  []*vol // of vols, as they were adopted

	judgeDue  bool // something that the judgement of volumes depends on has changed
	judgeAt   time.Duration
	resyncDue bool // the same for resyncs
	resyncAt  time.Duration
	reachDue  bool // the same for yielding
	placesDue bool // the same for changes of places
	placesAt  time.Duration
	moved     bool                // a member of a served volume has another node than when its mirror was opened
	back      bool                // a volume that was served, and then deleted, was restored; or one was forced
	retired   map[ids.Volume]bool // that were served, and then deleted
	again     time.Duration       // when a volume that was left alone is tried again; 0: there is none
	swept     ids.Volume          // the newest of View.Deleted whose replicas were looked for

	removal  removal                  // RemoveUnfenced
	served   batch                    // Served
	expels   map[uint64]*vol          // RemoveMember under way, by proposal
	commands map[uint64]command       // by id
	asked    map[uint64]func(Decided) // other proposals under way
	cleaning map[cleanKey]*cleaning
	forcing  []forcing
	making   []*creation
	deleting []*deletion
	handing  *handing
	resyncs  int // under way
}

// pace spaces out what is tried again and again.
type pace struct{ wait, next time.Duration }

// later sets the next time after a failure.
func (p *pace) later(now, lo, hi time.Duration) {
	p.wait = min(max(2*p.wait, lo), hi)
	p.next = now + p.wait
}

// NewCore makes a Core for the node self. cfg is valid.
func NewCore(cfg Config, self ids.Node) *Core {
	return &Core{
		cfg: cfg, self: self, wake: never, view: &truth.View{}, suspected: make(map[ids.Node]bool),
		reports: make(map[ids.Node]stamped), distrusted: make(map[ids.Pool][]peer.Epoch),
	}
}

// Step says that ev happened at now, and returns what is to be done, in order. now is the time since any fixed moment; it
// never goes back.
func (c *Core) Step(now time.Duration, ev Event) []Effect {
	c.now = max(c.now, now)
	c.out = nil
	c.handle(ev)
	c.wake = never
	if c.leading {
		c.drive()
	}
	return c.out
}

// Next returns when the next Tick is due; false if none is.
func (c *Core) Next() (time.Duration, bool) { return c.wake, c.wake != never }

func (c *Core) handle(ev Event) {
	switch ev := ev.(type) {
	case Leading:
		c.endReign("the leadership was gained anew")
		c.leading, c.again, c.tries, c.witness = true, pace{}, 0, witness{}
		c.endings, c.through = make(map[ids.Volume][]time.Duration), make(map[ids.Volume]bool)
		c.auto = newMoving()
		c.setView(ev.View)
	case Following:
		c.leading = false
		c.endReign("this node does not lead any more")
	case Changed:
		c.setView(ev.View)
	case Decided:
		c.setView(ev.View)
		c.decided(ev)
	case Opened:
		c.opened(ev)
	case Failed:
		c.failed(ev)
	case Lost:
		c.lost(ev)
	case Polled:
		c.polled(ev)
	case Suspected:
		c.suspected[ev.Node] = true
		c.touch()
	case Alive:
		delete(c.suspected, ev.Node)
		c.alive(ev.Node)
	case MirrorOpened:
		c.mirrorOpened(ev)
	case MirrorDrained:
		c.mirrorDrained(ev)
	case MirrorEnded:
		c.mirrorEnded(ev)
	case MirrorHolds:
		c.mirrorHolds(ev)
	case MirrorSet:
		c.mirrorSet(ev)
	case MemberSlow:
		c.memberSlow(ev)
	case ResyncEnded:
		c.resyncEnded(ev)
	case CommandDone:
		c.commandDone(ev)
	case Reported:
		c.reported(ev)
	case TransferFailed:
		c.transferFailed(ev)
	case VolumeDecided:
		c.setView(ev.View)
		c.volumeDecided(ev)
	case CreateVolume:
		c.createVolume(ev)
	case DeleteVolume:
		c.deleteVolume(ev)
	case HandOver:
		c.askHandOver(ev)
	case RestartResync:
		c.restartResync(ev)
	case ForceVolume:
		c.forceVolume(ev)
	case AddReplica:
		c.addReplica(ev)
	case Spaced:
		c.spaced(ev)
	case Tuned:
		c.cfg.ReplaceAfter = ev.ReplaceAfter
		c.touch()
	case ResizeVolume:
		c.resizeVolume(ev)
	case RemoveReplica:
		c.removeReplica(ev)
	}
}

// drive begins whatever is possible now. It is the last step of every event.
func (c *Core) drive() {
	if c.isWitness() {
		c.driveWitness()
		return
	}
	c.driveTakeOver()
	if c.r == nil || !c.r.applied {
		return
	}
	c.driveEnded()
	if c.r != nil {
		c.driveAdmin()
	}
	if c.r == nil { // a volume is tried again, or a drain took too long
		c.driveTakeOver()
		return
	}
	c.driveNodes()
	c.driveVolumes()
	c.driveReplicas()
	c.driveResyncs()
	c.driveYield()
}

// setView takes a newer state of the catalog.
func (c *Core) setView(v *truth.View) {
	if v == nil || v == c.view || v.Index < c.view.Index {
		return
	}
	c.view = v
	c.byID = make(map[ids.Volume]*truth.Volume, len(v.Volumes))
	for i := range v.Volumes {
		c.byID[v.Volumes[i].ID] = &v.Volumes[i]
	}
	c.known = max(c.known, v.Epoch)
	switch r := c.r; {
	case r == nil:
	case !r.applied:
		c.checkApplied()
	case v.Epoch != r.epoch:
		c.endReign("another epoch is current")
	default:
		c.adopt()
	}
}

// adopt follows the catalog's nodes and volumes.
func (c *Core) adopt() {
	c.adoptNodes()
	c.adoptVolumes()
	switch {
	case c.r.moved:
		c.endReign("a node with members came back under a new identity")
	case c.r.back:
		c.endReign("a volume was restored, or forced")
	default:
		c.sweepDeleted()
	}
	c.touch()
}

func (c *Core) emit(e Effect) { c.out = append(c.out, e) }

// count is a number of things, for people.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (c *Core) tell(k Kind, v ids.Volume, n ids.Node, text string) {
	c.emit(Tell{Kind: k, Volume: v, Node: n, Text: text})
}

// at has a Tick come at t.
func (c *Core) at(t time.Duration) { c.wake = min(c.wake, t) }

// touch has everything about volumes looked at again.
func (c *Core) touch() {
	if r := c.r; r != nil {
		r.judgeDue, r.resyncDue, r.reachDue, r.placesDue = true, true, true, true
	}
}

func (c *Core) id() uint64 {
	c.last++
	return c.last
}

// nodeName names a node for people.
func (c *Core) nodeName(n ids.Node) string {
	for i := range c.view.Nodes {
		if x := &c.view.Nodes[i]; x.ID == n && x.Name != "" {
			return x.Name
		}
	}
	return n.String()
}

// isWitness tells whether this node has no part in serving. A node that the catalog does not know takes no epoch either.
func (c *Core) isWitness() bool {
	for i := range c.view.Nodes {
		if x := &c.view.Nodes[i]; x.ID == c.self {
			return x.Witness
		}
	}
	return true
}

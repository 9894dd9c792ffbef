package reign

import (
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// An Event is something that happened. Whoever drives Core hands in each once, in the order in which it learned of them.
type Event interface{ event() }

type (
	// Leading says that this node is Raft's leader, and that everything committed before is applied: View is the newest
	// state, read after the barrier.
	Leading struct{ View *truth.View }
	// Following says that this node is not Raft's leader (any more).
	Following struct{}
	// Changed brings a newer state of the catalog. An older one is ignored.
	Changed struct{ View *truth.View }
	// Decided is the end of the Propose with that ID. View is the newest state, read after the proposal ended. Err is nil, or
	// is one of truth.ErrRejected (a *truth.Rejection where the reason is known) and truth.ErrUnknown.
	Decided struct {
		ID      uint64
		Outcome truth.Outcome
		Err     error
		View    *truth.View
	}
	// Opened says that the session of an OpenSession is up, with the node's answer to the fence.
	Opened struct {
		Attempt uint64
		Fenced  peer.Fenced
	}
	// Failed is the other end of an OpenSession. An *peer.EpochError says that the node has accepted a higher epoch.
	Failed struct {
		Attempt uint64
		Err     error
	}
	// Lost says that an open session has died.
	Lost struct {
		Attempt uint64
		Err     error
	}
	// Polled is the end of a Poll.
	Polled struct {
		Attempt uint64
		Fenced  peer.Fenced
		Err     error
	}
	// Suspected and Alive are gossip's opinion of a node. It only shortens the grace.
	Suspected struct{ Node ids.Node }
	Alive     struct{ Node ids.Node }
	// Tick says that the time that Core.Next named has come. A needless one does no harm.
	Tick struct{}
	// MirrorOpened says that the mirror of an OpenMirror answers I/O.
	MirrorOpened struct {
		Volume ids.Volume
		Epoch  peer.Epoch
	}
	// MirrorDrained is the end of a DrainMirror. Err is nil when no I/O is under way, all marks are cleared on every member
	// and new I/O waits. A drained mirror does not go on: it is closed, at the latest by taking over anew.
	MirrorDrained struct {
		Volume ids.Volume
		Epoch  peer.Epoch
		Err    error
	}
	// MirrorEnded says that a mirror could not be opened or ended by itself (not by CloseMirror).
	MirrorEnded struct {
		Volume ids.Volume
		Epoch  peer.Epoch
		Err    error
	}
	// MirrorHolds says that the mirror holds I/O, and why; with an empty Why, that it goes on.
	MirrorHolds struct {
		Volume ids.Volume
		Epoch  peer.Epoch
		Why    string
	}
	// MirrorSet says that a mirror has begun or ceased to take a node's replica for a member.
	MirrorSet struct {
		Volume ids.Volume
		Node   ids.Node
		Epoch  peer.Epoch
		Member bool
	}
	// MemberSlow says that a mirror is about to remove a member because its writes take far longer than the others'.
	MemberSlow struct {
		Volume ids.Volume
		Node   ids.Node
		Epoch  peer.Epoch
	}
	// ResyncEnded is the end of a StartResync. With nil the replica is in the in-sync set.
	ResyncEnded struct {
		Volume ids.Volume
		Node   ids.Node
		Epoch  peer.Epoch
		Status mirror.ResyncStatus // at the end; zero if it did not begin
		Err    error
	}
	// CommandDone is the end of a Command.
	CommandDone struct {
		ID     uint64
		Err    error
		Answer peer.Answer // of a ReadMap
	}
	// Reported is a node's answer to AskReports.
	Reported struct {
		Node   ids.Node
		Report Report
	}
	// TransferFailed is the end of a TransferLeadership after which this node still leads. Success shows as Following.
	TransferFailed struct{ Err error }
	// VolumeDecided is the end of a ProposeCreate or ProposeDelete. Err as in Decided.
	VolumeDecided struct {
		Volume ids.Volume
		Epoch  peer.Epoch
		Err    error
		View   *truth.View
	}
	// CreateVolume, DeleteVolume, HandOver, RestartResync, AddReplica, RemoveReplica
	// and ResizeVolume are an admin's requests; each gets one Reply with its Request.
	CreateVolume struct {
		Request uint64
		// Volume has all but Replicas, InSync, Version, LastServed. ID and Lineage are made by the caller, once per wish, and
		// stay the same when the wish is repeated.
		Volume truth.Volume
		// Copies is how many replicas there are to be, 1 to 3.
		Copies int
		// On names the nodes, if the admin did; otherwise Core chooses those with the most free space.
		On []ids.Node
		// Space is what is free now. A pool that is not in it is not chosen.
		Space []Space
	}
	DeleteVolume struct {
		Request uint64
		Volume  ids.Volume
	}
	// HandOver drains all volumes and gives the leadership to To, or to the best node if To is zero.
	HandOver struct {
		Request uint64
		To      ids.Node
	}
	// RestartResync ends the waiting before a failed resync is tried again.
	RestartResync struct {
		Request uint64
		Volume  ids.Volume
		Node    ids.Node
	}
	// ForceVolume has a volume that cannot be served go on with the replica on Node, whatever that lacks, under a new lineage, which
	// the caller makes once per wish.
	ForceVolume struct {
		Request uint64
		Volume  ids.Volume
		Node    ids.Node
		Pool    ids.Pool // which of its replicas, if it has several; zero: the one that it has
		Lineage ids.Lineage
		// Incomplete allows a replica that is no copy of any one moment: never in sync, or one to which a resync was begun; after a restore one
		// that another has on record as not in sync.
		Incomplete bool
	}
	// AddReplica gives a volume that is served here one more replica; with Instead, the one on that node leaves when the new one
	// is in sync. The Reply comes when the catalog has it; the copy is made from then on, by whoever leads.
	AddReplica struct {
		Request uint64
		Volume  ids.Volume
		Node    ids.Node // zero: Core chooses, as for CreateVolume
		Pool    ids.Pool // likewise
		Instead ids.Node
		Why     string // why Instead leaves: one of package truth's
		// Copies, if above 0, is how many are to stay in the end: with as many, nothing is done.
		Copies int
		Space  []Space
	}
	// Spaced is the end of an AskSpace: the free space of the pools that answered.
	Spaced struct{ Space []Space }
	// Tuned changes a tunable while Core runs.
	Tuned struct{ ReplaceAfter time.Duration }
	// ResizeVolume makes a volume that is served here larger. The Reply comes when the catalog has the size.
	ResizeVolume struct {
		Request uint64
		Volume  ids.Volume
		Size    int64 // bytes, a multiple of 4096
	}
	// RemoveReplica has the replica on Node leave. The Reply comes when the catalog has it.
	RemoveReplica struct {
		Request uint64
		Volume  ids.Volume
		Node    ids.Node
		Why     string
	}
)

// Space is the free space of a pool, in bytes.
type Space struct {
	Node ids.Node
	Pool ids.Pool
	Free int64
	// Tight says that the pool has promised so much that the replica that is asked for would be too much: it is not chosen.
	Tight bool
}

// Report is what a node says of itself when a leader considers to hand over to it.
type Report struct {
	// Electable says that it is a voter, its catalog disk works, and it is not on its way down.
	Electable bool
	// LastIndex is the last index in its Raft log.
	LastIndex uint64
	// Reaches is the nodes to which it has a connection now, itself included if its pools work.
	Reaches []ids.Node
}

func (Leading) event()        {}
func (Following) event()      {}
func (Changed) event()        {}
func (Decided) event()        {}
func (Opened) event()         {}
func (Failed) event()         {}
func (Lost) event()           {}
func (Polled) event()         {}
func (Suspected) event()      {}
func (Alive) event()          {}
func (Tick) event()           {}
func (MirrorOpened) event()   {}
func (MirrorDrained) event()  {}
func (MirrorEnded) event()    {}
func (MirrorHolds) event()    {}
func (MirrorSet) event()      {}
func (MemberSlow) event()     {}
func (ResyncEnded) event()    {}
func (CommandDone) event()    {}
func (Reported) event()       {}
func (TransferFailed) event() {}
func (VolumeDecided) event()  {}
func (CreateVolume) event()   {}
func (DeleteVolume) event()   {}
func (HandOver) event()       {}
func (RestartResync) event()  {}
func (AddReplica) event()     {}
func (Spaced) event()         {}
func (Tuned) event()          {}
func (ResizeVolume) event()   {}
func (ForceVolume) event()    {}
func (RemoveReplica) event()  {}

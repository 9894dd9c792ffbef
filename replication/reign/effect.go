package reign

import (
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// An Effect is something to do. The effects of one Step are begun in their order; none is waited for.
type Effect interface{ effect() }

type (
	// Propose proposes P to this node's Raft; its end is a Decided with ID.
	Propose struct {
		ID uint64
		P  truth.Proposal
	}
	// OpenSession opens a session with Node under Epoch; its end is Opened or Failed with Attempt. Many run at once.
	OpenSession struct {
		Attempt uint64
		Node    ids.Node
		Epoch   peer.Epoch
	}
	// CloseSession closes the session of Attempt, or gives the attempt up. Nothing more is heard of it.
	CloseSession struct {
		Attempt uint64
		Node    ids.Node
	}
	// Poll asks the session of Attempt again; its end is Polled.
	Poll struct {
		Attempt uint64
		Node    ids.Node
	}
	// OpenMirror has a volume served; its end is MirrorOpened or MirrorEnded. Served is committed, and every member is
	// fenced and not stale. The sessions to use are the newest of each node, also when the mirror wants to reach a node
	// again: Core opens a new session under the same epoch by itself, and Core.Usable tells whether the replica behind it
	// is still the one that it was (mirror.Core.Back), or not (mirror.Core.Unreachable).
	OpenMirror struct {
		Epoch   peer.Epoch
		Volume  truth.Volume
		Members []Member // in the order of Volume.InSync
		// Prior is the epoch under which the volume was last served before Epoch; 0 if never.
		Prior peer.Epoch
	}
	// DrainMirror finishes all I/O, clears all marks and holds new I/O; its end is MirrorDrained.
	DrainMirror struct{ Volume ids.Volume }
	// CloseMirror ends a mirror: what it holds ends with block.ErrEnded. Nothing more is heard of it.
	CloseMirror struct {
		Volume ids.Volume
		Cause  string
	}
	// StartResync has an open mirror bring a replica into the in-sync set; its end is ResyncEnded. With Empty the replica
	// reads as zeros, has no marks and was never written: holes need no copy.
	StartResync struct {
		Volume ids.Volume
		Member Member
		Empty  bool
		// Accepted is the epochs that the replica's pool proves to have accepted: nothing that it was found to have lost.
		Accepted []peer.EpochRange
	}
	// StopResync ends a resync; its end is ResyncEnded, unless the joining is proposed already.
	StopResync struct {
		Volume ids.Volume
		Node   ids.Node
	}
	// AskSpace asks for the free space of all pools; its end is Spaced.
	AskSpace struct{}
	// ResizeMirror tells an open mirror that its volume has another size by now, which all members have.
	ResizeMirror struct{ Volume truth.Volume }
	// SetDurability tells an open mirror what an acknowledgement means, and what to tell the hosts of it.
	SetDurability struct {
		Volume           truth.Volume
		Memory, Volatile bool
	}
	// RetireMember has an open mirror remove Node from the in-sync set, as long as that is Set.
	RetireMember struct {
		Volume ids.Volume
		Node   ids.Node
		Set    []ids.Node
	}
	// Command sends C to Node's session; its end is CommandDone. C is Create, Reset, Grow, Delete or ReadMap.
	Command struct {
		ID   uint64
		Node ids.Node
		C    peer.Command
	}
	// ProposeCreate and ProposeDelete propose the catalog's commands; the end is VolumeDecided. They name Epoch, are
	// idempotent by the volume's id, and are never forwarded.
	ProposeCreate struct {
		Epoch  peer.Epoch
		Volume truth.Volume
	}
	ProposeDelete struct {
		Epoch   peer.Epoch
		Volume  ids.Volume
		Version uint64 // of the in-sync set whose I/O was drained: the deletion is of that, or of nothing
	}
	// AskReports asks the nodes for their Report; each that answers is a Reported.
	AskReports struct{ Nodes []ids.Node }
	// TransferLeadership gives Raft's leadership to To, after bringing its log up to date.
	TransferLeadership struct{ To ids.Node }
	// Reply is the end of an admin's request.
	Reply struct {
		Request uint64
		Err     error
		Volume  truth.Volume // CreateVolume: as it was proposed
	}
	// Tell is for the event log.
	Tell struct {
		Kind   Kind
		Volume ids.Volume
		Node   ids.Node
		Text   string
	}
)

// Member is an in-sync member, or a replica to be, as its node's fence described it.
type Member struct {
	Place   truth.Place
	Replica peer.FencedReplica
}

// Kind is what a Tell is about.
type Kind string

const (
	TookOver        Kind = "took-over"
	Refused         Kind = "epoch-refused"
	NodeFenced      Kind = "node-fenced"
	NodeUnreachable Kind = "node-unreachable"
	MembersRemoved  Kind = "members-removed"
	MemberStale     Kind = "member-stale"
	MemberForeign   Kind = "member-foreign"
	MemberRestarted Kind = "member-restarted"
	UnflushedLost   Kind = "unflushed-lost"
	VolumeServed    Kind = "volume-served"
	VolumeWaits     Kind = "volume-waits"
	VolumeCreated   Kind = "volume-created"
	VolumeDeleted   Kind = "volume-deleted"
	VolumeRestored  Kind = "volume-restored"
	VolumePurged    Kind = "volume-purged"
	VolumeForced    Kind = "volume-forced"
	ResyncStarted   Kind = "resync-started"
	ResyncDone      Kind = "resync-done"
	ResyncFailed    Kind = "resync-failed"
	Leftover        Kind = "leftover-replica"
	ReplicaLost     Kind = "replica-lost"
	ReplicaStuck    Kind = "replica-stuck"
	NodeDrained     Kind = "node-drained"
	VolumeGrown     Kind = "volume-grown"
	ReplicaAdded    Kind = "replica-added"
	ReplicaLeaves   Kind = "replica-leaves"
	ReplicaRemoved  Kind = "replica-removed"
	ReplicaDeleted  Kind = "replica-deleted"
	Yielding        Kind = "yielding"
	HandingOver     Kind = "handing-over"
	// Those of the mirrors.
	MemberAdded Kind = "member-added"
	DiskError   Kind = "disk-error"
	PoolFull    Kind = "pool-full"
	VolumeHolds Kind = "volume-holds"
	Reconciling Kind = "reconciling"
	Mended      Kind = "replica-mended"
	Unreadable  Kind = "data-unreadable"
	Differ      Kind = "replicas-differ"
	Scrubbed    Kind = "scrub-done"
)

func (Propose) effect()            {}
func (OpenSession) effect()        {}
func (CloseSession) effect()       {}
func (Poll) effect()               {}
func (OpenMirror) effect()         {}
func (DrainMirror) effect()        {}
func (CloseMirror) effect()        {}
func (StartResync) effect()        {}
func (StopResync) effect()         {}
func (AskSpace) effect()           {}
func (ResizeMirror) effect()       {}
func (SetDurability) effect()      {}
func (RetireMember) effect()       {}
func (Command) effect()            {}
func (ProposeCreate) effect()      {}
func (ProposeDelete) effect()      {}
func (AskReports) effect()         {}
func (TransferLeadership) effect() {}
func (Reply) effect()              {}
func (Tell) effect()               {}

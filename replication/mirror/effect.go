package mirror

import (
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// EffectKind is what an Effect asks of the shell.
type EffectKind uint8

const (
	// Send submits Call to the session with Node. Its answer goes to Answered, exactly once, whatever happens to the
	// session; without a session the shell answers ErrLost itself. The shell sets Call.Done; Call.Owner is the Core's.
	Send EffectKind = iota + 1
	// Complete calls Request.Done. Request.Err is set.
	Complete
	// Propose makes Proposal; its end goes to Decided with ID. At most one change of the set is under way, and one SetVolatile.
	Propose
	// Reconnect makes one attempt to have a session of the same epoch with Node; its end goes to Back or Unreachable. At
	// most one attempt per node is under way.
	Reconnect
	// Report is for the event log and the people: Notice.
	Report
	// Drained says that the drain is over: no request is under way, and no mark is left where a member could be reached.
	Drained
	// Ended says that the mirror ended by itself, with the cause Err. All its requests end with block.ErrEnded.
	Ended
	// ResyncDone says that the resync of Node is over: with Err nil it is a member now.
	ResyncDone
	// Ask asks for a budget of Bytes for a copy in the background; the answer is Granted. At most one of each Asker is under way.
	Ask
)

// Effect is one thing for the shell to do. Effects may be carried out in any order, and at any time later.
type Effect struct {
	Kind     EffectKind
	Node     ids.Node
	Call     *peer.Call
	Request  *block.Request
	ID       uint64
	Proposal truth.Proposal
	Notice   *Notice
	Bytes    int64
	Asker    Asker
	Took     time.Duration // Complete: since Submit
	Resync   ResyncStatus  // ResyncDone: as it was at the end
	Err      error
}

// Asker is what a budget is for.
type Asker uint8

const (
	ForResync Asker = iota
	ForScrub
)

// NoticeCode is a kind of Notice.
type NoticeCode uint8

const (
	MemberLost      NoticeCode = iota + 1 // the session with Node died
	MemberBack                            // a session with Node was opened again, in time
	MemberRemoved                         // Node left the in-sync set: Err says why
	MemberAdded                           // Node entered the in-sync set
	MediumError                           // Node's disk failed at Off: Err
	PoolFull                              // Node's pool was full at Off
	Holding                               // I/O is held: Err says why
	Resumed                               // I/O is no longer held
	ReconcileBegun                        // Count regions may differ between members
	ReconcileDone                         // no region may differ any more
	ReconcileFailed                       // no member could be read at Off, or a pool is full: Err
	ResyncBegun                           // Node gets a copy
	ResyncAborted                         // the resync of Node ended: Err
	ProposalUnknown                       // a change of the set has an unknown outcome; it is repeated
	Mended                                // Node's bytes at Off, Len of them, were bad, and are another member's now
	MendFailed                            // Node does not take the bytes that it should have: Err
	Unreadable                            // nobody can read Len bytes at Off: not one of Nodes
	Differ                                // Len bytes at Off were proved on each of Nodes, and differed: they are made equal
	Scrubbed                              // a scrub has ended: Scrub
	MemberRestarted                       // Node may lack what it acknowledged and had not flushed: it is to leave
	MemberSlow                            // Node's writes take far longer than the others': it is to leave
)

func (n NoticeCode) String() string {
	names := [...]string{
		MemberLost: "member lost", MemberBack: "member back", MemberRemoved: "member removed", MemberAdded: "member added",
		MediumError: "medium error", PoolFull: "pool full", Holding: "I/O is held", Resumed: "I/O goes on",
		ReconcileBegun: "reconcile begun", ReconcileDone: "reconcile done", ReconcileFailed: "reconcile failed",
		ResyncBegun: "resync begun", ResyncAborted: "resync aborted", ProposalUnknown: "outcome of a proposal unknown",
		Mended: "mended", MendFailed: "mend failed", Unreadable: "unreadable", Differ: "replicas differ", Scrubbed: "scrubbed", MemberSlow: "member slow", MemberRestarted: "member restarted",
	}
	if n == 0 || int(n) >= len(names) {
		return "unknown"
	}
	return names[n]
}

// Notice is something that people may want to know.
type Notice struct {
	Code  NoticeCode
	Node  ids.Node
	Off   int64 // bytes
	Len   int64 // of MediumError (of a read), Mended, MendFailed and Unreadable
	Count int
	Nodes []ids.Node
	Scrub *ScrubReport
	Err   error
}

// Status is what a mirror knows of itself.
type Status struct {
	Version   uint64 // of the in-sync set
	Members   []MemberStatus
	Requests  int  // under way or waiting
	Active    int  // regions marked
	Dirty     int  // regions to reconcile
	Lost      int  // blocks that no member could read when their region was reconciled, and that nobody has written since
	Changing  bool // a change of the set is pending or unknown
	Opened    bool // the members' maps are known
	Holding   bool // some request waits for a member or for the catalog
	HoldCause string
	Draining  bool
	Resync    *ResyncStatus // nil if none
	Scrub     *ScrubStatus  // likewise
	Scrubbed  *ScrubReport  // of the last scrub that came to its end, nil if none has; another pointer for each
}

// MemberStatus is one member of the in-sync set.
type MemberStatus struct {
	Node    ids.Node
	Reached bool // there is a session
	Failed  bool // its disk failed a write; its removal is wanted
}

// ResyncStatus is the progress of a resync.
type ResyncStatus struct {
	Node    ids.Node
	Done    int64 // bytes looked at, of Total
	Total   int64
	Copied  int64 // bytes written to the joiner
	Seconds float64
	ETA     float64 // seconds that it may still take; negative if unknown
	// Expected is the seconds that the copy was to take in all, as was estimated when a tenth of it was done; 0: it was too short.
	Expected float64
}

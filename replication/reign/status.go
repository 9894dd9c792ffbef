package reign

import (
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// State is what becomes of a volume here.
type State string

const (
	// NotLeading: this node does not lead, or has not taken over yet.
	NotLeading State = "standby"
	// TakingOver: members are being fenced, removed or judged.
	TakingOver State = "taking over"
	// Waits: no in-sync member can be reached; Reason names whom it waits for.
	Waits State = "waiting"
	// NeedsForce: no replica that is in sync by the catalog is usable; only volume force, or its disk, brings it back.
	NeedsForce State = "needs volume force"
	// Opening: the mirror is being opened.
	Opening State = "opening"
	// Serving: the mirror answers I/O.
	Serving State = "serving"
	// Holding: the mirror is open and holds I/O; Reason names whom it waits for.
	Holding State = "holding"
	// Draining: I/O is held before a hand-over or a deletion.
	Draining State = "draining"
)

// Status is a snapshot, for people and programs.
type Status struct {
	Leading bool
	Epoch   peer.Epoch // of this reign; 0 before its take-over is applied
	Volumes []VolumeStatus
	Nodes   []NodeStatus
	// Leftovers are replicas of volumes that the catalog does not know.
	Leftovers []LeftoverStatus
}

// VolumeStatus is the state of one volume, with a sentence why it is not served.
type VolumeStatus struct {
	Volume  ids.Volume
	State   State
	Reason  string
	InSync  []truth.Place
	Resyncs []ResyncStatus
}

// ResyncStatus is the progress of one replica's way back. Done and Total are bytes, filled in by the shell while it runs.
type ResyncStatus struct {
	Node        ids.Node
	State       string // "queued", "running", "failed", "unreachable"
	Err         string
	Done, Total int64
	ETASeconds  int64 // -1 when not known
}

// NodeStatus is what this leader knows of a storage node.
type NodeStatus struct {
	Node      ids.Node
	Reachable bool // its session is up
	Suspected bool
	Fenced    []ids.Pool
	Busy      []ids.Pool
	Absent    []ids.Pool
	Err       string
}

// LeftoverStatus is a replica of a volume that the catalog does not know.
type LeftoverStatus struct {
	Node   ids.Node
	Pool   ids.Pool
	Volume ids.Volume
}

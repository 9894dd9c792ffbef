package api

import "time"

// Status is the answer to GET /v1/status.
type Status struct {
	Cluster  string   `json:"cluster"`
	Answered string   `json:"answered_by"` // the name of the node that answered
	Leader   string   `json:"leader"`      // name; empty if there is none
	LeaderID string   `json:"leader_id,omitempty"`
	Epoch    uint64   `json:"epoch"`
	Index    uint64   `json:"index"` // of the catalog's state that this was read from
	Virtual  string   `json:"virtual_portal,omitempty"`
	Bound    bool     `json:"virtual_bound"` // the leader holds the virtual address
	Warnings []string `json:"warnings"`
	Nodes    []Node   `json:"nodes"`
	Volumes  []Volume `json:"volumes"`
}

// Node is a member of the cluster.
type Node struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Role    string `json:"role"`  // "storage" or "witness"
	State   string `json:"state"` // "alive", "suspect" or "dead"; "not joined": it is known from a backup of the catalog alone
	Voter   bool   `json:"voter"`
	Leader  bool   `json:"leader"`
	Address string `json:"address"`       // inter-node
	Portal  string `json:"portal"`        // for hosts
	NFS     string `json:"nfs,omitempty"` // for clients of shares; empty: none
	API     string `json:"api"`
	Version string `json:"version"`
	Pools   []Pool `json:"pools"`
	Drained bool   `json:"draining,omitempty"` // its replicas are to move elsewhere
	Left    int    `json:"replicas"`           // how many replicas it has
}

// Pool is a directory of a node that holds replicas. Sizes are bytes; -1 where the node did not say.
type Pool struct {
	ID    string `json:"id"`
	Node  string `json:"node"`
	Path  string `json:"path"`
	Size  int64  `json:"size"`
	Free  int64  `json:"free"`
	State string `json:"state"` // "ok", "absent", or what is wrong
	// Drained says that its replicas are to move to other nodes.
	Drained bool `json:"draining,omitempty"`
	// Promised is the whole size of all replicas there, Trash what of it is of volumes in the trash. Bytes.
	Promised int64 `json:"promised"`
	Trash    int64 `json:"trash,omitempty"`
}

// Volume is a replicated block device.
type Volume struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	State  string `json:"state"` // as package reign names it
	Reason string `json:"reason,omitempty"`
	// Restored says that all of it is as a backup of the catalog has it, and that it waits for volume force.
	Restored bool `json:"restored,omitempty"`
	// Durability is "disk", or "memory": a write is acknowledged when every in-sync member has it in memory.
	Durability string `json:"durability"`
	// Cached says that hosts are told of a write cache: something that was acknowledged may not be durable.
	Cached   bool      `json:"write_cache,omitempty"`
	Losses   uint64    `json:"unflushed_lost,omitempty"` // how often what was acknowledged and not flushed may have been lost
	Share    bool      `json:"share,omitempty"`          // it is a share's: it has files, and becomes no LUN
	Served   bool      `json:"served"`
	Epoch    uint64    `json:"last_served_epoch"`
	Replicas []Replica `json:"replicas"`
	// Gone is where replicas have left, and their data is not deleted yet.
	Gone []Place `json:"gone,omitempty"`
	LUN  *LUN    `json:"lun,omitempty"`
	// What the leader's mirror says, where it is open.
	Dirty   int    `json:"dirty_regions"`
	Holding string `json:"holding,omitempty"`
	Scrub   *Scrub `json:"scrub,omitempty"` // nil: there was none
}

// Replica is a volume's copy on one node.
type Replica struct {
	Node    string  `json:"node"`
	Pool    string  `json:"pool"`
	State   string  `json:"state"`            // "in sync", "resync", "queued", "failed", "unreachable", "stale"; "not known" after a restore of the catalog
	Leaves  string  `json:"leaves,omitempty"` // "moving": when its successor is in sync; "leaving": now
	Error   string  `json:"error,omitempty"`
	Done    int64   `json:"resync_done"`
	Total   int64   `json:"resync_total"`
	Copied  int64   `json:"resync_copied"`
	Seconds float64 `json:"resync_eta_seconds"` // negative if unknown
}

// Place is a pool of a node.
type Place struct {
	Node string `json:"node"`
	Pool string `json:"pool"`
}

// LUN is a volume's export.
type LUN struct {
	Volume     string   `json:"volume"`
	Target     string   `json:"target"` // iSCSI name
	Number     uint16   `json:"number"`
	Initiators []string `json:"initiators"` // iSCSI names; empty: any
	CHAPUser   string   `json:"chap_user,omitempty"`
	Paths      string   `json:"paths"`   // by which portals hosts come: "virtual", "nodes" or "redirect"
	Portals    []string `json:"portals"` // the virtual one first
}

// Event is an entry of the event log.
type Event struct {
	Index  uint64    `json:"index"`
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`
	Node   string    `json:"node,omitempty"`
	Volume string    `json:"volume,omitempty"`
	Text   string    `json:"text"`
}

// NewVolume is the body of POST /v1/volumes.
type NewVolume struct {
	Name     string   `json:"name"`
	Size     int64    `json:"size"`     // bytes, a multiple of 4096
	Replicas int      `json:"replicas"` // 1 to 3
	Nodes    []string `json:"nodes,omitempty"`
	Logical  int      `json:"logical_block,omitempty"` // 512 (the default) or 4096
	// OverSubscribe allows more than volumes.over_subscription of what the pools have.
	OverSubscribe bool `json:"over_subscribe,omitempty"`
	// Durability is "disk" (the default) or "memory".
	Durability string `json:"durability,omitempty"`
}

// NewLUN is the body of POST /v1/luns.
type NewLUN struct {
	Volume     string   `json:"volume"`
	Initiators []string `json:"initiators,omitempty"`
	CHAPUser   string   `json:"chap_user,omitempty"`
	CHAPSecret string   `json:"chap_secret,omitempty"`
	Paths      string   `json:"paths,omitempty"`  // "virtual" (the default), "nodes" or "redirect"
	Change     bool     `json:"change,omitempty"` // an export that exists gets these initiators, credentials and paths
}

// NewPool is the body of POST /v1/pools.
type NewPool struct {
	Node string `json:"node"` // name; empty: the node that is asked
	Path string `json:"path"`
}

// NewToken is the body of POST /v1/tokens.
type NewToken struct {
	Witness bool `json:"witness"`
}

// Token lets one machine join, once.
type Token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// Resync is the body of POST /v1/volumes/{name}/resync.
type Resync struct {
	Node string `json:"node"` // name; empty: all that are not in sync
}

// Transfer is the body of POST /v1/leader/transfer.
type Transfer struct {
	To string `json:"to"` // name; empty: the node that serves most
}

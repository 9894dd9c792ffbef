package catalog

import (
	"maps"
	"slices"
	"time"

	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
	"pmsapp/internal/outcome"
	"pmsapp/internal/reserve"
)

// Version is the newest version of the commands that this program knows. 2 has a shorter form of changes of trees (binary.go), 3 knows
// catalogs that were restored, and Withdraw.
const Version = 3

// Limits. What is over a limit is evicted by log index, the oldest first.
const (
	MaxEvents    = 2000
	MaxDeleted   = 1024
	MaxRequests  = 1024
	MaxTokens    = 64
	MaxNodes     = 7
	MaxVolumes   = 4096
	MaxReplicas  = 3
	MaxPools     = 64 // of a node
	MaxText      = 1024
	MaxInitiator = 256 // of an export
	maxGroup     = 0x7000
)

// State is one state of the catalog.
type State struct {
	Index   uint64 // the log index of the last command applied
	Cluster ids.Cluster
	Lineage ids.Lineage
	Epoch   uint64   // invariant 6
	Leader  ids.Node // who took over under Epoch
	Admin   []byte   // the SHA-256 digest of the admin token
	// Base is where the epochs begin that were given out since the catalog was restored from a backup, above all of its former history; 0 if it
	// never was. Former are the nodes that are known from that backup alone.
	Base   uint64     `json:",omitempty"`
	Former []ids.Node `json:",omitempty"`

	Nodes    map[ids.Node]Node
	Volumes  map[ids.Volume]Volume
	Exports  map[ids.Volume]Export
	Shares   map[ids.Volume]ShareExport    `json:",omitempty"`
	Trees    map[ids.Volume]*filetree.Tree `json:"-"` // of all volumes that are shares, those in the trash too
	Trash    map[ids.Volume]Trashed
	Resync   Resync
	Counted  int64 // seconds that leaders have counted for the trash: CountTrash
	Tokens   []Token
	Deleted  []ids.Volume // the newest MaxDeleted
	Events   []Event      // the newest MaxEvents
	Requests []Request    // the newest MaxRequests
	Removed  []ids.Node   // the newest of those that were removed: their certificates are refused

	LastGroup    uint16 // the highest target portal group that a node ever had
	Reservations map[ids.Volume]reserve.State
	Hosts        map[string]Host // by name
	Maps         map[ids.Volume][]Mapping
	// Outcomes are those of COMPARE AND WRITEs that may not have been told to their hosts, at most outcome.Max of a volume.
	Outcomes map[ids.Volume][]outcome.Kept `json:",omitempty"`
}

// Node is a member of the cluster.
type Node struct {
	ID         ids.Node
	Name       string
	Witness    bool
	Address    string // host:port between nodes
	API        string // host:port for admins
	Portal     string // host:port for hosts
	PeerPortal string // host:port for the other nodes' iSCSI sessions
	NFS        string `json:",omitempty"` // host:port for clients of shares; empty: none
	Portmap    string `json:",omitempty"` // and where it tells that port
	Group      uint16 // target portal group, unique in the cluster, of no other node before or after
	Version    int    // the newest commands that it knows
	Release    string // for people
	Pools      []Pool
	Draining   bool `json:",omitempty"` // its replicas are to move elsewhere
}

// Pool is a directory of a node.
type Pool struct {
	ID       ids.Pool
	Path     string
	Draining bool `json:",omitempty"` // its replicas are to move to other nodes
}

// Place is where a replica is.
type Place struct {
	Node ids.Node
	Pool ids.Pool
}

// Volume is a replicated block device.
type Volume struct {
	ID         ids.Volume
	Lineage    ids.Lineage
	Name       string
	Size       int64
	Region     int64
	Logical    int
	Version    uint64  // of the in-sync set
	Replicas   []Place // never changed in place
	InSync     []Place // never empty, never changed in place
	LastServed uint64
	Share      bool     `json:",omitempty"` // it has a file tree
	Leaving    []Leave  // of Replicas: those that are to leave. Never changed in place
	Gone       []Place  // of former replicas whose files are to be deleted. Never changed in place
	Adopted    Adoption // volume force: a replica of a former lineage that is one of this
	Behind     []Behind // of Replicas: those that are not in InSync. Never changed in place
	Memory     bool     `json:",omitempty"` // its durability: acknowledged when every member has it in memory
	// Volatile are the members that may have acknowledged what is not durable on them. Never changed in place.
	Volatile []Volatile `json:",omitempty"`
	Losses   uint64     `json:",omitempty"` // how often what was acknowledged and not flushed may have been lost
	// Foreign says that it is as a backup has it: it waits for volume force (invariant 6).
	Foreign bool `json:",omitempty"`
	// Scrub is the report of the last whole scrub, nil if there was none. Never changed in place.
	Scrub *ScrubReport `json:",omitempty"`
}

// Export is a LUN.
type Export struct {
	Volume     ids.Volume
	LUN        uint16
	Initiators []string
	CHAPUser   string
	CHAPSecret []byte
	Paths      string `json:",omitempty"` // as in Host
}

// Token lets one machine join, once, until it expires.
type Token struct {
	Digest  []byte // SHA-256 of the secret
	Witness bool
	Expires time.Time // by the clock of the leader that it is shown to
	Used    ids.Node  // by whom; zero if it was not
}

// Event is an entry of the event log.
type Event struct {
	Index  uint64
	Time   time.Time
	Kind   string
	Node   ids.Node
	Volume ids.Volume
	Text   string
}

// Request is a request that was applied, with its outcome.
type Request struct {
	ID     string
	Result Result
}

// clone returns a copy whose slices and maps may be replaced, but not changed in place: mutable makes that possible.
func (s *State) clone() *State {
	c := *s
	return &c
}

func (s *State) setVolume(v Volume) {
	s.Volumes = maps.Clone(s.Volumes)
	if s.Volumes == nil {
		s.Volumes = map[ids.Volume]Volume{}
	}
	s.Volumes[v.ID] = v
}

func (s *State) setNode(n Node) {
	s.Nodes = maps.Clone(s.Nodes)
	if s.Nodes == nil {
		s.Nodes = map[ids.Node]Node{}
	}
	s.Nodes[n.ID] = n
}

// keep appends to a bounded list, without changing the old one.
func keep[T any](list []T, limit int, more ...T) []T {
	list = append(slices.Clip(slices.Clone(list)), more...)
	if len(list) > limit {
		list = slices.Clone(list[len(list)-limit:])
	}
	return list
}

// VolumeNamed finds a volume by its name.
func (s *State) VolumeNamed(name string) (Volume, bool) {
	for _, v := range s.Volumes {
		if v.Name == name {
			return v, true
		}
	}
	return Volume{}, false
}

// NodeNamed finds a node by its name.
func (s *State) NodeNamed(name string) (Node, bool) {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

// oldest is the version of the commands that every node knows.
func (s *State) oldest() int {
	v := Version
	for _, n := range s.Nodes {
		v = min(v, n.Version)
	}
	return v
}

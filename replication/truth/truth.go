// Package truth is what replication needs of the catalog: what it reads there, and what it proposes. The cluster's
// state machine decides; appliance adapts one to the other. The package has no behaviour but small look-ups.
package truth

import (
	"context"
	"errors"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// Place is where a replica is.
type Place struct {
	Node ids.Node
	Pool ids.Pool
}

// Volume is a volume as the catalog has it.
type Volume struct {
	ID       ids.Volume
	Lineage  ids.Lineage
	Name     string
	Size     int64  // bytes
	Region   int64  // bytes, a power of two from 64 KiB to 4 MiB
	Logical  int    // bytes, 512 or 4096
	Share    bool   // its bytes are those of files: it never becomes a LUN
	Version  uint64 // of the in-sync set; each change of the set adds one
	Replicas []Place
	InSync   []Place // a subset of Replicas, never empty
	Leaving  []Leave // of Replicas: those that are to leave
	Gone     []Place // of former replicas whose files are to be deleted; none of them is in Replicas
	// LastServed is the epoch under which the volume was last served (invariant 7); 0 if never.
	LastServed peer.Epoch
	// Adopted is a replica that counts as one of Lineage though it is of another: volume force has begun a new lineage with it.
	Adopted Adoption
	// Behind is what is known of the replicas that are not in InSync: of each there is one.
	Behind []Behind
	// Memory is the volume's durability: a write is acknowledged when every member has it in memory (invariant 1).
	Memory bool
	// Volatile are the members that may have acknowledged what is not durable on them, each with the incarnation under which
	// (invariant 10); Losses is how often what was acknowledged and not flushed may have been lost.
	Volatile []Volatile
	Losses   uint64
	// Foreign says that the catalog was restored from a backup and the volume waits for volume force: all else of it may be long past.
	Foreign bool
}

// Adoption names the pool of a replica, and the lineage that its superblock has.
type Adoption struct {
	Pool    ids.Pool
	Lineage ids.Lineage
	Short   bool // until the volume is served it may be smaller than the volume
}

// Behind is what is known of a replica outside of the in-sync set.
type Behind struct {
	Pool    ids.Pool
	Synced  bool       // it was in the set in this lineage
	Epoch   peer.Epoch // under which the volume was last served when it left; 0: never
	Time    time.Time  // when it left, by a leader's clock. For people
	Copying bool       // a resync to it was begun since: it holds blocks of different moments
}

// Complete tells whether the replica is a copy of some moment.
func (b Behind) Complete() bool { return b.Synced && !b.Copying }

// BehindIn returns what is known of the replica in a pool, if it is outside of the in-sync set.
func (v *Volume) BehindIn(p ids.Pool) (Behind, bool) {
	for _, b := range v.Behind {
		if b.Pool == p {
			return b, true
		}
	}
	return Behind{}, false
}

// Owns tells whether a replica in a pool is one of the volume, by the lineage in its superblock.
func (v *Volume) Owns(p ids.Pool, l ids.Lineage) bool {
	return l == v.Lineage || v.Adopted.Pool == p && v.Adopted.Lineage == l && !l.IsZero()
}

// View is one state of the catalog, never changed after it was handed out.
type View struct {
	Index   uint64 // the log index of this state
	Epoch   peer.Epoch
	Base    peer.Epoch // below all epochs that were given out since the catalog was restored; 0: it never was
	Leader  ids.Node   // who took over under Epoch
	Volumes []Volume
	Nodes   []Node
	// Deleted is the volumes whose deletion is known (a bounded number, the newest): what is left of their replicas may be
	// removed. A replica of a volume that is neither here nor in Volumes is reported and left alone.
	Deleted []ids.Volume
	// Trash is the volumes that were deleted and can be restored, in the order of their ids: nobody serves them, and their replicas
	// are left alone.
	Trash []ids.Volume
}

// Node is a member of the cluster.
type Node struct {
	ID      ids.Node
	Name    string
	Witness bool
	Pools   []ids.Pool
	// Draining are those of Pools whose replicas are to move to other nodes.
	Draining []ids.Pool
	// Leaves says that the whole node is being drained: it is not to lead either.
	Leaves bool
}

// A Proposal is one of the commands below. All of them name the epoch; the state machine rejects those of another.
type Proposal interface{ proposal() }

type (
	// TakeOver begins the reign of Node under Epoch, which must be above the catalog's (invariant 6).
	TakeOver struct {
		Node  ids.Node
		Epoch peer.Epoch
	}
	// RemoveUnfenced removes the replicas in the pools Remove from every in-sync set in which a replica in one of the
	// pools Fenced remains. Sets in which none would remain are left as they are and named in Outcome.Left.
	RemoveUnfenced struct {
		Epoch  peer.Epoch
		Fenced []ids.Pool
		Remove []ids.Pool
		Reason string
	}
	// Served records Epoch as the last served of each of the volumes, of those that still have the named version.
	Served struct {
		Epoch   peer.Epoch
		Volumes []VolumeVersion
	}
	// RemoveMember takes Node's replica out of the in-sync set. The removal of the last member is rejected.
	RemoveMember struct {
		Epoch   peer.Epoch
		Volume  ids.Volume
		Version uint64
		Node    ids.Node
		Reason  string
	}
	// Force has a volume go on with the replica at Place alone, which is of the lineage From, under a new lineage.
	Force struct {
		Epoch   peer.Epoch
		Volume  ids.Volume
		Version uint64
		Place   Place
		From    ids.Lineage
		Lineage ids.Lineage
		// Incomplete allows a replica that is not Complete; without it that is rejected.
		Incomplete bool
		// Short says that the replica is smaller than the volume, and is to be made larger.
		Short bool
		// Size, of a volume that is Foreign, is what it has from then on, if the replica is larger; 0: as it is. Others are the places of other
		// replicas that were found and are not among Replicas: they are deleted.
		Size   int64
		Others []Place
	}
	// BeginCopy says that the replica in a pool is going to be written by a resync: it is not Complete any more. It comes before the
	// first byte, and changes no set.
	BeginCopy struct {
		Epoch  peer.Epoch
		Volume ids.Volume
		Pool   ids.Pool
	}
	// AddMember takes the replica of Node, which must be among Replicas, into the in-sync set.
	AddMember struct {
		Epoch   peer.Epoch
		Volume  ids.Volume
		Version uint64
		Node    ids.Node
	}
	// SetVolatile replaces a volume's list of that name. Members is a subset of the in-sync set: others are left out.
	SetVolatile struct {
		Epoch   peer.Epoch
		Volume  ids.Volume
		Members []Volatile
	}
)

// VolumeVersion names a volume at a version of its in-sync set.
type VolumeVersion struct {
	Volume  ids.Volume
	Version uint64
	// Lost says that no member has the incarnation that Volatile names: what was not flushed may be lost. The volume has one
	// more of its Losses then, and nothing that is Volatile.
	Lost bool
}

// Volatile is a member that may acknowledge what is not durable, under that incarnation (peer.FencedReplica).
type Volatile struct {
	Pool        ids.Pool
	Incarnation ids.ID
}

func (TakeOver) proposal()       {}
func (RemoveUnfenced) proposal() {}
func (Served) proposal()         {}
func (RemoveMember) proposal()   {}
func (AddMember) proposal()      {}
func (Force) proposal()          {}
func (BeginCopy) proposal()      {}
func (SetVolatile) proposal()    {}

// Outcome is the state machine's answer to a Proposal that was committed and applied here.
type Outcome struct {
	Index   uint64
	Version uint64       // RemoveMember, AddMember: the set's version now
	InSync  []Place      // RemoveMember, AddMember: the set now
	Left    []ids.Volume // RemoveUnfenced; Served: those whose version was another
}

// Errors of a proposal.
var (
	// ErrRejected is returned when the state machine refused: another epoch, another version, or the last member.
	// The proposal has had no effect. A *Rejection says which.
	ErrRejected = errors.New("truth: the proposal was rejected")
	// ErrUnknown is returned when the outcome is not known: the proposal may have been or may yet be applied. It has not
	// succeeded; the proposer must go on as if either could be true (invariants 1 and 2).
	ErrUnknown = errors.New("truth: the outcome of the proposal is unknown")
)

// Rejection is the state machine's reason; it is an ErrRejected. Current is the volume as it is now, where there is one.
type Rejection struct {
	Why     Why
	Epoch   peer.Epoch // the catalog's
	Current Volume
}

// Why is a reason for a Rejection.
type Why uint8

const (
	WrongEpoch Why = iota + 1
	WrongVersion
	LastMember
	NoSuchVolume
	NotAReplica
)

func (w Why) String() string {
	switch w {
	case WrongEpoch:
		return "another epoch is current"
	case WrongVersion:
		return "the in-sync set has changed"
	case LastMember:
		return "the last member of an in-sync set cannot be removed"
	case NoSuchVolume:
		return "no such volume"
	case NotAReplica:
		return "the node holds no replica of the volume"
	}
	return "unknown reason"
}

func (r *Rejection) Error() string   { return ErrRejected.Error() + ": " + r.Why.String() }
func (r *Rejection) Is(t error) bool { return t == ErrRejected }

// Catalog is the leader's access to the truth. Proposals are made to this node's Raft alone and never forwarded.
type Catalog interface {
	// View returns the newest state applied here.
	View() *View
	// Propose returns after p was applied here, or with ErrRejected or ErrUnknown. ctx bounds the wait, not p.
	Propose(ctx context.Context, p Proposal) (Outcome, error)
}

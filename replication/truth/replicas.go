package truth

import (
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// Leave is a replica that is to leave a volume, as soon as the one on For is in sync; at once if For is zero.
type Leave struct {
	Node ids.Node
	For  ids.Node
	Why  string // one of the constants below
}

// Why a replica leaves.
const (
	WhyAsked = "asked" // an admin said so
	WhyLost  = "lost"  // it was out of reach for too long
	WhyDrain = "drain" // its node or pool is being emptied
)

// Proposals that change where the replicas of a volume are. The state machine rejects those of another version and, but for
// ForgetReplica, raises it; see replication/reign/DESIGN.md.
type (
	// AddReplica gives a volume a replica, outside of the in-sync set. With Instead, that node's leaves when it is in sync.
	AddReplica struct {
		Epoch   peer.Epoch
		Volume  ids.Volume
		Version uint64
		Place   Place
		Instead ids.Node
		Why     string
	}
	// RetireReplica has a replica leave.
	RetireReplica struct {
		Epoch   peer.Epoch
		Volume  ids.Volume
		Version uint64
		Node    ids.Node
		Why     string
	}
	// DropReplica moves the place of a replica that leaves, and is in no in-sync set, to Gone.
	DropReplica struct {
		Epoch   peer.Epoch
		Volume  ids.Volume
		Version uint64
		Node    ids.Node
	}
	// ForgetReplica takes a place out of Gone: nothing is there any more.
	ForgetReplica struct {
		Epoch  peer.Epoch
		Volume ids.Volume
		Place  Place
	}
)

// ResizeVolume gives a volume a larger size, in bytes, which every in-sync replica has; it is rejected for another version of the
// set, and raises it.
type ResizeVolume struct {
	Epoch   peer.Epoch
	Volume  ids.Volume
	Version uint64
	Size    int64
}

func (ResizeVolume) proposal()  {}
func (AddReplica) proposal()    {}
func (RetireReplica) proposal() {}
func (DropReplica) proposal()   {}
func (ForgetReplica) proposal() {}

// Holds tells whether a node is among places.
func Holds(ps []Place, n ids.Node) bool {
	for _, p := range ps {
		if p.Node == n {
			return true
		}
	}
	return false
}

// LeaveOf finds what is said of a replica that is to leave.
func (v *Volume) LeaveOf(n ids.Node) (Leave, bool) {
	for _, l := range v.Leaving {
		if l.Node == n {
			return l, true
		}
	}
	return Leave{}, false
}

// Leaves tells whether the replica on a node is to leave now: what it waits for is in sync.
func (v *Volume) Leaves(n ids.Node) bool {
	l, ok := v.LeaveOf(n)
	return ok && (l.For.IsZero() || Holds(v.InSync, l.For))
}

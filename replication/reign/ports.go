package reign

import (
	"context"
	"errors"
	"log/slog"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// Errors of admin requests.
var (
	// ErrNotLeading is returned when this node does not lead, or stopped to lead before the request was finished; its outcome
	// may then be unknown, and it may be repeated at the new leader with the same ids.
	ErrNotLeading = errors.New("reign: this node does not lead")
	// ErrNotServed is returned when the volume is not served here, so that its deletion could not drain it (invariant 17).
	ErrNotServed = errors.New("reign: the volume is not served")
	// ErrNoPlace is returned when there are not enough nodes with a pool that is fenced and has the space.
	ErrNoPlace = errors.New("reign: not enough storage nodes with free space")
	// ErrBusy is returned when a hand-over, or a request about the same volume, is under way.
	ErrBusy = errors.New("reign: another request is under way")
	// ErrNoTarget is returned when there is no electable storage node to hand over to.
	ErrNoTarget = errors.New("reign: no node to hand over to")
	// ErrUnknownVolume is returned when the catalog has no such volume, or no such replica of it.
	ErrUnknownVolume = errors.New("reign: no such volume or replica")
	// ErrServed is returned when a volume is to be forced that is served, or about to be.
	ErrServed = errors.New("reign: the volume is served: there is nothing to force")
	// ErrEarly is returned when a volume is to be forced that may yet be served without.
	ErrEarly = errors.New("reign: the volume is being taken over")
	// ErrPromised is returned when the pools that would do have promised too much already.
	ErrPromised = errors.New("reign: the pools have promised too much")
	// ErrIncomplete is returned when a volume is to go on with a replica that was never in sync, or to which a resync was begun.
	ErrIncomplete = errors.New("reign: the replica is an incomplete copy")
	// ErrTimeout is returned when a drain did not end in time. Everything goes on as before.
	ErrTimeout = errors.New("reign: the drain took too long")
	// ErrLast is returned when the replica to remove is the last in-sync one that would stay.
	ErrLast = errors.New("reign: the last in-sync replica of a volume stays")
	// ErrInvalid is returned for a request that makes no sense.
	ErrInvalid = errors.New("reign: invalid request")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("reign: closed")
)

// Cluster is what the shell needs of Raft and of the other nodes.
type Cluster interface {
	// TransferLeadership returns nil once To leads or is about to.
	TransferLeadership(ctx context.Context, to ids.Node) error
	// Report asks a node; for the own one it answers without a message.
	Report(ctx context.Context, node ids.Node) (Report, error)
	// Space asks all nodes that seem to be there for the free space of their pools; it is bounded in time.
	Space(ctx context.Context) []Space
	// CreateVolume and DeleteVolume propose to this node's Raft; they are rejected if epoch is not current, succeed if they
	// were applied before, and return as truth.Catalog.Propose does. A deletion is rejected if the in-sync set has another version.
	CreateVolume(ctx context.Context, epoch peer.Epoch, v truth.Volume) error
	DeleteVolume(ctx context.Context, epoch peer.Epoch, v ids.Volume, version uint64) error
}

// Observer is told what appliance has to act on. Its methods are called one at a time, in order, and must not block.
type Observer interface {
	// Serving says that dev answers I/O of v from now on: swap its LUs to it. It is said again when dev has another size or durability.
	Serving(v truth.Volume, dev block.Device)
	// Standby says that v's mirror is closed: its LUs answer NOT READY from now on, and the hosts' sessions that brought
	// commands which ended with block.ErrEnded are dropped (invariant 8).
	Standby(v ids.Volume, cause string)
	// Event is for the event log.
	Event(e Tell)
}

// Mirror is an open volume; *mirror.Mirror is one.
type Mirror interface {
	block.Device
	StartResync(ctx context.Context, j mirror.Joiner) error
	StopResync(node ids.Node)
	Retire(node ids.Node, set []ids.Node)
	Resize(size int64)
	SetDurability(memory, volatile bool)
	StartScrub(o mirror.ScrubOrder) error
	StopScrub()
	Drain(ctx context.Context) error
	Done() <-chan struct{}
	Err() error
	Close(cause error)
	Status() mirror.Status
}

// Deps is what a Reign works with.
type Deps struct {
	Self     ids.Node
	Catalog  truth.Catalog
	Dialer   peer.Dialer // opens the own node's session too
	Cluster  Cluster
	Observer Observer
	Log      *slog.Logger
	// Physical, Tunables and Budget are passed on to each mirror.
	Physical int
	Tunables mirror.Tunables
	Budget   mirror.Budget
	// OpenMirror opens a mirror; nil means mirror.Open.
	OpenMirror func(ctx context.Context, c mirror.Config) (Mirror, error)
}

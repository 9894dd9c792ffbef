package cluster

import "errors"

// Errors of this package, besides those of package catalog that commands end with.
var (
	// ErrNotLeader is returned when this node is not Raft's leader: nothing was proposed.
	ErrNotLeader = errors.New("cluster: this node does not lead")
	// ErrNoLeader is returned when no leader is known, or it cannot be reached.
	ErrNoLeader = errors.New("cluster: no node leads")
	// ErrUnknown is returned when it is not known whether a proposal was or will be committed.
	ErrUnknown = errors.New("cluster: the outcome of the proposal is unknown")
	// ErrNoCluster is returned when the state directory belongs to no cluster yet: init or join it.
	ErrNoCluster = errors.New("cluster: this machine belongs to no cluster yet")
	// ErrMember is returned by Init and Join when it belongs to one already.
	ErrMember = errors.New("cluster: this machine belongs to a cluster already")
	// ErrInUse is returned when another process has the catalog open.
	ErrInUse = errors.New("cluster: the catalog is in use by another process")
	// ErrCorrupt is returned for a catalog or an identity on disk that is damaged.
	ErrCorrupt = errors.New("cluster: damaged")
	// ErrBackup is returned for what is no usable backup of a catalog.
	ErrBackup = errors.New("cluster: no backup of a catalog")
	// ErrToken is returned for a join token that is no token, or that the cluster refused.
	ErrToken = errors.New("cluster: the join token was refused")
	// ErrRemoved is returned when this node was removed from the cluster.
	ErrRemoved = errors.New("cluster: this node was removed from the cluster")
	// ErrDiskHangs is returned when the catalog's disk did not answer for longer than an election takes (invariant 19).
	ErrDiskHangs = errors.New("cluster: the catalog's disk hangs")
	// ErrCall is returned when a call to another node failed; its text says how.
	ErrCall = errors.New("cluster: the call to another node failed")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("cluster: closed")
)

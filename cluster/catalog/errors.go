package catalog

import (
	"errors"
	"fmt"
)

// Errors of commands. A command that ends with one has had no effect.
var (
	// ErrUnreadable is returned for bytes that are no command.
	ErrUnreadable = errors.New("catalog: not a command")
	// ErrUnknownCommand is returned for a command that this program does not know.
	ErrUnknownCommand = errors.New("catalog: unknown command")
	// ErrTooLong is returned for a command over MaxCommand.
	ErrTooLong = errors.New("catalog: the command is too long")
	// ErrOldNode is returned for a command that the cluster's oldest node does not know.
	ErrOldNode = errors.New("catalog: the cluster's oldest node does not know this command")
	// ErrEpoch is returned when the command names another epoch than the catalog's, or one that is not above it.
	ErrEpoch = errors.New("catalog: another epoch is current")
	// ErrVersion is returned when the in-sync set has another version.
	ErrVersion = errors.New("catalog: the in-sync set has changed")
	// ErrLastMember is returned when an in-sync set would become empty.
	ErrLastMember = errors.New("catalog: the last member of an in-sync set cannot be removed")
	// ErrNoVolume, ErrNoNode and ErrNoReplica are returned for what does not exist.
	ErrNoVolume  = errors.New("catalog: no such volume")
	ErrNoNode    = errors.New("catalog: no such node")
	ErrNoReplica = errors.New("catalog: the node holds no replica of the volume")
	// ErrNameTaken is returned when another node or volume has the name.
	ErrNameTaken = errors.New("catalog: the name is in use")
	// ErrInUse is returned when a volume to delete is exported, or a node to remove holds a replica in an in-sync set.
	ErrInUse = errors.New("catalog: in use")
	// ErrNotServed is returned when the leader that proposed does not serve the volume.
	ErrNotServed = errors.New("catalog: the volume is not served")
	// ErrNoShare is returned when a volume that a share is meant by is none, ErrIsShare when one that is a share is to be a LUN.
	ErrNoShare = errors.New("catalog: the volume is no share")
	ErrIsShare = errors.New("catalog: the volume is a share")
	// ErrNoHost is returned for a host that is not known.
	ErrNoHost = errors.New("catalog: no such host")
	// ErrReservations is returned when a change of reservations was judged by others than there are.
	ErrReservations = errors.New("catalog: the reservations have changed")
	// ErrToken is returned for a token that is unknown, used or expired.
	ErrToken = errors.New("catalog: the token")
	// ErrLimit is returned when there would be too many of something.
	ErrLimit = errors.New("catalog: too many")
	// ErrPromised is returned when a pool would have promised more to volumes than it may.
	ErrPromised = errors.New("catalog: the pool has promised too much")
	// ErrInvalid is returned for a command whose values make no sense.
	ErrInvalid = errors.New("catalog: invalid")
	// ErrExists is returned for a second bootstrap.
	ErrExists = errors.New("catalog: the cluster exists")
)

func invalid(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, a...))
}

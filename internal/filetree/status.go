package filetree

import "errors"

// Status is the outcome of an Op: an nfsstat3 (RFC 1813 2.6).
type Status uint32

// The statuses that ops end with.
const (
	OK          Status = 0
	NoEnt       Status = 2
	Exist       Status = 17
	NotDir      Status = 20
	IsDir       Status = 21
	Inval       Status = 22
	FBig        Status = 27
	NoSpace     Status = 28
	MLink       Status = 31
	NameTooLong Status = 63
	NotEmpty    Status = 66
	Stale       Status = 70
	NotSync     Status = 10002
	ServerFault Status = 10006

	// Again is never an answer to a client, and not remembered: a name is another file's than the op says.
	Again Status = 1<<32 - 1
	// Held is never an answer to a client, and not remembered: somebody has a lock that is in the way of a Lock.
	Held Status = 1<<32 - 2
)

var (
	// ErrBatch is returned for bytes that are no batch of ops, or one of another version.
	ErrBatch = errors.New("filetree: not a batch of ops")
	// ErrSnapshot is returned for bytes that are no snapshot of a tree, or one of another version.
	ErrSnapshot = errors.New("filetree: the snapshot is damaged")
)

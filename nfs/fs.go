package nfs

import (
	"context"
	"errors"
	"net/netip"

	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/rangelock"
)

// Exports tells what is exported. What it returns is never changed later. It is safe for concurrent use.
type Exports interface {
	// All returns every export, sorted by path, whether it can be served now or not. It answers from memory, at once.
	All() []*Export
	// ByShare returns the export of a share that is served, with Share set; it may wait for a take-over as I/O is held. The
	// error is nfs3.ErrStale if this cluster has no such share any more or does not export it: that is final for clients, so it is confirmed (invariant 11).
	// Any other error means "not known, or not served, now" and drops the connection: a client retries (invariant 5).
	ByShare(context.Context, ids.Volume) (*Export, error)
}

// Export is a share and who may use it.
type Export struct {
	Path  string // "/" and the share's name; unique; at most nfs3.MaxPath bytes
	ID    ids.Volume
	Share Share  // nil, in All, while it is not served here
	Rules []Rule // a client has the most specific rule that contains its address, and no access without one
}

// Rule is what clients at some addresses may do.
type Rule struct {
	Clients  netip.Prefix
	ReadOnly bool
	Squash   Squash
	AnonUID  uint32 // for squashed users; 65534 is usual
	AnonGID  uint32
}

// Squash tells whose identity is replaced by the rule's anonymous one. Users without AUTH_SYS always have that one.
type Squash uint8

const (
	SquashNone Squash = iota // nobody's: what ESXi needs
	SquashRoot               // uid 0's and gid 0's
	SquashAll                // everybody's
)

// Ref names a file for ever: an inode number is never used again with the same generation. Ino is also the fileid that
// clients see; it is not 0.
type Ref struct {
	Ino uint64
	Gen uint32
}

// Node is a file and its attributes. Attr.Fileid equals Ref.Ino; Attr.FSID is the front door's to fill, here and elsewhere.
type Node struct {
	Ref  Ref
	Attr nfs3.Attr
}

// Caller is who asks for a change, so that it is done exactly once. The same Client, XID and Sum are the same call: the
// share records its outcome in the same command as its effect, and answers a second one with that: the same status and
// the same Ref; attributes may be those of now, and Wcc.Before nil. The front door never has two calls of the same Caller
// under way at once: a retry comes when the first has returned, or after a failover.
type Caller struct {
	Client netip.Addr // without port: a client may come back from another one
	XID    uint32     // of the RPC
	Sum    uint64     // of program, version, procedure, credentials and arguments
}

// Name is an entry of a directory. The front door has checked Name: 1 to nfs3.MaxName bytes, neither "/" nor NUL in it,
// not "." nor "..". Bytes are compared as they are.
type Name struct {
	Dir  Ref
	Name string
	// Is, unless nil, is what the name was when the front door checked it, the zero Ref if it was nothing. If it is anything else when the
	// change is to be made, nothing is changed or recorded, and the error is ErrMoved. Rename, Remove, Rmdir and a Create that may
	// cut a file heed it.
	Is *Ref
}

// ErrMoved is returned for a Name that is not what it was when it was checked. It is never an answer: the front door checks anew.
var ErrMoved = errors.New("nfs: the name is another file's by now")

// Made is the answer of what makes a file. With an error only Dir counts.
type Made struct {
	Node Node
	Dir  nfs3.Wcc // of the directory
}

// Share is the file tree of one share, open on the node that serves it. All methods are safe for concurrent use; the
// front door calls as many at once as its limits allow.
//
// Errors. An nfs3.Status is the answer to the client. Any other error, block.ErrEnded and block.ErrHeld above all, means
// that there is no answer: the connection is dropped and the client asks again (invariants 5 and 8). A share that cannot
// answer now blocks for as long as I/O is held; it never makes an error reply of a failover. Refs that the tree does not
// know are nfs3.ErrStale. Where a result has a Wcc or attributes they are filled, as far as known, with an nfs3.Status
// too: clients want those of a failed call.
//
// Staleness. Every method but Peek, PeekName and Root returns only when invariant 11 holds for its answer, that is
// after the confirmation of an exchange that began after the call of the method.
//
// Permissions, of users and of exports, are the front door's: it has checked them with Peek and PeekName before it calls.
//
// Times. What changes a file's bytes sets mtime and ctime, what changes its attributes or names ctime, what changes a
// directory's entries its mtime and ctime. A ctime never goes back, and differs after each change that was answered.
//
// Contexts. A context ends when the client's connection did or the server shuts down. What was not yet proposed or
// submitted to the mirror then must not be begun any more, so that a dead client's old WRITE does not overtake its retry;
// what was begun may be finished. The method may return early with the context's error.
type Share interface {
	// Peek and PeekName return what the tree says now, from memory and unconfirmed, for checks of permissions. An answer
	// that depends on it follows another method's confirmation. PeekName of ".." is the parent; the root's is the root.
	Peek(Ref) (Node, error)
	PeekName(dir Ref, name string) (Node, error)
	// Confirm returns when invariant 11 holds for everything peeked before its call.
	Confirm(context.Context) error
	Root() Ref
	Getattr(context.Context, Ref) (nfs3.Attr, error)
	// Setattr changes attributes in one step. With a guard it is refused with nfs3.ErrNotSync unless the ctime is the
	// guard's. A Size beyond the end makes a hole; below it, the bytes are gone for good (a later growth reads as zeros).
	// Size on a directory is nfs3.ErrIsDir, on anything else that is no file nfs3.ErrInval.
	Setattr(context.Context, Caller, Ref, nfs3.SetAttr, *nfs3.Time) (nfs3.Wcc, error)
	// Lookup finds a name, ".." among them. The second result is of the directory, nil where not known; it is returned
	// with nfs3.ErrNoEnt too. nfs3.ErrNotDir if dir is none.
	Lookup(ctx context.Context, dir Ref, name string) (Node, *nfs3.Attr, error)
	Readlink(context.Context, Ref) (string, *nfs3.Attr, error) // nfs3.ErrInval for what is no link

	// Read fills p from off on, and returns how many bytes it read, and whether the end of the file was reached: n <
	// len(p) only at the end; off at or behind the end is 0, true. len(p) is at most nfs3.MaxIO; p came from block.Get.
	// It updates atime, perhaps lazily. nfs3.ErrIsDir for directories, nfs3.ErrInval for others that are no files.
	Read(ctx context.Context, f Ref, off uint64, p []byte) (ReadResult, error)
	// Write stores p (0 to nfs3.MaxIO bytes; the share does not keep it) at off, wholly or not at all as far as sizes and
	// reads show it. It may be more stable than it was asked to be. A retry of it is not recognised: it is done again.
	Write(ctx context.Context, f Ref, off uint64, p []byte, how nfs3.Stable) (WriteResult, error)
	// Commit makes all unstable writes to [off, off+n) durable on every in-sync member; n = 0 means to the end of the file.
	Commit(ctx context.Context, f Ref, off uint64, n uint32) (WriteResult, error)

	// Create makes a file, or opens one: see Create.
	Create(context.Context, Caller, Name, Create) (Made, error)
	Mkdir(context.Context, Caller, Name, nfs3.SetAttr) (Made, error)
	Symlink(ctx context.Context, c Caller, at Name, text string, a nfs3.SetAttr) (Made, error)
	// Mknod makes a nfs3.Block, Character, Socket or FIFO; dev has the major and minor number of the first two.
	Mknod(ctx context.Context, c Caller, at Name, t nfs3.FileType, dev [2]uint32, a nfs3.SetAttr) (Made, error)
	// Link gives a file that is no directory one more name, up to nfs3.MaxLinks. nfs3.ErrIsDir, nfs3.ErrExist, nfs3.ErrMLink.
	Link(ctx context.Context, c Caller, f Ref, to Name) (LinkResult, error)
	// Remove takes a name that is no directory's away (nfs3.ErrIsDir), Rmdir one of an empty directory (nfs3.ErrNotDir,
	// nfs3.ErrNotEmpty). Whether the Ref of a file without names still works is the share's choice.
	Remove(context.Context, Caller, Name) (nfs3.Wcc, error)
	Rmdir(context.Context, Caller, Name) (nfs3.Wcc, error)
	// Rename replaces what `to` was, in one step: a directory only an empty directory (nfs3.ErrNotEmpty, nfs3.ErrExist),
	// else no directory (nfs3.ErrIsDir, nfs3.ErrNotDir). Two names of one file: nothing happens. A directory into itself
	// or below is nfs3.ErrInval.
	Rename(ctx context.Context, c Caller, from, to Name) (RenameResult, error)

	// Readdir returns entries whose place is behind cookie, in the order of their cookies, at most max (1 to 4096), and
	// fewer only at the end or where it likes to pause; none without EOF is not allowed. Cookie 0 is the begin. An entry
	// that is in the directory all the while is returned exactly once by a walk along the cookies, whatever else is made,
	// removed or renamed; cookies are above 2 and below 1<<63, and stay valid over failovers and after the entry's
	// removal. The verifier is what Readdir returned for the walk's begin (zero with cookie 0); nfs3.ErrBadCookie only if
	// the walk cannot go on.
	// "." and ".." are not among the entries: the front door adds them.
	Readdir(ctx context.Context, dir Ref, cookie uint64, v nfs3.Verifier, max int) (ReaddirResult, error)
	Statfs(context.Context) (Statfs, error)
}

// Create is how Share.Create goes about a name that exists, atomically in the cluster (ESXi takes its locks so).
//
//	Unchecked  an existing file is opened; of Attr only Size is applied to it. A directory is nfs3.ErrExist.
//	Guarded    anything that exists is nfs3.ErrExist.
//	Exclusive  a file made by a call with the same Verifier is returned, anything else is nfs3.ErrExist. The verifier is
//	           kept until the file's first Setattr, at least. Attr has mode, UID and GID only.
type Create struct {
	Mode     nfs3.CreateMode
	Attr     nfs3.SetAttr // Mode, UID and GID are always set here, and in the SetAttr of everything that is made
	Verifier nfs3.Verifier
}

// ReadResult is the answer of Read. Attr is of the file after it.
type ReadResult struct {
	N    int
	EOF  bool
	Attr *nfs3.Attr
}

// WriteResult is the answer of Write and Commit. The write verifier changes exactly when unstable writes may have been lost
// (RFC 1813 3.3.7, 3.3.21): Write returns the one that was valid when it began, Commit the one that is valid when it ends, so
// that a loss between the two always shows. Committed is of Write only: what it is really; with nfs3.FileSync data and
// everything needed to read it back are durable on every in-sync member.
type WriteResult struct {
	Wcc       nfs3.Wcc
	Committed nfs3.Stable
	Verifier  nfs3.Verifier
}

// LinkResult is the answer of Link: the file after it, and the directory.
type LinkResult struct {
	File *nfs3.Attr
	Dir  nfs3.Wcc
}

// RenameResult is the answer of Rename: both directories.
type RenameResult struct{ From, To nfs3.Wcc }

// Entry is one name of a directory.
type Entry struct {
	Name   string
	Cookie uint64
	Node   Node
}

// ReaddirResult is the answer of Readdir. Attr is of the directory.
type ReaddirResult struct {
	Entries  []Entry
	EOF      bool
	Verifier nfs3.Verifier
	Attr     *nfs3.Attr
}

// Statfs is the space of a share, in bytes, and its inodes. Avail is what users other than root may take.
type Statfs struct {
	Total, Free, Avail           uint64
	Files, FilesFree, FilesAvail uint64
}

// Locker is a Share that keeps byte-range locks, which survive failovers: nobody has to reclaim any. The rules are
// rangelock's. Of a share that is none NLM says that it keeps no locks. Errors and staleness are as for Share; nfs3.ErrNoSpace
// stands for "too many locks".
type Locker interface {
	// Lock grants a lock, or returns one that is in its way. To grant what is granted already changes nothing.
	Lock(context.Context, Caller, Ref, rangelock.Lock) (conflict *rangelock.Lock, err error)
	// Unlock takes a range away from its owner, whatever he has of it.
	Unlock(context.Context, Caller, Ref, rangelock.Lock) error
	// Holds tells, from memory and unconfirmed, whether the owner of a lock has any of its range already.
	Holds(Ref, rangelock.Lock) (bool, error)
	// Locked returns a lock that would be in the way of one, nil if there is none.
	Locked(context.Context, Ref, rangelock.Lock) (*rangelock.Lock, error)
	// Release takes the locks of a client in this share away that it has not taken in this state: it has been started anew. Owner.Addr and
	// Owner.Host count; all locks go if the state is 0.
	Release(ctx context.Context, c Caller, client rangelock.Owner, state uint32) error
}

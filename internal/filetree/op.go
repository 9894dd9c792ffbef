package filetree

// Kind is what an Op does. Numbers are on disk: none changes its meaning, new ones are added at the end.
type Kind uint8

// The kinds. Ino, Dir, ... are the fields of Op that they use, besides Now; those with Reply may have one.
const (
	// Create makes Name in Dir, of Type, with Set (mode, UID, GID, and the times and size of a regular file); Name2 is the
	// target of a symbolic link, Aux a device's number. A name that exists: by How; it is given a size only if it is Ino's.
	// Reply.
	Create Kind = iota + 1
	// Link gives Ino the name Name in Dir too. Reply.
	Link
	// Remove takes Name in Dir away, which is no directory; Rmdir one that is an empty directory. Ino, unless 0, is the file that the
	// name must be (Absent: none), or the status is Again. Reply.
	Remove
	Rmdir
	// Rename makes Name in Dir be Name2 in Dir2, in the place of what was there. Ino is for Name what it is for Remove, Aux for
	// Name2. Reply.
	Rename
	// SetAttr changes Ino as Set says, if Guarded only when its ctime is Guard. Reply.
	SetAttr
	// Write maps Spans, which are ahead, to holes of Ino; it grows to Size if that is more. Its times become now. With no
	// span and no growth that is all.
	Write
	// Cut frees up to Size of Ino's last extents: all, of an orphan, which goes with the last; else those that begin at or
	// behind the byte Aux, and the file ends there then. It sets no time.
	Cut
	// Mark makes Ino's times now, and says that they may run ahead of the tree from then on; Settle that they are Set's and
	// do so no more, if Ino is still marked.
	Mark
	Settle
	// Ahead makes free Spans the leader's; Back makes Spans that are ahead freed ones; Zeroed makes freed Spans free.
	Ahead
	Back
	Zeroed
	// Open is the first of a new leader: all that is ahead is freed, and the times of all marked files become later than
	// any that was shown.
	Open
	// Resize makes the volume Size bytes, not less than it is; what is new reads as zeros.
	Resize
	// Lock and Unlock, as LockOp makes them, change the locks of Ino: from Aux on Size bytes, to the end if that is 0,
	// exclusive if Guarded, of the owner Name, taken in the state Guard of his host. Release, as ReleaseOp makes it, takes those locks of a host
	// away that it has not taken in the state Guard; all if that is 0. Reply.
	Lock
	Unlock
	Release

	kindEnd
)

// Absent stands for no file where an op says which file a name must be.
const Absent = uint64(1) << 63

// How is what Create does about a name that exists: createmode3 (RFC 1813 3.3.8).
type How uint8

// The modes. Unchecked opens a regular file and applies Set's size; Exclusive returns one that was made with the same Aux.
const (
	Unchecked How = iota
	Guarded
	Exclusive
)

// Fields says which fields of a Set count.
type Fields uint8

// The fields. AtimeNow and MtimeNow set the time of the op.
const (
	SetMode Fields = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	AtimeNow
	MtimeNow
)

// Set is what to change of a file's attributes.
type Set struct {
	Fields       Fields
	Mode         uint16
	UID, GID     uint32
	Size         int64
	Atime, Mtime int64
	Ctime        int64 // Settle only
}

// Op is one change of a tree.
type Op struct {
	Kind        Kind
	How         How
	Type        Type
	Guarded     bool
	Now         int64 // ns; the tree takes a later time if it has shown this one
	Guard       int64 // a ctime, or the state of a host
	Reply       Key
	Ino         uint64
	Dir, Dir2   uint64
	Name, Name2 string
	Aux         uint64
	Size        int64
	Set         Set
	Spans       []Span
}

// Batch is what one command of the catalog does to a tree: ops, each by itself, in order.
type Batch struct {
	Ceil int64 // raises Ceiling, in ns
	Ops  []Op
}

// Change is an inode before and after an op.
type Change struct {
	Ino           uint64
	Before, After Inode
}

// Result is the outcome of an op. With a status other than OK the op changed nothing.
type Result struct {
	Status Status
	Replay bool   // the answer to an earlier call with the same Reply; only Status and Ino are set
	Ino    uint64 // made or found by Create
	File   Change // Create, Link, Rename, SetAttr, Write, and Remove of a file that has other names; Ino is 0 where there is none
	Dirs   [2]Change
	// Freed tells that there are more freed spans or orphans than before.
	Freed bool
}

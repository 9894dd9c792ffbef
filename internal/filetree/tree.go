package filetree

import (
	"cmp"

	"pmsapp/internal/rangelock"
)

// Sizes, in bytes, and other limits.
const (
	Block      = 4096    // extents begin and end at its multiples
	MaxFile    = 1 << 44 // 16 TiB
	MaxName    = 255
	MaxTarget  = 1024  // of a symbolic link
	MaxLinks   = 65000 // names of a file, subdirectories of a directory
	MaxReplies = 32768 // remembered; the oldest are evicted
	MaxMarks   = 65536 // files whose times may be ahead of the tree
	MaxDepth   = 65536 // of a directory that is moved
	Root       = 1     // the inode number of the root

	// MaxMeta bounds what all trees of a catalog take, by Tree.Meta: an upper bound of the snapshot's bytes.
	MaxMeta = 512 << 20
)

// Type is ftype3 (RFC 1813 2.5).
type Type uint8

// The types of a file.
const (
	Regular Type = iota + 1
	Directory
	BlockDevice
	CharDevice
	Symlink
	Socket
	FIFO
)

// Inode is a file's attributes. Times are nanoseconds since 1970, sizes bytes.
type Inode struct {
	Type  Type
	Mode  uint16 // 07777
	Gen   uint32
	UID   uint32
	GID   uint32
	Nlink uint32 // 0: an orphan, which waits for its extents to be freed
	Size  int64  // of a directory the number of its entries
	Used  int64  // what its extents take
	Atime int64
	Mtime int64
	Ctime int64
	// Aux is a directory's parent, a device's number (major in the upper half), a regular file's create verifier.
	Aux uint64
}

// Span is a piece of a file or of the volume: Len bytes of the volume from Vol on; in a file they are those from File on.
type Span struct{ File, Vol, Len int64 }

// Entry is a name in a directory.
type Entry struct {
	Cookie uint64
	Name   string
	Ino    uint64
}

// Key identifies a call of a client: a digest of who, the XID and all that was asked. The zero Key is nobody's.
type Key [16]byte

// Reply is what a call was answered.
type Reply struct {
	Status Status
	Ino    uint64 // that it made or found
}

type (
	entryKey  struct{ dir, cookie uint64 }
	extentKey struct {
		ino uint64
		off int64
	}
	number uint64
	dirent struct {
		name string
		ino  uint64
	}
	extent   struct{ vol, len int64 }
	recorded struct {
		Reply
		seq uint64
	}
)

func (a entryKey) compare(b entryKey) int {
	return cmp.Or(cmp.Compare(a.dir, b.dir), cmp.Compare(a.cookie, b.cookie))
}

func (a extentKey) compare(b extentKey) int {
	return cmp.Or(cmp.Compare(a.ino, b.ino), cmp.Compare(a.off, b.off))
}

func (a number) compare(b number) int { return cmp.Compare(a, b) }

func (a Key) compare(b Key) int {
	for i := range a {
		if a[i] != b[i] {
			return cmp.Compare(a[i], b[i])
		}
	}
	return 0
}

// Tree is one state of a share's file tree. Its methods are safe for concurrent use.
type Tree struct {
	size  int64  // of the volume
	gen   uint32 // of inodes that are made
	next  uint64 // inode number; none is used twice
	clock int64  // the latest time that a command has set
	ceil  int64  // the leader shows no time at or above this that is not in the tree
	meta  int64
	seq   uint64 // of the newest reply

	inodes  bmap[number, Inode]
	texts   bmap[number, string] // targets of symbolic links
	entries bmap[entryKey, dirent]
	extents bmap[extentKey, extent]
	orphans bmap[number, struct{}]
	marks   bmap[number, struct{}]         // files that may have been written since their times were committed
	locks   bmap[number, *rangelock.Table] // of files that have some
	replies bmap[Key, recorded]
	order   bmap[number, Key] // by seq

	free  space // reads as zeros on every member
	ahead space // the leader's to write to before a command gives it to a file
	freed space // was a file's, or the leader's: to be zeroed

	by *edit // the change that is under way; nil in a tree that was returned
}

// New returns an empty tree for a volume that reads as zeros. gen is the generation of the inodes, not 0: trees that may have
// given out the same numbers to different files have different ones. now is in ns.
func New(size int64, gen uint32, now int64) *Tree {
	t := &Tree{size: size &^ (Block - 1), gen: gen, next: Root + 1, clock: now, by: new(edit)}
	t.free.add(t.by, 0, t.size)
	t.putInode(Root, Inode{Type: Directory, Mode: 0o755, Gen: gen, Nlink: 2, Atime: now, Mtime: now, Ctime: now, Aux: Root})
	t.by = nil
	return t
}

// Inode returns a file that has a name, or had one and is an orphan.
func (t *Tree) Inode(ino uint64) (Inode, bool) { return t.inodes.get(number(ino)) }

// Target returns the text of a symbolic link.
func (t *Tree) Target(ino uint64) string {
	s, _ := t.texts.get(number(ino))
	return s
}

// Replied returns what a call was answered.
func (t *Tree) Replied(k Key) (Reply, bool) {
	r, ok := t.replies.get(k)
	return r.Reply, ok
}

// Latest is the latest time that a command has set, in ns.
func (t *Tree) Latest() int64 { return t.clock }

// Clock is the latest time that the tree or its leader may have shown, in ns.
func (t *Tree) Clock() int64 { return max(t.clock, t.ceil) }

// Ceiling is the time below which the leader may show times that are not in the tree.
func (t *Tree) Ceiling() int64 { return t.ceil }

// Marked tells whether a file's times may be ahead of the tree.
func (t *Tree) Marked(ino uint64) bool {
	_, ok := t.marks.get(number(ino))
	return ok
}

// Marks is how many files are marked.
func (t *Tree) Marks() int { return t.marks.n }

// Files is the number of inodes.
func (t *Tree) Files() int { return t.inodes.n }

// Meta is an upper bound of the bytes that the tree takes in a snapshot.
func (t *Tree) Meta() int64 { return t.meta }

// Size is the volume's, in bytes.
func (t *Tree) Size() int64 { return t.size }

// Space is how much of the volume is free (reads as zeros), ahead (the leader's) and freed (to be zeroed), in bytes.
func (t *Tree) Space() (free, ahead, freed int64) { return t.free.sum, t.ahead.sum, t.freed.sum }

// Orphans returns up to n files that have no name and wait for their extents to be freed.
func (t *Tree) Orphans(n int) (all []uint64) {
	for ino := range t.orphans.from(0) {
		if len(all) == n {
			break
		}
		all = append(all, uint64(ino))
	}
	return all
}

// Free returns up to n free spans from the volume's offset `from` on; Freed those to be zeroed.
func (t *Tree) Free(from int64, n int) []Span { return t.free.list(from, n) }

// Freed returns up to n spans that are to be zeroed.
func (t *Tree) Freed(from int64, n int) []Span { return t.freed.list(from, n) }

// Extents returns the pieces of a file that overlap [off, end), in order, whole and at most n. What is between them is a hole.
func (t *Tree) Extents(ino uint64, off, end int64, n int) (all []Span) {
	if k, x, ok := t.extents.floor(extentKey{ino, off}); ok && k.ino == ino && k.off < off && k.off+x.len > off {
		all = append(all, Span{k.off, x.vol, x.len})
	}
	for k, x := range t.extents.from(extentKey{ino, off}) {
		if k.ino != ino || k.off >= end || len(all) >= n {
			break
		}
		all = append(all, Span{k.off, x.vol, x.len})
	}
	return all
}

// MappedEnd is the end of a file's last extent, 0 if it has none.
func (t *Tree) MappedEnd(ino uint64) int64 {
	if k, x, ok := t.extents.floor(extentKey{ino, MaxFile}); ok && k.ino == ino {
		return k.off + x.len
	}
	return 0
}

func (t *Tree) putInode(ino uint64, n Inode) {
	if _, had := t.inodes.get(number(ino)); !had {
		t.meta += metaInode
	}
	t.inodes.set(t.by, number(ino), n)
}

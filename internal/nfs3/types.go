// Package nfs3 has the words of NFS version 3 (RFC 1813) that the server, the share behind it, and the client have in
// common: statuses, attributes, and what a call may change of them.
package nfs3

import (
	"time"

	gonfs "github.com/willscott/go-nfs"
)

// Sizes of RFC 1813 2.4, and the bounds that this server adds. All are bytes.
const (
	MaxHandle  = 64      // a file handle, NFS3_FHSIZE
	MaxName    = 255     // a name in a directory
	MaxPath    = 1024    // a path to mount (MNTPATHLEN) and the text of a symbolic link
	MaxIO      = 1 << 20 // one READ or WRITE: rtmax and wtmax
	MaxFile    = 1 << 44 // a file, 16 TiB
	VerifierSz = 8       // cookie, create and write verifiers
	MaxLinks   = 65000   // names of one file
)

// Types that go-nfs has right: they are laid out as on the wire.
type (
	// FileType is ftype3.
	FileType = gonfs.FileType
	// Time is nfstime3: seconds since 1970 (to 2106) and nanoseconds below 1e9.
	Time = gonfs.FileTime
	// Attr is fattr3. FileMode has the 12 permission bits only (07777); Fileid is the inode number; Used is the space
	// that the file takes, in bytes, without its holes; FSID is the same for all files of a share and differs between
	// shares.
	Attr = gonfs.FileAttribute
)

// The types of a file.
const (
	Regular   = gonfs.FileTypeRegular
	Directory = gonfs.FileTypeDirectory
	Block     = gonfs.FileTypeBlock
	Character = gonfs.FileTypeCharacter
	Symlink   = gonfs.FileTypeLink
	Socket    = gonfs.FileTypeSocket
	FIFO      = gonfs.FileTypeFIFO
)

// TimeOf converts t. Times that nfstime3 cannot hold become the nearest that it can.
func TimeOf(t time.Time) Time {
	sec := t.Unix()
	switch {
	case sec < 0:
		return Time{}
	case sec > 1<<32-1:
		return Time{Seconds: 1<<32 - 1, Nseconds: 999_999_999}
	}
	return Time{Seconds: uint32(sec), Nseconds: uint32(t.Nanosecond())}
}

// Verifier is a cookieverf3, createverf3 or writeverf3.
type Verifier [VerifierSz]byte

// SetAttr is sattr3: what SETATTR or the making of a file sets. What is nil stays as it is, or is the default.
type SetAttr struct {
	Mode     *uint32 // 07777 at most
	UID, GID *uint32
	Size     *uint64 // bytes, MaxFile at most
	Atime    SetTime
	Mtime    SetTime
}

// TimeHow tells where a time comes from (time_how).
type TimeHow uint32

const (
	DontChange   TimeHow = 0
	ToServerTime TimeHow = 1
	ToClientTime TimeHow = 2
)

// SetTime is set_atime or set_mtime. Time counts with ToClientTime only.
type SetTime struct {
	How  TimeHow
	Time Time
}

// Stable is stable_how: what a WRITE wants, and what it got.
type Stable uint32

const (
	Unstable Stable = 0
	DataSync Stable = 1
	FileSync Stable = 2
)

// CreateMode is createmode3.
type CreateMode uint32

const (
	Unchecked CreateMode = 0
	Guarded   CreateMode = 1
	Exclusive CreateMode = 2
)

// PreOp is wcc_attr: what is told of an object as it was before an operation.
type PreOp struct {
	Size         uint64
	Mtime, Ctime Time
}

// PreOpOf takes the wcc_attr out of attributes.
func PreOpOf(a Attr) PreOp { return PreOp{Size: a.Filesize, Mtime: a.Mtime, Ctime: a.Ctime} }

// Wcc is wcc_data: an object before and after an operation, with no other change between the two. Either is nil where it
// is not known.
type Wcc struct {
	Before *PreOp
	After  *Attr
}

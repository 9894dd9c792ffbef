package nfs3

import gonfs "github.com/willscott/go-nfs"

// Status is nfsstat3 (RFC 1813 2.6). One that is not OK is an error.
type Status uint32

// The statuses. Their comments say which of our cases they stand for, where RFC 1813 leaves a choice.
const (
	OK             = Status(gonfs.NFSStatusOk)
	ErrPerm        = Status(gonfs.NFSStatusPerm)        // only the owner or root may
	ErrNoEnt       = Status(gonfs.NFSStatusNoEnt)       // the directory has no such name
	ErrIO          = Status(gonfs.NFSStatusIO)          // medium error on the last replica
	ErrNXIO        = Status(gonfs.NFSStatusNXIO)        //
	ErrAccess      = Status(gonfs.NFSStatusAccess)      // the mode bits, or the export, forbid it
	ErrExist       = Status(gonfs.NFSStatusExist)       //
	ErrXDev        = Status(gonfs.NFSStatusXDev)        // RENAME or LINK between two shares
	ErrNoDev       = Status(gonfs.NFSStatusNoDev)       //
	ErrNotDir      = Status(gonfs.NFSStatusNotDir)      //
	ErrIsDir       = Status(gonfs.NFSStatusIsDir)       //
	ErrInval       = Status(gonfs.NFSStatusInval)       //
	ErrFBig        = Status(gonfs.NFSStatusFBig)        // beyond MaxFile
	ErrNoSpace     = Status(gonfs.NFSStatusNoSPC)       // the share, or a member's pool, is full
	ErrROFS        = Status(gonfs.NFSStatusROFS)        // exported read-only
	ErrMLink       = Status(gonfs.NFSStatusMlink)       //
	ErrNameTooLong = Status(gonfs.NFSStatusNameTooLong) // above MaxName
	ErrNotEmpty    = Status(gonfs.NFSStatusNotEmpty)    //
	ErrDQuot       = Status(gonfs.NFSStatusDQuot)       //
	ErrStale       = Status(gonfs.NFSStatusStale)       // the file or the share is gone for good
	ErrRemote      = Status(gonfs.NFSStatusRemote)      //
	ErrBadHandle   = Status(gonfs.NFSStatusBadHandle)   // not a handle that we ever gave
	ErrNotSync     = Status(gonfs.NFSStatusNotSync)     // the guard of a SETATTR does not match
	ErrBadCookie   = Status(gonfs.NFSStatusBadCookie)   //
	ErrNotSupp     = Status(gonfs.NFSStatusNotSupp)     //
	ErrTooSmall    = Status(gonfs.NFSStatusTooSmall)    // not one entry fits
	ErrServerFault = Status(gonfs.NFSStatusServerFault) //
	ErrBadType     = Status(gonfs.NFSStatusBadType)     // MKNOD of what MKNOD does not make
	ErrJukebox     = Status(gonfs.NFSStatusJukebox)     // never sent: ESXi takes it for an error
)

// Error makes a status an error; its text is for logs.
func (s Status) Error() string { return "nfs: " + gonfs.NFSStatus(s).String() }

package poolfs

import (
	"errors"
	"fmt"
)

// Device is what the files are on. What was written is durable after a Flush that began when the write had returned; before it,
// each sector of 512 bytes is lost or kept by itself. All methods may be called concurrently.
type Device interface {
	// ReadAt and WriteAt are used with offsets and lengths that are multiples of Grain, or any if cached. A byte that was written
	// one way is zeroed before it is used the other way.
	ReadAt(b []byte, off int64, cached bool) error
	WriteAt(b []byte, off int64, cached bool) error
	// Zero makes a range read as zeros, and gives its space back where that makes no difference.
	Zero(off, n int64) error
	// Discard says that nobody will ask for what a range holds: it may read as anything.
	Discard(off, n int64) error
	// Drop makes cached reads of a range see what the device has, but for what is yet to be flushed.
	Drop(off, n int64) error
	// Flush makes what was written durable, cached or not. After it has failed nothing is known of any unflushed byte.
	Flush() error
	// Size is the device's, in bytes.
	Size() int64
	// Grain is 512 or a multiple of it, at most 4096.
	Grain() int
}

// Errors, besides the device's own, os.ErrNotExist, os.ErrExist, syscall.ENOSPC, ENOTDIR, EISDIR, ENOTEMPTY and EINVAL.
var (
	// ErrDamaged is returned where what is on the device cannot be what was written there.
	ErrDamaged = errors.New("poolfs: damaged")
	// ErrVersion is returned for a device that a newer version of this program has written.
	ErrVersion = errors.New("poolfs: written by a newer version")
	// ErrBlank is returned for a device without a superblock whose first and last MiB are zeros.
	ErrBlank = errors.New("poolfs: the device is blank")
	// ErrOccupied is returned for a device that holds something else.
	ErrOccupied = errors.New("poolfs: the device holds something else")
	// ErrTooSmall is returned for a device that is too small, or smaller than it was.
	ErrTooSmall = errors.New("poolfs: the device is too small")
	// ErrLost is returned by a file with bytes of which a flush that failed may have lost some, until it is opened anew.
	ErrLost = errors.New("poolfs: a flush failed; what was written before it may be lost")
	// ErrNotReady is returned by a write for which no space could be made ready: nothing was written.
	ErrNotReady = errors.New("poolfs: no space could be made ready")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("poolfs: closed")
)

func damaged(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, a...))
}

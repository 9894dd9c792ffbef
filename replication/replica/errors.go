package replica

import (
	"errors"
	"fmt"
	"syscall"

	"pmsapp/replication/peer"
)

// Errors about pools and the node's own files, besides package peer's of commands.
var (
	// ErrNotEmpty is returned for a directory or device that is neither a pool nor empty.
	ErrNotEmpty = errors.New("it is neither a pool nor empty")
	// ErrForeign is returned for a pool of another cluster.
	ErrForeign = errors.New("the pool belongs to another cluster")
	// ErrDamaged is returned for a superblock, map or epoch that is damaged.
	ErrDamaged = errors.New("damaged")
	// ErrVersion is returned for a structure that another version of this program has written.
	ErrVersion = errors.New("written by another version")
	// ErrInUse is returned when another process has the pool open.
	ErrInUse = errors.New("the pool is in use by another process")
	// ErrNotPool is returned for a directory or device that is no pool where none may be made.
	ErrNotPool = errors.New("it is not a pool")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("replica: closed")
)

func errShort(n int64) error { return fmt.Errorf("%w: it has only %d bytes", ErrDamaged, n) }

// scarce tells whether an error is about this process or machine, and says nothing about what is on the disk.
func scarce(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// diskError says in peer's words what went wrong with a disk.
func diskError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s: %w: %w", what, peer.ErrNoSpace, err)
	case errors.Is(err, syscall.EFBIG): // more than the file system allows one file
		return fmt.Errorf("%s: %w: %w", what, peer.ErrNoSpace, err)
	}
	return fmt.Errorf("%s: %w: %w", what, peer.ErrMedium, err)
}

package vip

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the guardian runs. It is a copy of a process of many threads with only one of them, so nothing of Go's runtime works in it: no
// allocation, no growing stack, no goroutine, no call of what is not nosplit. It has system calls and the ward.

// mostFiles is the highest descriptor, plus one, that may be a connection's; those above are closed.
const mostFiles = 1 << 13

// forkGuardian returns the guardian's process id in the process that calls it, and never in the guardian. The table of descriptors is shared (clone(2),
// CLONE_FILES): what the parent opens the guardian has, what it closes is closed, and nothing is closed by its death.
//
//go:nosplit
//go:norace
//go:noinline
func forkGuardian(w unsafe.Pointer) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, unix.CLONE_FILES|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	guard((*ward)(w))
	for {
		syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
	}
}

// guard waits for the parent's death and does what is to be done then.
//
//go:nosplit
//go:norace
//go:noinline
func guard(w *ward) {
	syscall.RawSyscall6(syscall.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&w.name)), 0, 0, 0, 0)
	for {
		_, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&w.death)), 1, 0, 0, 0, 0)
		if errno != 0 && errno != syscall.EINTR {
			return // nobody knows what has happened
		}
		// A descriptor is a number that a fault could give to something else; whose child this is cannot be mistaken.
		if parent, _, _ := syscall.RawSyscall6(unix.SYS_GETPPID, 0, 0, 0, 0, 0, 0); parent != w.parent {
			break
		}
		if errno == 0 {
			return
		}
	}
	if w.armed == 0 {
		return
	}
	// Locks, listeners and the sessions between nodes end as they would without a guardian.
	for fd := uintptr(0); fd < mostFiles; fd++ {
		if int32(fd) != w.ear && int32(fd) != w.netlink && !ofAddress(w, fd) {
			syscall.RawSyscall6(unix.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
		}
	}
	syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, mostFiles, uintptr(^uint32(0)), 0, 0, 0, 0)
	n, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&w.heard)), 1, uintptr(unsafe.Pointer(&w.patience)), 0, 0, 0)
	// The next leader has the address, or nobody will. Whoever waits for an answer is told now that there will be none (a reset: linger
	// of 0 s), and connects again, to whom the announcement has named.
	for fd := uintptr(0); fd < mostFiles; fd++ {
		if int32(fd) != w.netlink && int32(fd) != w.ear {
			syscall.RawSyscall6(unix.SYS_SETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&w.linger)), unsafe.Sizeof(w.linger), 0)
			syscall.RawSyscall6(unix.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
		}
	}
	if errno == 0 && n == 1 { // otherwise it may be this node's new process's by now
		syscall.RawSyscall6(unix.SYS_WRITE, uintptr(w.netlink), uintptr(unsafe.Pointer(&w.request)), w.length, 0, 0, 0)
	}
}

// ofAddress tells whether a descriptor is that of a connection to the virtual address.
//
//go:nosplit
//go:norace
//go:noinline
func ofAddress(w *ward, fd uintptr) bool {
	w.length4 = uint32(len(w.address))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETPEERNAME, fd, uintptr(unsafe.Pointer(&w.address)), uintptr(unsafe.Pointer(&w.length4)), 0, 0, 0)
	if errno != 0 {
		return false
	}
	w.length4 = uint32(len(w.address))
	_, _, errno = syscall.RawSyscall6(unix.SYS_GETSOCKNAME, fd, uintptr(unsafe.Pointer(&w.address)), uintptr(unsafe.Pointer(&w.length4)), 0, 0, 0)
	if errno != 0 {
		return false
	}
	at := uintptr(4) // in a sockaddr_in
	switch *(*uint16)(unsafe.Pointer(&w.address)) {
	case unix.AF_INET:
	case unix.AF_INET6: // ::ffff:a.b.c.d, in a sockaddr_in6
		if *(*uint32)(unsafe.Add(unsafe.Pointer(&w.address), 8)) != 0 || *(*uint32)(unsafe.Add(unsafe.Pointer(&w.address), 12)) != 0 {
			return false
		}
		at = 20
	default:
		return false
	}
	return *(*uint32)(unsafe.Add(unsafe.Pointer(&w.address), at)) == w.virtual
}

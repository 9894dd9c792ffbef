package vip

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unacknowledged is how long a client may leave unacknowledged what it was sent, before its connection ends; also that of a
// process which has ended. While such a connection is left in the kernel of a node that led, and the node leads again, a client
// which comes from the same port (Linux' NFS client always does) is neither answered nor told that its connection is gone, for
// about two minutes.
const unacknowledged = 5 * time.Second

// Listen listens for TCP connections that end when what they were sent is not acknowledged for 5 s.
func Listen(addr string) (net.Listener, error) {
	c := net.ListenConfig{Control: giveUp}
	return c.Listen(context.Background(), "tcp", addr)
}

// giveUp sets TCP_USER_TIMEOUT (RFC 5482), which accepted connections inherit.
func giveUp(_, _ string, raw syscall.RawConn) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
	}); cerr != nil {
		return cerr
	}
	return err
}

// Package accept is the loop that accepts a server's connections.
package accept

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// The pauses after an Accept that failed though the listener is open: out of descriptors, most likely, and connections
// that end will free some.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// Loop gives each connection of l to start, which does not block, until l is closed, by whomever: then it returns an error
// that is net.ErrClosed. Any other failure is told and tried again; stop ends the pause before that.
func Loop(l net.Listener, log *slog.Logger, stop <-chan struct{}, start func(net.Conn)) error {
	pause := time.Duration(0)
	for {
		c, err := l.Accept()
		if err == nil {
			pause = 0
			start(c)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accepting connections: %w", err)
		}
		pause = min(max(2*pause, firstPause), lastPause)
		log.Warn("cannot accept a connection", "address", l.Addr().String(), "err", err, "pause", pause)
		select {
		case <-time.After(pause):
		case <-stop:
		}
	}
}

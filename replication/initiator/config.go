package initiator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"pmsapp/internal/iscsi"
)

// Timeouts are the tunables of a path (ARCHITECTURE.md, "Timeouts"). 0 switches a timeout off, except Login and Logout.
type Timeouts struct {
	Login        time.Duration // connection and login together
	Logout       time.Duration // waiting for the answer to a logout
	NoopInterval time.Duration // a path is probed when nothing came for so long
	NoopTimeout  time.Duration // and is dead when the probe is unanswered for so long
	Recovery     time.Duration // an active path is dead when nothing came for so long
	// Command is for a target whose medium may hang while it goes on answering: the path is dead when a command has been
	// with the target for so long and nothing came for it, neither data nor a request for data, or when commands wait to be
	// sent and the target's window has let none through for so long. Patient commands don't count.
	Command time.Duration
}

// HostTimeouts returns ESXi's defaults.
func HostTimeouts() Timeouts {
	return Timeouts{Login: 5 * time.Second, Logout: 15 * time.Second, NoopInterval: 15 * time.Second,
		NoopTimeout: 10 * time.Second, Recovery: 10 * time.Second}
}

// PeerTimeouts returns the defaults between nodes, short enough for the failover targets.
func PeerTimeouts() Timeouts {
	return Timeouts{Login: 2 * time.Second, Logout: 5 * time.Second, NoopInterval: time.Second,
		NoopTimeout: 2 * time.Second, Recovery: 3 * time.Second}
}

// Config is what a session needs.
type Config struct {
	Portal    string // host:port
	Initiator string // iSCSI name of this end
	Target    string // iSCSI name of the target
	Alias     string
	ISID      iscsi.ISID // with the initiator's name the identity of the initiator port; random if zero
	// Own is what this end proves by CHAP, if the name is not empty; Peer what the target must prove, likewise.
	Own, Peer iscsi.Credentials
	Vendor    []iscsi.Pair // vendor keys for the login
	Wish      iscsi.Wish   // iscsi.DefaultWish if zero; MaxR2T at most 16
	Timeouts  Timeouts     // HostTimeouts if zero
	Queue     int          // commands under way, sent or waiting for the target's window; 1024 if 0
	Log       *slog.Logger // slog.Default if nil
	// Dial makes the connection; a net.Dialer does if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	maxQueue = 1 << 16
	maxR2T   = 16
)

var errConfig = errors.New("initiator: invalid configuration")

// withDefaults fills in what is zero and checks the rest.
func (c Config) withDefaults() (Config, error) {
	if c.Wish == (iscsi.Wish{}) {
		c.Wish = iscsi.DefaultWish()
	}
	if c.ISID == (iscsi.ISID{}) {
		c.ISID[0] = 0x80 // of the random kind (RFC 7143, 11.12.5)
		rand.Read(c.ISID[1:])
	}
	if c.Timeouts == (Timeouts{}) {
		c.Timeouts = HostTimeouts()
	}
	if c.Queue == 0 {
		c.Queue = 1024
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	t := c.Timeouts
	switch {
	case c.Queue < 1 || c.Queue > maxQueue:
		return c, fmt.Errorf("queue of %d: %w", c.Queue, errConfig)
	case c.Wish.MaxR2T < 1 || c.Wish.MaxR2T > maxR2T:
		return c, fmt.Errorf("MaxOutstandingR2T %d: %w", c.Wish.MaxR2T, errConfig)
	case t.Login <= 0 || t.Logout <= 0 || t.NoopInterval < 0 || t.NoopTimeout < 0 || t.Recovery < 0 || t.Command < 0:
		return c, fmt.Errorf("timeouts: %w", errConfig)
	case t.NoopInterval > 0 && t.NoopTimeout == 0:
		return c, fmt.Errorf("noop interval without a noop timeout: %w", errConfig)
	}
	return c, nil
}

package target

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"
)

// Config is what a Server is made of.
type Config struct {
	Provider Provider
	Log      *slog.Logger // nil discards
	// Group is the target portal group tag of this server's portals. Sessions are never shared between groups, so
	// each node has a group of its own. 1 if 0.
	Group uint16
	// GroupOf, if not nil, tells the group of a portal by the address that an initiator connected to: an address that moves
	// between nodes is a group of its own, and so a target port that outlives them.
	GroupOf func(portal netip.AddrPort) uint16
	// Refused, if not nil, is told of logins that came to nothing once the initiator had named itself. It must not block.
	Refused func(l Login, err error)
	Limits
	Tunables
}

// Limits bound what connections can make a server use. Fields that are 0 get their value from DefaultLimits.
type Limits struct {
	Connections int   // accepted at once, logged in or not
	Sessions    int   // normal and discovery sessions
	Queue       int   // commands of one session; the window given by MaxCmdSN
	FirstBurst  int   // bytes of unsolicited data of one command
	MaxBurst    int   // bytes of one R2T or one sequence of Data-In
	MaxRecv     int   // bytes of data in one PDU that the target receives
	MaxR2T      int   // R2Ts of one command under way
	MaxData     int64 // bytes of data of one command, in or out
	Memory      int64 // bytes of data buffers of all sessions together (see DESIGN.md)
}

// DefaultLimits returns limits that suit a small appliance and ESXi's defaults.
func DefaultLimits() Limits {
	return Limits{Connections: 4096, Sessions: 3072, Queue: 128, FirstBurst: 256 << 10, MaxBurst: 1 << 20,
		MaxRecv: 256 << 10, MaxR2T: 8, MaxData: 16 << 20, Memory: 256 << 20}
}

// Tunables are what can change while a server runs (ARCHITECTURE.md, "Timeouts").
type Tunables struct {
	LoginTimeout  time.Duration // how long a login may take
	LogoutTimeout time.Duration // how long to wait for an initiator that was asked to log out
	NoopInterval  time.Duration // a session that sent nothing for so long is probed by a NOP-In; 0: never
	NoopTimeout   time.Duration // a session that leaves a probe unanswered for so long is dead
}

// DefaultTunables returns ESXi's.
func DefaultTunables() Tunables {
	return Tunables{LoginTimeout: 5 * time.Second, LogoutTimeout: 15 * time.Second,
		NoopInterval: 15 * time.Second, NoopTimeout: 10 * time.Second}
}

// ErrConfig is returned for a Config or Tunables out of their ranges.
var ErrConfig = errors.New("target: invalid configuration")

// Validate checks t.
func (t Tunables) Validate() error {
	if t.LoginTimeout <= 0 || t.LogoutTimeout < 0 || t.NoopInterval < 0 || t.NoopInterval > 0 && t.NoopTimeout <= 0 {
		return fmt.Errorf("%w: timeouts must be above zero", ErrConfig)
	}
	return nil
}

// withDefaults returns l with what is 0 filled in.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct{ have, def *int }{{&l.Connections, &d.Connections}, {&l.Sessions, &d.Sessions},
		{&l.Queue, &d.Queue}, {&l.FirstBurst, &d.FirstBurst}, {&l.MaxBurst, &d.MaxBurst}, {&l.MaxRecv, &d.MaxRecv},
		{&l.MaxR2T, &d.MaxR2T}} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	if l.MaxData == 0 {
		l.MaxData = d.MaxData
	}
	if l.Memory == 0 {
		l.Memory = d.Memory
	}
	return l
}

// Validate checks l against what the protocol can carry.
func (l Limits) Validate() error {
	const top = 1<<24 - 1
	switch {
	case l.Connections < 1 || l.Sessions < 1 || l.Sessions > 60000:
		return fmt.Errorf("%w: connections or sessions", ErrConfig)
	case l.Queue < minQueue || l.Queue > 4096:
		return fmt.Errorf("%w: queue", ErrConfig)
	case l.FirstBurst < 512 || l.FirstBurst > l.MaxBurst || l.MaxBurst > top:
		return fmt.Errorf("%w: bursts", ErrConfig)
	case l.MaxRecv < 512 || l.MaxRecv > top:
		return fmt.Errorf("%w: data segments", ErrConfig)
	case l.MaxR2T < 1 || l.MaxR2T > 65535:
		return fmt.Errorf("%w: R2Ts", ErrConfig)
	case l.MaxData < 1<<16 || l.MaxData > 1<<31 || l.Memory < 2*l.MaxData:
		return fmt.Errorf("%w: memory", ErrConfig)
	}
	return nil
}

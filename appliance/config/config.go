// Package config is a node's configuration file: what it may say, what holds where it says nothing, and whether it makes
// sense. docs/pmsapp.example.toml is the same as a file, with the defaults; a test compares the two.
package config

import (
	"errors"
	"log/slog"
	"time"
)

// Errors of this package.
var (
	// ErrUnknownKey is returned for a key that no version of this file has.
	ErrUnknownKey = errors.New("unknown key")
	// ErrInvalid is returned for a value that cannot be.
	ErrInvalid = errors.New("invalid configuration")
)

// Config is the file. What can change while the node runs is in Reloadable.
type Config struct {
	// Name of the node, unique in the cluster: 1 to 63 letters, digits and hyphens. The host's name if empty.
	Name string `toml:"name"`
	// State is the directory of the catalog, the node's keys and its tokens.
	State string `toml:"state"`
	// Pools are directories and block devices that hold replicas; none on a witness. An empty directory, or a blank device, becomes
	// a pool at the first start.
	Pools []string `toml:"pools"`
	// ReadCache is how much memory may be used for blocks that were read from this node's replicas while it leads, in percent of
	// the machine's: 0 (none) to 80.
	ReadCache int     `toml:"read_cache"`
	Address   Address `toml:"address"`
	Virtual   Virtual `toml:"virtual"`
	Reloadable
}

// Address has the addresses on which this node listens. All are host:port with a host that the peers can reach.
type Address struct {
	// Cluster is for the other nodes: Raft, gossip (TCP and UDP) and forwarded calls.
	Cluster string `toml:"cluster"`
	// API is for the admin: REST over TLS.
	API string `toml:"api"`
	// Portal is for iSCSI hosts.
	Portal string `toml:"portal"`
	// PeerPortal is for the other nodes' iSCSI sessions; the same as Portal if empty.
	PeerPortal string `toml:"peer_portal"`
	// NFS is for clients of shares: NFS by TCP, and MOUNT by both TCP and UDP. 2049 is usual. None if empty.
	NFS string `toml:"nfs"`
	// Portmap tells clients that port, by TCP and UDP. They look for it at 111. None if empty.
	Portmap string `toml:"portmap"`
}

// Peers returns the portal for the other nodes' sessions.
func (a Address) Peers() string {
	if a.PeerPortal == "" {
		return a.Portal
	}
	return a.PeerPortal
}

// Virtual is the address that follows the leader, the same on every node. There is none if Portal is empty.
type Virtual struct {
	// Portal is host:port.
	Portal string `toml:"portal"`
	// Prefix is the length of the network's prefix in bits, 1 to 32.
	Prefix int `toml:"prefix"`
	// Interface gets the address while this node leads. Empty: the address is local already (loopback) and the leader
	// alone listens on it.
	Interface string `toml:"interface"`
	// Lifetime is how long the address stays on the interface of a node that hangs. 2 s to 60 s, whole seconds.
	Lifetime time.Duration `toml:"lifetime"`
}

// Reloadable is what a running node takes over from a changed file (SIGHUP).
type Reloadable struct {
	Log      Log      `toml:"log"`
	Timeouts Timeouts `toml:"timeouts"`
	Volumes  Volumes  `toml:"volumes"`
	Scrub    Scrub    `toml:"scrub"`
	Resync   Resync   `toml:"resync"`
}

// Resync says how much copies in the background, of resyncs and scrubs, may be felt. The leader's file counts.
type Resync struct {
	// GuestP99 is the 99th percentile of the time of hosts' I/O, of all volumes, above which copies become slower. 1 ms to 10 s.
	GuestP99 time.Duration `toml:"guest_p99"`
	// Floor is how many MiB are copied in a second however slow the hosts' I/O is, 1 to 10000.
	Floor int64 `toml:"floor"`
}

// Volumes is about what an admin may do with volumes. The leader's file counts: they should be the same on every node.
type Volumes struct {
	// TrashKeep is how long a deleted volume can be restored. Time passes for it while a node leads. Whole seconds; 0 (not at
	// all), or 1 s to 8760 h.
	TrashKeep time.Duration `toml:"trash_keep"`
	// OverSubscription is how many times its size a pool may promise to volumes, each with its whole size, those in the trash too. 0 (no
	// limit), or 0.1 to 1000.
	OverSubscription float64 `toml:"over_subscription"`
}

// Scrub says when the bytes of volumes are proved, and how fast.
type Scrub struct {
	// Interval is how long after its last scrub a volume is scrubbed again: 0 (never by itself), 1 h to 8760 h.
	Interval time.Duration `toml:"interval"`
	// Rate is how many MiB of a volume are looked at in a second, 1 to 10000.
	Rate int64 `toml:"rate"`
}

// Log says what is logged, to standard error.
type Log struct {
	Level  slog.Level `toml:"level"`  // debug, info, warn or error
	Format string     `toml:"format"` // text or json
}

// Timeouts are the tunables of ARCHITECTURE.md, "Timeouts".
type Timeouts struct {
	// Hold is how long I/O waits while a failover or a shrink is under way; past it hosts get BUSY. 10 s to 10 min.
	Hold time.Duration `toml:"hold_timeout"`
	// SlowWrite is the mean time of a write from which on a replica leaves whose mean is also eight times that of every
	// other. 10 ms to 10 s.
	SlowWrite time.Duration `toml:"slow_write"`

	// ReplaceAfter is how long a replica is out of reach before it is made anew on another node that has room for it. 0 (never),
	// or 1 s to 720 h.
	ReplaceAfter time.Duration `toml:"replace_after"`

	Hosts   HostTimeouts    `toml:"hosts"`
	Peers   PeerTimeouts    `toml:"peers"`
	Cluster ClusterTimeouts `toml:"cluster"`
}

// HostTimeouts are those of the iSCSI target towards hosts.
type HostTimeouts struct {
	Login        time.Duration `toml:"login_timeout"`    // how long a login may take; 1 s to 60 s
	Logout       time.Duration `toml:"logout_timeout"`   // how long an initiator asked to log out may take; 0 to 60 s
	NoopInterval time.Duration `toml:"noop_interval"`    // a host that sent nothing for so long is probed; 0 (never), 1 s to 60 s
	NoopTimeout  time.Duration `toml:"noop_timeout"`     // and is gone when the probe is unanswered for so long; 1 s to 60 s
	Recovery     time.Duration `toml:"recovery_timeout"` // how long a host with commands under way may be silent; 1 s to 120 s
}

// PeerTimeouts are those of the mirrors' sessions to other nodes.
type PeerTimeouts struct {
	Login        time.Duration `toml:"login_timeout"`    // connection, login and fence; 100 ms to 60 s
	Logout       time.Duration `toml:"logout_timeout"`   // 100 ms to 60 s
	NoopInterval time.Duration `toml:"noop_interval"`    // an idle path is probed every interval; 100 ms to 60 s
	NoopTimeout  time.Duration `toml:"noop_timeout"`     // and is dead when a probe is unanswered for so long; 100 ms to 60 s
	Recovery     time.Duration `toml:"recovery_timeout"` // how long an active path may exchange nothing; 500 ms to 120 s
}

// ClusterTimeouts are Raft's and gossip's. They must be the same on every node, and need a restart.
type ClusterTimeouts struct {
	Heartbeat time.Duration `toml:"heartbeat_timeout"` // silence after which a follower doubts the leader; 100 ms to 10 s
	Election  time.Duration `toml:"election_timeout"`  // how long a candidate waits for votes; heartbeat_timeout to 10 s
	Lease     time.Duration `toml:"lease_timeout"`     // a leader without a quorum for so long steps down; 50 ms to heartbeat_timeout
}

// Default returns what holds where the file says nothing.
func Default() Config {
	return Config{
		State: "/var/lib/pmsapp",
		Pools: []string{},

		ReadCache: 10,
		Address: Address{
			Cluster: "0.0.0.0:7460",
			API:     "0.0.0.0:7443",
			Portal:  "0.0.0.0:3260",
		},
		Virtual: Virtual{Prefix: 24, Lifetime: 5 * time.Second},
		Reloadable: Reloadable{
			Log:     Log{Level: slog.LevelInfo, Format: "text"},
			Volumes: Volumes{TrashKeep: 24 * time.Hour, OverSubscription: 2},
			Scrub:   Scrub{Interval: 7 * 24 * time.Hour, Rate: 64},
			Resync:  Resync{GuestP99: 30 * time.Millisecond, Floor: 8},
			Timeouts: Timeouts{
				Hold: 30 * time.Second, SlowWrite: 100 * time.Millisecond, ReplaceAfter: 10 * time.Minute,
				Hosts: HostTimeouts{Login: 5 * time.Second, Logout: 15 * time.Second, NoopInterval: 15 * time.Second,
					NoopTimeout: 10 * time.Second, Recovery: 10 * time.Second},
				Peers: PeerTimeouts{Login: 2 * time.Second, Logout: 5 * time.Second, NoopInterval: time.Second,
					NoopTimeout: 2 * time.Second, Recovery: 3 * time.Second},
				Cluster: ClusterTimeouts{Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond,
					Lease: 300 * time.Millisecond},
			},
		},
	}
}

package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Validate returns nil, or an ErrInvalid that names the key and says what it may be.
func (c *Config) Validate() error {
	if err := CheckName(c.Name); err != nil {
		return bad("name", "%v", err)
	}
	if c.State == "" {
		return bad("state", "a directory is needed for the catalog and the keys")
	}
	if !filepath.IsAbs(c.State) { // init in a shell and serve by systemd would mean two directories
		return bad("state", "%q is not an absolute path, as in /var/lib/pmsapp", c.State)
	}
	for i, p := range c.Pools {
		if p == "" {
			return bad("pools", "an empty path")
		}
		if !filepath.IsAbs(p) {
			return bad("pools", "%q is not an absolute path, as in /srv/pool1", p)
		}
		for _, q := range c.Pools[:i] {
			if filepath.Clean(p) == filepath.Clean(q) {
				return bad("pools", "%s is named twice", p)
			}
		}
		if rel, err := filepath.Rel(c.State, p); err == nil && rel == "." {
			return bad("pools", "%s is the state directory; a pool needs a directory of its own", p)
		}
	}
	if c.ReadCache < 0 || c.ReadCache > 80 {
		return bad("read_cache", "%d is not a percentage from 0 to 80", c.ReadCache)
	}
	if err := c.Address.validate(); err != nil {
		return err
	}
	if err := c.Virtual.validate(); err != nil {
		return err
	}
	return c.Reloadable.Validate()
}

// CheckName tells whether s can name a node or a volume: 1 to 63 letters, digits, hyphens, not at either end a hyphen.
func CheckName(s string) error {
	ok := len(s) >= 1 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
	for _, r := range s {
		ok = ok && (r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	if !ok {
		return fmt.Errorf("%q is not 1 to 63 letters, digits and hyphens that neither begin nor end with a hyphen", s)
	}
	return nil
}

func (a Address) validate() error {
	seen := map[string]string{}
	for _, f := range []struct {
		key, value string
		optional   bool
	}{{"address.cluster", a.Cluster, false}, {"address.api", a.API, false}, {"address.portal", a.Portal, false},
		{"address.peer_portal", a.PeerPortal, true}, {"address.nfs", a.NFS, true}, {"address.portmap", a.Portmap, true}} {
		if f.optional && f.value == "" {
			continue
		}
		ap, err := netip.ParseAddrPort(f.value)
		if err != nil {
			return bad(f.key, "%q is not an address and a port, as in \"192.168.1.11:3260\"", f.value)
		}
		if ap.Port() == 0 {
			continue // chosen by the system: in tests
		}
		if other, twice := seen[f.value]; twice && !(f.key == "address.peer_portal" && other == "address.portal") {
			return bad(f.key, "%s is %s already", f.value, other)
		}
		seen[f.value] = f.key
	}
	return nil
}

func (v Virtual) validate() error {
	if v.Portal == "" {
		return nil
	}
	ap, err := netip.ParseAddrPort(v.Portal)
	switch {
	case err != nil || ap.Addr().IsUnspecified():
		return bad("virtual.portal", "%q is not an address and a port, as in \"192.168.1.10:3260\"", v.Portal)
	case v.Interface != "" && !ap.Addr().Is4():
		return bad("virtual.portal", "%s: on an interface the virtual address must be IPv4", v.Portal)
	case v.Prefix < 1 || v.Prefix > 32:
		return bad("virtual.prefix", "%d is not 1 to 32", v.Prefix)
	case len(v.Interface) > 15 || strings.ContainsAny(v.Interface, "/ \t\n"):
		return bad("virtual.interface", "%q cannot be the name of an interface", v.Interface)
	case v.Lifetime%time.Second != 0:
		return bad("virtual.lifetime", "%v is not whole seconds", v.Lifetime)
	}
	return within("virtual.lifetime", v.Lifetime, 2*time.Second, time.Minute)
}

// Validate is Config.Validate for what can be reloaded.
func (r Reloadable) Validate() error {
	if !slices.Contains([]string{"text", "json"}, r.Log.Format) {
		return bad("log.format", "%q is neither text nor json", r.Log.Format)
	}
	if keep := r.Volumes.TrashKeep; keep != 0 {
		if err := within("volumes.trash_keep", keep, time.Second, 8760*time.Hour); err != nil {
			return err
		}
		if keep%time.Second != 0 {
			return bad("volumes.trash_keep", "%v is not whole seconds", keep)
		}
	}
	if o := r.Volumes.OverSubscription; o != 0 && !(o >= 0.1 && o <= 1000) {
		return bad("volumes.over_subscription", "%g is neither 0 nor 0.1 to 1000", o)
	}
	if r.Scrub.Rate < 1 || r.Scrub.Rate > 10000 {
		return bad("scrub.rate", "%d is not 1 to 10000", r.Scrub.Rate)
	}
	if r.Scrub.Interval != 0 {
		if err := within("scrub.interval", r.Scrub.Interval, time.Hour, 8760*time.Hour); err != nil {
			return err
		}
	}
	if r.Resync.Floor < 1 || r.Resync.Floor > 10000 {
		return bad("resync.floor", "%d is not 1 to 10000", r.Resync.Floor)
	}
	if err := within("resync.guest_p99", r.Resync.GuestP99, time.Millisecond, 10*time.Second); err != nil {
		return err
	}
	t := r.Timeouts
	const s, ms = time.Second, time.Millisecond
	for _, d := range []struct {
		key       string
		v, lo, hi time.Duration
		orZero    bool
	}{
		{"hold_timeout", t.Hold, 10 * s, 600 * s, false},
		{"slow_write", t.SlowWrite, 10 * ms, 10 * s, false},
		{"replace_after", t.ReplaceAfter, s, 720 * time.Hour, true},
		{"hosts.login_timeout", t.Hosts.Login, s, 60 * s, false},
		{"hosts.logout_timeout", t.Hosts.Logout, 0, 60 * s, false},
		{"hosts.noop_interval", t.Hosts.NoopInterval, s, 60 * s, true},
		{"hosts.noop_timeout", t.Hosts.NoopTimeout, s, 60 * s, false},
		{"hosts.recovery_timeout", t.Hosts.Recovery, s, 120 * s, false},
		{"peers.login_timeout", t.Peers.Login, 100 * ms, 60 * s, false},
		{"peers.logout_timeout", t.Peers.Logout, 100 * ms, 60 * s, false},
		{"peers.noop_interval", t.Peers.NoopInterval, 100 * ms, 60 * s, false},
		{"peers.noop_timeout", t.Peers.NoopTimeout, 100 * ms, 60 * s, false},
		{"peers.recovery_timeout", t.Peers.Recovery, 500 * ms, 120 * s, false},
		{"cluster.heartbeat_timeout", t.Cluster.Heartbeat, 100 * ms, 10 * s, false},
		{"cluster.election_timeout", t.Cluster.Election, t.Cluster.Heartbeat, 10 * s, false},
		{"cluster.lease_timeout", t.Cluster.Lease, 50 * ms, t.Cluster.Heartbeat, false},
	} {
		if d.orZero && d.v == 0 {
			continue
		}
		if err := within("timeouts."+d.key, d.v, d.lo, d.hi); err != nil {
			return err
		}
	}
	return nil
}

func within(key string, v, lo, hi time.Duration) error {
	if v < lo || v > hi {
		return bad(key, "%v is not %v to %v", v, lo, hi)
	}
	return nil
}

func bad(key, format string, a ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalid, key, fmt.Sprintf(format, a...))
}

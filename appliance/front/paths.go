package front

import (
	"net/netip"

	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

// Paths says by which portals a host comes to its LUNs; docs/adr/login-redirection.md says which suits whom.
type Paths string

const (
	// PathsVirtual: by the virtual address alone, which follows the leader; by PathsNodes where there is none. The default.
	PathsVirtual Paths = "virtual"
	// PathsNodes: by each node's own portal. The host has multipath and goes by ALUA.
	PathsNodes Paths = "nodes"
	// PathsRedirect: by any node's own portal, and a login at one that does not serve is sent to the one that does. For hosts
	// without multipath where no virtual address can be had.
	PathsRedirect Paths = "redirect"
)

// portals are those of all that a host is told of by discovery. A portal on every address is the one that it has found.
func (p Paths) portals(all []target.Portal, found netip.Addr) (out []target.Portal) {
	virtual := false
	for _, o := range all {
		virtual = virtual || o.Group == VirtualGroup
	}
	virtual = virtual && (p == "" || p == PathsVirtual)
	for _, o := range all {
		if (o.Group == VirtualGroup) != virtual {
			continue
		}
		if o.Addr.Addr().IsUnspecified() {
			o.Addr = netip.AddrPortFrom(found, o.Addr.Port())
		}
		out = append(out, o)
	}
	return out
}

// redirects tells where a login is to go instead: to the portal of the group that serves. It is not where the virtual address was
// asked, where nobody is known to serve, or where this node does; nor where the other's address is not known.
func (p Paths) redirects(all []target.Portal, l target.Login, own, access uint16) (to netip.AddrPort, ok bool) {
	if p != PathsRedirect || l.Group == VirtualGroup || access == 0 || access == own {
		return to, false
	}
	for _, o := range all {
		if o.Group == access && o.Addr.IsValid() && !o.Addr.Addr().IsUnspecified() && o.Addr != l.Portal {
			return o.Addr, true
		}
	}
	return to, false
}

// movedTo is the refusal that sends an initiator elsewhere for now (RFC 7143 11.13.5, 13.8).
func movedTo(a netip.AddrPort) *target.Refusal {
	return &target.Refusal{Status: iscsi.LoginMovedTemporarily, Why: "another node serves it: " + a.String(),
		Keys: []iscsi.Pair{{Key: iscsi.KeyTargetAddress, Value: a.String()}}}
}

// misses tells whether a session that came by l should be at another node. Called with mu.
func (h *Hosts) misses(p Paths, access uint16, volumes ...ids.Volume) func(l target.Login) bool {
	if p != PathsRedirect {
		return func(target.Login) bool { return false }
	}
	for _, v := range volumes {
		if h.devices[v].Device != nil || h.waits[v] != nil {
			return func(target.Login) bool { return false }
		}
	}
	all := h.cfg.Portals()
	return func(l target.Login) bool {
		_, ok := p.redirects(all, l, h.cfg.Group, access)
		return ok
	}
}

// access is the group of the node that serves what a host is mapped; 0 while that is not one. Called with mu.
func (h *Hosts) access(m *mapped) (group uint16) {
	for i, l := range m.LUNs {
		u := h.units[l.Volume]
		if u == nil || u.Access == 0 || i > 0 && u.Access != group {
			return 0
		}
		group = u.Access
	}
	return group
}

func (m *mapped) volumes() (all []ids.Volume) {
	for _, l := range m.LUNs {
		all = append(all, l.Volume)
	}
	return all
}

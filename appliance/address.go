package appliance

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"pmsapp/appliance/adapt"
	"pmsapp/appliance/config"
	"pmsapp/appliance/front"
	"pmsapp/appliance/vip"
	"pmsapp/internal/ids"
	"pmsapp/target"
)

// addresses are this node's as others reach it.
type addresses struct{ cluster, api, portal, peers, nfs, portmap string }

// advertise turns the addresses to listen on into such that others can use: 0.0.0.0 becomes an address of this host.
func advertise(c config.Config) (a addresses, err error) {
	for _, f := range []struct {
		key, listen string
		out         *string
	}{{"address.cluster", c.Address.Cluster, &a.cluster}, {"address.api", c.Address.API, &a.api},
		{"address.portal", c.Address.Portal, &a.portal}, {"address.peer_portal", c.Address.Peers(), &a.peers},
		{"address.nfs", c.Address.NFS, &a.nfs}, {"address.portmap", c.Address.Portmap, &a.portmap}} {
		if f.listen == "" {
			continue // the last two: there is none
		}
		ap, err := netip.ParseAddrPort(f.listen)
		if err != nil {
			return a, fmt.Errorf("%s: %w", f.key, err)
		}
		if ap.Addr().IsUnspecified() {
			own, err := ownAddress(ap.Addr().Is4())
			if err != nil {
				return a, fmt.Errorf("%s: %w: name the address that the other nodes reach", f.key, err)
			}
			ap = netip.AddrPortFrom(own, ap.Port())
		}
		*f.out = ap.String()
	}
	return a, nil
}

var errNoAddress = errors.New("this host has no address besides its loopback")

// ownAddress is the first address of this host that is not its loopback or a link's.
func ownAddress(four bool) (netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("this host's addresses: %w", err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() == four && p.Addr().IsGlobalUnicast() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, errNoAddress
}

// covers tells whether listening on an address includes another.
func covers(listen, addr string) bool {
	l, err1 := netip.ParseAddrPort(listen)
	a, err2 := netip.ParseAddrPort(addr)
	return err1 == nil && err2 == nil && l.Port() == a.Port() && (l.Addr().IsUnspecified() || l == a)
}

// listen opens a listener, or says what the user can do.
func listen(key, addr string) (net.Listener, error) {
	l, err := vip.Listen(addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use: stop the program that has it (ss -ltnp shows it), or choose another port", key, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: %s is not an address of this host (ip address shows them)", key, addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: this user may not use %s: run as root, or choose a port above 1023", key, addr)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return l, nil
}

// listenPortals opens the iSCSI portals.
func (n *node) listenPortals() ([]net.Listener, error) {
	l, err := listen("address.portal", n.cfg.Address.Portal)
	if err != nil {
		return nil, err
	}
	if n.cfg.Address.Peers() == n.cfg.Address.Portal {
		return []net.Listener{l}, nil
	}
	p, err := listen("address.peer_portal", n.cfg.Address.PeerPortal)
	if err != nil {
		l.Close()
		return nil, err
	}
	return []net.Listener{l, p}, nil
}

// virtualServices are those of the virtual address for which it needs sockets of its own: iSCSI, and the front door for shares at
// the same ports as everywhere, which is what its portmap tells.
func (n *node) virtualServices() (all []vip.Service) {
	virtual := netip.MustParseAddrPort(n.cfg.Virtual.Portal)
	if !covers(n.cfg.Address.Portal, n.cfg.Virtual.Portal) {
		all = append(all, vip.Service{Port: virtual.Port(), Stream: n.target.Serve})
	}
	for _, l := range n.door.streams {
		own, err := netip.ParseAddrPort(l.Addr().String())
		if err != nil || own.Addr().IsUnspecified() || own.Addr() == virtual.Addr() {
			continue
		}
		all = append(all, vip.Service{Port: own.Port(), Stream: n.door.server.Serve, Packet: n.door.server.ServePacket})
	}
	return all
}

func closeAll(all []net.Listener) {
	for _, l := range all {
		l.Close()
	}
}

// discoverable are the portals that hosts are told: the virtual one, or, without one, this node's own.
func (n *node) discoverable() (all []target.Portal) {
	if v, err := netip.ParseAddrPort(n.cfg.Virtual.Portal); err == nil {
		all = append(all, target.Portal{Addr: v, Group: front.VirtualGroup})
	}
	for _, c := range adapt.Nodes(n.cluster.State()) {
		if p, err := netip.ParseAddrPort(c.Portal); err == nil && !c.Witness {
			all = append(all, target.Portal{Addr: p, Group: c.Group})
		}
	}
	return all
}

// peerPortal is where a node's replicas are.
func (n *node) peerPortal(id ids.Node) (string, error) {
	p, ok := n.cluster.State().Nodes[id]
	if !ok || p.PeerPortal == "" {
		return "", fmt.Errorf("node %s is not in the catalog", id)
	}
	return p.PeerPortal, nil
}

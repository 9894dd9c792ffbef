package appliance

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
)

// shareServers are where clients find shares: at the virtual address, or, without one, at each node. The virtual address carries
// the front door at the ports that the nodes have, so these are to be the same on all.
func shareServers(nodes []catalog.Node, virtual string) []api.ShareServer {
	all := []api.ShareServer{}
	for _, m := range nodes {
		a, err := netip.ParseAddrPort(m.NFS)
		if err != nil {
			continue
		}
		p, err := netip.ParseAddrPort(m.Portmap)
		s := api.ShareServer{Host: a.Addr().String(), Port: a.Port(), Portmap: err == nil && p.Port() == 111}
		if v, err := netip.ParseAddrPort(virtual); err == nil {
			s.Host = v.Addr().String()
		}
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// shareWarnings tell why clients of an exported share may not find it.
func shareWarnings(nodes []catalog.Node, virtual bool) []string {
	var with, without []string
	ports := map[uint16]bool{}
	for _, m := range nodes {
		a, err := netip.ParseAddrPort(m.NFS)
		switch {
		case m.Witness:
		case err != nil:
			without = append(without, m.Name)
		default:
			with = append(with, m.Name)
			ports[a.Port()] = true
		}
	}
	const how = `set address.nfs = "0.0.0.0:2049" and address.portmap = "0.0.0.0:111" in pmsapp.toml there, and restart the node`
	switch {
	case len(with) == 0:
		return []string{"no node listens for NFS, so no client finds a share: on every storage node, " + how}
	case len(without) > 0:
		return []string{fmt.Sprintf("shares are out of reach while %s leads, which does not listen for NFS: %s", strings.Join(without, " or "), how)}
	case virtual && len(ports) > 1:
		return []string{"address.nfs has different ports on the nodes: clients of shares at the virtual address lose it with the leader"}
	}
	return nil
}

// lonelyMounts tells that what is mounted from a node's own address is out of reach while another leads.
func lonelyMounts(servers []api.ShareServer, virtual bool) []string {
	if virtual || len(servers) < 2 {
		return nil
	}
	return []string{"the cluster has no virtual address (virtual.portal): what is mounted from a node is out of reach while another node leads"}
}

package appliance

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	stdmaps "maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"pmsapp/appliance/adapt"
	"pmsapp/appliance/api"
	"pmsapp/appliance/front"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/replication/initiator"
	"pmsapp/replication/remote"
	"pmsapp/target/scsi"
)

// verifierAuth is what a node that looks at the portals proves, and what is proved to it.
func (n *node) verifierAuth() iscsi.Auth {
	looks, shows := remote.Secrets(n.cluster.Secret("verification of portals"))
	return iscsi.Auth{Initiator: looks, Own: shows}
}

// seen is a unit as a portal shows it to hosts.
type seen struct {
	scsi.Identity
	port   uint16            // that the answer came by, as the unit says
	groups map[uint16]uint16 // target port groups, by relative port
}

// verifyPortals logs in to every portal of the cluster as a host does, and compares what is seen there with what this node says.
func (n *node) verifyPortals(ctx context.Context, st *catalog.State, out *api.Verified) {
	want := map[ids.Volume]scsi.Identity{}
	for _, i := range n.hosts.Identities() {
		want[i.Volume] = i
	}
	targets := []string{}
	for id := range st.Exports {
		targets = append(targets, front.TargetName(st.Volumes[id].Name))
	}
	if len(st.Maps) > 0 {
		targets = append(targets, front.CommonName(n.cluster.ID()))
	}
	slices.Sort(targets)
	var (
		mu     sync.Mutex
		work   sync.WaitGroup
		groups = map[string]map[uint16]uint16{}
	)
	for _, portal := range verifiable(n.cfg.Virtual.Portal, st) {
		work.Go(func() {
			all, err := n.lookAt(ctx, portal, targets)
			mu.Lock()
			defer mu.Unlock()
			out.Portals = append(out.Portals, portal)
			if err != nil {
				out.Faults = append(out.Faults, fmt.Sprintf("portal %s: %v", portal, err))
				return
			}
			faults, g := compareSeen(st, want, all)
			for _, f := range faults {
				out.Faults = append(out.Faults, fmt.Sprintf("portal %s: %s", portal, f))
			}
			groups[portal] = g
		})
	}
	work.Wait()
	slices.Sort(out.Portals)
	first := ""
	for _, portal := range out.Portals {
		switch g, ok := groups[portal]; {
		case !ok || g == nil:
		case first == "":
			first = portal
		case !stdmaps.Equal(g, groups[first]):
			out.Faults = append(out.Faults, fmt.Sprintf("portal %s: it tells of other target port groups than %s", portal, first))
		}
	}
}

// verifiable are the portals that hosts come to, as this node can reach them.
func verifiable(virtual string, st *catalog.State) (all []string) {
	if virtual != "" {
		all = append(all, virtual)
	}
	for _, c := range adapt.Nodes(st) {
		p, err := netip.ParseAddrPort(c.Portal)
		if err != nil || c.Witness {
			continue
		}
		if inner, err := netip.ParseAddrPort(c.PeerPortal); err == nil && p.Addr().IsUnspecified() {
			p = netip.AddrPortFrom(inner.Addr(), p.Port())
		}
		all = append(all, p.String())
	}
	return all
}

// compareSeen compares what a portal shows with what there is; it also returns the target port groups that it tells of.
func compareSeen(st *catalog.State, want map[ids.Volume]scsi.Identity, all []seen) (faults []string, groups map[uint16]uint16) {
	fault := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	missing := stdmaps.Clone(want)
	for _, s := range all {
		i, known := want[s.Volume]
		name := st.Volumes[s.Volume].Name
		switch {
		case !known:
			fault("a LUN with serial %q that is no volume's", s.Serial)
			continue
		case i.Vendor != s.Vendor || i.Product != s.Product || i.Serial != s.Serial || !bytes.Equal(i.NAA, s.NAA) || i.T10 != s.T10:
			fault("volume %s: another LU: %s %s, serial %q, naa.%x, %q", name, s.Vendor, s.Product, s.Serial, s.NAA, s.T10)
		}
		delete(missing, s.Volume)
		if _, own := s.groups[s.port]; !own {
			fault("volume %s: its port %d is in no target port group", name, s.port)
		}
		if groups == nil {
			groups = s.groups
		} else if !stdmaps.Equal(groups, s.groups) {
			fault("volume %s: other target port groups than the other LUNs have", name)
		}
	}
	for id := range missing {
		fault("volume %s: no LUN", st.Volumes[id].Name)
	}
	slices.Sort(faults)
	return faults, groups
}

// lookAt logs in to all targets at a portal and asks every unit who it is.
func (n *node) lookAt(ctx context.Context, portal string, targets []string) (all []seen, err error) {
	auth := n.verifierAuth()
	for _, name := range targets {
		s, err := initiator.Dial(ctx, initiator.Config{Portal: portal, Target: name, Initiator: front.VerifierName(n.cluster.Self()),
			Own: auth.Initiator, Peer: auth.Own, Log: n.log})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		units, err := look(ctx, s)
		s.Logout(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, units...)
	}
	return all, nil
}

// look asks all units of a session who they are.
func look(ctx context.Context, s *initiator.Session) (all []seen, err error) {
	const most = 1 << 18 // 16383 LUNs
	b, err := ask(ctx, s, 0, most, 0xa0, 0, 0, 0, 0, 0, most>>24, most>>16&0xff, most>>8&0xff, most&0xff, 0, 0)
	if err != nil || len(b) < 8 {
		return nil, fmt.Errorf("REPORT LUNS of %d bytes: %w", len(b), orShort(err))
	}
	if n := int(binary.BigEndian.Uint32(b)); n != len(b)-8 {
		return nil, fmt.Errorf("REPORT LUNS tells of %d bytes in %d: %w", n, len(b)-8, initiator.ErrProtocol)
	}
	for b = b[8:]; len(b) >= 8; b = b[8:] {
		u, there, err := lookUnit(ctx, s, binary.BigEndian.Uint64(b))
		if err != nil {
			return nil, err
		}
		if there {
			all = append(all, u)
		}
	}
	return all, nil
}

// lookUnit asks a unit; there is false for LUN 0 where it is only there to be asked (peripheral qualifier 3).
func lookUnit(ctx context.Context, s *initiator.Session, lun uint64) (u seen, there bool, err error) {
	std, err := ask(ctx, s, lun, 96, 0x12, 0, 0, 0, 96, 0)
	if err == nil && len(std) > 0 && std[0]>>5 == 3 {
		return u, false, nil
	}
	if err != nil || len(std) < 36 || std[5]&0x30 == 0 {
		return u, false, fmt.Errorf("INQUIRY, %x: %w", std, orShort(err))
	}
	u.Vendor, u.Product = strings.TrimSpace(string(std[8:16])), strings.TrimSpace(string(std[16:32]))
	serial, err := ask(ctx, s, lun, 255, 0x12, 1, 0x80, 0, 255, 0)
	if err != nil || len(serial) < 4 {
		return u, false, fmt.Errorf("VPD page 80h, %x: %w", serial, orShort(err))
	}
	u.Serial = string(serial[4:])
	if id, err := ids.Parse(u.Serial); err == nil {
		u.Volume = ids.Volume(id)
	}
	names, err := ask(ctx, s, lun, 1024, 0x12, 1, 0x83, 4, 0, 0)
	if err != nil || len(names) < 4 {
		return u, false, fmt.Errorf("VPD page 83h, %x: %w", names, orShort(err))
	}
	for d := names[4:]; len(d) >= 4 && len(d) >= 4+int(d[3]); d = d[4+int(d[3]):] {
		switch value := d[4 : 4+int(d[3])]; {
		case d[1] == 0x03:
			u.NAA = value
		case d[1] == 0x01:
			u.T10 = string(value)
		case d[1]&0x3f == 0x14 && len(value) == 4:
			u.port = binary.BigEndian.Uint16(value[2:])
		}
	}
	ports, err := ask(ctx, s, lun, 4096, 0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0)
	if err != nil || len(ports) < 4 {
		return u, false, fmt.Errorf("REPORT TARGET PORT GROUPS, %x: %w", ports, orShort(err))
	}
	u.groups = portGroups(ports[4:])
	return u, true, nil
}

// portGroups reads target port group descriptors (SPC-4 6.37): the group of each relative port.
func portGroups(b []byte) map[uint16]uint16 {
	all := map[uint16]uint16{}
	for len(b) >= 8 {
		group, n := binary.BigEndian.Uint16(b[2:]), int(b[7])
		for b = b[8:]; n > 0 && len(b) >= 4; n, b = n-1, b[4:] {
			all[binary.BigEndian.Uint16(b[2:])] = group
		}
	}
	return all
}

func orShort(err error) error {
	if err == nil {
		return initiator.ErrProtocol
	}
	return err
}

// ask runs a command with an answer of at most n bytes; unit attentions are taken.
func ask(ctx context.Context, s *initiator.Session, lun uint64, n int, cdb ...byte) ([]byte, error) {
	var sense initiator.Sense
	for range 16 {
		ended := make(chan struct{})
		cmd := &initiator.Command{LUN: lun, CDB: cdb, DataIn: make([]byte, n), Done: func(*initiator.Command) { close(ended) }}
		s.Submit(cmd)
		select {
		case <-ended:
		case <-ctx.Done():
			s.Close()
			<-ended
			return nil, ctx.Err()
		}
		if cmd.Err != nil || cmd.Status == initiator.StatusGood {
			return cmd.DataIn[:cmd.Received], cmd.Err
		}
		if sense = initiator.ParseSense(cmd.Sense); sense.Key != initiator.KeyUnitAttention {
			return nil, &initiator.StatusError{Op: cdb[0], Status: cmd.Status, Sense: sense}
		}
	}
	return nil, &initiator.StatusError{Op: cdb[0], Sense: sense}
}

package appliance

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/target/scsi"
)

// handleIdentity tells another node how this one's portal identifies its LUs.
func (n *node) handleIdentity(ctx context.Context, _ ids.Node, _ struct{}) ([]scsi.Identity, error) {
	if err := n.up(ctx); err != nil {
		return nil, err
	}
	if err := n.service.applyExports(); err != nil {
		return nil, err
	}
	return n.hosts.Identities(), nil
}

// VerifyLUNs implements api.Backend: whether every LU is the same to a host at all portals, and no two are alike.
func (n *node) VerifyLUNs(ctx context.Context) (api.Verified, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	st := n.cluster.State()
	said := map[string][]scsi.Identity{n.cfg.Name: n.hosts.Identities()}
	var mu sync.Mutex
	failed := n.each(ctx, func(ctx context.Context, id ids.Node) error {
		var all []scsi.Identity
		err := n.cluster.Call(ctx, id, "identity", struct{}{}, &all)
		if err == nil {
			mu.Lock()
			said[st.Nodes[id].Name] = all
			mu.Unlock()
		}
		return err
	})
	out := verify(st, said)
	for id, err := range failed {
		out.Faults = append(out.Faults, fmt.Sprintf("node %s: %s", st.Nodes[id].Name, plainly(err)))
	}
	n.verifyPortals(ctx, st, &out)
	slices.Sort(out.Faults)
	return out, nil
}

// verify compares what the nodes say of the LUs that the catalog has.
func verify(st *catalog.State, said map[string][]scsi.Identity) api.Verified {
	out := api.Verified{LUNs: []api.Identity{}, Faults: []string{}}
	fault := func(format string, a ...any) { out.Faults = append(out.Faults, fmt.Sprintf(format, a...)) }
	first := map[ids.Volume]scsi.Identity{}
	for node, all := range said {
		out.Nodes = append(out.Nodes, node)
		has := map[ids.Volume]bool{}
		for _, i := range all {
			has[i.Volume] = true
			o, known := first[i.Volume]
			if !known {
				first[i.Volume] = i
			} else if o.Vendor != i.Vendor || o.Product != i.Product || o.Serial != i.Serial || !bytes.Equal(o.NAA, i.NAA) || o.T10 != i.T10 {
				fault("volume %s: it is another LU on %s", st.Volumes[i.Volume].Name, node)
			}
			if i.Vendor != "PMSAPP" || i.Product != "VDISK" || i.Serial != i.Volume.String() || !strings.Contains(i.T10, i.Serial) {
				fault("volume %s on %s: vendor %q, product %q, serial %q, T10 %q", st.Volumes[i.Volume].Name, node, i.Vendor, i.Product, i.Serial, i.T10)
			}
		}
		for id := range st.Volumes {
			_, exported := st.Exports[id]
			if (exported || len(st.Maps[id]) > 0) != has[id] {
				fault("volume %s: whether it is a LUN is not the same on %s", st.Volumes[id].Name, node)
			}
		}
	}
	naa := map[string]string{}
	for id, i := range first {
		name := st.Volumes[id].Name
		if other, twice := naa[string(i.NAA)]; twice {
			fault("volumes %s and %s have one NAA identifier", name, other)
		}
		naa[string(i.NAA)] = name
		out.LUNs = append(out.LUNs, api.Identity{Volume: name, Serial: i.Serial, NAA: fmt.Sprintf("naa.%x", i.NAA), T10: i.T10})
	}
	slices.Sort(out.Nodes)
	slices.Sort(out.Faults)
	slices.SortFunc(out.LUNs, func(a, b api.Identity) int { return strings.Compare(a.Volume, b.Volume) })
	return out
}

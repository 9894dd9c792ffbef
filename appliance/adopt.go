package appliance

import (
	"context"
	"fmt"
	"slices"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/reign"
)

// AdoptVolume implements api.Backend: a volume that was created after the backup of the catalog comes back into it, with what its replicas say of it.
func (n *node) AdoptVolume(ctx context.Context, request, id string, w api.Adopt) (api.Volume, error) {
	if err := config.CheckName(w.Name); err != nil {
		return api.Volume{}, api.Errorf(api.ErrInvalid, "", "name: %v", err)
	}
	if w.Logical == 0 {
		w.Logical = 512
	}
	if w.Logical != 512 && w.Logical != 4096 {
		return api.Volume{}, api.Errorf(api.ErrInvalid, "", "logical_block: %d is neither 512 nor 4096", w.Logical)
	}
	memory, err := inMemory(w.Durability)
	if err != nil {
		return api.Volume{}, err
	}
	parsed, err := ids.Parse(id)
	if err != nil {
		return api.Volume{}, api.Errorf(api.ErrInvalid, "pmsapp status tells the ids of volumes that the catalog does not know", "%q is no id of a volume", id)
	}
	st := n.cluster.State()
	if st.Base == 0 {
		return api.Volume{}, api.Errorf(api.ErrConflict, "", "the catalog was never restored from a backup: it knows all volumes")
	}
	v := catalog.Volume{ID: ids.Volume(parsed), Name: w.Name, Logical: w.Logical, Memory: memory}
	for _, l := range n.reign.Status().Leftovers {
		if l.Volume != v.ID || !l.Whole || v.Region != 0 && v.Region != l.Spec.Region {
			continue
		}
		if l.Spec.Size > v.Size {
			v.Size, v.Region, v.Lineage = l.Spec.Size, l.Spec.Region, l.Spec.Lineage
		}
		if len(v.Replicas) < catalog.MaxReplicas && !slices.ContainsFunc(v.Replicas, func(p catalog.Place) bool { return p.Node == l.Node }) {
			v.Replicas = append(v.Replicas, catalog.Place{Node: l.Node, Pool: l.Pool})
		}
	}
	if _, known := st.Volumes[v.ID]; !known && len(v.Replicas) == 0 {
		return api.Volume{}, api.Errorf(api.ErrNotFound, "pmsapp status tells where there are such", "no whole replica of a volume %s that the catalog does not know was found", id)
	}
	if err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.AdoptVolume{Epoch: st.Epoch, Volume: v}}); err != nil {
		return api.Volume{}, err
	}
	n.events.add(catalog.Event{Kind: string(reign.VolumeRestored), Volume: v.ID, Text: fmt.Sprintf("volume %s is known again: replicas of it were found that the backup of the catalog did not have", v.Name)})
	return n.show(v.ID)
}

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
	if old, known := st.Volumes[v.ID]; known && (!old.Foreign || old.Name != w.Name) && !n.applied(request) {
		return api.Volume{}, api.Errorf(api.ErrConflict, "pmsapp volume show "+old.Name, "volume %s is known, as %s", id, old.Name)
	}
	if t, trashed := st.Trash[v.ID]; trashed {
		return api.Volume{}, api.Errorf(api.ErrConflict, "pmsapp volume restore "+id, "volume %s is in the trash, as %s", id, t.Volume.Name)
	}
	foundOf(st, &v, n.reign.Status().Leftovers)
	old, known := st.Volumes[v.ID]
	if known { // nothing of it is a leftover any more
		v.Size, v.Region, v.Lineage = old.Size, old.Region, old.Lineage
		all, _ := n.reign.Candidates(v.ID) // whether it may be forced now does not matter
		for _, k := range all {
			if k.Why == "" && !slices.ContainsFunc(v.Replicas, func(p catalog.Place) bool { return p.Node == k.Place.Node }) {
				v.Replicas = append(v.Replicas, catalog.Place(k.Place))
			}
		}
	} else if len(v.Replicas) == 0 {
		return api.Volume{}, api.Errorf(api.ErrNotFound, "pmsapp status tells where there are such", "no whole replica of a volume %s that the catalog does not know was found", id)
	}
	if err := n.propose(ctx, catalog.Command{Request: request, Body: catalog.AdoptVolume{Epoch: st.Epoch, Volume: v}}); err != nil {
		return api.Volume{}, err
	}
	if !known {
		n.events.add(catalog.Event{Kind: string(reign.VolumeRestored), Volume: v.ID, Text: fmt.Sprintf("volume %s is known again: replicas of it were found that the backup of the catalog did not have", v.Name)})
	}
	return n.show(v.ID)
}

// foundOf fills in what is known of a volume by its replicas: the largest that is whole says what it is, and those like it where it is.
func foundOf(st *catalog.State, v *catalog.Volume, all []reign.LeftoverStatus) {
	all = slices.DeleteFunc(slices.Clone(all), func(l reign.LeftoverStatus) bool {
		return l.Volume != v.ID || !l.Whole || !slices.ContainsFunc(st.Nodes[l.Node].Pools, func(p catalog.Pool) bool { return p.ID == l.Pool })
	})
	for _, l := range all {
		if l.Spec.Size > v.Size {
			v.Size, v.Region, v.Lineage = l.Spec.Size, l.Spec.Region, l.Spec.Lineage
		}
	}
	for _, l := range all {
		if l.Spec.Region == v.Region && len(v.Replicas) < catalog.MaxReplicas && !slices.ContainsFunc(v.Replicas, func(p catalog.Place) bool { return p.Node == l.Node }) {
			v.Replicas = append(v.Replicas, catalog.Place{Node: l.Node, Pool: l.Pool})
		}
	}
}

package appliance

import (
	"context"
	"slices"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// AddReplica implements api.Backend.
func (n *node) AddReplica(ctx context.Context, _, name string, w api.NewReplica) (api.Volume, error) {
	v, err := n.volumeNamed(name)
	if err != nil {
		return api.Volume{}, err
	}
	req := reign.AddReplica{Volume: v.ID, Why: truth.WhyAsked, Copies: w.Replicas}
	switch {
	case w.Node == "" && w.Instead == "" && w.Replicas == 0:
		return api.Volume{}, api.Errorf(api.ErrInvalid, "", "name the node, or how many replicas there are to be")
	case w.Replicas < 0 || w.Replicas > catalog.MaxReplicas:
		return api.Volume{}, api.Errorf(api.ErrInvalid, "", "replicas: %d is not 1 to %d", w.Replicas, catalog.MaxReplicas)
	case w.Pool != "" && w.Node == "":
		return api.Volume{}, api.Errorf(api.ErrInvalid, "", "pool: name its node too")
	}
	if w.Node != "" {
		m, err := n.storageNode(w.Node)
		if err != nil {
			return api.Volume{}, err
		}
		req.Node = m.ID
		if req.Pool, err = poolOf(m, w.Pool); err != nil {
			return api.Volume{}, err
		}
	}
	if w.Instead != "" {
		m, err := n.named(w.Instead)
		if err != nil {
			return api.Volume{}, err
		}
		req.Instead = m.ID
	}
	req.Space = n.space(ctx)
	if err := n.reign.AddReplica(ctx, req); err != nil {
		return api.Volume{}, told(err)
	}
	return n.show(v.ID)
}

// storageNode finds a node that has pools.
func (n *node) storageNode(name string) (catalog.Node, error) {
	m, err := n.named(name)
	switch {
	case err != nil:
	case m.Witness:
		err = api.Errorf(api.ErrConflict, "name storage nodes", "%s is a witness: it has no pools", m.Name)
	case len(m.Pools) == 0:
		err = api.Errorf(api.ErrConflict, "pmsapp pool add PATH --node "+m.Name, "%s has no pool", m.Name)
	}
	return m, err
}

// poolOf finds a pool of a node by its path or id.
func poolOf(m catalog.Node, name string) (ids.Pool, error) {
	if name == "" {
		return ids.Pool{}, nil
	}
	i := slices.IndexFunc(m.Pools, func(p catalog.Pool) bool { return p.Path == name || p.ID.String() == name })
	if i < 0 {
		return ids.Pool{}, api.Errorf(api.ErrNotFound, "pmsapp pool list shows them", "%s has no pool %q", m.Name, name)
	}
	return m.Pools[i].ID, nil
}

// RemoveReplica implements api.Backend.
func (n *node) RemoveReplica(ctx context.Context, _, name, from string) error {
	v, err := n.volumeNamed(name)
	if err != nil {
		return err
	}
	m, err := n.named(from)
	if err != nil {
		return err
	}
	return told(n.reign.RemoveReplica(ctx, reign.RemoveReplica{Volume: v.ID, Node: m.ID, Why: truth.WhyAsked}))
}

// ResizeVolume implements api.Backend.
func (n *node) ResizeVolume(ctx context.Context, _, name string, w api.NewSize) (api.Volume, error) {
	v, err := n.volumeNamed(name)
	switch {
	case err != nil:
		return api.Volume{}, err
	case w.Size < minVolume || w.Size > maxVolume || w.Size%physicalBlock != 0:
		return api.Volume{}, api.Errorf(api.ErrInvalid, "", "size: %d is not %d to %d bytes in steps of %d", w.Size, minVolume, int64(maxVolume), physicalBlock)
	case w.Size < v.Size:
		return api.Volume{}, api.Errorf(api.ErrInvalid, "volumes only become larger", "size: %s has %d bytes already", v.Name, v.Size)
	}
	if err := n.reign.ResizeVolume(ctx, v.ID, w.Size); err != nil {
		return api.Volume{}, told(err)
	}
	return n.show(v.ID)
}

// leavingState is what status says of a replica that is to leave, empty if it stays.
func leavingState(v catalog.Volume, p catalog.Place) string {
	for _, l := range v.Leaving {
		switch {
		case l.Node != p.Node:
		case l.For.IsZero():
			return "leaving"
		default:
			return "moving"
		}
	}
	return ""
}

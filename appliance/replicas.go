package appliance

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"pmsapp/appliance/adapt"
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
	req.Space = n.spaceFor(ctx, v.Size, w.OverSubscribe)
	defer n.limits.set(v.ID, n.limitsNow(ctx, w.OverSubscribe))()
	if err := n.reign.AddReplica(ctx, req); err != nil {
		return api.Volume{}, n.toldPlaces(err)
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

// Drain implements api.Backend.
func (n *node) Drain(ctx context.Context, request, name string, w api.Drain) error {
	find := n.storageNode
	if w.Cancel {
		find = n.named
	}
	m, err := find(name)
	if err != nil {
		return err
	}
	pool, err := poolOf(m, w.Pool)
	if err != nil {
		return err
	}
	return n.propose(ctx, catalog.Command{Request: request, Body: catalog.SetDrain{Node: m.ID, Pool: pool, On: !w.Cancel}})
}

// held is how many replicas are on a node, and how many of them are to move away.
func held(st *catalog.State, m catalog.Node) (all, moving int) {
	for _, v := range st.Volumes {
		for _, p := range v.Replicas {
			if p.Node != m.ID {
				continue
			}
			all++
			if m.Draining || slices.ContainsFunc(m.Pools, func(q catalog.Pool) bool { return q.ID == p.Pool && q.Draining }) {
				moving++
			}
		}
	}
	return all, moving
}

// drainWarnings tell how far the emptying of nodes and pools is.
func drainWarnings(st *catalog.State) (out []string) {
	for _, m := range adapt.Nodes(st) {
		_, moving := held(st, m)
		if m.Draining {
			out = append(out, fmt.Sprintf("node %s is being drained: %d replicas are left%s", m.Name, moving, trashLeft(st, m)))
			continue
		}
		for _, p := range m.Pools {
			if p.Draining {
				out = append(out, fmt.Sprintf("pool %s of node %s is being evacuated: %d replicas are left on such pools%s", p.Path, m.Name, moving, trashLeft(st, m)))
			}
		}
	}
	return out
}

// trashLeft names the volumes in the trash of which replicas are on what of a node is drained. Nobody serves them, so they are not moved.
func trashLeft(st *catalog.State, m catalog.Node) string {
	var names []string
	for _, t := range st.Trash {
		if slices.ContainsFunc(t.Volume.Replicas, func(p catalog.Place) bool {
			return p.Node == m.ID && (m.Draining || slices.ContainsFunc(m.Pools, func(q catalog.Pool) bool { return q.ID == p.Pool && q.Draining }))
		}) {
			names = append(names, t.Volume.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	const few = 8
	if more := len(names) - few; more > 0 {
		names = append(names[:few], fmt.Sprintf("%d more", more))
	}
	return fmt.Sprintf("; what is in the trash is not moved: purge or restore %s, or it goes with the disk", strings.Join(names, ", "))
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
	if !w.OverSubscribe {
		if err := n.mayPromise(ctx, v.Replicas, w.Size-v.Size); err != nil {
			return api.Volume{}, err
		}
	}
	defer n.limits.set(v.ID, n.limitsNow(ctx, w.OverSubscribe))()
	if err := n.reign.ResizeVolume(ctx, v.ID, w.Size); err != nil {
		return api.Volume{}, n.toldPlaces(err)
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

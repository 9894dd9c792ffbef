package catalog

import (
	"slices"

	"pmsapp/internal/ids"
)

// SetDrain says that the replicas on a node, or in one pool of it, are to move elsewhere, or that they may stay after all.
type SetDrain struct {
	Node ids.Node
	Pool ids.Pool // zero: all of the node's
	On   bool
}

func (SetDrain) kind() Kind { return "set-drain" }

func (s *State) setDrain(b SetDrain) error {
	n, ok := s.Nodes[b.Node]
	switch {
	case !ok:
		return ErrNoNode
	case n.Witness:
		return invalid("%s is a witness: it holds nothing", n.Name)
	}
	if b.Pool.IsZero() {
		n.Draining = b.On
		s.setNode(n)
		return nil
	}
	i := slices.IndexFunc(n.Pools, func(p Pool) bool { return p.ID == b.Pool })
	if i < 0 {
		return invalid("%s has no such pool", n.Name)
	}
	n.Pools = slices.Clone(n.Pools)
	n.Pools[i].Draining = b.On
	s.setNode(n)
	return nil
}

// keepDrains has a node that tells of itself keep what was said of it.
func (s *State) keepDrains(n *Node) {
	drains := map[ids.Pool]bool{}
	for _, o := range s.Nodes {
		for _, p := range o.Pools {
			drains[p.ID] = drains[p.ID] || p.Draining
		}
	}
	n.Draining = s.Nodes[n.ID].Draining
	n.Pools = slices.Clone(n.Pools)
	for i, p := range n.Pools {
		n.Pools[i].Draining = drains[p.ID]
	}
}

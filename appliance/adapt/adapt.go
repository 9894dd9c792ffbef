// Package adapt translates between the cluster's catalog and replication's truth. It is pure.
package adapt

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// View is a state of the catalog in replication's words. Volumes and nodes are in the order of their ids.
func View(s *catalog.State) *truth.View {
	v := &truth.View{Index: s.Index, Epoch: peer.Epoch(s.Epoch), Base: peer.Epoch(s.Base), Leader: s.Leader, Deleted: s.Deleted,
		Volumes: make([]truth.Volume, 0, len(s.Volumes)), Nodes: make([]truth.Node, 0, len(s.Nodes))}
	for _, w := range s.Volumes {
		v.Volumes = append(v.Volumes, Volume(w))
	}
	slices.SortFunc(v.Volumes, func(a, b truth.Volume) int { return slices.Compare(a.ID[:], b.ID[:]) })
	for id := range s.Trash {
		v.Trash = append(v.Trash, id)
	}
	slices.SortFunc(v.Trash, func(a, b ids.Volume) int { return slices.Compare(a[:], b[:]) })
	for _, n := range s.Nodes {
		t := truth.Node{ID: n.ID, Name: n.Name, Witness: n.Witness, Leaves: n.Draining}
		for _, p := range n.Pools {
			t.Pools = append(t.Pools, p.ID)
			if p.Draining || n.Draining {
				t.Draining = append(t.Draining, p.ID)
			}
		}
		v.Nodes = append(v.Nodes, t)
	}
	slices.SortFunc(v.Nodes, func(a, b truth.Node) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return v
}

// Volume translates a volume of the catalog.
func Volume(v catalog.Volume) truth.Volume {
	out := truth.Volume{ID: v.ID, Lineage: v.Lineage, Name: v.Name, Size: v.Size, Region: v.Region, Logical: v.Logical,
		Share: v.Share, Version: v.Version, Replicas: places(v.Replicas), InSync: places(v.InSync), LastServed: peer.Epoch(v.LastServed),
		Memory: v.Memory, Losses: v.Losses, Foreign: v.Foreign}
	for _, x := range v.Volatile {
		out.Volatile = append(out.Volatile, truth.Volatile(x))
	}
	out.Adopted = truth.Adoption(v.Adopted)
	for _, b := range v.Behind {
		out.Behind = append(out.Behind, truth.Behind{Pool: b.Pool, Synced: b.Synced, Epoch: peer.Epoch(b.Epoch), Time: b.Time, Copying: b.Copying})
	}
	for _, l := range v.Leaving {
		out.Leaving = append(out.Leaving, truth.Leave(l))
	}
	if len(v.Gone) > 0 {
		out.Gone = places(v.Gone)
	}
	return out
}

// CatalogVolume is the opposite of Volume.
func CatalogVolume(v truth.Volume) catalog.Volume {
	w := catalog.Volume{ID: v.ID, Lineage: v.Lineage, Name: v.Name, Size: v.Size, Region: v.Region, Logical: v.Logical,
		Share: v.Share, Version: v.Version, LastServed: uint64(v.LastServed), Memory: v.Memory}
	for _, p := range v.Replicas {
		w.Replicas = append(w.Replicas, catalog.Place(p))
	}
	for _, p := range v.InSync {
		w.InSync = append(w.InSync, catalog.Place(p))
	}
	return w
}

func places(in []catalog.Place) []truth.Place {
	out := make([]truth.Place, len(in))
	for i, p := range in {
		out[i] = truth.Place(p)
	}
	return out
}

// Body is a proposal as the catalog's command.
func Body(p truth.Proposal) (catalog.Body, error) {
	switch p := p.(type) {
	case truth.TakeOver:
		return catalog.TakeOver{Node: p.Node, Epoch: uint64(p.Epoch)}, nil
	case truth.RemoveUnfenced:
		return catalog.RemoveUnfenced{Epoch: uint64(p.Epoch), Fenced: p.Fenced, Remove: p.Remove, Reason: p.Reason}, nil
	case truth.Served:
		b := catalog.Served{Epoch: uint64(p.Epoch)}
		for _, v := range p.Volumes {
			b.Volumes = append(b.Volumes, catalog.VolumeVersion(v))
		}
		return b, nil
	case truth.RemoveMember:
		return catalog.RemoveMember{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Node: p.Node, Reason: p.Reason}, nil
	case truth.AddMember:
		return catalog.AddMember{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Node: p.Node}, nil
	case truth.Force:
		b := catalog.ForceVolume{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Place: catalog.Place(p.Place), From: p.From, Lineage: p.Lineage,
			Incomplete: p.Incomplete, Short: p.Short, Size: p.Size}
		for _, o := range p.Others {
			b.Others = append(b.Others, catalog.Place(o))
		}
		return b, nil
	case truth.BeginCopy:
		return catalog.BeginCopy{Epoch: uint64(p.Epoch), Volume: p.Volume, Pool: p.Pool}, nil
	case truth.SetVolatile:
		b := catalog.SetVolatile{Epoch: uint64(p.Epoch), Volume: p.Volume}
		for _, x := range p.Members {
			b.Members = append(b.Members, catalog.Volatile(x))
		}
		return b, nil
	case truth.AddReplica:
		return catalog.AddReplica{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Place: catalog.Place(p.Place),
			Instead: p.Instead, Why: p.Why}, nil
	case truth.RetireReplica:
		return catalog.RetireReplica{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Node: p.Node, Why: p.Why}, nil
	case truth.DropReplica:
		return catalog.DropReplica{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Node: p.Node}, nil
	case truth.ResizeVolume:
		return catalog.ResizeVolume{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Size: p.Size}, nil
	case truth.ForgetReplica:
		return catalog.ForgetReplica{Epoch: uint64(p.Epoch), Volume: p.Volume, Place: catalog.Place(p.Place)}, nil
	}
	return nil, fmt.Errorf("a proposal of type %T: %w", p, truth.ErrRejected)
}

// Outcome is the state machine's answer in replication's words.
func Outcome(r catalog.Result) truth.Outcome {
	o := truth.Outcome{Index: r.Index, Version: r.Version, Left: r.Left}
	if r.InSync != nil {
		o.InSync = places(r.InSync)
	}
	return o
}

// reasons are the errors of the state machine that are rejections with a reason, the most telling first.
func reasons() []struct {
	is  error
	why truth.Why
} {
	return []struct {
		is  error
		why truth.Why
	}{{catalog.ErrEpoch, truth.WrongEpoch}, {catalog.ErrVersion, truth.WrongVersion}, {catalog.ErrLastMember, truth.LastMember},
		{catalog.ErrNoVolume, truth.NoSuchVolume}, {catalog.ErrNoReplica, truth.NotAReplica}}
}

// Rejected turns an error of the state machine into a rejection; s is the state now.
func Rejected(err error, p truth.Proposal, s *catalog.State) error {
	for _, r := range reasons() {
		if errors.Is(err, r.is) {
			out := &truth.Rejection{Why: r.why, Epoch: peer.Epoch(s.Epoch)}
			if v, ok := s.Volumes[volumeOf(p)]; ok {
				out.Current = Volume(v)
			}
			return out
		}
	}
	return fmt.Errorf("%w: %w", truth.ErrRejected, err)
}

func volumeOf(p truth.Proposal) ids.Volume {
	switch p := p.(type) {
	case truth.RemoveMember:
		return p.Volume
	case truth.AddMember:
		return p.Volume
	case truth.Force:
		return p.Volume
	case truth.BeginCopy:
		return p.Volume
	case truth.SetVolatile:
		return p.Volume
	case truth.AddReplica:
		return p.Volume
	case truth.RetireReplica:
		return p.Volume
	case truth.DropReplica:
		return p.Volume
	case truth.ResizeVolume:
		return p.Volume
	}
	return ids.Volume{}
}

// Nodes returns the catalog's nodes by name.
func Nodes(s *catalog.State) []catalog.Node {
	return slices.SortedFunc(maps.Values(s.Nodes), func(a, b catalog.Node) int { return cmp.Compare(a.Name, b.Name) })
}

// Volumes returns the catalog's volumes by name.
func Volumes(s *catalog.State) []catalog.Volume {
	return slices.SortedFunc(maps.Values(s.Volumes), func(a, b catalog.Volume) int { return cmp.Compare(a.Name, b.Name) })
}

package sim

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// machine is a node's state machine: the real one of cluster/catalog, in the words of truth.
type machine struct {
	state *catalog.State
	view  *truth.View
}

func newMachine() *machine { return &machine{state: catalog.Empty(), view: &truth.View{}} }

// apply applies an entry of the log.
func (m *machine) apply(index uint64, entry []byte) (truth.Outcome, error) {
	next, res, err := catalog.Apply(m.state, index, entry)
	m.state = next
	m.view = viewOf(next)
	out := truth.Outcome{Index: index, Version: res.Version, Left: res.Left, InSync: placesOf(res.InSync)}
	if err == nil {
		return out, nil
	}
	return out, m.rejection(err, entry)
}

// rejection says why a command had no effect, as appliance does.
func (m *machine) rejection(err error, entry []byte) error {
	r := &truth.Rejection{Epoch: peer.Epoch(m.state.Epoch)}
	for _, v := range m.view.Volumes {
		if bytes.Contains(entry, []byte(v.ID.String())) {
			r.Current = v
		}
	}
	switch {
	case errors.Is(err, catalog.ErrEpoch):
		r.Why = truth.WrongEpoch
	case errors.Is(err, catalog.ErrVersion):
		r.Why = truth.WrongVersion
	case errors.Is(err, catalog.ErrLastMember):
		r.Why = truth.LastMember
	case errors.Is(err, catalog.ErrNoVolume):
		r.Why = truth.NoSuchVolume
	case errors.Is(err, catalog.ErrNoReplica):
		r.Why = truth.NotAReplica
	default:
		return err
	}
	return r
}

// deletion is a reign's, with how long the volume stays in the trash.
type deletion struct {
	reign.ProposeDelete
	Keep int64
}

// command encodes a proposal for the log.
func command(p any) ([]byte, error) {
	var b catalog.Body
	switch p := p.(type) {
	case truth.TakeOver:
		b = catalog.TakeOver{Node: p.Node, Epoch: uint64(p.Epoch)}
	case truth.RemoveUnfenced:
		b = catalog.RemoveUnfenced{Epoch: uint64(p.Epoch), Fenced: p.Fenced, Remove: p.Remove, Reason: p.Reason}
	case truth.Served:
		s := catalog.Served{Epoch: uint64(p.Epoch)}
		for _, v := range p.Volumes {
			s.Volumes = append(s.Volumes, catalog.VolumeVersion(v))
		}
		b = s
	case truth.RemoveMember:
		b = catalog.RemoveMember{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Node: p.Node, Reason: p.Reason}
	case truth.AddMember:
		b = catalog.AddMember{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Node: p.Node}
	case truth.Force:
		b = catalog.ForceVolume{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Place: catalog.Place(p.Place), From: p.From, Lineage: p.Lineage,
			Incomplete: p.Incomplete, Short: p.Short}
	case truth.BeginCopy:
		b = catalog.BeginCopy{Epoch: uint64(p.Epoch), Volume: p.Volume, Pool: p.Pool}
	case truth.SetVolatile:
		x := catalog.SetVolatile{Epoch: uint64(p.Epoch), Volume: p.Volume}
		for _, m := range p.Members {
			x.Members = append(x.Members, catalog.Volatile(m))
		}
		b = x
	case truth.AddReplica:
		b = catalog.AddReplica{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Place: catalog.Place(p.Place), Instead: p.Instead, Why: p.Why}
	case truth.RetireReplica:
		b = catalog.RetireReplica{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Node: p.Node, Why: p.Why}
	case truth.DropReplica:
		b = catalog.DropReplica{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Node: p.Node}
	case truth.ResizeVolume:
		b = catalog.ResizeVolume{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Size: p.Size}
	case truth.ForgetReplica:
		b = catalog.ForgetReplica{Epoch: uint64(p.Epoch), Volume: p.Volume, Place: catalog.Place(p.Place)}
	case reign.ProposeCreate:
		v := p.Volume
		b = catalog.CreateVolume{Epoch: uint64(p.Epoch), Volume: catalog.Volume{
			ID: v.ID, Lineage: v.Lineage, Name: v.Name, Size: v.Size, Region: v.Region, Logical: v.Logical, Replicas: placesIn(v.Replicas), Memory: v.Memory,
		}}
	case deletion:
		b = catalog.DeleteVolume{Epoch: uint64(p.Epoch), Volume: p.Volume, Version: p.Version, Keep: p.Keep}
	case catalog.Body:
		b = p
	}
	return catalog.Encode(catalog.Command{Body: b})
}

func placesOf(ps []catalog.Place) (out []truth.Place) {
	for _, p := range ps {
		out = append(out, truth.Place(p))
	}
	return out
}

func placesIn(ps []truth.Place) (out []catalog.Place) {
	for _, p := range ps {
		out = append(out, catalog.Place(p))
	}
	return out
}

// viewOf is a state in the words of truth, in an order that does not depend on maps.
func viewOf(s *catalog.State) *truth.View {
	v := &truth.View{Index: s.Index, Epoch: peer.Epoch(s.Epoch), Leader: s.Leader, Deleted: s.Deleted}
	for _, x := range s.Volumes {
		t := truth.Volume{
			ID: x.ID, Lineage: x.Lineage, Name: x.Name, Size: x.Size, Region: x.Region, Logical: x.Logical, Version: x.Version,
			Replicas: placesOf(x.Replicas), InSync: placesOf(x.InSync), LastServed: peer.Epoch(x.LastServed), Gone: placesOf(x.Gone),
			Adopted: truth.Adoption(x.Adopted),
			Memory:  x.Memory, Losses: x.Losses,
		}
		for _, m := range x.Volatile {
			t.Volatile = append(t.Volatile, truth.Volatile(m))
		}
		for _, b := range x.Behind {
			t.Behind = append(t.Behind, truth.Behind{Pool: b.Pool, Synced: b.Synced, Epoch: peer.Epoch(b.Epoch), Copying: b.Copying})
		}
		for _, l := range x.Leaving {
			t.Leaving = append(t.Leaving, truth.Leave(l))
		}
		v.Volumes = append(v.Volumes, t)
	}
	for id := range s.Trash {
		v.Trash = append(v.Trash, id) // at most one
	}
	for _, x := range s.Nodes {
		n := truth.Node{ID: x.ID, Name: x.Name, Witness: x.Witness, Leaves: x.Draining}
		for _, p := range x.Pools {
			n.Pools = append(n.Pools, p.ID)
			if p.Draining || x.Draining {
				n.Draining = append(n.Draining, p.ID)
			}
		}
		v.Nodes = append(v.Nodes, n)
	}
	slices.SortFunc(v.Volumes, func(a, b truth.Volume) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(v.Nodes, func(a, b truth.Node) int { return cmp.Compare(a.Name, b.Name) })
	return v
}

// nodeCommand tells the catalog of a node.
func nodeCommand(id, former ids.Node, name string, witness bool, pools []ids.Pool) catalog.Body {
	n := catalog.Node{ID: id, Name: name, Witness: witness, Version: catalog.Version}
	for _, p := range pools {
		n.Pools = append(n.Pools, catalog.Pool{ID: p, Path: "/" + p.String()})
	}
	return catalog.PutNode{Node: n, Former: former}
}

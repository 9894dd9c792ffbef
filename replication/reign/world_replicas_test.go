package reign

import (
	"fmt"
	"slices"

	"pmsapp/internal/ids"
	"pmsapp/replication/truth"
)

// applyReplicas is the catalog's rules for changes of places, on the next state v.
func applyReplicas(v *truth.View, p truth.Proposal) error {
	reject := func(why truth.Why, tv *truth.Volume) error {
		r := &truth.Rejection{Why: why, Epoch: v.Epoch}
		if tv != nil {
			r.Current = *tv
		}
		return r
	}
	at := func(epoch, version uint64, id ids.Volume) (*truth.Volume, error) {
		tv := find(v, id)
		switch {
		case epoch != uint64(v.Epoch):
			return nil, reject(truth.WrongEpoch, nil)
		case tv == nil:
			return nil, reject(truth.NoSuchVolume, nil)
		case version != tv.Version:
			return nil, reject(truth.WrongVersion, tv)
		}
		tv.Version++
		tv.Replicas, tv.Leaving, tv.Gone = slices.Clone(tv.Replicas), slices.Clone(tv.Leaving), slices.Clone(tv.Gone)
		return tv, nil
	}
	switch p := p.(type) {
	case truth.AddReplica:
		tv, err := at(uint64(p.Epoch), p.Version, p.Volume)
		if err != nil {
			return err
		}
		if truth.Holds(tv.Replicas, p.Place.Node) || slices.Contains(tv.Gone, p.Place) {
			return truth.ErrRejected
		}
		tv.Replicas = append(tv.Replicas, p.Place)
		if !p.Instead.IsZero() {
			tv.Leaving = append(tv.Leaving, truth.Leave{Node: p.Instead, For: p.Place.Node, Why: p.Why})
		}
	case truth.RetireReplica:
		tv, err := at(uint64(p.Epoch), p.Version, p.Volume)
		if err != nil {
			return err
		}
		tv.Leaving = slices.DeleteFunc(tv.Leaving, func(l truth.Leave) bool { return l.Node == p.Node || l.For == p.Node })
		tv.Leaving = append(tv.Leaving, truth.Leave{Node: p.Node, Why: p.Why})
		if !slices.ContainsFunc(tv.InSync, func(q truth.Place) bool { return !tv.Leaves(q.Node) }) {
			return reject(truth.LastMember, tv)
		}
	case truth.DropReplica:
		tv, err := at(uint64(p.Epoch), p.Version, p.Volume)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(tv.Replicas, func(q truth.Place) bool { return q.Node == p.Node })
		if i < 0 || truth.Holds(tv.InSync, p.Node) || !tv.Leaves(p.Node) {
			return truth.ErrRejected
		}
		tv.Gone = append(tv.Gone, tv.Replicas[i])
		tv.Replicas = slices.Delete(tv.Replicas, i, i+1)
		tv.Leaving = slices.DeleteFunc(tv.Leaving, func(l truth.Leave) bool { return l.Node == p.Node })
	case truth.ResizeVolume:
		tv, err := at(uint64(p.Epoch), p.Version, p.Volume)
		if err != nil {
			return err
		}
		tv.Size = p.Size
	case truth.ForgetReplica:
		tv := find(v, p.Volume)
		if tv == nil || p.Epoch != v.Epoch {
			return reject(truth.WrongEpoch, nil)
		}
		tv.Gone = slices.DeleteFunc(slices.Clone(tv.Gone), func(q truth.Place) bool { return q == p.Place })
	}
	return nil
}

// drain says that a node, or a pool of it, is to be emptied, or not.
func (w *world) drain(what string, on bool) {
	v := w.change()
	for i := range v.Nodes {
		n := &v.Nodes[i]
		var draining []ids.Pool
		for _, p := range n.Pools {
			is := slices.Contains(n.Draining, p)
			if name(n.ID) == what || name(p) == what {
				is = on
			}
			if is {
				draining = append(draining, p)
			}
		}
		n.Draining = draining
		if name(n.ID) == what {
			n.Leaves = on
		}
	}
	w.view = v
}

func showReplicas(p truth.Proposal) string {
	switch p := p.(type) {
	case truth.AddReplica:
		return fmt.Sprintf("AddReplica epoch %d %s@%d %s instead %q %s", p.Epoch, name(p.Volume), p.Version, name(p.Place.Pool), name(p.Instead), p.Why)
	case truth.RetireReplica:
		return fmt.Sprintf("RetireReplica epoch %d %s@%d %s", p.Epoch, name(p.Volume), p.Version, name(p.Node))
	case truth.DropReplica:
		return fmt.Sprintf("DropReplica epoch %d %s@%d %s", p.Epoch, name(p.Volume), p.Version, name(p.Node))
	case truth.ResizeVolume:
		return fmt.Sprintf("ResizeVolume epoch %d %s@%d to %d", p.Epoch, name(p.Volume), p.Version, p.Size)
	case truth.ForgetReplica:
		return fmt.Sprintf("ForgetReplica epoch %d %s %s", p.Epoch, name(p.Volume), name(p.Place.Pool))
	}
	return "?"
}

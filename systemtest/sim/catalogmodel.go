package sim

import (
	"slices"

	"pmsapp/internal/ids"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

type catalogModel struct{ v *truth.View }

func newCatalogModel() *catalogModel { return &catalogModel{v: &truth.View{}} }

type cmdNodes struct{ nodes []truth.Node }

func (m *catalogModel) View() *truth.View { return m.v }

func (m *catalogModel) Apply(index uint64, cmd any) (truth.Outcome, error) {
	v := *m.v
	v.Index = index
	v.Volumes = slices.Clone(v.Volumes)
	out, err := m.apply(&v, cmd)
	out.Index = index
	if err == nil {
		m.v = &v
	} else {
		o := *m.v
		o.Index = index
		m.v = &o
	}
	return out, err
}

func reject(v *truth.View, w truth.Why, cur truth.Volume) error {
	return &truth.Rejection{Why: w, Epoch: v.Epoch, Current: cur}
}

func (m *catalogModel) apply(v *truth.View, cmd any) (out truth.Outcome, err error) {
	find := func(id ids.Volume) *truth.Volume {
		for i := range v.Volumes {
			if v.Volumes[i].ID == id {
				return &v.Volumes[i]
			}
		}
		return nil
	}
	switch p := cmd.(type) {
	case cmdNodes:
		v.Nodes = p.nodes
	case truth.TakeOver:
		if p.Epoch <= v.Epoch {
			return out, reject(v, truth.WrongEpoch, truth.Volume{})
		}
		v.Epoch, v.Leader = p.Epoch, p.Node
	case truth.RemoveUnfenced:
		if p.Epoch != v.Epoch {
			return out, reject(v, truth.WrongEpoch, truth.Volume{})
		}
		for i := range v.Volumes {
			x := &v.Volumes[i]
			var rest []truth.Place
			fenced, removed := false, false
			for _, pl := range x.InSync {
				if slices.Contains(p.Remove, pl.Pool) {
					removed = true
					continue
				}
				fenced = fenced || slices.Contains(p.Fenced, pl.Pool)
				rest = append(rest, pl)
			}
			if !removed {
				continue
			}
			if !fenced {
				out.Left = append(out.Left, x.ID)
				continue
			}
			x.InSync = rest
			x.Version++
		}
	case truth.Served:
		if p.Epoch != v.Epoch {
			return out, reject(v, truth.WrongEpoch, truth.Volume{})
		}
		for _, vv := range p.Volumes {
			if x := find(vv.Volume); x != nil && x.Version == vv.Version {
				x.LastServed = p.Epoch
			} else {
				out.Left = append(out.Left, vv.Volume)
			}
		}
	case truth.RemoveMember:
		return m.change(v, p.Epoch, find(p.Volume), p.Version, p.Node, false)
	case truth.AddMember:
		return m.change(v, p.Epoch, find(p.Volume), p.Version, p.Node, true)
	case reign.ProposeCreate:
		if p.Epoch != v.Epoch {
			return out, reject(v, truth.WrongEpoch, truth.Volume{})
		}
		if find(p.Volume.ID) == nil {
			x := p.Volume
			x.Version = 1
			x.InSync = x.Replicas
			v.Volumes = append(v.Volumes, x)
		}
	case reign.ProposeDelete:
		if p.Epoch != v.Epoch {
			return out, reject(v, truth.WrongEpoch, truth.Volume{})
		}
		v.Volumes = slices.DeleteFunc(v.Volumes, func(x truth.Volume) bool { return x.ID == p.Volume })
		v.Deleted = append(slices.Clone(v.Deleted), p.Volume)
	}
	return out, nil
}

func (m *catalogModel) change(v *truth.View, e any, x *truth.Volume, version uint64, n ids.Node, add bool) (out truth.Outcome, err error) {
	switch {
	case e != v.Epoch:
		return out, reject(v, truth.WrongEpoch, truth.Volume{})
	case x == nil:
		return out, reject(v, truth.NoSuchVolume, truth.Volume{})
	case x.Version != version:
		return out, reject(v, truth.WrongVersion, *x)
	}
	set := slices.Clone(x.InSync)
	at := slices.IndexFunc(set, func(p truth.Place) bool { return p.Node == n })
	if add {
		i := slices.IndexFunc(x.Replicas, func(p truth.Place) bool { return p.Node == n })
		if i < 0 {
			return out, reject(v, truth.NotAReplica, *x)
		}
		if at < 0 {
			set = append(set, x.Replicas[i])
		}
	} else {
		if at < 0 {
			return out, reject(v, truth.NotAReplica, *x)
		}
		if len(set) == 1 {
			return out, reject(v, truth.LastMember, *x)
		}
		set = slices.Delete(set, at, at+1)
	}
	x.InSync = set
	x.Version++
	return truth.Outcome{Version: x.Version, InSync: set}, nil
}

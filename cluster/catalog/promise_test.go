package catalog

import (
	"testing"

	"pmsapp/internal/ids"
)

// TestPromised: replicas count with their whole size, those in the trash and those to be deleted too.
func TestPromised(t *testing.T) {
	st := Empty()
	a, b := Place{Node: ids.NewNode(), Pool: ids.NewPool()}, Place{Node: ids.NewNode(), Pool: ids.NewPool()}
	v := Volume{ID: ids.NewVolume(), Size: 10, Replicas: []Place{a, b}}
	w := Volume{ID: ids.NewVolume(), Size: 5, Replicas: []Place{b}, Gone: []Place{a}}
	d := Volume{ID: ids.NewVolume(), Size: 100, Replicas: []Place{b}}
	st.Volumes = map[ids.Volume]Volume{v.ID: v, w.ID: w}
	st.Trash = map[ids.Volume]Trashed{d.ID: {Volume: d}}
	if got := st.Promised(); got[a.Pool] != (Promise{15, 0}) || got[b.Pool] != (Promise{115, 100}) {
		t.Fatalf("%+v", got)
	}
}

// TestLimits: of two commands that were both right when they were asked, the second is judged by what the first has promised.
func TestLimits(t *testing.T) {
	m, n, v := moving(t) // 1 MiB on nodes 0 and 1
	limits := func(most int64) (out []Limit) {
		for _, x := range n {
			out = append(out, Limit{x.Pools[0].ID, most})
		}
		return out
	}
	other := func(name string) Volume {
		w := v()
		w.ID, w.Lineage, w.Name = ids.NewVolume(), ids.NewLineage(), name
		return w
	}
	w, x := other("w"), other("x")
	m.do(CreateVolume{1, w, limits(2 << 20)})
	m.do(CreateVolume{1, w, limits(2 << 20)}) // again
	m.fails(ErrPromised, CreateVolume{1, x, limits(2 << 20)})
	m.fails(ErrPromised, CreateVolume{1, x, limits(3<<20 - 1)})
	m.fails(ErrInvalid, CreateVolume{1, x, make([]Limit, maxLimits+1)})

	resize := func(size int64, most int64) ResizeVolume {
		return ResizeVolume{1, v().ID, v().Version, size, limits(most)}
	}
	m.fails(ErrPromised, resize(2<<20, 2<<20))
	m.do(resize(2<<20, 3<<20))
	m.do(resize(2<<20, 1)) // it has that size
	add := AddReplica{1, v().ID, v().Version, at(n[2]), ids.Node{}, "asked", limits(1 << 20)}
	m.fails(ErrPromised, add)
	add.Limits = limits(2 << 20)
	m.do(add)

	m.do(Served{1, []VolumeVersion{{Volume: w.ID, Version: 1}}})
	m.do(DeleteVolume{1, w.ID, 1, 3600})
	since := m.s.Trash[w.ID].Since
	m.fails(ErrPromised, RestoreVolume{w.ID, since, "", limits(3<<20 - 1)})
	m.do(RestoreVolume{w.ID, since, "", limits(3 << 20)})
	m.do(CreateVolume{1, x, nil}) // it is meant
}

package adapt

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/truth"
)

func TestThereAndBack(t *testing.T) {
	n, p := ids.NewNode(), ids.NewPool()
	v := truth.Volume{ID: ids.NewVolume(), Lineage: ids.NewLineage(), Name: "v", Size: 1 << 30, Region: 1 << 20, Logical: 512, Version: 7,
		Replicas: []truth.Place{{Node: n, Pool: p}}, InSync: []truth.Place{{Node: n, Pool: p}}, LastServed: 3}
	if d := cmp.Diff(v, Volume(CatalogVolume(v))); d != "" {
		t.Fatal(d)
	}
	s := catalog.Empty()
	s.Index, s.Epoch, s.Leader = 9, 4, n
	s.Volumes[v.ID] = CatalogVolume(v)
	s.Nodes[n] = catalog.Node{ID: n, Name: "n", Pools: []catalog.Pool{{ID: p}}}
	want := &truth.View{Index: 9, Epoch: 4, Leader: n, Volumes: []truth.Volume{v}, Nodes: []truth.Node{{ID: n, Name: "n", Pools: []ids.Pool{p}}}}
	if d := cmp.Diff(want, View(s)); d != "" {
		t.Fatal(d)
	}
}

// TestEveryProposal: each has a command, which the log can carry, and errors that say why.
func TestEveryProposal(t *testing.T) {
	v := ids.NewVolume()
	s := catalog.Empty()
	s.Volumes[v] = catalog.Volume{ID: v, Name: "v", InSync: []catalog.Place{{}}}
	for _, p := range []truth.Proposal{truth.TakeOver{Epoch: 1}, truth.RemoveUnfenced{Epoch: 1, Fenced: []ids.Pool{{}}},
		truth.Served{Epoch: 1, Volumes: []truth.VolumeVersion{{Volume: v, Version: 2}}}, truth.RemoveMember{Epoch: 1, Volume: v},
		truth.AddMember{Epoch: 1, Volume: v}, truth.AddReplica{Epoch: 1, Volume: v}, truth.RetireReplica{Epoch: 1, Volume: v},
		truth.DropReplica{Epoch: 1, Volume: v}, truth.ForgetReplica{Epoch: 1, Volume: v}, truth.ResizeVolume{Epoch: 1, Volume: v},
		truth.SetVolatile{Epoch: 1, Volume: v, Members: []truth.Volatile{{}}}} {
		b, err := Body(p)
		if err != nil {
			t.Fatal(err)
		}
		e, err := catalog.Encode(catalog.Command{Body: b})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := catalog.Apply(s, 1, e); err == nil {
			t.Fatalf("%T is accepted by an empty catalog", p)
		} else if got := Rejected(err, p, s); !errors.Is(got, truth.ErrRejected) {
			t.Fatal(got)
		}
	}
	for _, r := range reasons() {
		var rej *truth.Rejection
		if err := Rejected(r.is, truth.AddMember{Volume: v}, s); !errors.As(err, &rej) || rej.Why != r.why || rej.Current.ID != v {
			t.Fatal(err)
		}
	}
	if err := Rejected(catalog.ErrInvalid, truth.AddMember{}, s); !errors.Is(err, truth.ErrRejected) || !errors.Is(err, catalog.ErrInvalid) {
		t.Fatal(err)
	}
}

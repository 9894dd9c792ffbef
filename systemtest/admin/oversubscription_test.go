package admin

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// TestOverSubscription: what would promise more of a pool than the ratio allows is refused, unless it is said; volumes in the trash count,
// and are named when a node is drained that has replicas of them.
func TestOverSubscription(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	c := program.Cluster(t, local.Config{Binary: program.Build(t), Nodes: 3, Change: func(_ int, f *config.Config) { f.Volumes.OverSubscription = 0.1 }})
	cl, ctx := c.Client(), t.Context()
	pool := func(s api.Status, node string) api.Pool {
		for _, n := range s.Nodes {
			if n.Name == node && len(n.Pools) == 1 {
				return n.Pools[0]
			}
		}
		return api.Pool{}
	}
	st := wait(t, c, "the pools to be known", func(s api.Status) bool {
		return s.Leader != "" && pool(s, "node1").Size > 0 && pool(s, "node2").Size > 0 && pool(s, "node3").Size > 0
	})
	size := pool(st, "node1").Size / 100 * 6 &^ 4095
	on := []string{"node1", "node2"}
	refused := func(err error) {
		t.Helper()
		if !errors.Is(err, api.ErrConflict) || !strings.Contains(err.Error(), "more than 0.1 times its size (volumes.over_subscription)") || !strings.Contains(err.Error(), "--over-subscribe") {
			t.Errorf("%v", err)
		}
	}
	if _, err := cl.CreateVolume(ctx, api.NewVolume{Name: "a", Size: size, Replicas: 2, Nodes: on}); err != nil {
		t.Fatal(err)
	}
	_, err := cl.CreateVolume(ctx, api.NewVolume{Name: "b", Size: size, Replicas: 2, Nodes: on})
	refused(err)
	if _, err := cl.CreateVolume(ctx, api.NewVolume{Name: "b", Size: size, Replicas: 2, Nodes: on, OverSubscribe: true}); err != nil {
		t.Fatal(err)
	}
	// Of two at once, each of which would do, one is made.
	names, errs := []string{"c", "d"}, [2]error{}
	var both sync.WaitGroup
	for i, name := range names {
		both.Go(func() {
			_, errs[i] = cl.CreateVolume(ctx, api.NewVolume{Name: name, Size: size, Replicas: 1, Nodes: []string{"node3"}})
		})
	}
	both.Wait()
	made := slices.Index(errs[:], nil)
	if made < 0 {
		t.Fatal(errs)
	}
	refused(errs[1-made])
	_, err = cl.ResizeVolume(ctx, names[made], api.NewSize{Size: 2 * size})
	refused(err)
	_, err = cl.AddReplica(ctx, "a", api.NewReplica{Node: "node3"})
	refused(err)
	_, err = cl.AddReplica(ctx, "a", api.NewReplica{Node: "node3", Instead: "node1"})
	refused(err)
	if err := cl.DeleteVolume(ctx, "b", false); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "the list of pools to count the trash", func(s api.Status) bool {
		p, q := pool(s, "node1"), pool(s, "node3")
		return p.Promised == 2*size && p.Trash == size && q.Promised == size && q.Trash == 0
	})
	_, err = cl.RestoreVolume(ctx, "b", api.Restore{})
	refused(err)
	if err := cl.Drain(ctx, "node2", api.Drain{}); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "status to say that what is in the trash is not moved", func(s api.Status) bool {
		return slices.ContainsFunc(s.Warnings, func(w string) bool {
			return strings.HasPrefix(w, "node node2 is being drained") && strings.HasSuffix(w, "; what is in the trash is not moved: purge or restore b, or it goes with the disk")
		})
	})
	if err := cl.Drain(ctx, "node2", api.Drain{Cancel: true}); err != nil {
		t.Fatal(err)
	}
	if v, err := cl.RestoreVolume(ctx, "b", api.Restore{OverSubscribe: true}); err != nil || v.Name != "b" {
		t.Fatal(v, err)
	}
}

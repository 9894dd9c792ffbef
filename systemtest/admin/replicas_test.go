package admin

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// on tells whether a volume's replicas are on exactly these nodes, in sync, and nothing is left elsewhere.
func on(s api.Status, volume string, nodes ...string) bool {
	for _, v := range s.Volumes {
		if v.Name != volume {
			continue
		}
		var have []string
		for _, r := range v.Replicas {
			if r.State != "in sync" || r.Leaves != "" {
				return false
			}
			have = append(have, r.Node)
		}
		slices.Sort(have)
		return v.Served && slices.Equal(have, nodes) && len(v.Gone) == 0
	}
	return false
}

// files are the replicas in a node's first pool.
func files(t *testing.T, c *local.Cluster, i int) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(c.Nodes[i].Config.Pools[0], "replicas", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestReplicas moves, adds and removes replicas under load.
func TestReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Binary: bin, Nodes: 3})
	ok := func(args ...string) string {
		t.Helper()
		out, err := pmsapp(t, bin, c.Nodes[0].File, args...)
		if err != nil {
			t.Fatalf("pmsapp %s: %s", strings.Join(args, " "), out)
		}
		return out
	}
	ok("volume", "create", "v", "--size", "32M", "--nodes", "node1,node2")
	ok("lun", "export", "v")
	want := content(32 << 20)
	d := login(t, c, "v")
	if err := d.WriteAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var failed error
	load.Go(func() { // the same bytes again and again
		for off := int64(0); ctx.Err() == nil; off = (off + 1<<20) % (32 << 20) {
			if err := d.WriteAt(ctx, want[off:off+64<<10], off); err != nil && ctx.Err() == nil {
				failed = err
				return
			}
		}
	})
	refused(t, bin, c.Nodes[0].File, []string{"volume", "replica", "add", "w"}, "no volume")
	refused(t, bin, c.Nodes[0].File, []string{"volume", "replica", "move", "v", "--from", "node3"}, "node3 has no replica of v")
	refused(t, bin, c.Nodes[0].File, []string{"volume", "replica", "move", "v", "--from", "node1", "--to", "node2"}, "node2 has a replica of v")
	refused(t, bin, c.Nodes[0].File, []string{"volume", "replica", "remove", "v", "--node", "node3"}, "no such")

	ok("volume", "replica", "move", "v", "--from", "node2", "--to", "node3")
	wait(t, c, "the replica to move", func(s api.Status) bool { return on(s, "v", "node1", "node3") })
	if left := files(t, c, 1); len(left) > 0 {
		t.Errorf("node2 still has %v", left)
	}
	ok("volume", "replica", "add", "v")
	wait(t, c, "the third replica", func(s api.Status) bool { return on(s, "v", "node1", "node2", "node3") })
	refused(t, bin, c.Nodes[0].File, []string{"volume", "replica", "add", "v"}, "replicas: 4 is not 1 to 3")
	ok("volume", "replica", "remove", "v", "--node", "node1")
	wait(t, c, "the replica to leave", func(s api.Status) bool { return on(s, "v", "node2", "node3") })

	// A replica is removed while its node is away: it is deleted when that comes back.
	if err := c.Kill(2); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "node3's replica to leave the set", func(s api.Status) bool {
		return s.Leader != "" && len(s.Volumes) > 0 && s.Volumes[0].Served &&
			slices.ContainsFunc(s.Volumes[0].Replicas, func(r api.Replica) bool { return r.Node == "node3" && r.State != "in sync" })
	})
	ok("volume", "replica", "remove", "v", "--node", "node3")
	refused(t, bin, c.Nodes[0].File, []string{"volume", "replica", "remove", "v", "--node", "node2"}, "last in-sync")
	wait(t, c, "node3's place to be listed", func(s api.Status) bool { return len(s.Volumes[0].Gone) == 1 && s.Volumes[0].Gone[0].Node == "node3" })
	if len(files(t, c, 2)) != 1 {
		t.Error("node3 has no replica")
	}
	if err := c.Start(2); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "node3's replica to be deleted", func(s api.Status) bool { return on(s, "v", "node2") })
	if left := files(t, c, 2); len(left) > 0 {
		t.Errorf("node3 still has %v", left)
	}
	ok("volume", "replica", "add", "v", "--node", "node1", "--pool", c.Nodes[0].Config.Pools[0])
	wait(t, c, "the second replica", func(s api.Status) bool { return on(s, "v", "node1", "node2") })

	// The disk of one is lost: it is made anew in another pool of the same node; then the old disk is back after all.
	pool := c.Nodes[1].Config.Pools[0]
	if err := c.Kill(1); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(pool, pool+".away"); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(1); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "node2 to be back without its pool", func(s api.Status) bool {
		return slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "of node node2: ") })
	})
	ok("volume", "replica", "remove", "v", "--node", "node2")
	if err := os.Mkdir(pool+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	ok("pool", "add", pool+".new", "--node", "node2")
	wait(t, c, "its place to be listed", func(s api.Status) bool { return s.Volumes[0].Served && len(s.Volumes[0].Gone) == 1 })
	ok("volume", "replica", "add", "v", "--node", "node2")
	wait(t, c, "the replica in the new pool", func(s api.Status) bool {
		return len(s.Volumes[0].Replicas) == 2 && !slices.ContainsFunc(s.Volumes[0].Replicas, func(r api.Replica) bool { return r.State != "in sync" })
	})
	if err := os.Rename(pool+".away", pool); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "the old disk to be cleaned", func(s api.Status) bool { return on(s, "v", "node1", "node2") && len(s.Warnings) == 0 })
	if left := files(t, c, 1); len(left) > 0 {
		t.Errorf("the old disk still has %v", left)
	}
	cancel()
	load.Wait()
	if failed != nil {
		t.Errorf("the load failed: %v", failed)
	}
	d.Close()
	if err := c.Kill(0); err != nil {
		t.Fatal(err)
	}
	compare(t, c, "v", want)
}

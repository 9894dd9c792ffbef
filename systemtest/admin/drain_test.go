package admin

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// TestDrain empties a pool and the leader's node, and makes anew what a node that is gone has held.
func TestDrain(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Binary: bin, Nodes: 4, Change: func(_ int, cfg *config.Config) { cfg.Timeouts.ReplaceAfter = 3 * time.Second }})
	file := c.Nodes[3].File
	ok := func(args ...string) {
		t.Helper()
		if out, err := pmsapp(t, bin, file, append(args, "--token-file", c.TokenFile())...); err != nil {
			t.Fatalf("pmsapp %s: %s", strings.Join(args, " "), out)
		}
	}
	ok("volume", "create", "v", "--size", "8M", "--nodes", "node1,node2")
	ok("volume", "create", "w", "--size", "8M", "--nodes", "node1,node3")
	ok("lun", "export", "v")
	want := content(8 << 20)
	d := login(t, c, "v")
	if err := d.WriteAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	d.Close()

	ok("pool", "evacuate", "node2", c.Nodes[1].Config.Pools[0])
	wait(t, c, "node2's pool to be empty", func(s api.Status) bool {
		return synced(s) && !slices.ContainsFunc(s.Volumes, func(v api.Volume) bool { return holds(v, "node2") })
	})
	ok("pool", "evacuate", "node2", c.Nodes[1].Config.Pools[0], "--cancel")

	ok("node", "drain", "node1")
	s := wait(t, c, "node1 to be empty, and not to lead", func(s api.Status) bool {
		return synced(s) && s.Leader != "node1" && !slices.ContainsFunc(s.Volumes, func(v api.Volume) bool { return holds(v, "node1") })
	})
	if !slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "node1 is being drained: 0 replicas") }) {
		t.Errorf("no warning: %q", s.Warnings)
	}
	compare(t, c, "v", want)
	emptied(t, c, 0)

	// A node with a replica of v that does not lead is killed for good: its replicas are made anew, but not on the drained one.
	victim := 0
	for i, n := range c.Nodes {
		if n.Name != s.Leader && slices.ContainsFunc(s.Volumes, func(v api.Volume) bool { return v.Name == "v" && holds(v, n.Name) }) {
			victim = i
		}
	}
	name := c.Nodes[victim].Name
	if err := c.Kill(victim); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "its replicas to be made anew", func(s api.Status) bool {
		return synced(s) && !slices.ContainsFunc(s.Volumes, func(v api.Volume) bool { return holds(v, name) || holds(v, "node1") })
	})
	compare(t, c, "v", want)
	if err := c.Start(victim); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "what it has left to be deleted", func(s api.Status) bool {
		return synced(s) && !slices.ContainsFunc(s.Volumes, func(v api.Volume) bool { return len(v.Gone) > 0 })
	})
	emptied(t, c, victim)
	ok("node", "drain", "node1", "--cancel")
	wait(t, c, "no warning", func(s api.Status) bool { return synced(s) && len(s.Warnings) == 0 })
}

func holds(v api.Volume, node string) bool {
	return slices.ContainsFunc(v.Replicas, func(r api.Replica) bool { return r.Node == node })
}

// emptied waits until nothing is left in a node's pool: a replica is gone when its deletion is answered, and its space is freed after that.
func emptied(t *testing.T, c *local.Cluster, i int) {
	t.Helper()
	var left []string
	if err := local.Wait(t.Context(), c.Nodes[i].Name+" to have nothing left", 10*time.Second, func(context.Context) (bool, error) {
		left = files(t, c, i)
		return len(left) == 0, nil
	}); err != nil {
		t.Errorf("%v: %v", err, left)
	}
}

package daemons

import (
	"context"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// TestShutdownOfMemory: `cluster shutdown` makes durable what a volume in memory has acknowledged, though no host asks for it. So any of
// its nodes comes back first and serves it, without the other one, and nobody says that something may be lost.
func TestShutdownOfMemory(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3, Witness: true})
	d := export(t, c, api.NewVolume{Size: 16 << 20, Replicas: 2, Durability: api.Memory})
	if err := d.WriteAt(t.Context(), pattern(1<<20, 7), 0); err != nil {
		t.Fatal(err)
	}
	// Until it is volatile by the catalog every write is durable.
	expect(t, c, "the members to be volatile", func(s api.Status) bool { return s.Leader != "" && s.Volumes[0].Cached })
	if err := d.WriteAt(t.Context(), pattern(4096, 8), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Client().ShutdownCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := local.Wait(t.Context(), "the daemons to end", 20*time.Second, func(context.Context) (bool, error) {
		for _, n := range c.Nodes {
			if n.Running() {
				return false, nil
			}
		}
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{1, 2} { // node1 stays away
		if err := c.Start(i); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, c, "the volume to be served by the node that is there", func(s api.Status) bool {
		return s.Leader != "" && s.Volumes[0].Served && s.Volumes[0].Losses == 0
	})
	check(t, d, 0, 4096, 8)
	check(t, d, 4096, 4096, 7)
}

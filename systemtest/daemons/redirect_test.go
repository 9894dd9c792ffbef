package daemons

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/program"
)

// TestRedirection: a host that knows one node's portal, and neither multipath nor the virtual address, is sent to the node that
// serves, and finds the next one from the same portal when that dies. Discovery names the portals that it may use, and no others.
func TestRedirection(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	if _, err := c.Client().CreateVolume(t.Context(), api.NewVolume{Name: "v", Size: 64 << 20, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	lun, err := c.Client().Export(t.Context(), api.NewLUN{Volume: "v"})
	if err != nil {
		t.Fatal(err)
	}
	st := settled(t, c)
	var nodes []string
	stands := ""
	for _, n := range c.Nodes {
		nodes = append(nodes, n.Config.Address.Portal)
		if n.Name != st.Leader {
			stands = n.Config.Address.Portal
		}
	}
	found := func(want ...string) {
		t.Helper()
		for _, portal := range append([]string{c.Virtual}, nodes...) {
			var got []string
			if err := local.Wait(t.Context(), portal+" to tell of the right portals", 10*time.Second, func(ctx context.Context) (bool, error) {
				all, err := initiator.Discover(ctx, initiator.Config{Portal: portal, Initiator: "iqn.2026-11.example:host"})
				if err != nil || len(all) != 1 {
					return false, err // what was committed may not be known there yet
				}
				got = nil
				for _, p := range all[0].Portals {
					got = append(got, p.Addr)
				}
				return slices.Equal(got, want), nil
			}); err != nil {
				t.Fatalf("%v: %v, want %v", err, got, want)
			}
		}
	}
	found(c.Virtual)
	if _, err := c.Client().Export(t.Context(), api.NewLUN{Volume: "v", Paths: "redirect", Change: true}); err != nil {
		t.Fatal(err)
	}
	settled(t, c)
	found(nodes...)

	d, err := initiator.OpenDisk(t.Context(), initiator.DiskConfig{Portals: []string{stands}, Initiator: "iqn.2026-11.example:host", Target: lun.Target,
		LUN: int(lun.Number), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	data, got := bytes.Repeat([]byte{0x5a}, 4096), make([]byte, 4096)
	write := func(off int64) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := d.WriteAt(ctx, data, off); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	if _, err := c.Client().AddHost(t.Context(), api.NewHost{Name: "host", IQNs: []string{"iqn.2026-11.example:host"}}); err != nil {
		t.Fatal(err)
	}
	hosts, err := c.Client().Hosts(t.Context())
	if err != nil || len(hosts) != 1 || len(hosts[0].Sessions) != 1 || hosts[0].Sessions[0].Node != st.Leader {
		t.Errorf("%+v, %v: want one session, with %s", hosts, err, st.Leader)
	}
	if err := c.Kill(c.Index(st.Leader)); err != nil {
		t.Fatal(err)
	}
	write(4096)
	for _, off := range []int64{0, 4096} {
		if err := d.ReadAt(t.Context(), got, off); err != nil || !bytes.Equal(got, data) {
			t.Fatal(err)
		}
	}
}

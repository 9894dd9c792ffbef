package daemons

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// TestBlackStart: all nodes lose power while one alone has the newest bytes, and come back in every order, each late. As long as that one is
// missing the volume is not served by any other, and status names it and nobody else; once it is there, and another that votes, the
// newest bytes are, without a human.
func TestBlackStart(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	const newest, stale = 0, 1 // node1 and node2; node3 has no replica
	export(t, c, api.NewVolume{Size: 16 << 20, Replicas: 2, Nodes: []string{"node1", "node2"}}).Close()
	orders := [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
	for round, order := range orders {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			settled(t, c)
			remembered(t, c)
			d := login(t, c)
			if err := d.WriteAt(t.Context(), pattern(4096, byte(0x10+round)), 0); err != nil {
				t.Fatal(err)
			}
			if err := c.Kill(stale); err != nil {
				t.Fatal(err)
			}
			if err := d.WriteAt(t.Context(), pattern(4096, byte(0x20+round)), 4096); err != nil { // node2 lacks it
				t.Fatal(err)
			}
			d.Close()
			for _, i := range []int{2, newest} {
				if err := c.Kill(i); err != nil {
					t.Fatal(err)
				}
			}
			for k, i := range order {
				if err := c.Start(i); err != nil {
					t.Fatal(err)
				}
				switch up := order[:k+1]; {
				case len(up) == 1: // it knows nothing that was committed, but who may ask it, and for whom it waits
					expect(t, c, "a node alone to name the nodes that it waits for", func(s api.Status) bool {
						return s.Leader == "" && len(s.Nodes) == 3 && slices.ContainsFunc(s.Warnings, func(w string) bool {
							return strings.HasPrefix(w, "no node leads: 2 of 3 voting nodes are needed; waiting for "+others(c, i)+";")
						})
					})
				case !slices.Contains(up, newest):
					expect(t, c, "status to name the node that has the newest bytes", func(s api.Status) bool {
						if s.Leader == "" {
							return false
						}
						v := s.Volumes[0]
						return v.State == "waiting" && v.Reason == "waits for node node1" && !v.Served
					})
				default:
					expect(t, c, "the volume to be served", func(s api.Status) bool { return s.Leader != "" && s.Volumes[0].Served })
				}
			}
			d = login(t, c)
			check(t, d, 0, 4096, byte(0x10+round))
			check(t, d, 4096, 4096, byte(0x20+round))
			d.Close()
		})
	}
}

// remembered waits until each node has kept who the nodes are: the last of them joined some milliseconds ago.
func remembered(t *testing.T, c *local.Cluster) {
	t.Helper()
	if err := local.Wait(t.Context(), "the nodes to be remembered", 10*time.Second, func(context.Context) (bool, error) {
		for _, n := range c.Nodes {
			b, err := os.ReadFile(filepath.Join(n.Config.State, "known"))
			if err != nil || strings.Count(string(b), `"Name"`) != len(c.Nodes) {
				return false, err
			}
		}
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
}

// expect waits until a node's status says what f looks for.
func expect(t *testing.T, c *local.Cluster, what string, f func(api.Status) bool) {
	t.Helper()
	var last api.Status
	if err := local.Wait(t.Context(), what, time.Minute, func(ctx context.Context) (bool, error) {
		s, err := c.Client().Status(ctx, false)
		if err != nil || s.Leader != "" && len(s.Volumes) != 1 {
			return false, err
		}
		last = s
		return f(s), nil
	}); err != nil {
		t.Fatalf("%v; status: %s %+v", err, strings.Join(last.Warnings, "; "), last.Volumes)
	}
}

// others names the nodes but one, as a node alone does.
func others(c *local.Cluster, but int) string {
	var names []string
	for i, n := range c.Nodes {
		if i != but {
			names = append(names, n.Name)
		}
	}
	return strings.Join(names, " or ")
}

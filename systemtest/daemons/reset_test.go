package daemons

import (
	"context"
	"slices"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// TestResetByAPortThatStandsBy: a LOGICAL UNIT RESET by the portal of a node that does not serve the LUN releases what another path has reserved
// where it is served, and is told there and here, and not at third nodes. Where nobody serves it is refused.
func TestResetByAPortThatStandsBy(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	if _, err := c.Client().CreateVolume(t.Context(), api.NewVolume{Name: "v", Size: 64 << 20, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	lun, err := c.Client().Export(t.Context(), api.NewLUN{Volume: "v"})
	if err != nil {
		t.Fatal(err)
	}
	leader := settled(t, c).Leader
	serves := newPath(t, c.Nodes[c.Index(leader)].Config.Address.Portal, lun)
	var others []*path
	var names []string
	for _, n := range c.Nodes {
		if n.Name != leader {
			others, names = append(others, newPath(t, n.Config.Address.Portal, lun)), append(names, n.Name)
		}
	}
	asked, third := others[0], others[1]
	for _, p := range append(others, serves) { // the state of the paths is known everywhere
		if err := local.Wait(t.Context(), "a path to be told of", 10*time.Second, func(context.Context) (bool, error) {
			groups := p.groups()
			return groups[serves.own()] == 0 && len(p.told()) == 0, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	const good, conflict = 0x00, 0x18
	reserve := func(p *path, want byte) {
		t.Helper()
		if cmd := p.run(0, 0x16, 0, 0, 0, 0, 0); cmd.Err != nil || cmd.Status != want {
			t.Fatalf("RESERVE: %v, status %x, sense %x", cmd.Err, cmd.Status, cmd.Sense)
		}
	}
	reset := func(p *path) error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		return p.s.LUReset(ctx, p.lun)
	}
	reserve(serves, good)
	reserve(asked, conflict)
	if err := reset(asked); err != nil {
		t.Fatal("the reset:", err)
	}
	for what, p := range map[string]*path{"where it is served": serves, "where it was asked for": asked} {
		if told := p.told(); !slices.Contains(told, 0x2903) {
			t.Errorf("%s: %x was told, and no reset", what, told)
		}
	}
	if told := third.told(); slices.Contains(told, 0x2903) {
		t.Errorf("a third node tells of a reset: %x", told)
	}
	reserve(asked, good)
	reserve(serves, conflict)
	if cmd := serves.run(512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0); cmd.Err != nil || cmd.Status != conflict {
		t.Errorf("READ beside the reservation: %v, status %x", cmd.Err, cmd.Status)
	}
	// Nobody serves: the other two are gone.
	for _, name := range []string{leader, names[1]} {
		if err := c.Kill(c.Index(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := reset(asked); err == nil {
		t.Error("a reset is answered that nobody has carried out")
	}
}

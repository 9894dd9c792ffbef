package appliance

import (
	"errors"
	"testing"

	"pmsapp/appliance/api"
	"pmsapp/appliance/front"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// TestEndClients: where a host's sessions cannot be ended now, what was ended before is allowed again, and the withdrawal is refused.
func TestEndClients(t *testing.T) {
	n := &node{hosts: front.NewHosts(front.HostsConfig{})}
	busy, err := n.hosts.CloseHost(t.Context(), "busy")
	if err != nil {
		t.Fatal(err)
	}
	v := catalog.Volume{ID: ids.Volume{1}, Name: "v"}
	st := &catalog.State{Maps: map[ids.Volume][]catalog.Mapping{v.ID: {{Host: "free", LUN: 1}, {Host: "busy", LUN: 1}}}}
	if undo, err := n.endClients(t.Context(), st, v); !errors.Is(err, api.ErrConflict) || undo != nil {
		t.Fatal(err)
	}
	busy()
	undo, err := n.endClients(t.Context(), st, v) // the other was let in again, or this would be refused
	if err != nil {
		t.Fatal(err)
	}
	undo()
}

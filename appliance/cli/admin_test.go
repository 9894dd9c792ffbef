package cli

import (
	"strings"
	"testing"

	"pmsapp/appliance/api"
)

// TestDrainingIsSeen: who wonders why a node gets no replica finds it in the list.
func TestDrainingIsSeen(t *testing.T) {
	var b strings.Builder
	nodeTable(&b, []api.Node{{Name: "a", State: "alive", Drained: true}, {Name: "b", State: "alive"}})
	lines := strings.Split(b.String(), "\n")
	if !strings.Contains(lines[1], "alive, draining") || strings.Contains(lines[2], "draining") {
		t.Error(b.String())
	}
}

package appliance

import (
	"testing"

	"pmsapp/replication/reign"
)

func TestRegionOf(t *testing.T) {
	for size, want := range map[int64]int64{minVolume: 1 << 20, 32 << 30: 1 << 20, 32<<30 + 4096: 2 << 20, 64 << 30: 2 << 20, 100 << 30: 4 << 20, maxVolume: 4 << 20} {
		if got := regionOf(size); got != want {
			t.Errorf("a volume of %d bytes has regions of %d, not %d", size, got, want)
		}
	}
}

// TestReaching: a volume waits for pools of which nothing is known yet, not for those that are away.
func TestReaching(t *testing.T) {
	up, away, first := reign.NodeStatus{Reachable: true}, reign.NodeStatus{Err: "connection refused"}, reign.NodeStatus{}
	for _, x := range []struct {
		nodes []reign.NodeStatus
		want  bool
	}{{nil, false}, {[]reign.NodeStatus{up, away}, false}, {[]reign.NodeStatus{up, first}, true}} {
		if got := reaching(reign.Status{Nodes: x.nodes}); got != x.want {
			t.Errorf("%+v: %v", x.nodes, got)
		}
	}
}

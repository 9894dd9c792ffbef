package replica

import (
	"errors"
	"testing"

	"pmsapp/replication/peer"
)

// TestTwoPools is a disk that comes back after its replica was made anew in another pool of the node: which one a command means
// is not guessed, and a Delete that names the pool takes that one only.
func TestTwoPools(t *testing.T) {
	h := newHost(t, 2)
	s := h.open(1)
	old := h.spec(0)
	must(t, s, peer.Command{Kind: peer.Create, Spec: old})
	pools := h.pools
	h.pools = pools[1:]
	h.restart()
	s = h.open(2)
	spec := old
	spec.Pool = h.ids[0]
	must(t, s, peer.Command{Kind: peer.Create, Spec: spec})
	b := make([]byte, 4096)
	b[0] = 7
	must(t, s, write(spec.Volume, 0, b, 1))
	h.pools = pools
	h.restart()
	s = h.open(3)
	for _, c := range []peer.Command{write(spec.Volume, 0, b, 2), {Kind: peer.Read, Volume: spec.Volume, Len: 4096, Data: b},
		{Kind: peer.ReadMap, Volume: spec.Volume}, {Kind: peer.Delete, Volume: spec.Volume}} {
		if a := do(t, s, c); !errors.Is(a.Err, peer.ErrNoReplica) {
			t.Fatalf("command %d: %v", c.Kind, a.Err)
		}
	}
	must(t, s, peer.Command{Kind: peer.Delete, Volume: spec.Volume, Spec: peer.Spec{Pool: old.Pool}})
	must(t, s, peer.Command{Kind: peer.Delete, Volume: spec.Volume, Spec: peer.Spec{Pool: old.Pool}})
	got := make([]byte, 4096)
	must(t, s, peer.Command{Kind: peer.Read, Volume: spec.Volume, Len: 4096, Data: got})
	if got[0] != 7 {
		t.Fatal("the other one is gone")
	}
}

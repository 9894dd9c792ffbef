package catalog

import "testing"

// TestSetResync: what an admin has said of copies outlives the leader and is in snapshots; what cannot be is refused.
func TestSetResync(t *testing.T) {
	m, _, v := moving(t)
	want := Resync{Paused: true, Limit: 5 << 20}
	m.do(SetResync{want})
	for _, l := range []int64{-1, MaxResync + 1} {
		m.fails(ErrInvalid, SetResync{Resync{Limit: l}})
	}
	m.do(TakeOver{v().InSync[0].Node, 2})
	if got := m.s.Resync; got != want {
		t.Fatalf("%+v", got)
	}
	b := snapshot(t, m.s)
	s, err := DecodeSnapshot(b)
	if err != nil || s.Resync != want {
		t.Fatal(err, s.Resync)
	}
	m.do(SetResync{})
	if got := m.s.Resync; got != (Resync{}) {
		t.Fatalf("%+v", got)
	}
}

package mirror

import (
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// TestNextLooksForward has more hot regions than are wanted, all of them with a write that is not answered: nothing can be
// cleared, and Next must not name the past, or the shell would spin.
func TestNextLooksForward(t *testing.T) {
	set := []truth.Place{{Node: ids.Node{1}}}
	c, err := New(Params{
		Epoch: 5, Self: ids.Node{1}, Members: []Member{{Node: ids.Node{1}}}, Tunables: Tunables{HotRegions: 1, Cool: time.Second},
		Volume: truth.Volume{ID: ids.Volume{1}, Size: 1 << 20, Region: 64 << 10, Logical: 512, Version: 1, InSync: set, Replicas: set},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range c.Effects(nil) {
		c.Answered(e.Call)
	}
	for i := range int64(3) {
		c.Submit(&block.Request{Op: block.Write, Off: i << 16, Len: 512, Data: make([]byte, 512), Done: func(*block.Request) {}})
	}
	for _, e := range c.Effects(nil) {
		if e.Kind == Send && e.Call.Kind != peer.Write {
			t.Errorf("sent %v", e.Call.Kind)
		}
	}
	now := 5 * time.Second
	for range 10 {
		c.Tick(now)
		if at, ok := c.Next(); ok && at <= now {
			t.Fatalf("at %v, Next is %v", now, at)
		}
		now += time.Millisecond
	}
}

package sim

import (
	"testing"

	simworld "pmsapp/internal/sim"
	"pmsapp/replication/peer"
)

// TestFlipUnderMemory has a block that flipped written over in memory only: it is hidden, and comes back with what is on the media.
func TestFlipUnderMemory(t *testing.T) {
	c := &Cluster{stats: map[string]int{}}
	for _, test := range []struct {
		name string
		end  func(r *simReplica)
		back bool
	}{
		{"reload", func(r *simReplica) { r.data.Reload(0, r.data.Size()); r.reloaded() }, true},
		{"flush", func(r *simReplica) { r.data.Flush().Done(); r.flushed() }, false},
		{"flush and reload", func(r *simReplica) {
			r.data.Flush().Done()
			r.data.Reload(0, r.data.Size())
			r.reloaded()
		}, false},
	} {
		r := &simReplica{spec: peer.Spec{Size: 4096, Region: 4096}, data: simworld.NewFile(4096), marks: map[uint32]peer.Seq{0: 1}, flips: newFlips()}
		is := make([]byte, 512)
		is[7] = 1
		r.flips.blocks[2] = &flip{at: 1024, was: make([]byte, 512), is: is}
		r.put(1024, is)
		if !r.refuses(c, 0, 4096, false) {
			t.Errorf("%s: a flipped block is read", test.name)
		}
		r.data.Zero(1024, 512)
		r.written(1024, 512, true)
		if r.refuses(c, 0, 4096, true) {
			t.Errorf("%s: what is in memory is not read", test.name)
		}
		test.end(r)
		if got := r.refuses(c, 0, 4096, true); got != test.back {
			t.Errorf("%s: a read is refused: %v", test.name, got)
		}
		if r.proper(1024, 512)[7] != 0 {
			t.Errorf("%s: its proper bytes are the flipped ones", test.name)
		}
		r.heal(r.within(0, 4096))
		if r.data.Read(1024, 512)[7] != 0 || r.data.Durable(1024, 512)[7] != 0 || len(r.flips.blocks) != 0 {
			t.Errorf("%s: it is not healed", test.name)
		}
	}
}

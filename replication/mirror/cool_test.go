package mirror

import (
	"math/rand/v2"
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// cooler drives a mirror of one member whose calls are answered at once.
type cooler struct {
	core   *Core
	now    time.Duration
	high   peer.Seq
	writes int
	marks  int // writes that carried a fresh Seq
}

const (
	coolRegion  = 64 << 10
	coolRegions = 2000
)

func newCooler(t *testing.T) *cooler {
	core, err := New(Params{
		Volume: truth.Volume{ID: ids.Volume{1}, Size: coolRegions * coolRegion, Region: coolRegion, Logical: 512, InSync: []truth.Place{{Node: ids.Node{1}}}},
		Epoch:  5, Self: ids.Node{1}, Members: []Member{{Node: ids.Node{1}}}, Tunables: Tunables{Cool: time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	k := &cooler{core: core}
	k.settle()
	return k
}

func (k *cooler) settle() {
	for out := k.core.Effects(nil); len(out) > 0; out = k.core.Effects(nil) {
		for _, e := range out {
			if e.Kind != Send {
				continue
			}
			if e.Call.Kind == peer.Write && e.Call.Seq > k.high {
				k.high = e.Call.Seq
				k.marks++
			}
			e.Call.Answer = peer.Answer{}
			k.core.Answered(e.Call)
		}
	}
}

// write goes on by a millisecond, and writes to a region.
func (k *cooler) write(region int64) {
	k.pass(time.Millisecond)
	k.writes++
	k.core.Submit(&block.Request{Op: block.Write, Off: region * coolRegion, Len: 4096, Data: make([]byte, 4096)})
	k.settle()
}

func (k *cooler) pass(d time.Duration) {
	k.now += d
	k.core.Tick(k.now)
	k.settle()
}

// marked is the part of n writes that had to mark their region.
func (k *cooler) marked(n int, next func() int64) float64 {
	k.writes, k.marks = 0, 0
	for range n {
		k.write(next())
	}
	return float64(k.marks) / float64(k.writes)
}

// TestCool: marks of regions that writes come back to stay longer, so that few writes have to wait for one; others go as soon as ever;
// and without writes all go.
func TestCool(t *testing.T) {
	rnd, at := rand.New(rand.NewPCG(1, 2)), int64(0)
	random := func() int64 { return rnd.Int64N(coolRegions) }
	along := func() int64 { at++; return at / 4 % coolRegions }
	k := newCooler(t)
	if f := k.marked(3000, random); f < 0.4 {
		t.Errorf("at first %.3f of the writes had to mark", f) // a region is written every 2 s, and Cool is 1 s
	}
	k.marked(20000, random)
	if f := k.marked(10000, random); f > 0.04 {
		t.Errorf("%.3f of random writes have to mark", f)
	}
	// A pass along the volume: a region is written four times, and then not for 8 s.
	k = newCooler(t)
	k.marked(7000, along)
	if n := k.core.Status().Active; n > 400 || k.core.cooling.pause != time.Second {
		t.Errorf("%d regions are active, after a pause of %v", n, k.core.cooling.pause)
	}
	// Without writes all of them go.
	k.marked(20000, random)
	if n := k.core.Status().Active; n < coolRegions*9/10 {
		t.Errorf("%d regions are active", n)
	}
	k.pass(8 * time.Second)
	for range 20 {
		k.pass(time.Second)
	}
	if n := k.core.Status().Active; n > 0 {
		t.Errorf("%d regions are active, and nobody writes", n)
	}
}

// TestCoolShrinks: when writes leave the regions that they came back to, marks are cleared as soon as ever.
func TestCoolShrinks(t *testing.T) {
	k := cooling{least: time.Second, most: 8 * time.Second, pause: 8 * time.Second}
	for i := range uint32(10000) {
		now := time.Duration(i) * time.Millisecond
		k.write(now)
		k.mark(i, now, false)
	}
	if k.pause != time.Second {
		t.Errorf("a pause of %v", k.pause)
	}
	k.pause = 4 * time.Second
	k.write(time.Hour)
	if k.pause != time.Second {
		t.Errorf("after an hour a pause of %v", k.pause)
	}
}

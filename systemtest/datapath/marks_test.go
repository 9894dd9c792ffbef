package datapath

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
)

var warmFlag = flag.Duration("warm", time.Minute, "BenchmarkMarks: for how long is written before QD1 is measured")

// counted counts the writes that have to mark a region: each brings a Seq of its own.
type counted struct {
	peer.Session
	high, marks atomic.Uint64
}

// Submit implements peer.Session.
func (s *counted) Submit(c *peer.Call) {
	if c.Kind == peer.Write && uint64(c.Seq) > s.high.Load() {
		s.high.Store(uint64(c.Seq))
		s.marks.Add(1)
	}
	s.Session.Submit(c)
}

// BenchmarkMarks is 4 KiB random writes over 100 GiB of a volume with one replica, and of another without the cost of marks (there none
// is ever cleared), in slices in turn. Both begin when every region was written once, and when marks come and go as they would for ever:
// after a few times as long as a mark lasts. Run it with -benchtime 1x.
func BenchmarkMarks(b *testing.B) {
	const large, region = 100 << 30, 4 << 20 // as pmsapp makes a volume of that size
	var x [2]*path
	for i, tune := range []mirror.Tunables{{}, {HotRegions: 1 << 20, Cool: time.Hour}} {
		x[i] = open(b, 1, large, region, tune)
		every, at := x[i].load(kind{true, 4096, 64}), int64(-region)
		every.next = func() int64 { at += region; return at }
		every.run(b, large/region)
	}
	for _, k := range []struct {
		depth, slice int
		warm         time.Duration
	}{{1, 3000, *warmFlag}, {32, 10000, *warmFlag / 6}} {
		b.Run(fmt.Sprintf("QD%d", k.depth), func(b *testing.B) {
			for b.Loop() {
				var l [2]*load
				for i := range l {
					l[i] = x[i].load(kind{true, 4096, k.depth})
					l[i].rnd = rand.New(rand.NewPCG(uint64(k.depth), uint64(i))) // into holes: what was written before is quicker
				}
				for began := time.Now(); time.Since(began) < k.warm/8; {
					l[1].run(b, 100)
				}
				for began := time.Now(); time.Since(began) < k.warm; {
					l[0].run(b, 100)
				}
				var took [2][]float64
				was := x[0].first.marks.Load()
				const rounds = 5
				for range rounds {
					for i := range l {
						began := time.Now()
						l[i].run(b, k.slice)
						took[i] = append(took[i], float64(time.Since(began).Microseconds())/float64(k.slice))
					}
				}
				marks := float64(x[0].first.marks.Load()-was) / float64(rounds*k.slice)
				for i := range took {
					slices.Sort(took[i])
				}
				b.ReportMetric(took[0][rounds/2], "µs-with")
				b.ReportMetric(took[1][rounds/2], "µs-without")
				b.ReportMetric(took[0][rounds/2]/took[1][rounds/2], "with/without")
				b.ReportMetric(marks, "marks/write")
			}
		})
	}
}

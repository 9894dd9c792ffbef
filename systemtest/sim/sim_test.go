package sim

import (
	"flag"
	"fmt"
	"testing"
	"time"
)

var fromFlag = flag.Uint64("from", 1, "the first seed")
var countFlag = flag.Uint64("seeds", 200, "how many seeds")
var biteFlag = flag.Uint64("bites", 150, "how many")
var onlyFlag = flag.String("only", "", "")
var seedFlag = flag.Uint64("seed", 0, "the seed to replay")

func report(t *testing.T, seed uint64, r Result) {
	t.Helper()
	t.Errorf("seed %d: %v\n\nthe last events:\n%s\nreplay: go test ./systemtest/sim -run TestReplay -seed=%d -v", seed, r.Err, r.Trace, seed)
}

func TestReplay(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("no seed given")
	}
	r := Run(Options{Seed: *seedFlag, Break: breakNamed(*onlyFlag), Lines: 1, Live: func(s string) { fmt.Println(s) }})
	if r.Err != nil {
		t.Errorf("seed %d: %v", *seedFlag, r.Err)
	}
	t.Logf("%d events, %d answers, %v", r.Events, r.Ops, r.Stats)
}

func TestFixedSeeds(t *testing.T) {
	for seed := *fromFlag; seed < *fromFlag+*countFlag; seed++ {
		start := time.Now()
		r := Run(Options{Seed: seed, Lines: 40})
		if r.Err != nil {
			fmt.Printf("seed %d: %.300v\n", seed, r.Err)
			t.Fail()
		}
		if d := time.Since(start); d > 300*time.Millisecond {
			fmt.Printf("seed %d: %v %d events %d ops\n", seed, d, r.Events, r.Ops)
		}
	}
}

func TestStats(t *testing.T) {
	sum := map[string]int{}
	events, ops := 0, 0
	for seed := uint64(1); seed <= 200; seed++ {
		r := Run(Options{Seed: seed})
		for k, v := range r.Stats {
			sum[k] += v
		}
		events += r.Events
		ops += r.Ops
	}
	t.Log(events, ops, sum)
}

package treesim

import (
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "TestReplay: the seed")
	breakFlag = flag.String("break", "", "TestReplay, TestBites: only the breaks whose text has this")
	seedsFlag = flag.Uint64("seeds", 50, "TestFixedSeeds: how many")
	freshFlag = flag.Uint64("fresh", 20, "TestFreshSeeds: how many")
)

func try(t *testing.T, first, n uint64) {
	stats := map[string]int{}
	failed := 0
	for seed := first; seed < first+n && failed < 3; seed++ {
		r := Run(t, seed, BreakNothing)
		if r.Err != nil {
			failed++
			t.Errorf("%v\nagain, with luck: go test ./systemtest/treesim -run '^TestReplay$' -v -seed=%d", r.Err, seed)
		}
		for k, v := range r.Stats {
			stats[k] += v
		}
	}
	for _, k := range slices.Sorted(maps.Keys(stats)) {
		t.Logf("%9d %s", stats[k], k)
	}
	if judged := int(n) - stats["runs that were not judged"]; judged < int(n)*7/10 {
		t.Errorf("only %d of %d runs were judged", judged, n)
	}
}

func TestFixedSeeds(t *testing.T) { try(t, 1, *seedsFlag) }

func TestFreshSeeds(t *testing.T) {
	first := rand.Uint64N(1<<40) + 1<<20
	t.Logf("seeds from %d", first)
	try(t, first, *freshFlag)
}

// TestReplay runs one seed several times: the order of its goroutines differs.
func TestReplay(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("no seed is given")
	}
	for range 20 {
		if r := Run(t, *seedFlag, BreakNothing); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

// bitesWithin is how many seeds a break may live through.
const bitesWithin = 600

// TestBites: each rule that is broken on purpose is found.
func TestBites(t *testing.T) {
	for _, b := range Breaks() {
		if !strings.Contains(string(b), *breakFlag) {
			continue
		}
		t.Run(string(b), func(t *testing.T) {
			for seed := uint64(1); seed <= bitesWithin; seed++ {
				if r := Run(t, seed, b); r.Err != nil {
					text := r.Err.Error()
					t.Logf("%.300s", text)
					return
				}
			}
			t.Errorf("not found in %d seeds", bitesWithin)
		})
	}
}

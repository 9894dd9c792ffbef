package sim

import (
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	seedFlag    = flag.Uint64("seed", 0, "TestReplay: the seed")
	breakFlag   = flag.String("break", "", "TestReplay, TestBites: only the breaks whose text has this")
	fromFlag    = flag.Uint64("from", 1, "TestFixedSeeds: the first seed")
	seedsFlag   = flag.Uint64("seeds", 200, "TestFixedSeeds: how many")
	freshFlag   = flag.Uint64("fresh", 50, "TestFreshSeeds: how many")
	foreverFlag = flag.Bool("forever", false, "TestForever: go on until a seed fails, or somebody stops it")
)

// replay is the command that shows a run again.
func replay(seed uint64, b Break) string {
	s := fmt.Sprintf("go test ./systemtest/sim -run '^TestReplay$' -v -seed=%d", seed)
	if b != BreakNothing {
		s += fmt.Sprintf(" -break=%q", string(b))
	}
	return s
}

// report runs a failed seed again, with a longer trace.
func report(t *testing.T, seed uint64) {
	t.Helper()
	r := Run(Options{Seed: seed, Lines: 150})
	t.Errorf("seed %d: %v\n\nits last events:\n%s\nall of them: %s", seed, r.Err, r.Trace, replay(seed, BreakNothing))
}

// each runs fn for seeds from first on, on all processors, until n are done or fn says to stop. Runs share nothing.
func each(first, n uint64, fn func(seed uint64) (stop bool)) {
	var next atomic.Uint64
	var over atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !over.Load() {
				i := next.Add(1) - 1
				if i >= n {
					return
				}
				if fn(first + i) {
					over.Store(true)
				}
			}
		})
	}
	wg.Wait()
}

// try runs seeds and reports the first few that fail.
func try(t *testing.T, first, n uint64) {
	var mu sync.Mutex
	var bad []uint64
	stats := map[string]int{}
	each(first, n, func(seed uint64) bool {
		r := Run(Options{Seed: seed})
		mu.Lock()
		defer mu.Unlock()
		stats["events"] += r.Events
		stats["answers"] += r.Ops
		for k, v := range r.Stats {
			stats[k] += v
		}
		if r.Err != nil {
			bad = append(bad, seed)
		}
		return len(bad) >= 3
	})
	slices.Sort(bad)
	for _, seed := range bad {
		report(t, seed)
	}
	if len(bad) == 0 && n >= 50 && stats[statVouched] == 0 {
		t.Errorf("no %s", statVouched)
	}
	for _, k := range slices.Sorted(maps.Keys(stats)) {
		t.Logf("%9d %s", stats[k], k)
	}
}

func TestFixedSeeds(t *testing.T) { try(t, *fromFlag, *seedsFlag) }

func TestFreshSeeds(t *testing.T) {
	first := rand.Uint64N(1<<40) + 1<<20
	t.Logf("seeds from %d", first)
	try(t, first, *freshFlag)
}

// TestForever is `make sim`.
func TestForever(t *testing.T) {
	if !*foreverFlag {
		return
	}
	for first := rand.Uint64N(1<<40) + 1<<20; !t.Failed(); first += 1000 {
		fmt.Printf("seeds %d to %d\n", first, first+999)
		try(t, first, 1000)
	}
}

// TestReplay shows one run.
func TestReplay(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("no seed is given")
	}
	b := BreakNothing
	for _, x := range Breaks() {
		if *breakFlag != "" && strings.Contains(string(x), *breakFlag) {
			b = x
		}
	}
	r := Run(Options{Seed: *seedFlag, Break: b, Live: func(s string) { fmt.Println(s) }})
	t.Logf("%d events, %d answers, %v", r.Events, r.Ops, r.Stats)
	if r.Err != nil {
		t.Errorf("seed %d: %v", *seedFlag, r.Err)
	}
}

// TestSeedsReplay proves that a seed says everything: two runs have the same events to the last byte.
func TestSeedsReplay(t *testing.T) {
	sum := func(seed uint64) uint64 {
		h := fnv.New64()
		Run(Options{Seed: seed, Live: func(s string) { io.WriteString(h, s+"\n") }})
		return h.Sum64()
	}
	for seed := uint64(1); seed <= 10; seed++ {
		if first, second := sum(seed), sum(seed); first != second {
			t.Errorf("two runs of seed %d differ", seed)
		}
	}
}

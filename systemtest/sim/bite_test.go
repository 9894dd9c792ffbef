package sim

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// bound is how many seeds have to be enough to find a broken invariant.
const bound = 2000

// TestBites breaks each invariant on purpose, and the simulation has to notice.
func TestBites(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes minutes")
	}
	for _, b := range Breaks() {
		if !strings.Contains(string(b), *breakFlag) {
			continue
		}
		t.Run(string(b), func(t *testing.T) {
			start := time.Now()
			var mu sync.Mutex
			var found uint64
			var why error
			each(1, bound, func(seed uint64) bool {
				r := Run(Options{Seed: seed, Break: b})
				mu.Lock()
				defer mu.Unlock()
				if r.Err != nil && (found == 0 || seed < found) {
					found, why = seed, r.Err
				}
				return r.Err != nil
			})
			if found == 0 {
				t.Fatalf("%d seeds did not notice", bound)
			}
			// A seed that fails without the break as well says nothing about the break.
			if r := Run(Options{Seed: found}); r.Err != nil {
				t.Errorf("seed %d fails unbroken too: %v\n%s", found, r.Err, replay(found, BreakNothing))
			}
			t.Logf("seed %d, %.1f s: %.200v\n%s", found, time.Since(start).Seconds(), why, replay(found, b))
		})
	}
}

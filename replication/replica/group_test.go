package replica

import (
	"errors"
	"runtime"
	"sync"
	"testing"
)

// TestGroup: who asks is told the outcome of a run that began afterwards, runs are one at a time, and there are fewer than who ask.
func TestGroup(t *testing.T) {
	var mu sync.Mutex
	begun, under := 0, 0
	g := group{}
	g.flush = func() error {
		mu.Lock()
		begun++
		n := begun
		if under++; under > 1 {
			t.Error("two runs at once")
		}
		mu.Unlock()
		runtime.Gosched()
		mu.Lock()
		under--
		mu.Unlock()
		return runError(n)
	}
	const callers, calls = 32, 200
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range calls {
				mu.Lock()
				before := begun
				mu.Unlock()
				var n runError
				if err := g.do(); !errors.As(err, &n) || int(n) <= before {
					t.Errorf("%v, asked for after run %d had begun", err, before)
				}
			}
		})
	}
	all.Wait()
	if g.running || len(g.waiting) > 0 || begun > callers*calls/2 {
		t.Fatalf("something is left, or %d runs for %d callers", begun, callers*calls)
	}
}

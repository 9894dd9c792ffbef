package appliance

import "testing"

func TestLeast(t *testing.T) {
	for limit, want := range map[string]int64{"max\n": 1000, "400\n": 400, "4000\n": 1000, "": 1000, "-1": 1000, "0": 1000} {
		if got := least(1000, limit); got != want {
			t.Errorf("%q: %d, not %d", limit, got, want)
		}
	}
	if n := memoryShare(10); n <= 0 || n*9 > memoryShare(100) {
		t.Error(n, memoryShare(100))
	}
}

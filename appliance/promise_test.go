package appliance

import "testing"

// TestTooMuch: a ratio of 0 is no limit.
func TestTooMuch(t *testing.T) {
	for _, c := range []struct {
		promised, size int64
		ratio          float64
		much           bool
	}{{200, 100, 2, false}, {201, 100, 2, true}, {151, 101, 1.5, false}, {152, 101, 1.5, true}, {1 << 50, 1, 0, false}, {5, -1, 2, false}} {
		if got := tooMuch(c.promised, c.size, c.ratio); got != c.much {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

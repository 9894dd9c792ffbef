package appliance

import (
	"testing"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// Each threshold is told once when it is reached, and again only after the pool was well below it.
func TestThresholds(t *testing.T) {
	f := &fill{told: map[ids.Pool]int{}}
	a, b := ids.Pool{1}, ids.Pool{2}
	for i, s := range []struct {
		pool    ids.Pool
		used    int64
		reached int64
	}{
		{a, 0, 0}, {a, 749, 0}, {a, 750, 75}, {a, 760, 0}, {a, 740, 0}, {a, 755, 0}, // it went back a little
		{a, 729, 0}, {a, 750, 75}, {b, 960, 95}, {a, 849, 0}, {a, 850, 85}, {a, 999, 95}, {a, 1000, 0},
		{a, 840, 0}, {a, 850, 0}, {a, 829, 0}, {a, 850, 85}, {a, 100, 0}, {a, 1000, 95},
	} {
		if got := f.seen(s.pool, 1000, 1000-s.used); got != s.reached {
			t.Errorf("step %d: %d of 1000 used: threshold %d, want %d", i, s.used, got, s.reached)
		}
	}
	for _, p := range [][2]int64{{0, 0}, {-1, -1}, {100, 101}} {
		if f.seen(ids.Pool{3}, p[0], p[1]) != 0 {
			t.Error("a pool that does not know its size has reached a threshold")
		}
	}
}

func TestFullest(t *testing.T) {
	v := catalog.Volume{Replicas: []catalog.Place{{Pool: ids.Pool{1}}, {Pool: ids.Pool{2}}}}
	pools := []pooled{{pool: ids.Pool{1}, size: 100, free: 50}, {pool: ids.Pool{2}, size: 90, free: 20}, {pool: ids.Pool{3}, size: 9, free: 1}}
	if s, ok := fullest(v, pools); !ok || s.Available != 20 || s.Used != 70 {
		t.Error(s, ok)
	}
	if _, ok := fullest(v, pools[2:]); ok {
		t.Error("a pool of another volume counts")
	}
}

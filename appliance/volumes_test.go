package appliance

import "testing"

func TestRegionOf(t *testing.T) {
	for size, want := range map[int64]int64{minVolume: 1 << 20, 32 << 30: 1 << 20, 32<<30 + 4096: 2 << 20, 64 << 30: 2 << 20, 100 << 30: 4 << 20, maxVolume: 4 << 20} {
		if got := regionOf(size); got != want {
			t.Errorf("a volume of %d bytes has regions of %d, not %d", size, got, want)
		}
	}
}

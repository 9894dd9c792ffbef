package cli

import (
	"testing"

	"pmsapp/appliance/api"
)

func TestWaits(t *testing.T) {
	for _, c := range []struct {
		waits api.Waits
		want  string
	}{
		{api.Waits{}, "-"},
		{api.Waits{Volume: 3, OldestSeconds: 0.04}, "3: the volume; the oldest for 0.0 s"},
		{api.Waits{Volume: 1, Data: 2, Order: 3, Memory: 4, Answers: 5, OldestSeconds: 12.34},
			"1: the volume, 2: the host's data, 3: earlier ones, 4: memory, 5: the host to take answers; the oldest for 12.3 s"},
	} {
		if got := waits(c.waits); got != c.want {
			t.Errorf("%+v: %q, want %q", c.waits, got, c.want)
		}
	}
}

package appliance

import (
	"testing"
	"time"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// TestTrashCount: a deleted volume is kept for as long as leaders have counted, whatever clocks do, and no longer.
func TestTrashCount(t *testing.T) {
	const keep = 24 * 3600
	v := ids.NewVolume()
	for name, test := range map[string]struct {
		at   func(now time.Duration) (time.Duration, bool) // what the process measures, and whether it leads
		lo   time.Duration                                 // when the volume may be purged at the earliest
		hi   time.Duration
		over time.Duration
	}{
		"usual": {func(now time.Duration) (time.Duration, bool) { return now, true }, 24 * time.Hour, 24*time.Hour + 5*time.Minute, 25 * time.Hour},
		"a clock that jumps by a day": {func(now time.Duration) (time.Duration, bool) {
			if now > time.Hour {
				now += 24 * time.Hour
			}
			return now, true
		}, 24*time.Hour - 2*time.Minute, 25 * time.Hour, 26 * time.Hour},
		"one that jumps by an hour, every hour": {func(now time.Duration) (time.Duration, bool) {
			return now + now.Truncate(time.Hour), true
		}, 23 * time.Hour, 25 * time.Hour, 26 * time.Hour},
		"led half of the time": {func(now time.Duration) (time.Duration, bool) {
			return now, now%(2*time.Hour) < time.Hour
		}, 46 * time.Hour, 49 * time.Hour, 50 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			var k trashCount
			st := &catalog.State{Trash: map[ids.Volume]catalog.Trashed{v: {Volume: catalog.Volume{ID: v}, Since: 7, Until: keep}}}
			for now := time.Duration(0); now < test.over; now += time.Second {
				clock, leads := test.at(now)
				for _, b := range k.step(clock, leads, st) {
					switch b := b.(type) {
					case catalog.CountTrash:
						if b.From != st.Counted || b.To <= b.From || b.To-b.From > catalog.MaxCount {
							t.Fatalf("%+v, and it is %d", b, st.Counted)
						}
						next := *st
						next.Counted = b.To
						st = &next
					case catalog.PurgeVolume:
						if b.Volume != v || b.Since != 7 || !b.Expired || now < test.lo || now > test.hi {
							t.Fatalf("after %v: %+v", now, b)
						}
						return
					}
				}
			}
			t.Fatal("it is kept for ever")
		})
	}
}

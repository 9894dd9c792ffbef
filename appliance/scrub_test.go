package appliance

import (
	"testing"
	"time"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
)

func TestScrubsDue(t *testing.T) {
	now, week := time.Unix(1e9, 0), 7*24*time.Hour
	a, b, c, d := ids.Volume{1}, ids.Volume{2}, ids.Volume{3}, ids.Volume{4}
	scrubbed := func(v ids.Volume, ago time.Duration) catalog.Volume {
		return catalog.Volume{ID: v, Scrub: &catalog.ScrubReport{Ended: now.Add(-ago)}}
	}
	st := &catalog.State{Volumes: map[ids.Volume]catalog.Volume{a: scrubbed(a, week+time.Hour), b: scrubbed(b, 2*week), c: {ID: c},
		d: scrubbed(d, -9*365*24*time.Hour)}}
	idle := func(vs ...ids.Volume) map[ids.Volume]mirror.Status {
		m := map[ids.Volume]mirror.Status{}
		for _, v := range vs {
			m[v] = mirror.Status{}
		}
		return m
	}
	for _, x := range []struct {
		name  string
		led   time.Duration
		every time.Duration
		open  map[ids.Volume]mirror.Status
		want  ids.Volume
	}{
		{"the longest ago", time.Minute, week, idle(a, b, c), b},
		{"of those that serve", time.Minute, week, idle(a, c), a},
		{"none is due", time.Minute, 3 * week, idle(a, b, c), ids.Volume{}},
		{"never, and it leads for long enough", 2 * time.Hour, 3 * week, idle(a, b, c), c},
		{"never, and it has just begun to lead", time.Minute, week, idle(c), ids.Volume{}},
		{"by a clock that was years ahead, and it leads for long enough", 2 * time.Hour, 3 * week, idle(a, d), d},
		{"by a clock that was years ahead, and it has just begun to lead", time.Minute, week, idle(d), ids.Volume{}},
		{"one is under way", time.Minute, week, map[ids.Volume]mirror.Status{a: {}, b: {Scrub: &mirror.ScrubStatus{}}}, ids.Volume{}},
		{"only by command", time.Minute, 0, idle(a, b, c), ids.Volume{}},
	} {
		s := scrubs{since: now.Add(-x.led)}
		if v, ok := s.due(now, x.every, x.open, st); v != x.want || ok != (x.want != ids.Volume{}) {
			t.Errorf("%s: %v %v", x.name, v, ok)
		}
	}
}

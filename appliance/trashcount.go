package appliance

import (
	"time"

	"pmsapp/cluster/catalog"
)

// trashCount decides how time passes for the trash. It measures by the process's monotonic clock, and only while this node leads:
// what a wall clock says does not matter, nor do the hours in which nobody led. The monotonic clock of a virtual machine may jump too,
// when that is resumed or moved: so one count is at most twice the usual pause, and a jump of a day counts for two minutes.
type trashCount struct {
	counting bool
	since    time.Duration
}

// Pauses between two counts.
const (
	trashTick    = time.Minute
	trashTickMin = time.Second // when something is about to expire
	// trashBatch bounds what one step purges.
	trashBatch = 16
)

// step returns what a leader has to propose at now, the time since any fixed moment. st is the newest state.
func (k *trashCount) step(now time.Duration, leads bool, st *catalog.State) (do []catalog.Body) {
	if !leads || len(st.Trash) == 0 {
		k.counting = false
		return nil
	}
	pause := trashTick
	for id, t := range st.Trash {
		left := t.Until - st.Counted
		if left <= 0 && len(do) < trashBatch {
			do = append(do, catalog.PurgeVolume{Volume: id, Since: t.Since, Expired: true})
		}
		if left < int64(trashTick/time.Second) {
			pause = min(pause, max(time.Duration(left)*time.Second, trashTickMin))
		}
	}
	if !k.counting {
		k.counting, k.since = true, now
		return do
	}
	if passed := min(now-k.since, 2*pause); passed >= pause {
		seconds := passed / time.Second
		// If the proposal fails, what was measured is lost: the trash is kept for longer.
		k.since = now - passed%time.Second
		do = append(do, catalog.CountTrash{From: st.Counted, To: st.Counted + int64(seconds)})
	}
	return do
}

package mirror

import "time"

// cooling says how long after its last write a region's mark is cleared. A mark that is needed again costs a write a flush of its own; one
// that stays costs a comparison of its region after a crash, no more (12, 13). So the pause is Tunables.Cool at first, twice as long after each
// window in which writes came back to regions that had just been cleared, and half as long when it is other regions that are marked.
// It is a policy: whatever it says, marks are there before bytes, and a Clear has to pass what it always has.
type cooling struct {
	least time.Duration // Tunables.Cool: also how long a window is
	most  time.Duration // Tunables.CoolMost
	pause time.Duration
	since time.Duration // when the window began
	// Of clients, in the window: writes, regions that they marked, and those of them that had been cleared shortly before.
	writes, marked, back int

	gone [2][]uint64   // the regions cleared since aged, and in the pause before that, a bit for each number modulo goneRegions; nil: none
	aged time.Duration // when
}

const (
	goneRegions = 1 << 15 // as many as are hot; of larger volumes some pass for others
	coolFewest  = 16      // marks in a window of which it is believed that they are of other regions
)

// write counts a client's write, and looks at the window before if that is over.
func (k *cooling) write(now time.Duration) {
	if now-k.since >= k.least {
		switch {
		case now-k.since >= k.most: // nobody wrote
			k.pause = k.least
		case k.back > 0 && k.back*64 >= k.writes && k.back*2 >= k.marked:
			k.pause = min(2*k.pause, k.most)
		case k.back*2 < k.marked && k.marked >= coolFewest:
			k.pause = max(k.pause/2, k.least)
		}
		k.since, k.writes, k.marked, k.back = now, 0, 0, 0
	}
	k.writes++
}

// mark counts a region that a client's write has to mark. again says that its Clear is under way.
func (k *cooling) mark(region uint32, now time.Duration, again bool) {
	k.age(now)
	k.marked++
	at, bit := region%goneRegions/64, uint64(1)<<(region%64)
	for _, g := range k.gone {
		again = again || g != nil && g[at]&bit != 0
	}
	if again {
		k.back++
	}
}

// cleared notes a region that is clean.
func (k *cooling) cleared(region uint32, now time.Duration) {
	k.age(now)
	if k.gone[0] == nil {
		k.gone[0] = make([]uint64, goneRegions/64)
	}
	k.gone[0][region%goneRegions/64] |= 1 << (region % 64)
}

// age forgets what was cleared longer ago than a pause that is twice as long would have kept marked.
func (k *cooling) age(now time.Duration) {
	if d := now - k.aged; d >= 2*k.pause {
		k.gone, k.aged = [2][]uint64{}, now
	} else if d >= k.pause {
		old := k.gone[1]
		clear(old)
		k.gone, k.aged = [2][]uint64{old, k.gone[0]}, now
	}
}

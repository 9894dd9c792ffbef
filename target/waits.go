package target

import (
	"slices"
	"time"
)

// Waits is what the commands of a session wait for, each counted once.
type Waits struct {
	Order  int // for earlier ones: one with a lower CmdSN has not come, or one that is ORDERED has not ended
	Data   int // for data of the initiator
	Memory int // for memory, which commands of any session have
	Unit   int // for the unit: the nexus has it
	Taking int // for the initiator to take the answer
	// Oldest is for how long the oldest has been here, within a tick of the watchman (100 ms); 0 if there is none.
	Oldest time.Duration
}

// waitsFor counts what there is. Called with mu.
func (s *session) waitsFor() (w Waits) {
	now := s.srv.clock.Load()
	for _, t := range s.tasks {
		switch {
		case t.stage == executing:
			w.Unit++
		case t.stage == ended:
			w.Taking++
		case t.stage == early || slices.Contains(s.barred, t):
			w.Order++
		case slices.Contains(s.starved, t):
			w.Memory++
		default:
			w.Data++
		}
		w.Oldest = max(w.Oldest, time.Duration(now-t.begun))
	}
	return w
}

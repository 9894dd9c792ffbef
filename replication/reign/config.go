package reign

import (
	"errors"
	"fmt"
	"time"
)

// ErrConfig is returned when a Config is outside its ranges.
var ErrConfig = errors.New("reign: invalid configuration")

// Config has the times and bounds of a reign. See Default for the usual values.
type Config struct {
	// Grace is how long an unfenced member holds up the volumes that have another member; SuspectGrace is the same for
	// a node that gossip suspects (invariant 7). 10 ms to 10 s, and SuspectGrace is at most Grace.
	Grace, SuspectGrace time.Duration
	// RetryMin and RetryMax bound the back-off between attempts: to open a session, to repeat a proposal whose outcome is
	// unknown, to take over anew. 1 ms to 10 s.
	RetryMin, RetryMax time.Duration
	// PollBusy and PollAbsent are the intervals of asking a node again about pools that were busy, and for pools that were
	// not there. 1 ms to 60 s.
	PollBusy, PollAbsent time.Duration
	// OpenTimeout bounds one attempt to open a session, with its fence (login_timeout). CallTimeout bounds the Create
	// of a replica, and a proposal's wait. 10 ms to 60 s.
	OpenTimeout, CallTimeout time.Duration
	// DrainTimeout bounds the drain before a hand-over or a deletion; past it the volumes go on here. 100 ms to 60 s.
	DrainTimeout time.Duration
	// Resyncs is how many resyncs run at once; of them at most one per node. 1 to 64.
	Resyncs int
	// ProbationMin is how long the replicas of a pool are not brought back after one of them was removed for its disk's
	// slowness; it doubles with each further time, up to ProbationMax, and begins anew after a pool has been good for that
	// long. 1 s to 24 h.
	ProbationMin, ProbationMax time.Duration
	// ReplaceAfter is how long a replica is out of reach before it is made anew on another node; 0: never. Replacements is how
	// many such moves, and those from nodes and pools that are drained, are under way at once. 0, or 1 s to 30 days; 1 to 64.
	ReplaceAfter time.Duration
	Replacements int
	// Batch is how many volumes one Served names at most; Removals is how many RemoveMember are under way at once. 1 to 65536.
	Batch, Removals int
	// YieldAfter is how long some volume is out of reach before other nodes are asked whether they reach more; YieldMin and
	// YieldMax bound the back-off between hand-overs for that reason (invariant 19). 100 ms to 1 h.
	YieldAfter, YieldMin, YieldMax time.Duration
}

// Default returns the usual configuration.
func Default() Config {
	return Config{
		Grace: 500 * time.Millisecond, SuspectGrace: 100 * time.Millisecond,
		RetryMin: 100 * time.Millisecond, RetryMax: time.Second,
		PollBusy: 20 * time.Millisecond, PollAbsent: time.Second,
		OpenTimeout: 2 * time.Second, CallTimeout: 10 * time.Second, DrainTimeout: 5 * time.Second,
		ProbationMin: time.Minute, ProbationMax: time.Hour,
		Resyncs: 4, ReplaceAfter: 10 * time.Minute, Replacements: 2, Batch: 4096, Removals: 256,
		YieldAfter: 2 * time.Second, YieldMin: 5 * time.Second, YieldMax: time.Minute,
	}
}

// Validate returns nil, or an ErrConfig that names the first value that is out of range.
func (c Config) Validate() error {
	for _, d := range []struct {
		name      string
		v, lo, hi time.Duration
	}{
		{"grace", c.Grace, 10 * time.Millisecond, 10 * time.Second},
		{"suspect grace", c.SuspectGrace, 10 * time.Millisecond, c.Grace},
		{"retry min", c.RetryMin, time.Millisecond, 10 * time.Second},
		{"retry max", c.RetryMax, c.RetryMin, 10 * time.Second},
		{"poll busy", c.PollBusy, time.Millisecond, time.Minute},
		{"poll absent", c.PollAbsent, time.Millisecond, time.Minute},
		{"open timeout", c.OpenTimeout, 10 * time.Millisecond, time.Minute},
		{"call timeout", c.CallTimeout, 10 * time.Millisecond, time.Minute},
		{"drain timeout", c.DrainTimeout, 100 * time.Millisecond, time.Minute},
		{"probation min", c.ProbationMin, time.Second, 24 * time.Hour},
		{"probation max", c.ProbationMax, c.ProbationMin, 24 * time.Hour},
		{"yield after", c.YieldAfter, 100 * time.Millisecond, time.Hour},
		{"yield min", c.YieldMin, 100 * time.Millisecond, time.Hour},
		{"yield max", c.YieldMax, c.YieldMin, time.Hour},
	} {
		if d.v < d.lo || d.v > d.hi {
			return fmt.Errorf("%w: %s is %v, not %v to %v", ErrConfig, d.name, d.v, d.lo, d.hi)
		}
	}
	if c.ReplaceAfter != 0 && (c.ReplaceAfter < time.Second || c.ReplaceAfter > 720*time.Hour) {
		return fmt.Errorf("%w: replace after is %v, not 0 or 1s to 720h", ErrConfig, c.ReplaceAfter)
	}
	for _, n := range []struct {
		name      string
		v, lo, hi int
	}{{"replacements", c.Replacements, 1, 64}, {"resyncs", c.Resyncs, 1, 64}, {"batch", c.Batch, 1, 65536}, {"removals", c.Removals, 1, 65536}} {
		if n.v < n.lo || n.v > n.hi {
			return fmt.Errorf("%w: %s is %d, not %d to %d", ErrConfig, n.name, n.v, n.lo, n.hi)
		}
	}
	return nil
}

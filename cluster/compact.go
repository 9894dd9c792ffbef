package cluster

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// A node that starts reads its snapshot and applies what its log has behind it, and cannot lead before. Raft counts entries
// until it takes the next snapshot, but one entry may hold hundreds of a share's operations: a few thousand of them took 20 s to
// apply. So it is bytes that count here, in proportion to the snapshot, which a log of that length is to be worth.

const (
	entryCost   = 512     // bytes that an entry counts beside its data
	leastBehind = 4 << 20 // bytes applied behind a snapshot: no fewer are worth another
	partBehind  = 16      // nor is less than this part of the snapshot's own size
	// A snapshot is taken no sooner than pauses times what the last one took after it: it uses a disk and a processor that hosts wait for.
	pauses = 4
	// afterFailure is how long an attempt that failed is not repeated.
	afterFailure = 10 * time.Second
)

// byBytes leaves snapshots to keepShort.
func byBytes(rc *raft.Config) {
	rc.SnapshotThreshold = math.MaxUint64
	rc.NoSnapshotRestoreOnStart = true // see store.sound
}

// long tells whether what is applied behind the snapshot is worth another one.
func (f *fsm) long() bool {
	return f.applied.Load()-f.saved.Load() >= max(leastBehind, f.snapshot.Load()/partBehind)
}

// keepShort takes snapshots until ctx ends.
func keepShort(ctx context.Context, r *raft.Raft, f *fsm, log *slog.Logger) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var next time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !f.long() || time.Now().Before(next) {
			continue
		}
		began := time.Now()
		err := r.Snapshot().Error()
		took := time.Since(began)
		next = time.Now().Add(pauses * took)
		if err != nil && !errors.Is(err, raft.ErrRaftShutdown) {
			log.Warn("the catalog's log could not be shortened", "err", err)
			next = time.Now().Add(afterFailure)
		}
	}
}

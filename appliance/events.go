package appliance

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"pmsapp/cluster/catalog"
)

// maxPending bounds the events that wait for the catalog; the oldest go first.
const maxPending = 512

// eventLog brings events into the catalog, many with one command, by way of the leader: what a leader tells of the end of its
// reign is known under the next. They are in the log in any case.
type eventLog struct {
	record func(context.Context, []catalog.Event) error
	log    *slog.Logger
	wake   chan struct{}

	mu      sync.Mutex
	pending []catalog.Event
}

func newEventLog(record func(context.Context, []catalog.Event) error, log *slog.Logger) *eventLog {
	return &eventLog{record: record, log: log, wake: make(chan struct{}, 1)}
}

// add never blocks.
func (l *eventLog) add(e catalog.Event) {
	e.Time = time.Now()
	args := []any{"event", e.Kind}
	if !e.Node.IsZero() {
		args = append(args, "node", e.Node.String())
	}
	if !e.Volume.IsZero() {
		args = append(args, "volume", e.Volume.String())
	}
	l.log.Info(e.Text, args...)
	l.mu.Lock()
	if len(l.pending) == maxPending {
		l.pending = l.pending[1:]
	}
	l.pending = append(l.pending, e)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run records until ctx ends, and then for a moment what is left. Events are not worth more of an effort: what no leader takes
// after some tries is dropped.
func (l *eventLog) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastEvents)
			l.flush(last)
			cancel()
			return
		case <-l.wake:
		}
		select { // others may be on their way
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
		l.flush(ctx)
	}
}

// lastEvents is how long a node that ends tries to record its last events.
const lastEvents = time.Second

const eventTries = 10

func (l *eventLog) flush(ctx context.Context) {
	for batch := l.take(); len(batch) > 0; batch = l.take() {
		for try := 1; ; try++ {
			rctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := l.record(rctx, batch)
			cancel()
			if err == nil {
				break
			}
			if try == eventTries || ctx.Err() != nil {
				l.log.Debug("events were not recorded in the catalog", "count", len(batch), "err", err)
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	}
}

func (l *eventLog) take() []catalog.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.pending), 64)
	batch := l.pending[:n:n]
	l.pending = l.pending[n:]
	return batch
}

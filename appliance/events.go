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

// eventLog brings events into the catalog: many with one command, while this node leads. They are in the log in any case.
type eventLog struct {
	propose func(context.Context, catalog.Command) (catalog.Result, error)
	log     *slog.Logger
	wake    chan struct{}

	mu      sync.Mutex
	pending []catalog.Event
	dropped int
}

func newEventLog(propose func(context.Context, catalog.Command) (catalog.Result, error), log *slog.Logger) *eventLog {
	return &eventLog{propose: propose, log: log, wake: make(chan struct{}, 1)}
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
		l.dropped++
	}
	l.pending = append(l.pending, e)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run proposes until ctx ends. Events are not worth an effort: what the catalog does not take after some tries is dropped.
func (l *eventLog) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		select { // others may be on their way
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
		for batch := l.take(); len(batch) > 0; batch = l.take() {
			for try := range 3 {
				pctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				_, err := l.propose(pctx, catalog.Command{Body: catalog.AddEvents{Events: batch}})
				cancel()
				if err == nil || ctx.Err() != nil {
					break
				}
				if try == 2 {
					l.log.Debug("events were not recorded in the catalog", "count", len(batch), "err", err)
					break
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(500 * time.Millisecond):
				}
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

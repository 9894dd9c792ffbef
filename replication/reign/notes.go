package reign

import (
	"context"
	"sync"
)

// mostNotes bounds the events that wait for a slow observer; Serving and Standby are never dropped: there are at most as
// many as mirrors were opened.
const mostNotes = 4096

// notes calls the observer, in order, by one goroutine, so that nothing waits for it.
type notes struct {
	mu    sync.Mutex
	queue []func()
	wake  chan struct{} // holds one
}

// add has f called. One that is not must is dropped when too many wait.
func (n *notes) add(must bool, f func()) {
	n.mu.Lock()
	if must || len(n.queue) < mostNotes {
		n.queue = append(n.queue, f)
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// run calls what is added until ctx ends, and then what is left: the last Standby has to be heard.
func (n *notes) run(ctx context.Context) {
	for {
		select {
		case <-n.wake:
			n.flush()
		case <-ctx.Done():
			n.flush()
			return
		}
	}
}

func (n *notes) flush() {
	n.mu.Lock()
	queue := n.queue
	n.queue = nil
	n.mu.Unlock()
	for _, f := range queue {
		f()
	}
}

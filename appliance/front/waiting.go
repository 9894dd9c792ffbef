package front

import (
	"sync"
	"time"

	"pmsapp/internal/block"
)

// maxWaiting bounds the requests that a waiting device holds; one more is told that it was held for too long.
const maxWaiting = 1024

// waiting is the device of a volume that this leader cannot serve at present: it holds what it gets, at most for hold
// (invariant 5). When it ends, so do its requests, with block.ErrEnded: whoever brought them is dropped and comes again,
// because a command is executed under the epoch that it was received under, or never (invariant 8).
type waiting struct {
	geometry block.Geometry
	hold     time.Duration

	mu    sync.Mutex
	held  map[*block.Request]*time.Timer
	ended bool
}

func newWaiting(g block.Geometry, hold time.Duration) *waiting {
	return &waiting{geometry: g, hold: hold, held: make(map[*block.Request]*time.Timer)}
}

func (w *waiting) Geometry() block.Geometry { return w.geometry }

func (w *waiting) Submit(r *block.Request) {
	w.mu.Lock()
	switch {
	case w.ended:
		r.Err = block.ErrEnded
	case len(w.held) >= maxWaiting:
		r.Err = block.ErrHeld
	default:
		w.held[r] = time.AfterFunc(w.hold, func() { w.giveUp(r) })
		w.mu.Unlock()
		return
	}
	w.mu.Unlock()
	r.Done(r)
}

func (w *waiting) giveUp(r *block.Request) {
	w.mu.Lock()
	_, ok := w.held[r]
	delete(w.held, r)
	w.mu.Unlock()
	if ok {
		r.Err = block.ErrHeld
		r.Done(r)
	}
}

// end ends all requests, and those to come.
func (w *waiting) end() {
	w.mu.Lock()
	w.ended = true
	held := w.held
	w.held = nil
	w.mu.Unlock()
	for r, t := range held {
		t.Stop()
		r.Err = block.ErrEnded
		r.Done(r)
	}
}

package nfs

import (
	"context"
	"net/netip"
	"sync"
)

// retries keeps a call that changes something from being under way twice: a client that sends it again, over the same or
// another connection, waits for the end of the first. See DESIGN.md, "Retries".
type retries struct {
	mu   sync.Mutex
	busy map[retryKey]chan struct{}
}

type retryKey struct {
	client    netip.Addr
	xid, proc uint32
}

// enter waits until no call with this key is under way, and makes the caller it. The function ends that.
func (r *retries) enter(ctx context.Context, k retryKey) (func(), error) {
	mine := make(chan struct{})
	for {
		r.mu.Lock()
		first, found := r.busy[k]
		if !found {
			r.busy[k] = mine
			r.mu.Unlock()
			return func() {
				r.mu.Lock()
				delete(r.busy, k)
				r.mu.Unlock()
				close(mine)
			}, nil
		}
		r.mu.Unlock()
		select {
		case <-first:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

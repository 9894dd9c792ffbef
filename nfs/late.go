package nfs

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"pmsapp/internal/nfs3"
	"pmsapp/nfs/rpc"
)

// errLate ends the connection of a WRITE that its client has long sent again, over a newer connection, and been answered.
var errLate = errors.New("nfs: a WRITE came when it had been sent again and answered")

// maxLate is how many WRITEs are remembered, the newest.
const maxLate = 1 << 14

// lateWrites remembers which WRITEs were done over a connection whose client has an older one open: one that comes over the older then was
// lost in the network, must not undo what came since, and wants no answer. See DESIGN.md, "Retries".
type lateWrites struct {
	any atomic.Bool // there are some: the others' calls need not take mu

	mu    sync.Mutex
	done  map[lateKey]uint64 // by the number of the connection
	order []lateKey          // a ring
	next  int
}

// lateKey is the same for a WRITE and its retry, and differs from others', even if two connections of a client count XIDs each by itself.
type lateKey struct {
	client netip.Addr
	xid    uint32
	file   Ref
	offset uint64
	count  uint32
}

func writeKey(c *rpc.Call, f Ref, a nfs3.WriteArgs) lateKey {
	return lateKey{c.Client.Addr(), c.XID, f, a.Offset, a.Count}
}

// check returns errLate for a WRITE that was done over a newer connection.
func (l *lateWrites) check(k lateKey, conn uint64) error {
	if !l.any.Load() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if newer, done := l.done[k]; done && newer > conn {
		return errLate
	}
	return nil
}

// add remembers a WRITE that is done and will be answered.
func (l *lateWrites) add(k lateKey, conn uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = map[lateKey]uint64{}
	}
	l.any.Store(true)
	if _, known := l.done[k]; !known {
		switch {
		case len(l.order) < maxLate:
			l.order = append(l.order, k)
		default:
			delete(l.done, l.order[l.next])
			l.order[l.next] = k
			l.next = (l.next + 1) % maxLate
		}
	}
	l.done[k] = conn
}

package nfs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/rangelock"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
	"pmsapp/nfs/rpc"
)

const (
	maxWaiters   = 1024             // above that clients find out when they ask again
	grantTimeout = 10 * time.Second // for a lock, and for its client to be told
	findTimeout  = 2 * time.Second  // of that, for its lock manager to be found
)

// waiter is a LOCK that was answered BLOCKED.
type waiter struct {
	share ids.Volume
	ref   Ref
	lock  rangelock.Lock
	args  lockArgs
	from  netip.Addr    // our address, by which the client knows us
	busy  chan struct{} // while it is being granted; closed then
}

// grants grants locks to those that wait for them, and tells them. Who waits is known here only: after a failover clients
// ask again by themselves. DESIGN.md, "Locks", says why no lock is lost or taken away.
type grants struct {
	srv  *Server
	find time.Duration // findTimeout
	ctx  context.Context
	end  context.CancelCauseFunc
	work sync.WaitGroup

	mu      sync.Mutex
	waiting []*waiter          // in the order of their coming
	running map[waitedFor]bool // files whose waiters are being looked at; true means once more
	closed  bool
}

type waitedFor struct {
	share ids.Volume
	ref   Ref
}

func newGrants(s *Server) *grants {
	g := &grants{srv: s, find: findTimeout, running: map[waitedFor]bool{}}
	g.ctx, g.end = context.WithCancelCause(context.Background())
	return g
}

// close ends all that is under way and waits for it.
func (g *grants) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.end(rpc.ErrShutdown)
	g.work.Wait()
}

func (w *waiter) file() waitedFor { return waitedFor{w.share, w.ref} }

// same tells whether two are the same request.
func (w *waiter) same(o *waiter) bool {
	a, b := w.lock, o.lock
	a.State, b.State = 0, 0 // CANCEL does not say it
	return w.file() == o.file() && a == b
}

// settle waits until nothing is being granted to the owner of w in its file, and forgets w if it waits from before: the
// client asks for it anew.
func (g *grants) settle(ctx context.Context, w *waiter) error {
	for {
		var busy chan struct{}
		g.mu.Lock()
		for _, o := range g.waiting {
			if o.busy != nil && o.file() == w.file() && o.lock.Owner == w.lock.Owner {
				busy = o.busy
			}
		}
		if busy == nil {
			g.waiting = slices.DeleteFunc(g.waiting, w.same)
		}
		g.mu.Unlock()
		if busy == nil {
			return nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// add has w wait. It may be granted at once: what was in its way may have gone since.
func (g *grants) add(w *waiter) {
	g.mu.Lock()
	if len(g.waiting) < maxWaiters {
		g.waiting = append(g.waiting, w)
	}
	g.mu.Unlock()
	g.kick(w.share, w.ref)
}

// cancel has w wait no more. False: it does not wait, or is being granted.
func (g *grants) cancel(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, o := range g.waiting {
		if o.busy == nil && o.same(w) {
			g.waiting = slices.Delete(g.waiting, i, i+1)
			return true
		}
	}
	return false
}

// kickAll looks at all that wait in a share.
func (g *grants) kickAll(share ids.Volume) {
	g.mu.Lock()
	var files []waitedFor
	for _, w := range g.waiting {
		if w.share == share && !slices.Contains(files, w.file()) {
			files = append(files, w.file())
		}
	}
	g.mu.Unlock()
	for _, f := range files {
		g.kick(f.share, f.ref)
	}
}

// kick looks at those that wait for a file, in a goroutine of their own.
func (g *grants) kick(share ids.Volume, ref Ref) {
	f := waitedFor{share, ref}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || !slices.ContainsFunc(g.waiting, func(w *waiter) bool { return w.file() == f }) {
		return
	}
	if _, found := g.running[f]; found {
		g.running[f] = true
		return
	}
	g.running[f] = false
	g.work.Go(func() {
		for {
			for w := g.next(f, nil); w != nil; w = g.next(f, w) {
				g.done(w, g.try(w))
			}
			if !g.again(f) {
				return
			}
		}
	})
}

// again tells whether somebody has kicked a file since its round began.
func (g *grants) again(f waitedFor) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || !g.running[f] {
		delete(g.running, f)
		return false
	}
	g.running[f] = false
	return true
}

// next returns the waiter of a file behind the last, now busy; nil at the end. Behind one that waits no more it begins anew.
func (g *grants) next(f waitedFor, last *waiter) *waiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := slices.Index(g.waiting, last) + 1; i < len(g.waiting); i++ {
		if w := g.waiting[i]; w.file() == f {
			w.busy = make(chan struct{})
			return w
		}
	}
	return nil
}

// done ends the granting of w, and its waiting unless it is kept.
func (g *grants) done(w *waiter, kept bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(w.busy)
	w.busy = nil
	if !kept {
		g.waiting = slices.DeleteFunc(g.waiting, func(o *waiter) bool { return o == w })
	}
}

// try grants a lock, if it is to be had, and tells the client. True: it has to wait on.
func (g *grants) try(w *waiter) bool {
	ctx, cancel := context.WithTimeout(g.ctx, grantTimeout)
	defer cancel()
	waits := false
	err := g.withLocker(ctx, w, func(l Locker, c Caller) error {
		has, err := l.Holds(w.ref, w.lock)
		if err != nil || has { // what he has could not be given back to him with the rest taken away; he asks again
			waits = has
			return err
		}
		conflict, err := l.Lock(ctx, c, w.ref, w.lock)
		waits = conflict != nil
		return err
	})
	if err != nil || waits {
		return err == nil
	}
	if err := g.tell(ctx, w); !errors.Is(err, errNotWanted) && !errors.Is(err, errUntold) {
		if err != nil { // it may have heard it: its lock stays, and it finds out when it asks again
			g.srv.log.Info("a client was not told of its lock", "client", w.lock.Owner.Addr.String(), "err", err)
		}
		return false
	}
	back, done := context.WithTimeout(g.ctx, grantTimeout) // what was left of the other may be nothing
	defer done()
	if err := g.withLocker(back, w, func(l Locker, c Caller) error { return l.Unlock(back, c, w.ref, w.lock) }); err != nil {
		g.srv.log.Warn("a lock that nobody wants stays", "client", w.lock.Owner.Addr.String(), "err", err)
		return false
	}
	g.kick(w.share, w.ref)
	return false
}

var (
	errNotWanted = errors.New("nfs: the client does not wait for this lock")
	errUntold    = errors.New("nfs: the client's lock manager is not to be found")
)

// withLocker calls a share as the owner of a lock.
func (g *grants) withLocker(ctx context.Context, w *waiter, do func(Locker, Caller) error) error {
	leave := g.srv.drains.enter(w.share)
	defer leave()
	e, err := g.srv.cfg.Exports.ByShare(ctx, w.share)
	if err != nil {
		return err
	}
	l, ok := e.Share.(Locker)
	if r, known := e.rule(w.lock.Owner.Addr); !ok || !known || r.ReadOnly && w.lock.Exclusive {
		return nfs3.ErrAccess
	}
	return do(l, Caller{Client: w.lock.Owner.Addr, XID: rand.Uint32(), Sum: rand.Uint64()})
}

// tell calls the client's lock manager. errNotWanted is its refusal, and after errUntold it has not heard; after any other error nobody knows.
func (g *grants) tell(ctx context.Context, w *waiter) error {
	port := g.srv.cfg.ClientPortmap
	if port == 0 {
		port = 111
	}
	find, cancel := context.WithTimeout(ctx, g.find)
	defer cancel()
	r, err := g.callBack(find, w, uint32(port), sunrpc.Header{Prog: nfs3.PortProgram, Vers: portVersion, Proc: portGet}, func(e *xdr.Encoder) {
		for _, v := range [...]uint32{lockProgram, lockVersion, tcp, 0} {
			e.Uint32(v)
		}
	})
	if err != nil {
		return fmt.Errorf("%w: its portmap: %w", errUntold, err)
	}
	at := r.Uint32()
	if r.Err() != nil || at == 0 || at > 65535 {
		return errUntold
	}
	r, err = g.callBack(ctx, w, at, sunrpc.Header{Prog: lockProgram, Vers: lockVersion, Proc: lockGrant}, func(e *xdr.Encoder) {
		e.Opaque(w.args.cookie)
		e.Bool(w.args.exclusive)
		e.String(w.args.caller)
		e.Opaque(w.args.file)
		e.String(w.args.owner)
		e.Uint32(w.args.pid)
		e.Uint64(w.args.off)
		e.Uint64(w.args.len)
	})
	if err != nil {
		return err
	}
	r.Opaque(maxNetobj)
	switch stat := r.Uint32(); {
	case r.Err() != nil:
		return r.Err()
	case stat != lockGranted:
		return errNotWanted
	}
	return nil
}

// callBack calls a procedure of the client, from the address that it knows.
func (g *grants) callBack(ctx context.Context, w *waiter, port uint32, h sunrpc.Header, args func(*xdr.Encoder)) (*xdr.Decoder, error) {
	c := sunrpc.NewClient(sunrpc.ClientConfig{Limit: 4096, Dial: func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.from, 0))}
		return d.DialContext(ctx, "tcp", net.JoinHostPort(w.lock.Owner.Addr.String(), strconv.Itoa(int(port))))
	}})
	defer c.Close()
	return c.Call(ctx, h.Prog, h.Vers, h.Proc, args, nil)
}

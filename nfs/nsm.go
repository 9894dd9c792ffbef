package nfs

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/rangelock"
	"pmsapp/internal/sunrpc"
	"pmsapp/nfs/rpc"
)

// NSM version 1 (XNFS; the state of hosts). Clients tell by it that they have been started anew, so that their locks are
// released. The other way is not needed: locks survive failovers, so no client has to reclaim any.
const (
	stateProgram = 100024
	stateVersion = 1

	stateNull   = 0
	stateNotify = 6
)

// nsm answers NOTIFY. What a host asks of its own state daemon (MON and the like) is not served to others.
func (s *Server) nsm(ctx context.Context, rc *rpc.Call, _ *rpc.Reply) error {
	switch rc.Proc {
	case stateNull:
		return nil
	case stateNotify:
		name := rc.Args.String(maxCaller)
		state := rc.Args.Uint32()
		if rc.Args.Err() != nil {
			return sunrpc.GarbageArgs
		}
		return s.release(ctx, rc, name, state)
	}
	return sunrpc.ProcUnavail
}

// release takes the locks of a client away, in all shares that are exported to it, but for those that it has taken in this state, the number
// of its new start: it says so by and by, long after it has locked what it uses now. Only those that came from the caller's own address:
// nobody gives away another's.
func (s *Server) release(ctx context.Context, rc *rpc.Call, name string, state uint32) error {
	c := &call{srv: s, rpc: rc, caller: Caller{Client: rc.Client.Addr(), XID: rc.XID}}
	c.caller.Sum = c.sum(binary.BigEndian.AppendUint32([]byte(name), state))
	exports := s.cfg.Exports.All()
	errs := make([]error, len(exports))
	var all sync.WaitGroup
	for i, e := range exports { // at once: one that is not served keeps the call waiting, and no other share from its release
		all.Go(func() {
			errs[i] = s.releaseIn(ctx, c.caller, e, rangelock.Owner{Addr: c.caller.Client, Host: name}, state)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (s *Server) releaseIn(ctx context.Context, c Caller, e *Export, client rangelock.Owner, state uint32) error {
	if _, ok := e.rule(c.Client); !ok {
		return nil
	}
	leave := s.drains.enter(e.ID)
	defer leave()
	e, err := s.cfg.Exports.ByShare(ctx, e.ID)
	if errors.Is(err, nfs3.ErrStale) {
		return nil
	}
	if err != nil {
		return err
	}
	if l, ok := e.Share.(Locker); ok {
		if err := l.Release(ctx, c, client, state); err != nil {
			return err
		}
		s.grants.kickAll(e.ID)
	}
	return nil
}

package nfs

import (
	"context"
	"errors"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/rangelock"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
	"pmsapp/nfs/rpc"
)

// NLM version 4 (The Open Group, Protocols for Interworking: XNFS; RFC 1813 6.2): its procedures that are served, all
// with an answer of their own. The asynchronous ones, and DOS's SHARE, are not: no client of NFS version 3 in use asks.
const (
	lockProgram = 100021
	lockVersion = 4

	lockNull    = 0
	lockTest    = 1
	lockLock    = 2
	lockCancel  = 3
	lockUnlock  = 4
	lockGrant   = 5 // the clients' to answer
	lockNoMon   = 22
	lockFreeAll = 23

	maxNetobj = 1024
	maxCaller = 1024
)

// nlm4_stats
const (
	lockGranted = 0
	lockDenied  = 1
	lockNoLocks = 2
	lockBlocked = 3
	lockROFS    = 6
	lockStale   = 7
	lockFBig    = 8
	lockFailed  = 9
)

// lockArgs are the arguments of TEST, LOCK, CANCEL, UNLOCK and NM_LOCK.
type lockArgs struct {
	cookie    []byte
	block     bool
	exclusive bool
	caller    string
	file      nfs3.Handle
	owner     string
	pid       uint32
	off, len  uint64
	state     uint32 // NSM's number of the client's start, in LOCK and NM_LOCK
}

func (a *lockArgs) decode(d *xdr.Decoder, proc uint32) {
	a.cookie = []byte(d.String(maxNetobj)) // it may outlive the call, as the other parts
	if proc == lockLock || proc == lockCancel || proc == lockNoMon {
		a.block = d.Bool()
	}
	if proc != lockUnlock {
		a.exclusive = d.Bool()
	}
	a.caller, a.file, a.owner = d.String(maxCaller), nfs3.Handle(d.String(maxNetobj)), d.String(maxNetobj)
	a.pid, a.off, a.len = d.Uint32(), d.Uint64(), d.Uint64()
	if proc == lockLock || proc == lockNoMon {
		d.Bool() // whether it is reclaimed: nothing has to be
		a.state = d.Uint32()
	}
}

// nlm answers the lock manager's calls.
func (s *Server) nlm(ctx context.Context, rc *rpc.Call, out *rpc.Reply) error {
	switch rc.Proc {
	case lockNull:
		return nil
	case lockFreeAll:
		name := rc.Args.String(maxCaller)
		rc.Args.Uint32() // a state that XNFS says is not used
		if rc.Args.Err() != nil {
			return sunrpc.GarbageArgs
		}
		return s.release(ctx, rc, name, 0)
	case lockTest, lockLock, lockCancel, lockUnlock, lockNoMon:
	default:
		return sunrpc.ProcUnavail
	}
	c := &call{srv: s, rpc: rc, out: out, caller: Caller{Client: rc.Client.Addr(), XID: rc.XID, Sum: 0}, leave: func() {}}
	defer func() { c.leave() }()
	c.caller.Sum = c.sum(rc.Args.Rest())
	var a lockArgs
	if a.decode(rc.Args, rc.Proc); rc.Args.Err() != nil {
		return sunrpc.GarbageArgs
	}
	leave, err := s.retries.enter(ctx, retryKey{c.caller.Client, rc.XID, rc.Proc | 1<<31})
	if err != nil {
		return err
	}
	defer leave()
	stat, holder, err := c.lock(ctx, a)
	if err != nil {
		return err
	}
	out.Opaque(a.cookie)
	out.Uint32(stat)
	if rc.Proc == lockTest && stat == lockDenied {
		out.Bool(holder.Exclusive)
		out.Uint32(uint32(holder.Owner.PID))
		out.String(holder.Owner.Handle)
		out.Uint64(holder.Off)
		out.Uint64(holder.Len)
	}
	return nil
}

// lock does what a call asks for. With lockDenied of a TEST comes the lock that is in the way.
func (c *call) lock(ctx context.Context, a lockArgs) (uint32, rangelock.Lock, error) {
	l := rangelock.Lock{Off: a.off, Len: a.len, Exclusive: a.exclusive, State: a.state,
		Owner: rangelock.Owner{Addr: c.caller.Client, Host: a.caller, PID: int32(a.pid), Handle: a.owner}}
	if a.len == 1<<64-1 { // another way to say "to the end"
		l.Len = 0
	}
	f, err := c.file(ctx, a.file)
	if err == nil && c.rpc.Proc != lockUnlock && c.rpc.Proc != lockCancel { // what is his everybody may give back, whoever owns the file by now
		err = c.mayLock(f, a.exclusive)
	}
	if err != nil {
		stat, err := c.lockStatus(ctx, err)
		return stat, l, err
	}
	locker, ok := c.export.Share.(Locker)
	if !ok {
		return lockNoLocks, l, nil
	}
	w := waiter{share: c.export.ID, ref: f, lock: l, args: a, from: c.rpc.Server.Addr()}
	var conflict *rangelock.Lock
	switch {
	case !l.Valid():
		return lockFBig, l, nil
	case c.rpc.Proc == lockTest:
		conflict, err = locker.Locked(ctx, f, l)
	case c.rpc.Proc == lockUnlock:
		if err = locker.Unlock(ctx, c.caller, f, l); err == nil {
			c.srv.grants.kick(w.share, w.ref)
		}
	case c.rpc.Proc == lockCancel:
		if !c.srv.grants.cancel(&w) { // it may have been granted: the client unlocks it then
			return lockDenied, l, nil
		}
	default:
		if err = c.srv.grants.settle(ctx, &w); err != nil {
			return 0, l, err
		}
		conflict, err = locker.Lock(ctx, c.caller, f, l)
	}
	stat, err := c.lockStatus(ctx, err)
	if err != nil || stat != lockGranted || conflict == nil {
		return stat, l, err
	}
	if a.block && c.rpc.Proc == lockLock {
		c.srv.grants.add(&w)
		return lockBlocked, *conflict, nil
	}
	return lockDenied, *conflict, nil
}

// mayLock checks whether the caller may lock a file: who may write it, or may read it for a lock that others share.
func (c *call) mayLock(f Ref, exclusive bool) error {
	if exclusive && c.rule.ReadOnly {
		return denied{nfs3.ErrROFS}
	}
	a, found, err := c.peek(f)
	if err != nil || !found || c.user.mayData(a, mayRead) || c.user.mayData(a, mayWrite) {
		return err
	}
	return denied{nfs3.ErrAccess}
}

// lockStatus turns an error into an nlm4_stats. An error that is no status is returned.
func (c *call) lockStatus(ctx context.Context, err error) (uint32, error) {
	var d denied
	if errors.As(err, &d) {
		if err := c.export.Share.Confirm(ctx); err != nil {
			return 0, err
		}
		err = d.Status
	}
	var s nfs3.Status
	switch {
	case err == nil:
		return lockGranted, nil
	case !errors.As(err, &s):
		return 0, err
	case s == nfs3.ErrStale || s == nfs3.ErrBadHandle:
		return lockStale, nil
	case s == nfs3.ErrNoSpace:
		return lockNoLocks, nil
	case s == nfs3.ErrROFS:
		return lockROFS, nil
	}
	return lockFailed, nil
}

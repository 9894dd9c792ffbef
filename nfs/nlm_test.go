package nfs_test

import (
	"fmt"
	"net/netip"
	"testing"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/rangelock"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
	"pmsapp/nfs"
)

// lockCall is a call of NLM's TEST (1), LOCK (2), CANCEL (3), UNLOCK (4) or NM_LOCK (22).
type lockCall struct {
	proc             uint32
	host, owner      string
	pid              uint32
	off, len         uint64
	exclusive, block bool
	state            uint32 // 1 if 0
}

func (l lockCall) encode(file nfs3.Handle) func(*xdr.Encoder) {
	return func(e *xdr.Encoder) {
		e.String("cookie")
		if l.proc == 2 || l.proc == 3 || l.proc == 22 {
			e.Bool(l.block)
		}
		if l.proc != 4 {
			e.Bool(l.exclusive)
		}
		e.String(l.host)
		e.Opaque(file)
		e.String(l.owner)
		e.Uint32(l.pid)
		e.Uint64(l.off)
		e.Uint64(l.len)
		if l.proc == 2 || l.proc == 22 {
			e.Bool(false)
			e.Uint32(max(l.state, 1))
		}
	}
}

// lock calls NLM and returns its status, and the lock that is in the way.
func (d *door) lock(file nfs3.Handle, l lockCall) (uint32, rangelock.Lock) {
	d.t.Helper()
	r, err := d.c.RPC().Call(d.t.Context(), 100021, 4, l.proc, l.encode(file), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	cookie, stat := r.String(64), r.Uint32()
	var h rangelock.Lock
	if l.proc == 1 && stat == 1 {
		h.Exclusive, h.Owner.PID, h.Owner.Handle = r.Bool(), int32(r.Uint32()), r.String(64)
		h.Off, h.Len = r.Uint64(), r.Uint64()
	}
	if cookie != "cookie" || r.Err() != nil || r.Left() != 0 {
		d.t.Fatal("the result is not well formed", r.Err(), r.Left())
	}
	return stat, h
}

func TestLocks(t *testing.T) {
	d := open(t)
	f := d.file("f", 0o666, "")
	const granted, denied, blocked = 0, 1, 3
	a, b := lockCall{host: "a", owner: "1", pid: 1, off: 0, len: 100, exclusive: true}, lockCall{host: "b", owner: "1", pid: 2, off: 50, len: 0, exclusive: true}
	is := func(what string, l lockCall, proc, want uint32) {
		t.Helper()
		l.proc = proc
		if stat, _ := d.lock(f, l); stat != want {
			t.Errorf("%s: %d, want %d", what, stat, want)
		}
	}
	is("TEST of what is free", a, 1, granted)
	is("LOCK", a, 2, granted)
	is("LOCK again", a, 2, granted)
	is("another's LOCK", b, 2, denied)
	is("another's NM_LOCK", b, 22, denied)
	wait := b
	wait.block = true
	is("another's LOCK that waits", wait, 2, blocked)
	is("CANCEL", wait, 3, granted)
	b.proc = 1
	if stat, h := d.lock(f, b); stat != denied || h != (rangelock.Lock{Off: 0, Len: 100, Exclusive: true, Owner: rangelock.Owner{PID: 1, Handle: "1"}}) {
		t.Errorf("TEST: %d %+v", stat, h)
	}
	is("another's UNLOCK", b, 4, granted)
	is("does not count", b, 2, denied)
	part := a
	part.off, part.len = 50, 1<<64-1 // to the end, as some say it
	is("UNLOCK of a part", part, 4, granted)
	is("what was unlocked", b, 2, granted)
	is("beyond the end", lockCall{host: "c", off: 3, len: 1<<64 - 2}, 2, 8)
	// A host is started anew: its locks are released, others' are not.
	for i, c := range []struct {
		prog, vers, proc uint32
		name             string
		want             uint32
	}{{100024, 1, 6, "c", denied}, {100024, 1, 6, "b", granted}, {100021, 4, 23, "c", granted}} {
		if _, err := d.c.RPC().Call(t.Context(), c.prog, c.vers, c.proc, func(e *xdr.Encoder) { e.String(c.name); e.Uint32(3) }, nil); err != nil {
			t.Fatal(err)
		}
		is(fmt.Sprint("after a notification ", i), lockCall{host: "c", off: 60, len: 1}, 2, c.want)
	}
	is("FREE_ALL was another's", lockCall{host: "z", len: 1}, 2, denied)

	stale := d.file("gone", 0o666, "")
	if _, err := d.c.Remove(t.Context(), d.root, "gone"); err != nil {
		t.Fatal(err)
	}
	for what, h := range map[string]nfs3.Handle{"what is gone": stale, "no handle": nfs3.Handle("x")} {
		for _, proc := range []uint32{1, 2, 4, 22} {
			a.proc = proc
			if stat, _ := d.lock(h, a); stat != 7 {
				t.Errorf("procedure %d of %s: %d", proc, what, stat)
			}
		}
	}
	d.rule(func(u *nfs.Rule) { u.ReadOnly = true })
	is("an exclusive lock of a read-only export", lockCall{host: "a", len: 1, exclusive: true}, 2, 6)
	is("a shared lock of a read-only export", lockCall{host: "a", off: 200, len: 1}, 2, granted)
	d.rule(func(u *nfs.Rule) { u.Clients = netip.MustParsePrefix("192.0.2.0/24") })
	is("a client without a rule", lockCall{host: "a", len: 1}, 2, 9)
}

func TestLockPermissions(t *testing.T) {
	d := open(t)
	f := d.file("f", 0o600, "")
	l := lockCall{proc: 2, host: "a", len: 1}
	call := func(cred sunrpc.Cred) uint32 {
		r, err := d.client(cred).RPC().Call(t.Context(), 100021, 4, 2, l.encode(f), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.String(64)
		return r.Uint32()
	}
	if stat := call(sunrpc.Cred{Flavor: sunrpc.AuthSys, UID: 5}); stat != 9 {
		t.Error("who may neither read nor write:", stat)
	}
	if stat := call(sunrpc.Cred{Flavor: sunrpc.AuthSys}); stat != 0 {
		t.Error("root:", stat)
	}
}

// lockless is a share without locks.
type lockless struct{ nfs.Share }

func TestNoLocks(t *testing.T) {
	d := open(t)
	f := d.file("f", 0o600, "")
	e := d.export
	e.Share = lockless{d.share}
	d.exports.Set(e)
	if stat, _ := d.lock(f, lockCall{proc: 2, host: "a", len: 1}); stat != 2 {
		t.Error(stat)
	}
	_, err := d.c.RPC().Call(t.Context(), 100024, 1, 6, func(e *xdr.Encoder) { e.String("a"); e.Uint32(1) }, nil)
	want(t, "NOTIFY", err, nil)
	for proc := range uint32(25) {
		var status error
		switch proc {
		case 0:
		case 1, 2, 3, 4, 22, 23:
			status = sunrpc.GarbageArgs
		default:
			status = sunrpc.ProcUnavail
		}
		_, err := d.c.RPC().Call(t.Context(), 100021, 4, proc, nil, nil)
		want(t, fmt.Sprintf("NLM %d without arguments", proc), err, status)
	}
	for proc, status := range map[uint32]error{0: nil, 1: sunrpc.ProcUnavail, 2: sunrpc.ProcUnavail, 6: sunrpc.GarbageArgs} {
		_, err := d.c.RPC().Call(t.Context(), 100024, 1, proc, nil, nil)
		want(t, fmt.Sprintf("NSM %d without arguments", proc), err, status)
	}
}

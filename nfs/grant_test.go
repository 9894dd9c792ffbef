package nfs_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
	"pmsapp/nfs"
	"pmsapp/nfs/rpc"
)

// granted is a callback that a client's lock manager got.
type granted struct {
	owner    string
	off, len uint64
	file     nfs3.Handle
	answer   chan uint32 // the status to answer with
}

// lockManager is a client's: portmap and NLM on one port, which gives its callbacks to whoever asks.
func lockManager(t *testing.T) (uint16, chan granted) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	calls := make(chan granted)
	srv, err := rpc.New(rpc.Config{Programs: []rpc.Program{
		{Number: nfs3.PortProgram, Low: 2, High: 2, Serve: func(_ context.Context, _ *rpc.Call, r *rpc.Reply) error {
			r.Uint32(uint32(port))
			return nil
		}},
		{Number: 100021, Low: 4, High: 4, Serve: func(ctx context.Context, c *rpc.Call, r *rpc.Reply) error {
			cookie := c.Args.String(64)
			c.Args.Bool()
			c.Args.String(64)
			g := granted{file: c.Args.Opaque(64), answer: make(chan uint32)}
			g.owner = c.Args.String(64)
			c.Args.Uint32()
			g.off, g.len = c.Args.Uint64(), c.Args.Uint64()
			if c.Proc != 5 || c.Args.Err() != nil || c.Args.Left() != 0 || cookie != "cookie" {
				t.Errorf("procedure %d, %v", c.Proc, c.Args.Err())
			}
			select {
			case calls <- g:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			select {
			case stat := <-g.answer:
				r.String(cookie)
				r.Uint32(stat)
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return port, calls
}

// openWith is open with a client's lock manager.
func openWith(t *testing.T) (*door, nfs3.Handle, chan granted) {
	t.Helper()
	port, calls := lockManager(t)
	d, f := openAt(t, port, nfs.FindSlowly)
	return d, f, calls
}

// told is the next callback.
func told(t *testing.T, calls chan granted) granted {
	t.Helper()
	select {
	case g := <-calls:
		return g
	case <-time.After(30 * time.Second):
		t.Fatal("nobody is told of a lock")
		return granted{}
	}
}

// openAt is open with clients whose portmap is at a port, and a server that is changed before it serves.
func openAt(t *testing.T, port uint16, set ...func(*nfs.Server)) (*door, nfs3.Handle) {
	t.Helper()
	d := open(t)
	f := d.file("f", 0o666, "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	srv, err := nfs.New(nfs.Config{Exports: d.exports, Key: []byte("key"), ClientPortmap: port, Ports: nfs.Ports{NFS: at.Port(), Mount: at.Port(), Portmap: at.Port()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range set {
		f(srv)
	}
	go srv.Serve(l)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	d.addr = at.String()
	d.c = d.client(sunrpc.Cred{Flavor: sunrpc.AuthSys})
	return d, f
}

// owned is an exclusive lock of bytes 0 to 9 by an owner; procedure 2 waits for it.
func owned(owner string) lockCall {
	return lockCall{proc: 2, host: "h", owner: owner, len: 10, exclusive: true, block: true}
}

func (d *door) is(f nfs3.Handle, what string, l lockCall, proc, want uint32) {
	d.t.Helper()
	l.proc = proc
	if stat, _ := d.lock(f, l); stat != want {
		d.t.Errorf("%s: %d, want %d", what, stat, want)
	}
}

// holder is who has the first byte.
func (d *door) holder(f nfs3.Handle) string {
	d.t.Helper()
	_, h := d.lock(f, lockCall{proc: 1, host: "other", owner: "test", len: 1, exclusive: true})
	return h.Owner.Handle
}

const (
	isGranted = 0
	isDenied  = 1
	isBlocked = 3
)

func TestGranted(t *testing.T) {
	d, f, calls := openWith(t)
	d.is(f, "the first", owned("a"), 2, isGranted)
	d.is(f, "the second", owned("b"), 2, isBlocked)
	d.is(f, "the third", owned("c"), 2, isBlocked)
	d.is(f, "the second asks again", owned("b"), 2, isBlocked)
	d.is(f, "UNLOCK", owned("a"), 4, isGranted)
	// It was the first to ask again, so it is behind the third now.
	g := told(t, calls)
	if g.owner != "c" || g.off != 0 || g.len != 10 || string(g.file) != string(f) {
		t.Errorf("%+v", g)
	}
	if h := d.holder(f); h != "c" {
		t.Errorf("%q has the lock when its owner is told", h)
	}
	g.answer <- isGranted
	d.is(f, "UNLOCK", owned("c"), 4, isGranted)
	g = told(t, calls)
	if g.owner != "b" {
		t.Error(g.owner)
	}
	g.answer <- isGranted
	if h := d.holder(f); h != "b" {
		t.Errorf("%q has the lock", h)
	}
}

// TestNotWanted has the lock of a client that does not wait any more go to the next.
func TestNotWanted(t *testing.T) {
	d, f, calls := openWith(t)
	d.is(f, "the first", owned("a"), 2, isGranted)
	d.is(f, "the second", owned("b"), 2, isBlocked)
	d.is(f, "the third", owned("c"), 2, isBlocked)
	d.is(f, "the fourth", owned("d"), 2, isBlocked)
	d.is(f, "CANCEL", owned("c"), 3, isGranted)
	d.is(f, "CANCEL again", owned("c"), 3, isDenied)
	d.is(f, "UNLOCK", owned("a"), 4, isGranted)
	g := told(t, calls)
	// While its client is told, it asks again: it must not be answered before that is settled, or it would be granted and
	// taken away.
	again := make(chan uint32, 1)
	go func() {
		r, err := d.c.RPC().Call(context.WithoutCancel(t.Context()), 100021, 4, 2, owned(g.owner).encode(f), nil)
		if err != nil {
			t.Error(err)
			return
		}
		r.String(64)
		again <- r.Uint32()
	}()
	d.is(f, "CANCEL of what is being granted", owned(g.owner), 3, isDenied)
	if g.owner != "b" {
		t.Error(g.owner)
	}
	select {
	case stat := <-again:
		t.Error("answered while its client is told:", stat)
	default:
	}
	g.answer <- isDenied
	next := told(t, calls)
	if next.owner != "d" {
		t.Error(next.owner)
	}
	if stat := <-again; stat != isBlocked {
		t.Error("asked again:", stat)
	}
	next.answer <- isGranted
	if h := d.holder(f); h != "d" {
		t.Errorf("%q has the lock", h)
	}
}

// TestUntold has a client that cannot be told find out when it asks again.
func TestUntold(t *testing.T) {
	d, f, calls := openWith(t)
	d.is(f, "the first", owned("a"), 2, isGranted)
	d.is(f, "the second", owned("b"), 2, isBlocked)
	if _, err := d.c.RPC().Call(t.Context(), 100024, 1, 6, func(e *xdr.Encoder) { e.String("h"); e.Uint32(3) }, nil); err != nil {
		t.Fatal(err)
	}
	g := told(t, calls) // the owner of the first was started anew
	d.srv.Drop(errors.New("lost"))
	g.answer <- 9 // no status of a refusal or a grant that we know: it does not want it
	d.is(f, "asked again", owned("b"), 2, isGranted)
}

// TestUnreachable: a lock is not left with a client that was never told of it.
func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().(*net.TCPAddr).AddrPort().Port()
	l.Close()
	d, f := openAt(t, dead)
	d.is(f, "the first", owned("a"), 2, isGranted)
	d.is(f, "the second", owned("b"), 2, isBlocked)
	d.is(f, "UNLOCK", owned("a"), 4, isGranted)
	free := owned("c")
	free.block = false
	d.granted(f, "a lock that its client knows nothing of", free)
}

// granted makes a call until it is answered with a grant.
func (d *door) granted(f nfs3.Handle, what string, l lockCall) {
	d.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(5 * time.Second); ; {
		if stat, _ := d.lock(f, l); stat == isGranted {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			d.t.Fatal("not granted within 5 s: ", what)
		}
	}
}

// TestUpgrade: who has a shared lock and waits for an exclusive one loses neither by not wanting it any more.
func TestUpgrade(t *testing.T) {
	d, f, calls := openWith(t)
	shared := func(owner string) lockCall {
		l := owned(owner)
		l.exclusive = false
		return l
	}
	d.is(f, "the first", shared("a"), 2, isGranted)
	d.is(f, "the second", shared("b"), 2, isGranted)
	d.is(f, "the first wants it alone", owned("a"), 2, isBlocked)
	d.is(f, "somebody else waits, too", owned("c"), 2, isBlocked)
	d.is(f, "UNLOCK of the second", shared("b"), 4, isGranted)
	d.is(f, "an UNLOCK that takes nothing", shared("b"), 4, isGranted)
	if h := d.holder(f); h != "a" {
		t.Errorf("%q has the lock", h)
	}
	cancel := owned("a")
	cancel.proc = 3
	d.granted(f, "CANCEL of what was not granted behind his back", cancel)
	if h := d.holder(f); h != "a" {
		t.Errorf("%q has the lock after all", h)
	}
	d.is(f, "the first asks again", owned("a"), 2, isGranted)
	d.is(f, "UNLOCK of the first", owned("a"), 4, isGranted)
	if g := told(t, calls); g.owner != "c" {
		t.Error(g.owner)
	} else {
		g.answer <- isGranted
	}
}

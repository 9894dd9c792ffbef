package nfs_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
	"pmsapp/nfs"
)

// TestOnce sends each procedure that changes something again, under its own XID and another.
func TestOnce(t *testing.T) {
	d, ctx := open(t), t.Context()
	f := d.file("f", 0o644, "")
	d.file("removed", 0o644, "")
	d.file("from", 0o644, "")
	d.mkdir("dir", 0o755)
	a, err := d.c.Getattr(ctx, f)
	if err != nil {
		t.Fatal(err)
	}
	xid := uint32(1000)
	for _, c := range []struct {
		name  string
		proc  uint32
		args  nfs3.Args
		other error // the answer of the same arguments as a new call
	}{
		{"CREATE", nfs3.ProcCreate, &nfs3.CreateArgs{Where: at(d.root, "new"), How: nfs3.Guarded}, nfs3.ErrExist},
		{"MKDIR", nfs3.ProcMkdir, &nfs3.MkdirArgs{Where: at(d.root, "newdir")}, nfs3.ErrExist},
		{"SYMLINK", nfs3.ProcSymlink, &nfs3.SymlinkArgs{Where: at(d.root, "newlink"), Text: "x"}, nfs3.ErrExist},
		{"MKNOD", nfs3.ProcMknod, &nfs3.MknodArgs{Where: at(d.root, "newfifo"), Type: nfs3.FIFO}, nfs3.ErrExist},
		{"LINK", nfs3.ProcLink, &nfs3.LinkArgs{File: f, To: at(d.root, "linked")}, nfs3.ErrExist},
		{"REMOVE", nfs3.ProcRemove, &nfs3.DirOp{Dir: d.root, Name: "removed"}, nfs3.ErrNoEnt},
		{"RMDIR", nfs3.ProcRmdir, &nfs3.DirOp{Dir: d.root, Name: "dir"}, nfs3.ErrNoEnt},
		{"RENAME", nfs3.ProcRename, &nfs3.RenameArgs{From: at(d.root, "from"), To: at(d.root, "to")}, nfs3.ErrNoEnt},
		{"SETATTR", nfs3.ProcSetattr, &nfs3.SetattrArgs{File: f, Attr: mode(0o600), Guard: &a.Ctime}, nfs3.ErrNotSync},
	} {
		if c.name == "SETATTR" { // LINK has changed the ctime
			if a, err = d.c.Getattr(ctx, f); err != nil {
				t.Fatal(err)
			}
		}
		xid += 10
		call := func(xid uint32, cred sunrpc.Cred, machine string) error {
			h := sunrpc.Header{XID: xid, Prog: nfs3.Program, Vers: 3, Proc: c.proc, Cred: cred}
			cfg := nfsclient.Dial(d.addr)
			cfg.Machine = machine
			cl := nfsclient.New(cfg)
			defer cl.Close()
			r, err := cl.RPC().CallAs(ctx, h, c.args.Encode, nil)
			if err != nil {
				t.Fatal(err)
			}
			return nfsclient.Result(r, skip)
		}
		root := sunrpc.Cred{Flavor: sunrpc.AuthSys}
		want(t, c.name, call(xid, root, "a"), nil)
		want(t, c.name+" again", call(xid, root, "a"), nil)
		want(t, c.name+" again, over another connection, its credentials made anew", call(xid, root, "b"), nil)
		want(t, c.name+" of another user", call(xid, sunrpc.Cred{Flavor: sunrpc.AuthSys, GID: 9}, "a"), c.other)
		want(t, c.name+" as a new call", call(xid+1, root, "a"), c.other)
	}
}

// skip reads what follows a status.
func skip(d *xdr.Decoder, _ bool) {
	for d.Left() > 0 && d.Err() == nil {
		d.Uint32()
	}
}

// TestOneAtATime sends a call again while it is under way.
func TestOneAtATime(t *testing.T) {
	d := open(t)
	var under, most atomic.Int64
	goOn := make(chan struct{})
	begun := make(chan struct{}, 10)
	d.share.Before(func(ctx context.Context, method string) error {
		if method == "Write" || method == "Mkdir" {
			most.Store(max(most.Load(), under.Add(1)))
			begun <- struct{}{}
			<-goOn
			under.Add(-1)
		}
		return nil
	})
	f := d.file("f", 0o644, "")
	for _, args := range []nfs3.Args{&nfs3.WriteArgs{File: f, Count: 1, Data: []byte("x")}, &nfs3.MkdirArgs{Where: at(d.root, "sub")}} {
		var all sync.WaitGroup
		proc := uint32(nfs3.ProcWrite)
		if _, ok := args.(*nfs3.MkdirArgs); ok {
			proc = nfs3.ProcMkdir
		}
		for range 3 {
			cl := d.client(sunrpc.Cred{Flavor: sunrpc.AuthSys})
			all.Go(func() {
				h := sunrpc.Header{XID: 5, Prog: nfs3.Program, Vers: 3, Proc: proc, Cred: sunrpc.Cred{Flavor: sunrpc.AuthSys}}
				r, err := cl.RPC().CallAs(t.Context(), h, args.Encode, nil)
				if err != nil {
					t.Error(err)
					return
				}
				want(t, "a retry", nfsclient.Result(r, skip), nil)
			})
		}
		for range 3 {
			<-begun
			goOn <- struct{}{}
		}
		all.Wait()
		if most.Load() != 1 {
			t.Error(most.Load(), "of the same call at once")
		}
	}
}

// TestHeld has a share that cannot answer: no client sees an error, and each call has its effect once.
func TestHeld(t *testing.T) {
	for _, cause := range []error{block.ErrEnded, block.ErrHeld, errors.New("not now")} {
		d, ctx := open(t), t.Context()
		var left atomic.Int64
		left.Store(20)
		d.share.Before(func(context.Context, string) error {
			if left.Add(-1) >= 0 {
				return cause
			}
			return nil
		})
		var all sync.WaitGroup
		all.Go(func() {
			_, err := d.c.Mkdir(ctx, d.root, "sub", mode(0o755))
			want(t, "MKDIR", err, nil)
		})
		all.Go(func() {
			_, err := d.c.Getattr(ctx, d.root)
			want(t, "GETATTR", err, nil)
		})
		all.Go(func() {
			_, _, err := d.c.Mount(ctx, "/vol")
			want(t, "MNT", err, nil)
		})
		all.Wait()
		// A denial is not answered either before it is confirmed.
		left.Store(2)
		confirms := d.share.Calls("Confirm")
		_, err := d.user(5, 5).Setattr(ctx, d.root, mode(0), nil)
		want(t, "SETATTR", err, nfs3.ErrPerm)
		if n := d.share.Calls("Confirm") - confirms; n != 3 {
			t.Error(n, "confirmations asked for")
		}
	}
}

// TestNotServed has a share of which nobody knows where it is served.
func TestNotServed(t *testing.T) {
	d := open(t)
	away := &notServed{Exports: d.exports}
	away.away.Store(true)
	_, addr := serve(t, away)
	cfg := nfsclient.Dial(addr)
	cfg.Retry = time.Millisecond
	c := nfsclient.New(cfg)
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Getattr(ctx, d.root)
	want(t, "GETATTR while it is away", err, context.DeadlineExceeded)
	away.away.Store(false)
	_, err = c.Getattr(t.Context(), d.root)
	want(t, "GETATTR when it is back", err, nil)
}

type notServed struct {
	nfs.Exports
	away atomic.Bool
}

func (n *notServed) ByShare(ctx context.Context, id ids.Volume) (*nfs.Export, error) {
	if n.away.Load() {
		return nil, errors.New("not served here")
	}
	return n.Exports.ByShare(ctx, id)
}

func TestDrain(t *testing.T) {
	d, ctx := open(t), t.Context()
	goOn, begun := make(chan struct{}), make(chan struct{}, 2)
	d.share.Before(func(_ context.Context, method string) error {
		if method == "Write" {
			begun <- struct{}{}
			<-goOn
		}
		return nil
	})
	f := d.file("f", 0o644, "")
	var all sync.WaitGroup
	write := func() {
		all.Go(func() {
			_, err := d.c.Write(ctx, f, 0, []byte("x"), 0)
			want(t, "WRITE", err, nil)
		})
		<-begun
	}
	want(t, "nothing to wait for", d.srv.Drain(ctx, d.export.ID), nil)
	write()
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	want(t, "a WRITE is under way", d.srv.Drain(short, d.export.ID), context.DeadlineExceeded)
	want(t, "not in another share", d.srv.Drain(ctx, ids.Volume{7}), nil)
	drained := make(chan error, 1)
	waits := make(chan struct{})
	go func() {
		close(waits)
		drained <- d.srv.Drain(ctx, d.export.ID)
	}()
	<-waits
	goOn <- struct{}{}
	want(t, "the WRITE has ended", <-drained, nil)
	all.Wait()
	d.srv.Drop(errors.New("the epoch has ended"))
	write()
	goOn <- struct{}{}
	all.Wait()
}

// line is a connection of a client that sends nothing again by itself.
type line struct {
	t *testing.T
	c net.Conn
	r *sunrpc.RecordReader
}

func (d *door) line() *line {
	d.t.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	l := &line{d.t, c, sunrpc.NewRecordReader(c, 1<<16)}
	l.call(1, nfs3.ProcNull, nil) // so that it was accepted
	return l
}

// call makes a call, and tells whether it was answered with OK; false is the end of the connection.
func (l *line) call(xid, proc uint32, args func(*xdr.Encoder)) bool {
	l.t.Helper()
	var e xdr.Encoder
	e.Skip(sunrpc.MarkLen)
	sunrpc.WriteCall(&e, sunrpc.Header{XID: xid, Prog: nfs3.Program, Vers: nfs3.Version, Proc: proc, Cred: sunrpc.Cred{Flavor: sunrpc.AuthSys}}, "host")
	if args != nil {
		args(&e)
	}
	binary.BigEndian.PutUint32(e.B, sunrpc.Mark(len(e.B)-sunrpc.MarkLen))
	if _, err := l.c.Write(e.B); err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.r.Begin(); err != nil {
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			l.t.Fatal(err)
		}
		return false
	}
	rec, err := l.r.Rest(func([]byte) int { return 0 }, func(int) bool { return true })
	if err != nil {
		l.t.Fatal(err)
	}
	defer rec.Free()
	d := rec.Decoder()
	if got := d.Uint32(); got != xid {
		l.t.Fatalf("the answer is to %d", got)
	}
	for range 5 { // reply, accepted, verifier, success
		if n := d.Uint32(); n > 1 {
			l.t.Fatal("the call was refused")
		}
	}
	if proc != nfs3.ProcNull && d.Uint32() != 0 {
		l.t.Fatal("no OK")
	}
	return true
}

// TestLateWrite: a WRITE whose bytes come over a connection when it was sent again over a newer one, and written over, is not done.
func TestLateWrite(t *testing.T) {
	d := open(t)
	f := d.file("f", 0o644, "----")
	write := func(l *line, xid uint32, off uint64, text string) bool {
		t.Helper()
		a := nfs3.WriteArgs{File: f, Offset: off, Count: uint32(len(text)), Stable: nfs3.FileSync, Data: []byte(text)}
		return l.call(xid, nfs3.ProcWrite, a.Encode)
	}
	is := func(what, text string) {
		t.Helper()
		if r, err := d.c.Read(t.Context(), f, 0, 10); err != nil || string(r.Data) != text {
			t.Fatalf("%s: %q, %v", what, r.Data, err)
		}
	}
	old, fresh := d.line(), d.line()
	if !write(fresh, 7, 0, "W") || !write(fresh, 8, 0, "V") {
		t.Fatal("not answered")
	}
	if !write(old, 7, 1, "X") {
		t.Fatal("another call with the same XID is refused")
	}
	is("before", "VX--")
	if write(old, 7, 0, "W") {
		t.Error("a late WRITE is answered")
	}
	is("after a late WRITE", "VX--")
	// The same over a newer connection is the client's wish.
	if !write(d.line(), 7, 0, "W") {
		t.Error("a retry is refused")
	}
	is("after a retry", "WX--")
}

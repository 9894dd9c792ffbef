package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"pmsapp/internal/block"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The program of these tests. echo answers its argument; hold waits until it is told to go on; big answers as many bytes
// as its argument says; fail is not answered.
const (
	program = 400000
	echo    = 1
	hold    = 2
	big     = 3
	fail    = 4
)

var errFail = errors.New("no answer")

type fixture struct {
	t     *testing.T
	srv   *Server
	l     *listener
	goOn  chan struct{}
	held  chan struct{} // a call is held
	calls atomic.Int64
}

// listener gives a server connections in memory.
type listener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *listener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }

func start(t *testing.T, limits Limits) *fixture {
	f := &fixture{t: t, l: &listener{conns: make(chan net.Conn), done: make(chan struct{})}, goOn: make(chan struct{}), held: make(chan struct{}, 64)}
	var err error
	f.srv, err = New(Config{Programs: []Program{{Number: program, Low: 1, High: 1, Serve: f.serve}}, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	go f.srv.Serve(f.l)
	return f
}

func (f *fixture) serve(ctx context.Context, c *Call, r *Reply) error {
	f.calls.Add(1)
	switch c.Proc {
	case echo:
		p := c.Args.Opaque(1 << 20)
		if c.Args.Err() != nil {
			return sunrpc.GarbageArgs
		}
		r.Opaque(p)
		return nil
	case hold:
		f.held <- struct{}{}
		select {
		case <-f.goOn:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case big:
		n := int(c.Args.Uint32())
		if err := r.Reserve(ctx, n); err != nil {
			return err
		}
		r.Data(block.Get(n))
		return nil
	}
	return errFail
}

func (f *fixture) dial() net.Conn {
	a, b := net.Pipe()
	f.l.conns <- b
	return a
}

func (f *fixture) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.srv.Shutdown(ctx); err != nil {
		f.t.Error(err)
	}
	if err := f.srv.Serve(f.l); !errors.Is(err, ErrShutdown) {
		f.t.Error("serving after the shutdown:", err)
	}
}

func record(xid, proc uint32, args func(*xdr.Encoder)) []byte {
	var e xdr.Encoder
	e.Uint32(0)
	sunrpc.WriteCall(&e, sunrpc.Header{XID: xid, Prog: program, Vers: 1, Proc: proc}, "")
	if args != nil {
		args(&e)
	}
	e.Patch(0, sunrpc.Mark(e.Len()-4))
	return e.B
}

// reply reads a reply and returns its XID and results.
func reply(t *testing.T, r *sunrpc.RecordReader) (uint32, *xdr.Decoder) {
	t.Helper()
	_, err := r.Begin()
	if err != nil {
		t.Fatal(err)
	}
	rec, err := r.Rest(func([]byte) int { return 0 }, func(int) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	d := rec.Decoder()
	xid, err := sunrpc.ReadReply(d)
	if err != nil {
		t.Fatal(err)
	}
	return xid, d
}

// gone waits until the server has closed a connection.
func gone(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Limits{})
		c := f.dial()
		r := sunrpc.NewRecordReader(c, 1<<20)
		for xid := range uint32(10) {
			c.Write(record(xid, hold, nil))
		}
		c.Write(record(99, echo, func(e *xdr.Encoder) { e.String("past them") }))
		if xid, d := reply(t, r); xid != 99 || d.String(99) != "past them" {
			t.Error("a call waits for others:", xid)
		}
		close(f.goOn)
		seen := map[uint32]bool{}
		for range 10 {
			xid, _ := reply(t, r)
			seen[xid] = true
		}
		if len(seen) != 10 {
			t.Error(seen)
		}
		c.Close()
		f.shutdown()
	})
}

// TestFragments has a call come in pieces, and data that end with padding.
func TestFragments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Limits{})
		c := f.dial()
		r := sunrpc.NewRecordReader(c, 1<<20)
		whole := record(7, echo, func(e *xdr.Encoder) { e.Opaque(bytes.Repeat([]byte("x"), 9001)) })[4:]
		go func() {
			for i := 0; i < len(whole); i += 1000 {
				part := whole[i:min(len(whole), i+1000)]
				var e xdr.Encoder
				e.Uint32(uint32(len(part)))
				if i+1000 >= len(whole) {
					e.Patch(0, sunrpc.Mark(len(part)))
				}
				c.Write(append(e.B, part...))
			}
		}()
		if xid, d := reply(t, r); xid != 7 || len(d.Opaque(1<<20)) != 9001 || d.Left() != 0 {
			t.Error("fragments:", xid)
		}
		go c.Write(record(8, big, func(e *xdr.Encoder) { e.Uint32(70001) }))
		if xid, d := reply(t, r); xid != 8 || len(d.Opaque(1<<20)) != 70001 || d.Left() != 0 {
			t.Error("data:", xid)
		}
		c.Close()
		f.shutdown()
	})
}

func TestDropped(t *testing.T) {
	l := Limits{Connections: 3, Calls: 4, Record: 8192, Memory: 1 << 20, Idle: time.Hour, Stall: time.Minute}
	for name, c := range map[string]struct {
		send  []byte
		after time.Duration
	}{
		"a call without an answer":  {record(1, fail, nil), 0},
		"a reply":                   {[]byte{0x80, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 1}, 0},
		"too long":                  {[]byte{0x80, 0, 0x20, 1}, 0},
		"too long in fragments":     {append(append([]byte{0, 0, 0x20, 0}, make([]byte, 8192)...), 0, 0, 0, 1), 0},
		"nothing":                   {nil, time.Hour},
		"a begun record":            {[]byte{0x80, 0, 1, 0, 1}, time.Minute},
		"a begun fragment":          {[]byte{0, 0, 1, 0, 1}, time.Minute},
		"replies that nobody reads": {record(1, echo, func(e *xdr.Encoder) { e.String("x") }), time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, l)
				conn := f.dial()
				defer conn.Close()
				go conn.Write(c.send)
				open := func() int {
					synctest.Wait()
					f.srv.mu.Lock()
					defer f.srv.mu.Unlock()
					return len(f.srv.conns)
				}
				if c.after > 0 {
					time.Sleep(c.after - time.Nanosecond)
					if open() != 1 {
						t.Error("dropped too early")
					}
					time.Sleep(time.Nanosecond)
				}
				if open() != 0 {
					t.Error("not dropped after", c.after)
				}
				f.shutdown()
				idle(t, f.srv)
			})
		})
	}
}

// idle fails the test unless a server holds no memory.
func idle(t *testing.T, s *Server) {
	t.Helper()
	for _, m := range []*memory{s.incoming, s.outgoing} {
		if m.left != s.cfg.Memory || len(m.have) != 0 || len(m.waiting) != 0 {
			t.Errorf("%d of %d bytes are left, %d hold, %d wait", m.left, s.cfg.Memory, len(m.have), len(m.waiting))
		}
	}
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Limits{Connections: 2, Calls: 3, Record: 8192, Memory: 1 << 20})
		a, b := f.dial(), f.dial()
		gone(t, f.dial()) // a third connection
		f.srv.mu.Lock()
		if len(f.srv.perClient) != 1 {
			t.Error(f.srv.perClient)
		}
		f.srv.mu.Unlock()
		go func() {
			for xid := range uint32(10) {
				a.Write(record(xid, hold, nil))
			}
		}()
		synctest.Wait()
		if n := f.calls.Load(); n != 3 {
			t.Error(n, "calls are under way")
		}
		// The other connection is not hindered.
		go b.Write(record(1, echo, func(e *xdr.Encoder) { e.String("x") }))
		reply(t, sunrpc.NewRecordReader(b, 8192))
		close(f.goOn)
		r := sunrpc.NewRecordReader(a, 8192)
		for range 10 {
			reply(t, r)
		}
		a.Close()
		b.Close()
		f.shutdown()
		idle(t, f.srv)
	})
}

// TestPerClient has a client's connections bounded, and its place free again when one has ended.
func TestPerClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Limits{PerClient: 2})
		a, b := f.dial(), f.dial()
		gone(t, f.dial())
		a.Close()
		synctest.Wait()
		c := f.dial()
		go c.Write(record(1, echo, func(e *xdr.Encoder) { e.String("x") }))
		reply(t, sunrpc.NewRecordReader(c, 8192))
		b.Close()
		c.Close()
		f.shutdown()
		if len(f.srv.perClient) != 0 {
			t.Error(f.srv.perClient)
		}
	})
}

// TestUnknown has clients without an export send no more than small calls.
func TestUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Limits{})
		f.srv.cfg.Known = func(a netip.Addr) bool { return false }
		c := f.dial()
		go c.Write(record(1, echo, func(e *xdr.Encoder) { e.Opaque(make([]byte, 3000)) }))
		reply(t, sunrpc.NewRecordReader(c, 8192))
		go c.Write(record(2, echo, func(e *xdr.Encoder) { e.Opaque(make([]byte, 5000)) }))
		gone(t, c)
		f.shutdown()
	})
}

// TestSlowReaders has replies that nobody reads bounded: those for which there is no memory are not made.
func TestSlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Limits{Calls: 64, Record: 8192, Memory: 1 << 20, Stall: time.Minute})
		c := f.dial()
		go func() {
			for xid := range uint32(20) {
				c.Write(record(xid, big, func(e *xdr.Encoder) { e.Uint32(100 << 10) }))
			}
		}()
		synctest.Wait()
		f.srv.outgoing.mu.Lock()
		for _, have := range f.srv.outgoing.have {
			if have > 1<<18 {
				t.Error(have, "bytes of replies for one connection")
			}
		}
		waiting := len(f.srv.outgoing.waiting)
		f.srv.outgoing.mu.Unlock()
		if waiting != 18 {
			t.Error(waiting, "wait for memory")
		}
		gone(t, c) // it reads now, and everything comes before the server's patience ends, or it is dropped
		f.shutdown()
		idle(t, f.srv)
	})
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Limits{})
		c := f.dial()
		c.Write(record(1, hold, nil))
		synctest.Wait()
		done := make(chan error)
		go func() { done <- f.srv.Shutdown(context.Background()) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatal("it does not wait for a call:", err)
		default:
		}
		close(f.goOn)
		if xid, _ := reply(t, sunrpc.NewRecordReader(c, 8192)); xid != 1 {
			t.Error(xid)
		}
		gone(t, c)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Limits{})
		c := f.dial()
		c.Write(record(1, hold, nil))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := f.srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		gone(t, c)
		idle(t, f.srv)
	})
}

// TestHungUp has a call that its client has given up with its connection never begun.
func TestHungUp(t *testing.T) {
	f := start(t, Limits{Calls: 1})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go f.srv.Serve(l)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Write(record(1, hold, nil))
	<-f.held
	c.Write(record(2, echo, func(e *xdr.Encoder) { e.String("late") }))
	c.(*net.TCPConn).CloseWrite()
	close(f.goOn)
	if xid, _ := reply(t, sunrpc.NewRecordReader(c, 8192)); xid != 1 {
		t.Error(xid)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("a call is answered that came before its connection's end")
	}
	c.Close()
	f.shutdown()
	if n := f.calls.Load(); n != 1 {
		t.Error(n, "calls were begun")
	}
}

package initiator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pmsapp/internal/iscsi"
	"pmsapp/internal/iscsi/iscsitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func config(addr string) Config {
	return Config{Portal: addr, Initiator: "iqn.2026-11.app.pmsapp:test", Target: "iqn.2026-11.app.pmsapp:t", Log: quiet()}
}

func mustDial(t testing.TB, cfg Config) *Session {
	t.Helper()
	s, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		<-s.Done()
	})
	return s
}

// run executes one command and waits.
func run(s *Session, c *Command) *Command {
	ch := make(chan struct{})
	c.Done = func(*Command) { close(ch) }
	s.Submit(c)
	<-ch
	return c
}

// memory is a trivial LU: the CDB is op, 3 bytes unused, offset (4), and the rest is ignored.
type memory struct {
	mu   sync.Mutex
	data []byte
}

func (m *memory) execute(t *iscsitest.Task) {
	off := int(t.CDB[4])<<24 | int(t.CDB[5])<<16 | int(t.CDB[6])<<8 | int(t.CDB[7])
	m.mu.Lock()
	defer m.mu.Unlock()
	switch t.CDB[0] {
	case 1:
		copy(m.data[off:], t.DataOut)
		t.Reply(0, nil, nil)
	case 2:
		t.Reply(0, nil, bytes.Clone(m.data[off:off+t.InLen]))
	default:
		t.Reply(StatusCheckCondition, []byte{0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0}, nil)
	}
}

func cdb(op byte, off int) []byte {
	return []byte{op, 0, 0, 0, byte(off >> 24), byte(off >> 16), byte(off >> 8), byte(off), 0, 0, 0, 0, 0, 0, 0, 0}
}

// TestTransfers moves data of many sizes in both directions under many sets of parameters.
func TestTransfers(t *testing.T) {
	host := iscsi.Credentials{Name: "host", Secret: []byte("secret of the host")}
	array := iscsi.Credentials{Name: "array", Secret: []byte("secret of the array")}
	for _, c := range []struct {
		name string
		edit func(*iscsi.Wish, *iscsitest.Config, *Config)
	}{
		{"default", func(w *iscsi.Wish, tc *iscsitest.Config, cfg *Config) {}},
		{"digests", func(w *iscsi.Wish, tc *iscsitest.Config, cfg *Config) {
			w.HeaderDigest, w.DataDigest = iscsi.DigestAlways, iscsi.DigestAlways
		}},
		{"solicited", func(w *iscsi.Wish, tc *iscsitest.Config, cfg *Config) { w.InitialR2T, w.ImmediateData = true, false }},
		{"immediate only", func(w *iscsi.Wish, tc *iscsitest.Config, cfg *Config) { w.InitialR2T = true }},
		{"unsolicited only", func(w *iscsi.Wish, tc *iscsitest.Config, cfg *Config) { w.ImmediateData = false }},
		{"small", func(w *iscsi.Wish, tc *iscsitest.Config, cfg *Config) {
			w.MaxRecv, w.MaxBurst, w.FirstBurst, w.MaxR2T = 1024, 4096, 2048, 3
			tc.Wish.MaxRecv = 512
		}},
		{"window of one", func(w *iscsi.Wish, tc *iscsitest.Config, cfg *Config) { tc.Window = 1 }},
		{"CHAP both ways", func(w *iscsi.Wish, tc *iscsitest.Config, cfg *Config) {
			tc.Auth = iscsi.Auth{Initiator: host, Own: array}
			cfg.Own, cfg.Peer = host, array
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tc, cfg := iscsitest.Config{Wish: iscsi.DefaultWish()}, config("")
			cfg.Wish = iscsi.DefaultWish()
			c.edit(&cfg.Wish, &tc, &cfg)
			m := &memory{data: make([]byte, 4<<20)}
			cfg.Portal = iscsitest.Listen(t, tc, func(c *iscsitest.Conn) { c.Serve(m.execute) })
			s := mustDial(t, cfg)
			rnd := rand.New(rand.NewPCG(1, 1))
			var all sync.WaitGroup
			off := 0
			for _, n := range []int{1, 511, 512, 1025, 4096, 4097, 65536, 300000, 1 << 20, 2100000} {
				data := make([]byte, n)
				for i := range data {
					data[i] = byte(rnd.Uint32())
				}
				at := off
				off += n
				all.Go(func() {
					if w := run(s, &Command{CDB: cdb(1, at), DataOut: data}); w.Err != nil || w.Status != 0 {
						t.Errorf("write of %d: %v %d", n, w.Err, w.Status)
					}
					got := make([]byte, n)
					r := run(s, &Command{CDB: cdb(2, at), DataIn: got})
					if r.Err != nil || r.Status != 0 || r.Received != n || r.Residual != 0 {
						t.Errorf("read of %d: %v %d %d %d", n, r.Err, r.Status, r.Received, r.Residual)
					}
					if !bytes.Equal(got, data) {
						t.Errorf("%d bytes differ", n)
					}
				})
			}
			all.Wait()
			bad := run(s, &Command{CDB: cdb(9, 0)})
			if bad.Err != nil || bad.Status != StatusCheckCondition || len(bad.Sense) != 18 || bad.Sense[12] != 0x20 {
				t.Error(bad.Err, bad.Status, bad.Sense)
			}
			s.Logout(t.Context())
			if !errors.Is(s.Err(), ErrClosed) {
				t.Error(s.Err())
			}
			if late := run(s, &Command{CDB: cdb(2, 0), DataIn: make([]byte, 4)}); !errors.Is(late.Err, ErrClosed) {
				t.Error(late.Err)
			}
		})
	}
}

// TestManyCommands submits from Done, as a busy client does, and looks for lost or doubled ends.
func TestManyCommands(t *testing.T) {
	m := &memory{data: make([]byte, 1<<20)}
	addr := iscsitest.Listen(t, iscsitest.Config{Window: 8}, func(c *iscsitest.Conn) { c.Serve(m.execute) })
	s := mustDial(t, config(addr))
	const total, depth = 20000, 40
	var started, ended atomic.Int64
	var all sync.WaitGroup
	all.Add(depth)
	for i := range depth {
		buf := make([]byte, 4096)
		c := &Command{CDB: cdb(byte(1+i%2), i*4096)}
		if i%2 == 0 {
			c.DataOut = buf
		} else {
			c.DataIn = buf
		}
		c.Done = func(c *Command) {
			if c.Err != nil || c.Status != 0 {
				t.Error(c.Err, c.Status)
			}
			ended.Add(1)
			if started.Add(1) > total {
				all.Done()
				return
			}
			s.Submit(c)
		}
		started.Add(1)
		s.Submit(c)
	}
	all.Wait()
	if ended.Load() != total {
		t.Error(ended.Load())
	}
}

func TestQueueIsBounded(t *testing.T) {
	hold := make(chan struct{})
	addr := iscsitest.Listen(t, iscsitest.Config{}, func(c *iscsitest.Conn) { <-hold })
	cfg := config(addr)
	cfg.Queue = 3
	s := mustDial(t, cfg)
	var mu sync.Mutex
	errs := map[error]int{}
	var all sync.WaitGroup
	for range 5 {
		all.Add(1)
		s.Submit(&Command{CDB: cdb(1, 0), Done: func(c *Command) {
			mu.Lock()
			errs[c.Err]++
			mu.Unlock()
			all.Done()
		}})
	}
	s.Close()
	all.Wait()
	if errs[ErrQueueFull] != 2 || errs[ErrClosed] != 3 {
		t.Error(errs)
	}
	close(hold)
}

// TestPathDeaths has one way of dying each, and its error.
func TestPathDeaths(t *testing.T) {
	fast := Timeouts{Login: 5 * time.Second, Logout: 200 * time.Millisecond, NoopInterval: 50 * time.Millisecond,
		NoopTimeout: 100 * time.Millisecond, Recovery: 150 * time.Millisecond}
	wait := func(c *iscsitest.Conn) { io.Copy(io.Discard, c) }
	first := func(c *iscsitest.Conn) *iscsi.BHS {
		for {
			h, _, err := c.Next()
			if err != nil || h.Opcode() == iscsi.OpSCSICommand {
				return h
			}
		}
	}
	for _, tc := range []struct {
		name  string
		want  error
		idle  bool
		serve func(c *iscsitest.Conn)
		wish  iscsi.DigestWish
	}{
		{name: "closed by the target", want: ErrPeerClosed, serve: func(c *iscsitest.Conn) { first(c) }},
		{name: "recovery timeout", want: ErrRecoveryTimeout, serve: wait},
		{name: "noop timeout", want: ErrNoopTimeout, serve: wait, idle: true},
		{name: "dropped", want: ErrDropped, serve: func(c *iscsitest.Conn) {
			var h iscsi.BHS
			h.Init(iscsi.OpAsync, iscsi.FlagFinal)
			h.SetITT(iscsi.NoTag)
			h.SetAsyncEvent(iscsi.AsyncDropSession, 0)
			c.Send(&h, nil)
			wait(c)
		}},
		{name: "logout requested", want: ErrLogoutRequested, idle: true, serve: func(c *iscsitest.Conn) {
			var h iscsi.BHS
			h.Init(iscsi.OpAsync, iscsi.FlagFinal)
			h.SetITT(iscsi.NoTag)
			h.SetAsyncEvent(iscsi.AsyncLogoutRequest, 0)
			c.Send(&h, nil)
			c.Serve(nil)
		}},
		{name: "unknown task", want: ErrProtocol, serve: func(c *iscsitest.Conn) {
			h := first(c)
			if h != nil {
				c.Answer(h.ITT()+1, 0, 0, nil, nil)
			}
			wait(c)
		}},
		{name: "wrong StatSN", want: ErrProtocol, serve: func(c *iscsitest.Conn) {
			if h := first(c); h != nil {
				var a iscsi.BHS
				a.Init(iscsi.OpSCSIResponse, iscsi.FlagFinal)
				a.SetITT(h.ITT())
				a.SetStatSN(c.StatSN() + 1)
				a.SetMaxCmdSN(10)
				c.SendRaw(&a, nil)
			}
			wait(c)
		}},
		{name: "too much data", want: ErrProtocol, serve: func(c *iscsitest.Conn) {
			if h := first(c); h != nil {
				c.Answer(h.ITT(), 1000, 0, nil, make([]byte, 1000))
			}
			wait(c)
		}},
		{name: "wrong PDU", want: ErrProtocol, serve: func(c *iscsitest.Conn) {
			var h iscsi.BHS
			h.Init(iscsi.OpNopOut, iscsi.FlagFinal)
			c.Send(&h, nil)
			wait(c)
		}},
		{name: "R2T of a read", want: ErrProtocol, serve: func(c *iscsitest.Conn) {
			if h := first(c); h != nil {
				var a iscsi.BHS
				a.Init(iscsi.OpR2T, iscsi.FlagFinal)
				a.SetITT(h.ITT())
				a.SetDesired(512)
				c.Send(&a, nil)
			}
			wait(c)
		}},
		{name: "rejected", want: ErrProtocol, serve: func(c *iscsitest.Conn) {
			if h := first(c); h != nil {
				bad := *h
				var a iscsi.BHS
				a.Init(iscsi.OpReject, iscsi.FlagFinal)
				a.SetResponse(iscsi.RejectProtocol)
				a.SetITT(iscsi.NoTag)
				c.Send(&a, bad[:])
			}
			wait(c)
		}},
		{name: "data digest rejected", want: ErrDigest, serve: func(c *iscsitest.Conn) {
			if h := first(c); h != nil {
				bad := *h
				var a iscsi.BHS
				a.Init(iscsi.OpReject, iscsi.FlagFinal)
				a.SetResponse(iscsi.RejectDataDigest)
				a.SetITT(iscsi.NoTag)
				c.Send(&a, bad[:])
			}
			wait(c)
		}},
		{name: "garbage", want: ErrDigest, wish: iscsi.DigestAlways, serve: func(c *iscsitest.Conn) {
			c.Write(make([]byte, 200))
			wait(c)
		}},
		{name: "long data segment", want: ErrProtocol, serve: func(c *iscsitest.Conn) {
			c.Write(bytes.Repeat([]byte{0x25, 0, 0, 0, 0, 0xff, 0xff, 0xff}, 10))
			wait(c)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := config(iscsitest.Listen(t, iscsitest.Config{}, tc.serve))
			if tc.want == ErrNoopTimeout || tc.want == ErrRecoveryTimeout {
				cfg.Timeouts = fast
			}
			if tc.want == ErrRecoveryTimeout { // a probe would find out before
				cfg.Timeouts.NoopInterval = 0
			}
			cfg.Wish = iscsi.DefaultWish()
			if tc.wish != 0 {
				cfg.Wish.HeaderDigest = tc.wish
			}
			s := mustDial(t, cfg)
			if !tc.idle {
				buf := make([]byte, 512)
				if c := run(s, &Command{CDB: cdb(2, 0), DataIn: buf}); !errors.Is(c.Err, tc.want) {
					t.Errorf("command: %v", c.Err)
				}
			}
			<-s.Done()
			if !errors.Is(s.Err(), tc.want) {
				t.Errorf("session: %v", s.Err())
			}
		})
	}
}

func TestLoginFailures(t *testing.T) {
	host := iscsi.Credentials{Name: "host", Secret: []byte("secret of the host")}
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := config(l.Addr().String())
	cfg.Timeouts = HostTimeouts()
	cfg.Timeouts.Login = 50 * time.Millisecond
	if _, err := Dial(t.Context(), cfg); !errors.Is(err, ErrLoginTimeout) {
		t.Error("silent:", err)
	}
	cfg.Timeouts.Login = 5 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("context:", err)
	}
	l.Close()
	if _, err := Dial(t.Context(), cfg); !errors.Is(err, ErrConnect) {
		t.Error("nobody there:", err)
	}
	cfg.Portal = iscsitest.Listen(t, iscsitest.Config{Decide: func(*iscsitest.Conn) (iscsi.LoginStatus, []iscsi.Pair) {
		return iscsi.LoginForbidden, []iscsi.Pair{{Key: "X-why", Value: "because"}}
	}}, nil)
	_, err = Dial(t.Context(), cfg)
	var refused *RefusedError
	if !errors.Is(err, ErrLoginRefused) || !errors.As(err, &refused) || refused.Status != iscsi.LoginForbidden || len(refused.Keys) != 1 {
		t.Error("refused:", err)
	}
	cfg.Portal = iscsitest.Listen(t, iscsitest.Config{Auth: iscsi.Auth{Initiator: host, Own: iscsi.Credentials{Name: "a", Secret: []byte("x")}}}, nil)
	cfg.Own, cfg.Peer = host, iscsi.Credentials{Name: "a", Secret: []byte("y")}
	if _, err := Dial(t.Context(), cfg); !errors.Is(err, ErrAuth) {
		t.Error("wrong target:", err)
	}
}

// TestTargetProbes has the target send NOP-In, and counts answers.
func TestTargetProbes(t *testing.T) {
	got := make(chan uint32, 10)
	addr := iscsitest.Listen(t, iscsitest.Config{}, func(c *iscsitest.Conn) {
		for ttt := range uint32(3) {
			var h iscsi.BHS
			h.Init(iscsi.OpNopIn, iscsi.FlagFinal)
			h.SetITT(iscsi.NoTag)
			h.SetTTT(ttt)
			c.Send(&h, []byte("ping"))
		}
		for range 3 {
			h, _, err := c.Next()
			if err != nil || h.Opcode() != iscsi.OpNopOut || h.ITT() != iscsi.NoTag {
				return
			}
			got <- h.TTT()
		}
		io.Copy(io.Discard, c)
	})
	mustDial(t, config(addr))
	for want := range uint32(3) {
		if ttt := <-got; ttt != want {
			t.Error(ttt)
		}
	}
}

func TestTaskManagement(t *testing.T) {
	requests := make(chan iscsi.BHS, 10)
	addr := iscsitest.Listen(t, iscsitest.Config{Window: 2}, func(c *iscsitest.Conn) {
		for {
			h, _, err := c.Next()
			if err != nil {
				return
			}
			if h.Opcode() != iscsi.OpTaskReq {
				continue
			}
			requests <- *h
			var a iscsi.BHS
			a.Init(iscsi.OpTaskResp, iscsi.FlagFinal)
			if h.TaskFunc() == iscsi.TaskColdReset {
				a.SetResponse(iscsi.TaskUnsupported)
			}
			a.SetITT(h.ITT())
			c.Send(&a, nil)
		}
	})
	cfg := config(addr)
	cfg.Timeouts = HostTimeouts()
	s := mustDial(t, cfg)
	ended := make(chan *Command, 10)
	var all []*Command
	for i := range 4 { // two of them wait for the window
		c := &Command{LUN: uint64(i % 2), CDB: cdb(2, 0), Owner: i, Done: func(c *Command) { ended <- c }}
		all = append(all, c)
		s.Submit(c)
	}
	expect := func(i int) {
		t.Helper()
		if c := <-ended; c.Owner != i || !errors.Is(c.Err, ErrAborted) {
			t.Fatalf("%v: %v", c.Owner, c.Err)
		}
	}
	for s.sentForTest() < 2 {
		runtime.Gosched() // the writer is on its way
	}
	if err := s.Abort(t.Context(), all[3]); err != nil {
		t.Fatal(err)
	}
	expect(3) // without a word to the target
	if err := s.LUReset(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	expect(0) // and not 2, which was not sent
	if err := s.Abort(t.Context(), all[1]); err != nil {
		t.Fatal(err)
	}
	expect(1)
	var refused *TaskError
	if err := s.Function(t.Context(), iscsi.TaskColdReset, 0); !errors.As(err, &refused) || refused.Response != iscsi.TaskUnsupported {
		t.Error(err)
	}
	if r := <-requests; r.TaskFunc() != iscsi.TaskLUReset {
		t.Error(r.TaskFunc())
	}
	if r := <-requests; r.TaskFunc() != iscsi.TaskAbort || r.RefTag() != all[1].itt || r.RefCmdSN() != all[1].cmdSN {
		t.Error(r)
	}
}

func (s *Session) sentForTest() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

func TestJudge(t *testing.T) {
	tm := Timeouts{NoopInterval: 10, NoopTimeout: 20, Recovery: 30, Command: 40}
	for _, c := range []struct {
		name string
		p    path
		want verdict
	}{
		{"idle and fresh", path{now: 105, lastRecv: 100}, verdict{next: 110}},
		{"idle for the interval", path{now: 110, lastRecv: 100}, verdict{probe: true, next: 130}},
		{"probed", path{now: 111, lastRecv: 100, probed: 110}, verdict{next: 130}},
		{"probe unanswered", path{now: 130, lastRecv: 100, probed: 110}, verdict{err: ErrNoopTimeout}},
		{"active", path{now: 125, lastRecv: 100, activeSince: 110, active: true}, verdict{probe: true, next: 140}},
		{"active, long since", path{now: 139, lastRecv: 100, activeSince: 110, active: true, probed: 125}, verdict{next: 140}},
		{"active and silent", path{now: 140, lastRecv: 100, activeSince: 110, active: true}, verdict{err: ErrRecoveryTimeout}},
		{"active and answered", path{now: 140, lastRecv: 139, activeSince: 110, active: true}, verdict{next: 149}},
		{"answered, but for one command", path{now: 140, lastRecv: 139, activeSince: 110, active: true, oldest: 112, waits: true}, verdict{next: 149}},
		{"one command hangs", path{now: 152, lastRecv: 151, activeSince: 110, active: true, oldest: 112, waits: true}, verdict{err: ErrCommandTimeout}},
	} {
		if got := judge(tm, c.p); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if got := judge(Timeouts{}, path{now: 5, active: true}); got != (verdict{}) {
		t.Error("all off:", got)
	}
}

func TestDiscovery(t *testing.T) {
	answer := "TargetName=iqn.a\x00TargetAddress=127.0.0.1:3261,2\x00TargetAddress=[::1],1\x00TargetName=iqn.b\x00"
	addr := iscsitest.Listen(t, iscsitest.Config{}, func(c *iscsitest.Conn) {
		for part := 0; ; part++ {
			h, _, err := c.Next()
			if err != nil {
				return
			}
			var a iscsi.BHS
			switch h.Opcode() {
			case iscsi.OpTextReq: // in two parts
				a.Init(iscsi.OpTextResp, iscsi.FlagContinue)
				a.SetTTT(5)
				text := answer[:30]
				if part > 0 {
					a.SetFlags(iscsi.FlagFinal)
					a.SetTTT(iscsi.NoTag)
					text = answer[30:]
				}
				a.SetITT(h.ITT())
				c.Send(&a, []byte(text))
			case iscsi.OpLogoutReq:
				a.Init(iscsi.OpLogoutResp, iscsi.FlagFinal)
				a.SetITT(h.ITT())
				c.Send(&a, nil)
				return
			}
		}
	})
	cfg := config(addr)
	cfg.Target = ""
	found, err := Discover(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("[{iqn.a [{127.0.0.1:3261 2} {[::1]:3260 1}]} {iqn.b [{%s 1}]}]", addr)
	if fmt.Sprint(found) != want {
		t.Errorf("%v, want %s", found, want)
	}
}

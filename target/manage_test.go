package target_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

func (c *client) manage(f target.Function, ref uint32, refSN uint32) byte {
	c.t.Helper()
	var h iscsi.BHS
	h.Init(iscsi.OpTaskReq, iscsi.FlagFinal|byte(f))
	h.SetImmediate()
	h[9] = 1 // LUN 1
	h.SetRefTag(ref)
	h.SetRefCmdSN(refSN)
	c.send(&h, nil)
	a := c.expect(iscsi.OpTaskResp)
	if a.ITT() != h.ITT() {
		c.t.Errorf("answer to %d, want %d", a.ITT(), h.ITT())
	}
	return a.Response()
}

// TestAbortTask: what was aborted before its data had come is never executed, whatever comes later; what was executed is
// not answered.
func TestAbortTask(t *testing.T) {
	p := &fakeProvider{}
	_, addr := serve(t, p)
	c := login(t, addr)
	x := p.last()

	waiting := writeCommand(8192, false)
	c.send(waiting, make([]byte, 512))
	if r := c.manage(target.AbortTask, waiting.ITT(), waiting.CmdSN()); r != 0 {
		t.Error("response ", r)
	}
	c.dataOut(waiting.ITT(), iscsi.NoTag, 0, 512, make([]byte, 8192-512), true)

	running := readCommand(512)
	running[33] = fakeHold
	c.send(running, nil)
	if r := c.manage(target.AbortTask, running.ITT(), running.CmdSN()); r != 0 {
		t.Error("response ", r)
	}
	if n := x.stops.Load(); n != 1 {
		t.Errorf("%d tasks were told to stop before the abort was answered", n)
	}
	x.release()

	if r := c.manage(target.AbortTask, running.ITT(), running.CmdSN()); r != byte(target.TaskDoesNotExist) {
		t.Error("response ", r)
	}
	// One that has not come yet never will.
	if r := c.manage(target.AbortTask, 5000, c.cmdSN-1); r != byte(target.TaskDoesNotExist) {
		t.Error("response ", r)
	}
	c.cmdSN++
	if r := c.manage(target.AbortTask, 5000, c.cmdSN-1); r != 0 {
		t.Error("response ", r)
	}
	late := readCommand(512)
	late.SetCmdSN(c.cmdSN - 1)
	c.send(late, nil)
	// The tag of an aborted task can be used again.
	again := readCommand(512)
	again.SetITT(waiting.ITT())
	c.send(again, nil)
	if a := c.expect(iscsi.OpDataIn); a.ITT() != again.ITT() {
		t.Errorf("answer to %d", a.ITT())
	}
	c.ping()
	if e, n, _ := x.count(); e != 2 || n != 1 {
		t.Errorf("%d executed, %d canceled", e, n)
	}
}

// TestLoginStop: who was shown a login can stop tasks of its session: those waiting are not executed, those executed not answered.
func TestLoginStop(t *testing.T) {
	p := &fakeProvider{}
	_, addr := serve(t, p)
	c := login(t, addr)
	x := p.last()
	running := readCommand(512)
	running[33] = fakeHold
	c.send(running, nil)
	other := readCommand(512)
	other[33] = fakeHold
	c.send(other, nil)
	waiting := writeCommand(4096, true)
	c.send(waiting, nil)
	c.expect(iscsi.OpR2T)
	if n := x.login.Stop(func(u *target.Task) bool { return u.Tag == running.ITT() || u.Tag == waiting.ITT() }); n != 2 {
		t.Fatalf("%d tasks stopped", n)
	}
	if n := x.stops.Load(); n != 1 {
		t.Errorf("%d tasks were told to stop", n)
	}
	c.dataOut(waiting.ITT(), 0, 0, 0, make([]byte, 4096), true)
	x.release()
	if a := c.expect(iscsi.OpDataIn); a.ITT() != other.ITT() {
		t.Errorf("answer to %d", a.ITT())
	}
	c.ping()
	if e, n, _ := x.count(); e != 2 || n != 1 {
		t.Errorf("%d executed, %d canceled", e, n)
	}
	c.conn.Close()
	if n := x.login.Stop(func(*target.Task) bool { return true }); n != 0 {
		t.Errorf("%d tasks of a session that is over", n)
	}
}

// TestFarewell: an initiator whose session moves is told, whatever it has under way, and nothing else from then on; one that takes nothing
// does not hold the end up; whoever is dropped for another reason finds the connection closed.
func TestFarewell(t *testing.T) {
	for name, c := range map[string]struct {
		cause error
		told  bool
		deaf  bool
	}{
		"moved":         {fmt.Errorf("hand-over: %w", target.ErrMoved), true, false},
		"shut down":     {target.ErrShutdown, true, false},
		"epoch":         {block.ErrEnded, true, false},
		"deaf":          {target.ErrMoved, false, true},
		"another cause": {errors.New("unexported"), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &fakeProvider{}
			s, addr := serve(t, p)
			cl := login(t, addr)
			x := p.last()
			running := readCommand(512)
			running[33] = fakeHold
			cl.send(running, nil)
			waiting := writeCommand(8192, true)
			cl.send(waiting, nil)
			cl.expect(iscsi.OpR2T)
			if c.deaf { // until the connection is full
				for range 12 {
					cl.send(readCommand(2<<20), nil)
				}
				for begin, executed := time.Now(), 0; executed < 13; executed, _, _ = x.count() {
					if time.Since(begin) > time.Minute {
						t.Fatalf("%d executed", executed)
					}
					runtime.Gosched()
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := s.DropSessions(ctx, func(target.SessionInfo) bool { return true }, c.cause); err != nil {
				t.Fatal(err)
			}
			x.release()
			if x.cause == nil || !errors.Is(x.cause, c.cause) {
				t.Errorf("the nexus ended for %v", x.cause)
			}
			if c.deaf {
				return
			}
			if c.told {
				a := cl.expect(iscsi.OpAsync)
				if a.AsyncEvent() != iscsi.AsyncDropConnection || a.AsyncParam(1) != 0 || a.AsyncParam(2) != 1 || a.ITT() != iscsi.NoTag {
					t.Errorf("event %d, %d, %d", a.AsyncEvent(), a.AsyncParam(1), a.AsyncParam(2))
				}
			}
			cl.closed()
		})
	}
}

// TestReset: a reset stops the tasks of all sessions with the unit, in whatever state they are.
func TestReset(t *testing.T) {
	for _, f := range []target.Function{target.LogicalUnitReset, target.TargetWarmReset} {
		p := &fakeProvider{}
		_, addr := serve(t, p)
		var cs [2]*client
		var xs [2]*fakeNexus
		for i := range cs {
			cs[i] = login(t, addr, isid(byte(i)))
			xs[i] = p.last()
			running := readCommand(512)
			running[33] = fakeHold
			cs[i].send(running, nil)
			waiting := writeCommand(8192, false)
			cs[i].send(waiting, nil)
			solicited := writeCommand(4096, true)
			cs[i].send(solicited, nil)
			cs[i].expect(iscsi.OpR2T)
			early := readCommand(512)
			early.SetCmdSN(cs[i].cmdSN + 1)
			cs[i].send(early, nil)
			cs[i].ping()
		}
		if r := cs[0].manage(f, 0, 0); r != 0 {
			t.Error("response ", r)
		}
		for i, c := range cs {
			xs[i].release()
			if e, n, _ := xs[i].count(); e != 1 || n != 2 {
				t.Errorf("session %d: %d executed, %d canceled", i, e, n)
			}
			c.read(512) // fills the gap before the one that came early, which is not executed now
			c.cmdSN++   // nor sent again
			c.read(512)
			c.ping()
		}
	}
}

// TestLateReset: a reset of which a part takes a while is answered when that is over, with what it has come to; the tasks have been
// stopped before it begins, and the session goes on meanwhile. A cold reset lets nothing pass.
func TestLateReset(t *testing.T) {
	p := &fakeProvider{}
	begun := make(chan func(target.Response), 1)
	p.afterwards = func(done func(target.Response)) { begun <- done }
	s, addr := serve(t, p)
	c := login(t, addr)
	x := p.last()
	running := readCommand(512)
	running[33] = fakeHold
	c.send(running, nil)
	reset := func(f target.Function) iscsi.BHS {
		var h iscsi.BHS
		h.Init(iscsi.OpTaskReq, iscsi.FlagFinal|byte(f))
		h.SetImmediate()
		h[9] = 1
		c.send(&h, nil)
		return h
	}
	h := reset(target.LogicalUnitReset)
	done := <-begun
	if n := x.stops.Load(); n != 1 {
		t.Errorf("%d tasks were told to stop", n)
	}
	c.read(512)
	c.ping()
	done(target.FunctionRejected)
	if a := c.expect(iscsi.OpTaskResp); a.ITT() != h.ITT() || a.Response() != byte(target.FunctionRejected) {
		t.Errorf("answer to %d: %d", a.ITT(), a.Response())
	}
	x.release()
	c.ping()
	// One that comes to nothing does not end the session.
	h = reset(target.TargetColdReset)
	(<-begun)(target.FunctionRejected)
	if a := c.expect(iscsi.OpTaskResp); a.ITT() != h.ITT() || a.Response() != byte(target.FunctionRejected) {
		t.Errorf("answer to %d: %d", a.ITT(), a.Response())
	}
	c.ping()
	h = reset(target.TargetColdReset)
	(<-begun)(target.FunctionComplete)
	if a := c.expect(iscsi.OpTaskResp); a.ITT() != h.ITT() || a.Response() != 0 {
		t.Errorf("answer to %d: %d", a.ITT(), a.Response())
	}
	c.closed()
	// A session that ends does not wait for what is left.
	c = login(t, addr)
	reset(target.TargetColdReset)
	done = <-begun
	if err := s.DropSessions(t.Context(), func(target.SessionInfo) bool { return true }, target.ErrMoved); err != nil {
		t.Error(err)
	}
	done(target.FunctionComplete)
	<-sessionsGone(s)
}

func TestColdReset(t *testing.T) {
	p := &fakeProvider{}
	s, addr := serve(t, p)
	a, b := login(t, addr, isid(1)), login(t, addr, isid(2))
	if r := a.manage(target.TargetColdReset, 0, 0); r != 0 {
		t.Error("response ", r)
	}
	a.closed()
	b.closed()
	<-sessionsGone(s)
	for _, x := range p.nexus {
		if !errors.Is(x.cause, target.ErrReset) {
			t.Error(x.cause)
		}
	}
}

func TestManageRefused(t *testing.T) {
	_, addr := serve(t, &fakeProvider{})
	c := login(t, addr)
	if r := c.manage(target.TaskReassign, 1, 1); r != byte(target.ReassignNotSupported) {
		t.Error(r)
	}
	if r := c.manage(77, 1, 1); r != byte(target.FunctionRejected) {
		t.Error(r)
	}
	var h iscsi.BHS
	h.Init(iscsi.OpTaskReq, iscsi.FlagFinal|byte(target.LogicalUnitReset))
	nine := target.FlatLUN(9)
	copy(h[8:16], nine[:])
	c.send(&h, nil)
	if a := c.expect(iscsi.OpTaskResp); a.Response() != byte(target.LUNDoesNotExist) {
		t.Error(a.Response())
	}
}

// TestDrop: a task whose epoch has ended is never answered, and its session is dropped (invariant 8).
func TestDrop(t *testing.T) {
	p := &fakeProvider{}
	s, addr := serve(t, p)
	c, other := login(t, addr), login(t, addr, isid(3))
	x := p.nexus[0]
	h := readCommand(512)
	h[33] = fakeHold
	c.send(h, nil)
	c.ping()
	ended := errors.New("ended")
	x.held[0].Drop = ended
	x.release()
	if a, err := c.recv(); err == nil {
		t.Errorf("got %s", a.Opcode())
	}
	other.ping()
	if err := s.DropSessions(context.Background(), func(target.SessionInfo) bool { return true }, ended); err != nil { // it waits for the first as well
		t.Error(err)
	}
	other.closed()
	if !errors.Is(x.cause, ended) || !errors.Is(p.nexus[1].cause, ended) {
		t.Error(x.cause, p.nexus[1].cause)
	}
}

func TestShutdown(t *testing.T) {
	p := &fakeProvider{}
	s, addr := serve(t, p)
	c := login(t, addr)
	half := dial(t, addr)
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(context.Background()) }()
	if a := c.expect(iscsi.OpAsync); a.AsyncEvent() != iscsi.AsyncLogoutRequest {
		t.Errorf("event %d", a.AsyncEvent())
	}
	var h iscsi.BHS
	h.Init(iscsi.OpLogoutReq, iscsi.FlagFinal)
	c.send(&h, nil)
	c.expect(iscsi.OpLogoutResp)
	if err := <-done; err != nil {
		t.Error(err)
	}
	half.closed()
	if !errors.Is(p.last().cause, target.ErrLogout) {
		t.Error(p.last().cause)
	}
}

// TestResetRace: while one session writes as fast as it can, another resets the unit. Nothing that was accepted before a
// reset is executed after the answer to it (invariant 4).
func TestResetRace(t *testing.T) {
	p := &fakeProvider{}
	_, addr := serve(t, p)
	writer, other := login(t, addr, isid(1)), login(t, addr, isid(2))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // sends, and reads nothing but what makes room to send
		defer close(done)
		data := make([]byte, 2048)
		window := make(chan uint32, 1024)
		go func() {
			defer close(window)
			for {
				h, err := writer.r.Next()
				if err != nil {
					return
				}
				writer.r.Discard()
				select {
				case window <- h.MaxCmdSN():
				default:
				}
			}
		}()
		limit := writer.max
		for {
			select {
			case <-stop:
				writer.conn.Close()
				for range window {
				}
				return
			case limit = <-window:
			default:
			}
			if iscsi.SNLess(limit, writer.cmdSN) {
				var h iscsi.BHS // its answer tells of the window
				h.Init(iscsi.OpNopOut, iscsi.FlagFinal)
				h.SetImmediate()
				h.SetITT(1 << 30)
				h.SetTTT(iscsi.NoTag)
				writer.send(&h, nil)
				limit = <-window
				continue
			}
			h := writeCommand(len(data), false)
			writer.send(h, data[:512])
			writer.dataOut(h.ITT(), iscsi.NoTag, 0, 512, data[512:], true)
		}
	}()
	for range 500 {
		p.begun.Add(1)
		if r := other.manage(target.LogicalUnitReset, 0, 0); r != 0 {
			t.Error("response ", r)
		}
		p.answered.Add(1)
	}
	close(stop)
	<-done
	e, n, _ := p.nexus[0].count()
	t.Logf("%d executed, %d canceled", e, n)
	if late := p.late.Load(); late > 0 {
		t.Errorf("%d tasks were executed after the answer to a reset that began after they were accepted", late)
	}
}

package initiator

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/internal/iscsi"
	"pmsapp/internal/iscsi/iscsitest"
)

// inBubble runs a session with PeerTimeouts against a target in virtual time. serve has the target's end.
func inBubble(t *testing.T, serve func(*iscsitest.Conn), test func(s *Session)) {
	synctest.Test(t, func(t *testing.T) {
		var peer sync.WaitGroup
		defer peer.Wait()
		cfg := config("target")
		cfg.Timeouts = PeerTimeouts()
		cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			peer.Go(func() {
				defer b.Close()
				if c := iscsitest.Login(b, iscsitest.Config{}); c != nil {
					serve(c)
				}
			})
			return a, nil
		}
		s, err := Dial(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		test(s)
		s.Close()
		<-s.Done()
	})
}

// swallow reads and answers nothing, but tells when a probe came.
func swallow(probes chan<- time.Time) func(*iscsitest.Conn) {
	return func(c *iscsitest.Conn) {
		for {
			h, _, err := c.Next()
			if err != nil {
				return
			}
			if h.Opcode() == iscsi.OpNopOut {
				probes <- time.Now()
			}
		}
	}
}

func TestIdlePathDies(t *testing.T) {
	probes := make(chan time.Time, 10)
	began := time.Now()
	inBubble(t, swallow(probes), func(s *Session) {
		began = time.Now()
		<-s.Done()
		if took := time.Since(began); took != 3*time.Second || !errors.Is(s.Err(), ErrNoopTimeout) {
			t.Errorf("%v: %v", took, s.Err()) // an interval of 1 s, and 2 s for the answer
		}
	})
	if len(probes) != 1 {
		t.Fatal(len(probes))
	}
	if at := (<-probes).Sub(began); at != time.Second {
		t.Error("probed after", at)
	}
}

func TestActivePathDies(t *testing.T) {
	probes := make(chan time.Time, 10)
	inBubble(t, swallow(probes), func(s *Session) {
		s.mu.Lock()
		s.cfg.Timeouts.NoopInterval = 0
		s.mu.Unlock()
		time.Sleep(500 * time.Millisecond) // within a bubble
		began := time.Now()
		c := run(s, &Command{CDB: cdb(2, 0), DataIn: make([]byte, 512)})
		if took := time.Since(began); took != 3*time.Second || !errors.Is(c.Err, ErrRecoveryTimeout) {
			t.Errorf("%v: %v", took, c.Err)
		}
	})
	if len(probes) != 0 {
		t.Error("it was probed although that is switched off")
	}
}

// TestHeldCommandKeepsThePath: a target that holds a command for long, and answers probes, is not left.
func TestHeldCommandKeepsThePath(t *testing.T) {
	held := make(chan uint32, 1)
	inBubble(t, func(c *iscsitest.Conn) {
		for {
			h, _, err := c.Next()
			if err != nil {
				return
			}
			switch h.Opcode() {
			case iscsi.OpSCSICommand:
				held <- h.ITT()
			case iscsi.OpNopOut:
				var a iscsi.BHS
				a.Init(iscsi.OpNopIn, iscsi.FlagFinal)
				a.SetITT(h.ITT())
				a.SetTTT(iscsi.NoTag)
				c.Send(&a, nil)
			}
			select {
			case itt := <-held:
				if len(held) == 0 && h.Opcode() == iscsi.OpNopOut {
					time.AfterFunc(20*time.Second, func() { c.Answer(itt, 0, StatusGood, nil, nil) }) // within a bubble
				} else {
					held <- itt
				}
			default:
			}
		}
	}, func(s *Session) {
		began := time.Now()
		c := run(s, &Command{CDB: cdb(1, 0)})
		if took := time.Since(began); took < 20*time.Second || c.Err != nil {
			t.Errorf("after %v: %v", took, c.Err)
		}
	})
}

func TestAnsweredPathLives(t *testing.T) {
	n := 0
	inBubble(t, func(c *iscsitest.Conn) {
		for {
			h, _, err := c.Next()
			if err != nil {
				return
			}
			n++
			var a iscsi.BHS
			a.Init(iscsi.OpNopIn, iscsi.FlagFinal)
			a.SetITT(h.ITT())
			a.SetTTT(iscsi.NoTag)
			time.Sleep(1900 * time.Millisecond) // within a bubble
			c.Send(&a, nil)
		}
	}, func(s *Session) {
		time.Sleep(time.Minute) // within a bubble
		if s.Err() != nil {
			t.Error(s.Err())
		}
	})
	if n < 15 || n > 25 {
		t.Error(n, "probes in a minute")
	}
}

// TestLogoutTimeout has a target that is asked to log out while a command is under way, and does nothing.
func TestLogoutTimeout(t *testing.T) {
	inBubble(t, swallow(make(chan time.Time, 100)), func(s *Session) {
		s.mu.Lock()
		s.cfg.Timeouts.Recovery, s.cfg.Timeouts.NoopInterval = 0, 0
		s.mu.Unlock()
		ended := make(chan error, 1)
		s.Submit(&Command{CDB: cdb(2, 0), DataIn: make([]byte, 512), Done: func(c *Command) { ended <- c.Err }})
		synctest.Wait()
		began := time.Now()
		s.Logout(context.Background())
		if took := time.Since(began); took != 5*time.Second || !errors.Is(s.Err(), ErrClosed) || !errors.Is(<-ended, ErrClosed) {
			t.Errorf("%v: %v", took, s.Err())
		}
	})
}

// hangs answers everything but the first command.
func hangs(c *iscsitest.Conn) {
	first := true
	for {
		h, _, err := c.Next()
		if err != nil {
			return
		}
		if h.Opcode() != iscsi.OpSCSICommand {
			continue
		}
		if first {
			first = false
			continue
		}
		c.Answer(h.ITT(), 0, StatusGood, nil, nil)
	}
}

// TestHungCommandEndsASession: the target answers other commands all the time, and one never. Such a path is dead when that
// one is as old as the command timeout, unless the command is patient.
func TestHungCommandEndsASession(t *testing.T) {
	for _, patient := range []bool{false, true} {
		inBubble(t, hangs, func(s *Session) {
			s.mu.Lock()
			s.cfg.Timeouts.Command = 3 * time.Second
			s.mu.Unlock()
			began := time.Now()
			hung := make(chan error, 1)
			s.Submit(&Command{CDB: cdb(2, 0), DataOut: make([]byte, 512), Patient: patient, Done: func(c *Command) { hung <- c.Err }})
			for time.Since(began) < 10*time.Second && s.Err() == nil {
				run(s, &Command{CDB: cdb(1, 0)})
				time.Sleep(100 * time.Millisecond) // within a bubble
			}
			took := time.Since(began)
			if patient {
				if took < 10*time.Second || s.Err() != nil {
					t.Errorf("patient: %v: %v", took, s.Err())
				}
				return
			}
			if took > 3100*time.Millisecond || !errors.Is(s.Err(), ErrCommandTimeout) || !errors.Is(<-hung, ErrCommandTimeout) {
				t.Errorf("%v: %v", took, s.Err())
			}
		})
	}
}

// TestFullWindowEndsASession: patient commands fill the target's window, and a write cannot even be sent. The target answers
// probes. That the write waits at this end does not make it wait longer.
func TestFullWindowEndsASession(t *testing.T) {
	const window = 32 // of iscsitest
	inBubble(t, func(c *iscsitest.Conn) {
		sn := c.StatSN()
		var exp, top uint32
		for {
			h, _, err := c.Next()
			if err != nil {
				return
			}
			switch h.Opcode() {
			case iscsi.OpSCSICommand:
				if exp = h.CmdSN() + 1; top == 0 {
					top = h.CmdSN() + window - 1
				}
			case iscsi.OpNopOut:
				var a iscsi.BHS
				a.Init(iscsi.OpNopIn, iscsi.FlagFinal)
				a.SetITT(h.ITT())
				a.SetTTT(iscsi.NoTag)
				a.SetStatSN(sn)
				a.SetExpCmdSN(exp)
				a.SetMaxCmdSN(top)
				sn++
				if c.SendRaw(&a, nil) != nil {
					return
				}
			}
		}
	}, func(s *Session) {
		s.mu.Lock()
		s.cfg.Timeouts.Command, s.cfg.Timeouts.Recovery = 3*time.Second, 0
		s.mu.Unlock()
		for range window + 2 { // two of them wait at this end, and that alone ends nothing
			s.Submit(&Command{CDB: cdb(1, 0), Patient: true, Done: func(*Command) {}})
		}
		time.Sleep(20 * time.Second) // within a bubble
		if err := s.Err(); err != nil {
			t.Fatal("patient commands have ended it:", err)
		}
		began := time.Now()
		hung := make(chan error, 1)
		s.Submit(&Command{CDB: cdb(2, 0), DataOut: make([]byte, 512), Done: func(c *Command) { hung <- c.Err }})
		select {
		case err := <-hung:
			if took := time.Since(began); took < 3*time.Second || took > 4*time.Second || !errors.Is(err, ErrCommandTimeout) {
				t.Errorf("after %v: %v", took, err)
			}
		case <-time.After(time.Minute):
			t.Error("it waits for ever")
		}
	})
}

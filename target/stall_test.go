package target_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

// chatter answers probes for an initiator that does nothing else: it sends NOP-Outs that want no answer.
func (c *client) chatter(done <-chan struct{}) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var h iscsi.BHS
		h.Init(iscsi.OpNopOut, iscsi.FlagFinal)
		h.SetImmediate()
		h.SetITT(iscsi.NoTag)
		h.SetTTT(1)
		h.SetCmdSN(c.cmdSN)
		if c.w.Write(&h, nil, nil) != nil || c.w.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-done:
			return
		}
	}
}

// TestStalled: an initiator that sends NOP-Outs, but reads nothing or answers no R2T, is sent away, and its memory comes back.
func TestStalled(t *testing.T) {
	for name, begin := range map[string]func(c *client){
		"reads nothing": func(c *client) {
			for range 40 {
				c.send(readCommand(1<<20), nil)
			}
		},
		"answers no R2T": func(c *client) {
			c.send(writeCommand(1<<20, true), nil)
			c.expect(iscsi.OpR2T)
		},
		"ends no unasked data": func(c *client) { c.send(writeCommand(64<<10, false), make([]byte, 512)) },
	} {
		t.Run(name, func(t *testing.T) {
			p := &fakeProvider{}
			s, addr := serve(t, p, func(c *target.Config) {
				c.Tunables.NoopInterval, c.Tunables.NoopTimeout = 100*time.Millisecond, 100*time.Millisecond
			})
			small, large := s.Free()
			c := login(t, addr)
			begin(c)
			done, ended := make(chan struct{}), make(chan struct{})
			go func() { defer close(ended); c.chatter(done) }()
			defer func() { close(done); <-ended }()
			select {
			case <-sessionsGone(s):
			case <-time.After(patience):
				t.Fatal("it holds its memory for ever")
			}
			if x := p.last(); !errors.Is(x.cause, target.ErrStalled) {
				t.Error(x.cause)
			}
			if a, b := s.Free(); a != small || b != large {
				t.Errorf("%d and %d bytes are missing", small-a, large-b)
			}
		})
	}
}

// TestSilentConnections: connections that say nothing take no place from others, nor for ever from those of the same address.
func TestSilentConnections(t *testing.T) {
	_, addr := serve(t, &fakeProvider{}, func(c *target.Config) {
		c.Connections, c.Tunables.LoginTimeout = 4, patience
	})
	kept := login(t, addr)
	from := func(ip string) *client {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		conn, err := d.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		return &client{t: t, conn: conn, r: iscsi.NewReader(conn), w: iscsi.NewWriter(conn), cmdSN: 100}
	}
	var silent []*client
	for range 3 {
		silent = append(silent, from("127.0.0.2"))
	}
	peer := from("127.0.0.3")
	if err := peer.tryLogin(loginConfig(isid(2)), 0); err != nil {
		t.Fatal(err)
	}
	same := from("127.0.0.2")
	if err := same.tryLogin(loginConfig(isid(3)), 0); err != nil {
		t.Fatal(err)
	}
	for i, c := range silent[:2] { // the oldest had to go
		if _, err := c.r.Next(); err == nil || errors.Is(err, net.ErrClosed) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	kept.ping()
	peer.ping()
	same.ping()
}

// TestManyDiscoveries: discovery, which anybody may, does not take the places of sessions with targets.
func TestManyDiscoveries(t *testing.T) {
	_, addr := serve(t, &fakeProvider{}, func(c *target.Config) { c.Sessions = 8 })
	discover := func(c *iscsi.InitiatorLoginConfig) { c.Target, c.Discovery = "", true }
	refused := 0
	for range 8 {
		if err := dial(t, addr).tryLogin(loginConfig(discover), 0); err != nil {
			if status(err) != iscsi.LoginOutOfResources {
				t.Fatal(err)
			}
			refused++
		}
	}
	if refused != 5 {
		t.Errorf("%d are refused", refused)
	}
	for i := range 4 {
		login(t, addr, isid(byte(i))).ping()
	}
}

// TestStallTuned: a session that was bounded before probes were turned off is not ended by the bound of then.
func TestStallTuned(t *testing.T) {
	s, addr := serve(t, &fakeProvider{}, func(c *target.Config) {
		c.Tunables.NoopInterval, c.Tunables.NoopTimeout = 50*time.Millisecond, 50*time.Millisecond
	})
	c := login(t, addr)
	c.ping()
	tune := target.DefaultTunables()
	tune.NoopInterval = 0
	if err := s.Tune(tune); err != nil {
		t.Fatal(err)
	}
	<-time.After(300 * time.Millisecond) // longer than that bound
	c.ping()
}

package target_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

func TestLogin(t *testing.T) {
	p := &fakeProvider{keys: []iscsi.Pair{{Key: "X-app.pmsapp.highest", Value: "7"}}}
	s, addr := serve(t, p)
	c := login(t, addr, func(c *iscsi.InitiatorLoginConfig) {
		c.Alias = "alias"
		c.Vendor = []iscsi.Pair{{Key: "X-app.pmsapp.epoch", Value: "8"}}
	})
	if c.tsih == 0 {
		t.Error("TSIH 0")
	}
	if v, _ := iscsi.Lookup(c.keys, "X-app.pmsapp.highest"); v != "7" {
		t.Errorf("keys %v", c.keys)
	}
	l := p.last().login
	if v, _ := iscsi.Lookup(l.Vendor, "X-app.pmsapp.epoch"); v != "8" || l.Initiator != testInitiator || l.Alias != "alias" {
		t.Errorf("login %+v", l)
	}
	c.ping()
	if n := len(s.Sessions()); n != 1 {
		t.Errorf("%d sessions", n)
	}
	var h iscsi.BHS
	h.Init(iscsi.OpLogoutReq, iscsi.FlagFinal)
	c.send(&h, nil)
	if a := c.expect(iscsi.OpLogoutResp); a.Response() != iscsi.LogoutDone {
		t.Errorf("logout was answered %d", a.Response())
	}
	if x := p.last(); !errors.Is(x.cause, target.ErrLogout) {
		t.Errorf("the nexus had not ended (%v) when the logout was answered", x.cause)
	}
	c.closed()
}

func TestLoginRefused(t *testing.T) {
	p := &fakeProvider{}
	_, addr := serve(t, p)
	try := func(tsih uint16, options ...func(*iscsi.InitiatorLoginConfig)) error {
		return dial(t, addr).tryLogin(loginConfig(options...), tsih)
	}
	if err := try(0, func(c *iscsi.InitiatorLoginConfig) { c.Target = "iqn.x:none" }); status(err) != iscsi.LoginNotFound {
		t.Error(err)
	}
	for _, tsih := range []uint16{1, 77, 0xffff} {
		if err := try(tsih); status(err) != iscsi.LoginNoSession {
			t.Errorf("TSIH %d: %v", tsih, err)
		}
	}
	c := login(t, addr)
	if err := try(c.tsih, isid(9)); status(err) != iscsi.LoginNoSession {
		t.Error("another port with the TSIH of this one: ", err)
	}
	if err := try(c.tsih, func(c *iscsi.InitiatorLoginConfig) { c.CID = 9 }); status(err) != iscsi.LoginTooManyConns {
		t.Error("a second connection: ", err)
	}
	c.ping()
	p.refuse = &target.Refusal{Status: iscsi.LoginUnavailable, Why: "epoch", Keys: []iscsi.Pair{{Key: "X-app.pmsapp.accepted", Value: "9"}}}
	err := try(0, isid(2))
	var e *iscsi.LoginError
	if !errors.As(err, &e) || e.Status != iscsi.LoginUnavailable || len(e.Keys) != 1 || e.Keys[0].Value != "9" {
		t.Errorf("%v %+v", err, e)
	}
	c.ping()
}

func TestCHAP(t *testing.T) {
	p := &fakeProvider{auth: iscsi.Auth{Initiator: iscsi.Credentials{Name: "user", Secret: []byte("0123456789ab")},
		Own: iscsi.Credentials{Name: "target", Secret: []byte("ba9876543210")}}}
	_, addr := serve(t, p)
	with := func(own, peer string) func(*iscsi.InitiatorLoginConfig) {
		return func(c *iscsi.InitiatorLoginConfig) {
			if own != "" {
				c.Own = iscsi.Credentials{Name: "user", Secret: []byte(own)}
			}
			if peer != "" {
				c.Peer = iscsi.Credentials{Name: "target", Secret: []byte(peer)}
			}
		}
	}
	for name, c := range map[string]struct {
		own, peer string
		ok        bool
	}{
		"none": {}, "wrong": {own: "0123456789ac"}, "right": {own: "0123456789ab", ok: true},
		"mutual": {own: "0123456789ab", peer: "ba9876543210", ok: true}, "wrong target": {own: "0123456789ab", peer: "ba9876543211"},
	} {
		t.Run(name, func(t *testing.T) {
			err := dial(t, addr).tryLogin(loginConfig(with(c.own, c.peer)), 0)
			if (err == nil) != c.ok {
				t.Error(err)
			}
			if c.ok && p.last().login.User != "user" {
				t.Errorf("user %q", p.last().login.User)
			}
		})
	}
}

func (c *client) text(s string) string {
	c.t.Helper()
	var h iscsi.BHS
	h.Init(iscsi.OpTextReq, iscsi.FlagFinal)
	h.SetTTT(iscsi.NoTag)
	c.send(&h, []byte(s))
	return string(c.expect(iscsi.OpTextResp).data)
}

// TestSendTargets: in a session with a target, that one is told of and never all (RFC 7143 appendix C); and whatever a request asks, one
// question in it is answered: it must not be answered a thousand times over.
func TestSendTargets(t *testing.T) {
	_, addr := serve(t, &fakeProvider{many: 5})
	entry := fmt.Sprintf("TargetName=%s\x00TargetAddress=%s,1\x00", testTarget, addr)
	c := login(t, addr)
	if got := c.text("SendTargets=All\x00"); got != "SendTargets=Reject\x00" {
		t.Errorf("%q", got)
	}
	if got := c.text("SendTargets=\x00"); got != entry {
		t.Errorf("%q", got)
	}
	if got := c.text("SendTargets=" + testTarget + "\x00"); got != entry {
		t.Errorf("%q", got)
	}
	d := login(t, addr, func(c *iscsi.InitiatorLoginConfig) { c.Discovery, c.Target = true, "" })
	got := d.text(strings.Repeat("SendTargets=All\x00", 400))
	if n := strings.Count(got, "TargetName="); n != 7 || !strings.HasSuffix(got, strings.Repeat("SendTargets=Reject\x00", 399)) {
		t.Errorf("%d targets in %d bytes", n, len(got))
	}
}

func TestDiscovery(t *testing.T) {
	_, addr := serve(t, &fakeProvider{})
	c := login(t, addr, func(c *iscsi.InitiatorLoginConfig) { c.Discovery, c.Target = true, "" })
	text := c.text
	entry := func(name string) string {
		return fmt.Sprintf("TargetName=%s\x00TargetAddress=%s,1\x00", name, addr)
	}
	if got := text("SendTargets=All\x00"); got != entry(testTarget)+entry(testTarget+":2") {
		t.Errorf("%q", got)
	}
	if got := text("SendTargets=" + testTarget + ":2\x00"); got != entry(testTarget+":2") {
		t.Errorf("%q", got)
	}
	if got := text("SendTargets=nobody\x00X-a.b=1\x00MaxBurstLength=512\x00"); got != "X-a.b=NotUnderstood\x00MaxBurstLength=Reject\x00" {
		t.Errorf("%q", got)
	}
	h := readCommand(512) // not in a discovery session
	c.send(h, nil)
	if a := c.expect(iscsi.OpReject); a.Response() != iscsi.RejectProtocol {
		t.Errorf("reason %d", a.Response())
	}
	c.ping()
}

// TestLongDiscovery: an answer longer than a PDU is given out in parts.
func TestLongDiscovery(t *testing.T) {
	_, addr := serve(t, &fakeProvider{many: 60})
	c := login(t, addr, func(c *iscsi.InitiatorLoginConfig) {
		c.Discovery, c.Target, c.Wish.MaxRecv = true, "", 512
	})
	request := func(tag uint32, text string) answer {
		var h iscsi.BHS
		h.Init(iscsi.OpTextReq, iscsi.FlagFinal)
		h.SetTTT(tag)
		c.send(&h, []byte(text))
		return c.expect(iscsi.OpTextResp)
	}
	a := request(iscsi.NoTag, "SendTargets=All\x00")
	got := string(a.data)
	for a.Has(iscsi.FlagContinue) {
		a = request(a.TTT(), "")
		got += string(a.data)
	}
	if n := strings.Count(got, "TargetName="); n != 62 || !a.Final() || a.TTT() != iscsi.NoTag {
		t.Errorf("%d targets", n)
	}
	var h iscsi.BHS
	h.Init(iscsi.OpTextReq, iscsi.FlagFinal)
	h.SetTTT(99)
	c.send(&h, nil)
	c.expect(iscsi.OpReject)
}

// TestReinstatement: a login is not answered before the session that it replaces has ended (invariant 4).
func TestReinstatement(t *testing.T) {
	p := &fakeProvider{ending: make(chan struct{})}
	_, addr := serve(t, p)
	old := login(t, addr)
	h := writeCommand(512, true)
	h[33] = fakeHold
	old.send(h, make([]byte, 512))
	old.ping()
	first := p.last()
	other := login(t, addr, isid(7))

	answered := make(chan error, 1)
	c := dial(t, addr)
	go func() { answered <- c.tryLogin(loginConfig(), 0) }()
	old.closed()
	for range 50 {
		other.ping()
	}
	select {
	case err := <-answered:
		t.Fatalf("the login was answered (%v) while the nexus of the session before was ending", err)
	default:
	}
	close(p.ending)
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if !errors.Is(first.cause, target.ErrReinstated) {
		t.Error(first.cause)
	}
	first.release() // a command that ends after its session: nobody gets an answer
	c.ping()
	other.ping()
}

// TestReinstatementByAnySpelling: an iSCSI name is the same in whatever case it is spelled (RFC 7143 4.2.7.2), so the second login of a
// port reinstates the session of the first.
func TestReinstatementByAnySpelling(t *testing.T) {
	p := &fakeProvider{}
	s, addr := serve(t, p)
	old := login(t, addr)
	first := p.last()
	c := login(t, addr, func(c *iscsi.InitiatorLoginConfig) { c.Initiator = strings.ToUpper(c.Initiator[:4]) + c.Initiator[4:] })
	old.closed()
	if n := len(s.Sessions()); n != 1 || !errors.Is(first.cause, target.ErrReinstated) {
		t.Errorf("%d sessions, the first ended for %v", n, first.cause)
	}
	c.ping()
}

func TestHalfOpenLogin(t *testing.T) {
	_, addr := serve(t, &fakeProvider{}, func(c *target.Config) { c.Tunables.LoginTimeout = 50 * time.Millisecond })
	c := dial(t, addr)
	c.conn.Write([]byte{0x43})
	if _, err := c.r.Next(); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("%v", err)
	}
}

func TestProbe(t *testing.T) {
	p := &fakeProvider{}
	s, addr := serve(t, p, func(c *target.Config) {
		c.Tunables.NoopInterval, c.Tunables.NoopTimeout = 10*time.Millisecond, 10*time.Second
	})
	c := login(t, addr)
	for range 2 {
		a := c.expect(iscsi.OpNopIn)
		if a.TTT() == iscsi.NoTag || a.ITT() != iscsi.NoTag {
			t.Fatalf("tags %x %x", a.ITT(), a.TTT())
		}
		var h iscsi.BHS
		h.Init(iscsi.OpNopOut, iscsi.FlagFinal)
		h.SetImmediate()
		h.SetITT(iscsi.NoTag)
		h.SetTTT(a.TTT())
		c.send(&h, nil)
	}
	tune := target.DefaultTunables()
	tune.NoopInterval, tune.NoopTimeout = time.Millisecond, time.Millisecond
	if err := s.Tune(tune); err != nil {
		t.Fatal(err)
	}
	c.closed()
	<-sessionsGone(s)
	if x := p.last(); !errors.Is(x.cause, target.ErrIdle) {
		t.Error(x.cause)
	}
}

// sessionsGone is closed when there are no sessions any more.
func sessionsGone(s *target.Server) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range time.Tick(time.Millisecond) {
			if len(s.Sessions()) == 0 {
				return
			}
		}
	}()
	return done
}

package front

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

var geometry = block.Geometry{Size: 1 << 20, Logical: 512, Physical: 4096, MaxLen: 1 << 20}

// disk answers everything at once.
type disk struct{}

func (disk) Geometry() block.Geometry { return geometry }
func (disk) Submit(r *block.Request)  { r.Err = nil; r.Done(r) }

func newHosts(certain *bool) *Hosts {
	return NewHosts(HostsConfig{Group: 3, Certain: func() bool { return *certain },
		Hold: func() time.Duration { return 10 * time.Second }, Log: slog.New(slog.DiscardHandler),
		Portals: func() []target.Portal {
			return []target.Portal{{Addr: netip.MustParseAddrPort("0.0.0.0:3260"), Group: 3}}
		}})
}

// login is a session of which the test knows why it was dropped.
func login(volume, initiator, user string, dropped *error) target.Login {
	return target.Login{Target: TargetName(volume), Initiator: initiator, User: user,
		Portal: netip.MustParseAddrPort("192.0.2.1:3260"), Drop: func(err error) { *dropped = err }}
}

func TestAdmission(t *testing.T) {
	certain := false
	h := newHosts(&certain)
	v := ids.NewVolume()
	secret := iscsi.Credentials{Name: "bob", Secret: []byte("0123456789ab")}
	export := Export{Volume: v, Name: "Vol", Geometry: geometry, LUN: 1, Initiators: []string{"iqn.a"}, CHAP: secret}
	var cause error
	check := func(l target.Login, want error) {
		t.Helper()
		_, err := h.Credentials(l)
		if err == nil {
			_, err = h.Open(l)
		}
		if !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
	check(login("vol", "iqn.a", "", &cause), target.ErrUnavailable)
	certain = true
	check(login("vol", "iqn.a", "", &cause), target.ErrNoTarget)
	if err := h.Apply([]Export{export}); err != nil {
		t.Fatal(err)
	}
	check(login("vol", "iqn.b", "bob", &cause), target.ErrForbidden)
	check(login("vol", "iqn.a", "", &cause), target.ErrForbidden)
	check(login("VOL", "iqn.A", "bob", &cause), nil)
	if d := h.Discover(login("", "iqn.a", "", &cause)); len(d) != 1 || d[0].Portals[0].Addr.String() != "192.0.2.1:3260" {
		t.Fatal(d)
	}
	if d := h.Discover(login("", "iqn.b", "", &cause)); len(d) != 0 {
		t.Fatal(d)
	}
	// The same again changes nothing; a list without the initiator ends its session.
	if err := h.Apply([]Export{export}); err != nil || cause != nil {
		t.Fatal(err, cause)
	}
	export.Initiators = []string{"iqn.b"}
	if err := h.Apply([]Export{export}); err != nil || !errors.Is(cause, ErrUnexported) {
		t.Fatal(err, cause)
	}
	cause = nil
	check(login("vol", "iqn.b", "bob", &cause), nil)
	if err := h.Apply(nil); err != nil || !errors.Is(cause, ErrUnexported) {
		t.Fatal(err, cause)
	}
}

// TestUnknownIsLookedForAgain: a target that is not known when a login comes, and is when the node is certain, is no refusal.
func TestUnknownIsLookedForAgain(t *testing.T) {
	certain := true
	h := newHosts(&certain)
	v := ids.NewVolume()
	h.cfg.Certain = func() bool {
		return h.Apply([]Export{{Volume: v, Name: "vol", Geometry: geometry, LUN: 1}}) == nil
	}
	var cause error
	if _, err := h.Open(login("vol", "iqn.a", "", &cause)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Credentials(login("other", "iqn.a", "", &cause)); !errors.Is(err, target.ErrNoTarget) {
		t.Fatal(err)
	}
}

func TestCloseWaitsForSessions(t *testing.T) {
	certain := true
	h := newHosts(&certain)
	v := ids.NewVolume()
	if err := h.Apply([]Export{{Volume: v, Name: "vol", Geometry: geometry, LUN: 1}}); err != nil {
		t.Fatal(err)
	}
	var cause error
	o, err := h.Open(login("vol", "iqn.a", "", &cause))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Close(ctx, v); !errors.Is(err, context.Canceled) || !errors.Is(cause, ErrUnexported) {
		t.Fatal(err, cause)
	}
	o.Nexus.End(cause)
	undo, err := h.Close(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Open(login("vol", "iqn.a", "", &cause)); !errors.Is(err, target.ErrUnavailable) {
		t.Fatal(err)
	}
	undo()
	if _, err := h.Open(login("vol", "iqn.a", "", &cause)); err != nil {
		t.Fatal(err)
	}
}

// TestServing: NOT READY, waiting, serving and standing by again; what was held when that changed ends with ErrEnded.
func TestServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		certain := true
		h := newHosts(&certain)
		v := ids.NewVolume()
		if err := h.Apply([]Export{{Volume: v, Name: "vol", Geometry: geometry, LUN: 1}}); err != nil {
			t.Fatal(err)
		}
		lu := h.targets[TargetName("vol")].lu
		if lu.Serving() || h.Known() {
			t.Fatal("served before anybody said so")
		}
		h.Wait(v, geometry)
		if !lu.Serving() || !h.Known() {
			t.Fatal("the LU does not hold")
		}
		var got []error
		request := func() *block.Request {
			return &block.Request{Op: block.Flush, Done: func(r *block.Request) { got = append(got, r.Err) }}
		}
		w := h.waits[v]
		w.Submit(request())
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if len(got) != 1 || !errors.Is(got[0], block.ErrHeld) {
			t.Fatal(got)
		}
		w.Submit(request())
		h.Serve(v, disk{}, nil)
		if len(got) != 2 || !errors.Is(got[1], block.ErrEnded) || !lu.Serving() {
			t.Fatal(got)
		}
		w.Submit(request())
		if len(got) != 3 || !errors.Is(got[2], block.ErrEnded) {
			t.Fatal(got)
		}
		h.Wait(v, geometry) // by one who looked before Serve was called
		if _, held := h.waits[v]; held || h.devices[v].Device == nil {
			t.Fatal("a late Wait took a volume out of service")
		}
		var cause error
		if _, err := h.Open(login("vol", "iqn.a", "", &cause)); err != nil {
			t.Fatal(err)
		}
		h.Standby(v)
		if lu.Serving() || !errors.Is(cause, ErrNotServed) {
			t.Fatal(cause)
		}
	})
}

func TestWaitingIsBounded(t *testing.T) {
	w := newWaiting(geometry, time.Hour)
	held := 0
	for range maxWaiting + 1 {
		w.Submit(&block.Request{Done: func(r *block.Request) {
			if errors.Is(r.Err, block.ErrHeld) {
				held++
			}
		}})
	}
	if held != 1 {
		t.Fatal(held)
	}
	w.end()
}

func TestNames(t *testing.T) {
	for _, bad := range []string{"", "host", "iqn.x y", "iqn." + strings.Repeat("a", 220), "iqn.é"} {
		if _, err := CheckInitiator(bad); !errors.Is(err, ErrInitiator) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if s, err := CheckInitiator("IQN.1998-01.com.Example:h1"); err != nil || s != "iqn.1998-01.com.example:h1" {
		t.Error(s, err)
	}
}

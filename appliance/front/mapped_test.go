package front

import (
	"context"
	"errors"
	"testing"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/internal/reserve"
	"pmsapp/target"
)

// TestMaps: who is let in to the mapped LUNs, and what ends sessions.
func TestMaps(t *testing.T) {
	certain := false
	h := newHosts(&certain)
	now := time.Unix(1000, 0)
	h.cfg.Now = func() time.Time { return now }
	v, w := ids.NewVolume(), ids.NewVolume()
	var cause error
	to := func(initiator, user string) target.Login {
		l := login("", initiator, user, &cause)
		l.Target = CommonName(h.cfg.Cluster)
		return l
	}
	try := func(l target.Login, want error) target.Nexus {
		t.Helper()
		_, err := h.Credentials(l)
		var o target.Opened
		if err == nil {
			o, err = h.Open(l)
		}
		if !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
		return o.Nexus
	}
	apply := func(hosts []Host, volumes ...Offered) {
		t.Helper()
		if err := h.ApplyMaps(hosts, volumes); err != nil {
			t.Fatal(err)
		}
	}
	try(to("iqn.a", ""), target.ErrUnavailable) // this node may not know it yet
	certain = true
	try(to("iqn.a", ""), errUnknownHost)
	a := Host{Name: "a", IQNs: []string{"iqn.a"}, CHAP: iscsi.Credentials{Name: "u", Secret: []byte("0123456789ab")}}
	apply([]Host{a})
	try(to("iqn.a", "u"), errNoLUN)
	if !h.Known() {
		t.Error("a host without LUNs needs a device")
	}
	a.LUNs = []HostLUN{{v, 5, false}}
	apply([]Host{a}, Offered{Volume: v, Name: "v"})
	if h.Known() {
		t.Error("nobody serves v")
	}
	try(to("iqn.a", ""), target.ErrForbidden)
	n := try(to("IQN.A", "u"), nil)
	if n.Unit(target.FlatLUN(5)) == nil || n.Unit(target.FlatLUN(6)) != nil {
		t.Error("not the LUNs of the map")
	}
	if d := h.Discover(to("iqn.a", "")); len(d) != 1 || d[0].Name != CommonName(h.cfg.Cluster) {
		t.Error(d)
	}
	if d := h.Discover(to("iqn.b", "")); len(d) != 0 {
		t.Error(d)
	}
	// One more LUN leaves the session; the same again changes nothing.
	a.LUNs = append(a.LUNs, HostLUN{w, 6, true})
	for range 2 {
		apply([]Host{a}, Offered{Volume: v, Name: "v"}, Offered{Volume: w, Name: "w", Reserved: reserve.State{Seq: 1}, Index: 9})
	}
	if cause != nil || n.Unit(target.FlatLUN(6)) == nil {
		t.Fatal(cause)
	}
	h.Serve(v, disk{}, nil)
	h.Serve(w, disk{}, nil)
	if !h.Known() || len(h.Identities()) != 2 {
		t.Error("what is served is not known")
	}
	h.Standby(w)
	if !errors.Is(cause, ErrNotServed) || !errors.Is(cause, target.ErrMoved) {
		t.Fatal(cause)
	}
	// A map that ends: no login until it has.
	cause = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.CloseHost(ctx, "a"); !errors.Is(err, context.Canceled) || !errors.Is(cause, ErrUnexported) {
		t.Fatal(err, cause)
	}
	n.End(cause)
	undo, err := h.CloseHost(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	try(to("iqn.a", "u"), target.ErrUnavailable)
	undo()
	cause = nil
	n = try(to("iqn.a", "u"), nil)
	// Other credentials: it has to log in again.
	a.CHAP.Secret = []byte("ba9876543210")
	apply([]Host{a}, Offered{Volume: v, Name: "v"})
	if !errors.Is(cause, ErrUnexported) {
		t.Fatal(cause)
	}
	n.End(cause)
	// Logins that fail: the address waits, whatever name it claims.
	l := to("iqn.a", "")
	for range freeFailures + 1 {
		h.Refused(l, &target.Refusal{Status: iscsi.LoginAuthFailed})
	}
	try(to("iqn.a", "u"), errTooMany)
	now = now.Add(2 * time.Second)
	try(to("iqn.a", "u"), nil)
	apply(nil)
	try(to("iqn.a", "u"), errUnknownHost)
}

package front

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

func TestBackoff(t *testing.T) {
	var b backoff
	a, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	now := time.Unix(1000, 0)
	for i, want := range []time.Duration{0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60} {
		b.fail(a, now)
		if got := b.failed[a].until.Sub(now); got != want*time.Second {
			t.Errorf("after %d failures: %v", i+1, got)
		}
	}
	if !b.barred(a, now.Add(59*time.Second)) || b.barred(a, now.Add(time.Minute)) || b.barred(other, now) {
		t.Error("barred for another time, or another address")
	}
	b.forgive(a)
	if b.barred(a, now) {
		t.Error("barred after it has proved who it is")
	}
	for i := range 2 * maxBarred {
		b.fail(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), now.Add(time.Duration(i)))
	}
	if len(b.failed) != maxBarred {
		t.Error(len(b.failed))
	}
}

func TestTelling(t *testing.T) {
	var x Telling
	now := time.Unix(1000, 0)
	if !x.Tell("a", now) || x.Tell("a", now.Add(59*time.Second)) || !x.Tell("a", now.Add(time.Minute)) {
		t.Error("not once a minute")
	}
	told := 0
	for i := range 1000 {
		if x.Tell(fmt.Sprint(i), now.Add(time.Minute)) {
			told++
		}
	}
	if told != maxRefusals-1 {
		t.Error(told)
	}
}

func TestRefusedIsWorthAnEvent(t *testing.T) {
	certain := true
	h := newHosts(&certain)
	for status, want := range map[iscsi.LoginStatus]bool{iscsi.LoginAuthFailed: true, iscsi.LoginForbidden: true, iscsi.LoginNotFound: true,
		iscsi.LoginUnavailable: false, iscsi.LoginInitiatorError: false} {
		if h.Refused(target.Login{}, fmt.Errorf("login: %w", &target.Refusal{Status: status})) != want {
			t.Errorf("%s", status)
		}
	}
}

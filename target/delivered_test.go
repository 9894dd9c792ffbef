package target_test

import (
	"testing"

	"pmsapp/internal/iscsi"
)

// TestDelivered: the nexus learns that an answer was received when the initiator acknowledges it, not before.
func TestDelivered(t *testing.T) {
	p := &fakeProvider{}
	_, addr := serve(t, p)
	c := login(t, addr)
	x := p.last()
	first := readCommand(512)
	first[33] = fakeTell
	c.send(first, nil)
	a := c.expect(iscsi.OpDataIn)
	if n := x.delivered.Load(); n != 0 {
		t.Fatalf("%d answers count as delivered before they are acknowledged", n)
	}
	ping := func(exp uint32) {
		var h iscsi.BHS
		h.Init(iscsi.OpNopOut, iscsi.FlagFinal)
		h.SetImmediate()
		h.SetTTT(iscsi.NoTag)
		next := c.statSN
		c.statSN = exp
		c.send(&h, nil)
		c.statSN = next
		c.expect(iscsi.OpNopIn)
	}
	ping(a.StatSN())
	if n := x.delivered.Load(); n != 0 {
		t.Errorf("%d answers count as delivered, and the initiator waits for them", n)
	}
	ping(a.StatSN() + 1)
	if n := x.delivered.Load(); n != 1 {
		t.Errorf("%d answers count as delivered, want 1", n)
	}
}

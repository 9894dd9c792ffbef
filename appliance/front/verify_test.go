package front

import (
	"errors"
	"testing"

	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

// TestVerifier: who claims to be a node that verifies has to prove it, sees units that nobody is allowed, and can ask who they are and nothing else.
func TestVerifier(t *testing.T) {
	certain := true
	h := newHosts(&certain)
	v := ids.NewVolume()
	if err := h.Apply([]Export{{Volume: v, Name: "vol", Geometry: geometry, LUN: 1, Initiators: []string{"iqn.a"}}}); err != nil {
		t.Fatal(err)
	}
	h.Serve(v, disk{}, nil)
	l := login("vol", VerifierName(ids.NewNode()), "", nil)
	if _, err := h.Credentials(l); !errors.Is(err, target.ErrForbidden) {
		t.Errorf("where there is no secret: %v", err)
	}
	h.cfg.Verifier = iscsi.Auth{Initiator: iscsi.Credentials{Name: "looks", Secret: []byte("a secret")}, Own: iscsi.Credentials{Name: "shows", Secret: []byte("another")}}
	if a, err := h.Credentials(l); err != nil || a.Initiator.Name != "looks" || a.Own.Name != "shows" {
		t.Fatal(a.Initiator.Name, err)
	}
	if _, err := h.Open(l); !errors.Is(err, target.ErrForbidden) {
		t.Errorf("without a proof: %v", err)
	}
	l.User = "looks"
	o, err := h.Open(l)
	if err != nil {
		t.Fatal(err)
	}
	for op, want := range map[byte]byte{0x12: 0, 0xa0: 0, 0x28: 2, 0x2a: 2, 0x5f: 2, 0x93: 2, 0x00: 2} {
		ended := false
		task := &target.Task{LUN: target.FlatLUN(1), CDB: append([]byte{op, 0, 0, 0, 96, 0, 0, 0, 0, 96}, make([]byte, 6)...), Read: true, ExpIn: 512,
			Done: func(*target.Task) { ended = true }}
		if w := o.Nexus.Accept(task); want != 0 && w != (target.Want{}) {
			t.Errorf("%02xh wants %+v", op, w)
		}
		o.Nexus.Execute(task)
		if !ended || task.Status != want {
			t.Errorf("%02xh: status %x", op, task.Status)
		}
	}
	if r, _, _ := o.Nexus.Manage(target.Management{Function: target.LogicalUnitReset, LUN: target.FlatLUN(1)}); r != target.FunctionNotAuthorized {
		t.Errorf("a reset: %v", r)
	}
	o.Nexus.End(nil)
}

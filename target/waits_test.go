package target_test

import (
	"runtime"
	"testing"
	"time"

	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

// TestWaits: it can be seen what the commands of a session wait for, and for how long.
func TestWaits(t *testing.T) {
	p := &fakeProvider{}
	s, addr := serve(t, p)
	c := login(t, addr)
	look := func() target.Waits { return s.Sessions()[0].Waits }
	if w := look(); w != (target.Waits{}) {
		t.Errorf("%+v, and nothing was sent", w)
	}
	running := readCommand(512)
	running[33] = fakeHold
	c.send(running, nil)
	waiting := writeCommand(4096, true)
	c.send(waiting, nil)
	c.expect(iscsi.OpR2T)
	ordered := readCommand(512)
	ordered.SetFlags(ordered.Flags()&^iscsi.AttrMask | iscsi.AttrOrdered)
	c.send(ordered, nil)
	early := readCommand(512)
	early.SetCmdSN(c.cmdSN + 1)
	c.send(early, nil)
	c.ping()
	w := look()
	for late := time.Now().Add(patience); w.Oldest < 200*time.Millisecond && time.Now().Before(late); w = look() {
		runtime.Gosched()
	}
	if w.Oldest < 200*time.Millisecond {
		t.Errorf("the oldest came %v ago", w.Oldest)
	}
	if w.Oldest = 0; w != (target.Waits{Unit: 1, Data: 1, Order: 2}) {
		t.Errorf("%+v", w)
	}
}

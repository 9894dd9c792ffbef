package scsi_test

import (
	"errors"
	"testing"
	"time"

	"pmsapp/internal/reserve"
	"pmsapp/target"
	"pmsapp/target/scsi"
	"pmsapp/target/scsi/scsitest"
)

// TestUnitReserved: RESERVE and RELEASE, and what ends them.
func TestUnitReserved(t *testing.T) {
	r := newRig(t)
	a, b := r.host("a"), r.host("b")
	free := func(what string) {
		t.Helper()
		if s, _ := r.keeper.Reservations(); !s.Exclusive.IsZero() {
			t.Fatal("reserved after ", what)
		}
		a.good(a.do(cdb(0x16), nil, 0))
		b.status(b.do(cdb(0x16), nil, 0), conflictStatus)
	}
	free("nothing")
	b.status(b.do(cdb(0x00), nil, 0), conflictStatus)
	b.status(b.put(), conflictStatus)
	b.status(b.out(0, 0, 0, 1), conflictStatus)
	b.good(b.do(cdb(0x57), nil, 0))
	b.good(b.do(cdb(0x12, 0, 0, 0, 36), nil, 36))
	a.status(a.put(), 0)
	a.good(a.do(cdb(0x17), nil, 0))
	free("RELEASE")
	for _, f := range []target.Function{target.LogicalUnitReset, target.TargetWarmReset} {
		// It is answered when the reservation is released, so that what the host sends next does not meet it.
		r.keeper.Hold = true
		reset := b.manage(f)
		if a := reset.Load(); a != 254 || r.keeper.Waiting() != 1 {
			t.Fatalf("response %d, %d changes", a, r.keeper.Waiting())
		}
		r.keeper.Hold = false
		held := r.keeper.Held[0]
		r.keeper.Held = nil
		held.Done(r.keeper.Commit(held.Seq, held.C))
		if a := reset.Load(); a != 0 {
			t.Fatalf("response %d", a)
		}
		a.attention(0x2903)
		b.attention(0x2903)
		r.attention(0x2903)
		free("a reset")
	}
	// What somebody else's reset finds in the queue is not begun after it.
	r.keeper.Hold = true
	c, list := prout(0, 0, 0, 1)
	first, begun := r.start(cdb(0x17), nil, 0) // of what another holds: nothing to do
	<-begun
	r.status(first, 0)
	_, ended := a.start(cdb(0x17), nil, 0)
	q, queued := a.start(c, list, 0)
	reset, again := b.manage(target.LogicalUnitReset), r.manage(target.LogicalUnitReset) // neither takes the other out
	<-queued
	a.status(q, busyStatus)
	r.keeper.Hold = false
	held := r.keeper.Held[0]
	r.keeper.Held = nil
	held.Done(r.keeper.Commit(held.Seq, held.C))
	<-ended
	if a, b := reset.Load(), again.Load(); a != 0 || b != 0 {
		t.Fatalf("responses %d, %d", a, b)
	}
	if s, _ := r.keeper.Reservations(); len(s.Registered) != 0 {
		t.Fatalf("%+v", s)
	}
	a.attention(0x2903)
	b.attention(0x2903)
	r.attention(0x2903)
	a.good(a.do(cdb(0x16), nil, 0))
	a.nexus.End(target.ErrMoved)
	a = r.host("a")
	b.status(b.put(), conflictStatus)
	a.nexus.End(target.ErrLogout)
	a = r.host("a")
	free("a logout")
	r.sense(r.do(cdb(0x16, 0x10), nil, 0), illegalRequest, 0x2400)
}

// asking is a keeper that does something else before it commits.
type asking struct {
	*scsitest.Keeper
	first func()
}

func (k *asking) Change(seq uint64, c reserve.Command, done func(error)) {
	k.first()
	k.Keeper.Change(seq, c, done)
}

// TestReleaseHoldsNothing: what a session that ends, or loses the LUN, has reserved is released without a lock of the nexus, which whoever stops
// commands of the session takes after the session's own.
func TestReleaseHoldsNothing(t *testing.T) {
	for name, end := range map[string]func(r, a *rig) error{
		"logout": func(_, a *rig) error { a.nexus.End(target.ErrLogout); return nil },
		"unmap":  func(r, _ *rig) error { return r.target.SetLUNs(map[uint16]*scsi.LU{7: scsi.NewLU(r.lu.Volume())}) },
	} {
		r := newRig(t)
		k := &asking{r.keeper, func() {}}
		if err := r.lu.Serve(r.dev, k); err != nil {
			t.Fatal(err)
		}
		a := r.host("a")
		a.good(a.do(cdb(0x16), nil, 0))
		asked := 0
		k.first = func() { a.nexus.Unit(a.lun); asked++ }
		over := make(chan error, 1)
		go func() { over <- end(r, a) }()
		select {
		case err := <-over:
			if s, _ := r.keeper.Reservations(); err != nil || asked != 1 || !s.Exclusive.IsZero() {
				t.Errorf("%s: %v, %d changes, %+v", name, err, asked, s)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: a lock is held", name)
		}
	}
}

// TestReserveOfTheDead: a RESERVE that is granted after its session has ended is released.
func TestReserveOfTheDead(t *testing.T) {
	for name, dev := range map[string]bool{"while it is confirmed": true, "while it is committed": false} {
		r := newRig(t)
		a, b := r.host("a"), r.host("b")
		r.keeper.Hold = true
		if dev {
			r.dev.Hold()
		}
		_, ended := a.start(cdb(0x16), nil, 0)
		a.nexus.End(target.ErrLogout)
		a = r.host("a")
		if dev {
			r.dev.Release()
		}
		r.keeper.Hold = false
		for _, held := range r.keeper.Held {
			held.Done(r.keeper.Commit(held.Seq, held.C))
		}
		r.keeper.Held = nil
		<-ended
		if s, _ := r.keeper.Reservations(); !s.Exclusive.IsZero() {
			t.Errorf("%s: %+v", name, s)
		}
		b.good(b.put())
		a.good(a.put())
	}
}

// TestReserveOfTheDeadElsewhere: the same by a port that stands by, whatever overtakes what on the way to the node that serves.
func TestReserveOfTheDeadElsewhere(t *testing.T) {
	r := newRig(t)
	var way []func() // questions on their way
	lu := scsi.NewLUAmong(r.lu.Volume(), scsi.Around{Elsewhere: func(q scsi.Question, done func(scsi.Answer, bool, error)) func() {
		given := false
		way = append(way, func() {
			if given {
				done(scsi.Answer{}, true, errors.New("given up"))
			} else if _, err := r.lu.Ask(q, func(a scsi.Answer, err error) { done(a, true, err) }); err != nil {
				t.Error(err)
			}
		})
		return func() { given = true }
	}})
	standby := *r
	standby.target = scsi.NewTarget("iqn.2026-11.app.pmsapp:test", 4)
	if err := standby.target.SetLUNs(map[uint16]*scsi.LU{1: lu}); err != nil {
		t.Fatal(err)
	}
	arrive := func() {
		t.Helper()
		f := way[0]
		way = way[1:]
		f()
		lu.Reserved(r.keeper.Reservations())
	}
	reserved := func(want bool) {
		t.Helper()
		if s, _ := r.keeper.Reservations(); s.Exclusive.IsZero() == want {
			t.Errorf("reserved: %+v", s.Exclusive)
		}
	}
	a := standby.host("a")
	_, ended := a.start(cdb(0x16), nil, 0)
	a.nexus.End(target.ErrLogout)
	a = standby.host("a")
	a.status(a.do(cdb(0x16), nil, 0), busyStatus) // the first may be granted yet
	arrive()
	<-ended
	reserved(true)
	a.status(a.do(cdb(0x16), nil, 0), busyStatus) // it was, and is to be released
	arrive()
	reserved(false)
	w, ended := a.start(cdb(0x16), nil, 0)
	arrive()
	<-ended
	a.status(w, 0)
	reserved(true)
	a.nexus.End(target.ErrLogout)
	a = standby.host("a")
	a.status(a.do(cdb(0x16), nil, 0), busyStatus) // a release that came later would be of this one
	arrive()
	reserved(false)
	_, ended = a.start(cdb(0x17), nil, 0) // what it does not hold; not a RESERVE: it is given up
	a.nexus.End(target.ErrLogout)
	arrive()
	<-ended
	if len(way) > 0 {
		t.Errorf("%d questions are left", len(way))
	}
}

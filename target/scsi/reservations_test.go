package scsi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"pmsapp/internal/block"
	"pmsapp/internal/iscsi"
	"pmsapp/internal/reserve"
	"pmsapp/target"
	"pmsapp/target/scsi"
	"pmsapp/target/scsi/scsitest"
)

const (
	busyStatus     = 0x08
	conflictStatus = 0x18
)

// host is another session at the rig's unit.
func (r *rig) host(name string) *rig {
	h := *r
	h.nexus = r.target.Nexus(target.Login{Initiator: "iqn." + name, ISID: iscsi.ISID{0x80}, Group: 3})
	h.attention(0x2900)
	return &h
}

// prout is PERSISTENT RESERVE OUT.
func prout(action, typ byte, key, service uint64) (c, list []byte) {
	c = cdb(0x5f, action, typ, 0, 0, 0, 0, 0, 24)
	list = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, key), service)
	return c, append(list, make([]byte, 8)...)
}

func (r *rig) out(action, typ byte, key, service uint64) *target.Task {
	r.t.Helper()
	c, list := prout(action, typ, key, service)
	return r.do(c, list, 0)
}

func (r *rig) status(t *target.Task, want byte) {
	r.t.Helper()
	if t.Status != want || t.Drop != nil {
		r.t.Fatalf("CDB %x: status %02xh, sense %x, drop %v, want %02xh", t.CDB, t.Status, t.Sense, t.Drop, want)
	}
}

func (r *rig) put() *target.Task {
	r.t.Helper()
	return r.do(rw10(0x2a, 0, 0, 1), fill(512, 1), 0)
}

// slow is a device whose writes can be held.
type slow struct {
	block.Device
	mu   sync.Mutex
	hold bool
	held []*block.Request
}

func (s *slow) Submit(q *block.Request) {
	s.mu.Lock()
	if s.hold && q.Op == block.Write {
		s.held = append(s.held, q)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.Device.Submit(q)
}

func (s *slow) set(hold bool) {
	s.mu.Lock()
	s.hold = hold
	held := s.held
	s.held = nil
	s.mu.Unlock()
	for _, q := range held {
		s.Device.Submit(q)
	}
}

// TestReserveDrains: a reservation is granted after the writes that it forbids have ended; whoever comes meanwhile is told BUSY.
func TestReserveDrains(t *testing.T) {
	for name, action := range map[string]byte{"reserve": 1, "preempt and abort": 5} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			dev := &slow{Device: r.dev}
			if err := r.lu.Serve(dev, r.keeper); err != nil {
				t.Fatal(err)
			}
			a, b := r.host("a"), r.host("b")
			a.good(a.out(0, 0, 0, 1))
			service := uint64(0)
			if action == 5 {
				b.good(b.out(0, 0, 0, 2))
				b.good(b.out(1, 5, 2, 0))
				service = 2
			}
			dev.set(true)
			w, written := b.start(rw10(0x2a, 0, 0, 1), fill(512, 1), 0)
			c, list := prout(action, 5, 1, service)
			p, granted := a.start(c, list, 0)
			select {
			case <-granted:
				t.Fatal("granted while a write is under way that it forbids")
			default:
			}
			b.status(b.put(), busyStatus)
			if action == 5 { // nothing of the preempted is begun at all
				b.status(b.do(rw10(0x28, 0, 0, 1), nil, 512), busyStatus)
			} else {
				b.good(b.do(rw10(0x28, 0, 0, 1), nil, 512))
			}
			if s, _ := r.keeper.Reservations(); s.Type != 0 && action == 1 {
				t.Fatal("committed already")
			}
			dev.set(false)
			<-written
			<-granted
			b.status(w, 0)
			a.status(p, 0)
			if action == 5 {
				b.sense(b.put(), 6, 0x2a05)
			}
			b.status(b.put(), conflictStatus)
			a.status(a.put(), 0)
		})
	}
}

// TestDeadSessionDrains: a write whose session has ended counts until it is over.
func TestDeadSessionDrains(t *testing.T) {
	r := newRig(t)
	dev := &slow{Device: r.dev}
	if err := r.lu.Serve(dev, r.keeper); err != nil {
		t.Fatal(err)
	}
	a, b := r.host("a"), r.host("b")
	a.good(a.out(0, 0, 0, 1))
	dev.set(true)
	_, written := b.start(rw10(0x2a, 0, 0, 1), fill(512, 1), 0)
	b.nexus.End(target.ErrLogout)
	r.host("b") // comes again
	c, list := prout(1, 3, 1, 0)
	_, granted := a.start(c, list, 0)
	select {
	case <-granted:
		t.Fatal("granted while a write of a dead session is under way")
	default:
	}
	dev.set(false)
	<-written
	<-granted
}

// TestUnknownOutcome: while it is not known whether a change is committed, what it decides about is BUSY, and whoever asked is
// dropped when nobody will ever know; the next reign knows.
func TestUnknownOutcome(t *testing.T) {
	r := newRig(t)
	a, b := r.host("a"), r.host("b")
	a.good(a.out(0, 0, 0, 1))
	r.keeper.Hold = true
	c, list := prout(1, 1, 1, 0)
	p, ended := a.start(c, list, 0)
	q, second := b.start(cdb(0x5e, 1, 0, 0, 0, 0, 0, 0, 24), nil, 24)
	b.status(b.put(), busyStatus)
	a.status(a.put(), 0)
	if len(r.keeper.Held) != 1 {
		t.Fatal(r.keeper.Held)
	}
	r.keeper.Held[0].Done(errors.New("nobody knows"))
	<-ended
	<-second
	if !errors.Is(p.Drop, block.ErrEnded) || !errors.Is(q.Drop, block.ErrEnded) {
		t.Fatal(p.Drop, q.Drop)
	}
	b.status(b.put(), busyStatus)
	// It was committed, as the next reign finds.
	if err := r.keeper.Commit(1, r.keeper.Held[0].C); err != nil {
		t.Fatal(err)
	}
	r.keeper.Hold = false
	r.lu.Standby()
	if err := r.lu.Serve(r.dev, r.keeper); err != nil {
		t.Fatal(err)
	}
	b.status(b.put(), conflictStatus)
	a.status(a.put(), 0)
}

// TestJudgedAnew: a change that was judged by reservations that are not the newest any more is judged again.
func TestJudgedAnew(t *testing.T) {
	r := newRig(t)
	a := r.host("a")
	other := reserve.Command{Nexus: reserve.Nexus{Initiator: "iqn.b,i,0x000000000000", Port: 3}, ServiceKey: 9}
	r.keeper.Hold = true
	c, list := prout(0, 0, 0, 1)
	p, ended := a.start(c, list, 0)
	r.keeper.Hold = false
	if err := r.keeper.Commit(0, other); err != nil {
		t.Fatal(err)
	}
	r.keeper.Held[0].Done(scsi.ErrJudged)
	<-ended
	a.status(p, 0)
	if s, _ := r.keeper.Reservations(); len(s.Registered) != 2 {
		t.Fatalf("%+v", s)
	}
}

// TestNotices: the other nexuses are told, once each; who was not told before a failover is told after it.
func TestNotices(t *testing.T) {
	r := newRig(t)
	a, b, c := r.host("a"), r.host("b"), r.host("c")
	for i, h := range []*rig{a, b, c} {
		h.good(h.out(0, 0, 0, uint64(i+1)))
	}
	a.good(a.out(1, 5, 1, 0))
	a.good(a.out(2, 5, 1, 0))
	b.attention(0x2a04)
	a.good(a.out(3, 0, 1, 0))
	b.attention(0x2a03)
	b.good(b.do(cdb(0x00), nil, 0))
	a.good(a.do(cdb(0x00), nil, 0))
	if s, _ := r.keeper.Reservations(); len(s.Notices) != 2 {
		t.Fatalf("%+v", s.Notices)
	}
	// c comes to another node.
	lu := scsi.NewLU(r.lu.Volume())
	if err := lu.Serve(r.dev, r.keeper); err != nil {
		t.Fatal(err)
	}
	next := *r
	next.lu, next.target = lu, scsi.NewTarget("iqn.2026-11.app.pmsapp:test", 4)
	if err := next.target.SetLUNs(map[uint16]*scsi.LU{1: lu}); err != nil {
		t.Fatal(err)
	}
	b, c = next.host("b"), next.host("c")
	c.attention(0x2a04)
	c.attention(0x2a03)
	c.good(c.do(cdb(0x00), nil, 0))
	b.good(b.do(cdb(0x00), nil, 0))
	if s, _ := r.keeper.Reservations(); !s.Blank() {
		t.Fatalf("%+v", s)
	}
}

// TestConflictIsConfirmed: who does not know whether it serves does not say RESERVATION CONFLICT (invariant 11), nor what is reserved.
func TestConflictIsConfirmed(t *testing.T) {
	r := newRig(t)
	a, b := r.host("a"), r.host("b")
	a.good(a.out(0, 0, 0, 1))
	a.good(a.out(1, 3, 1, 0))
	b.status(b.put(), conflictStatus)
	r.dev.Close()
	for _, w := range []*target.Task{b.put(), b.do(cdb(0x5e, 0, 0, 0, 0, 0, 0, 0, 8), nil, 8), a.out(2, 3, 1, 0)} {
		if !errors.Is(w.Drop, block.ErrEnded) {
			t.Errorf("CDB %x: status %02xh", w.CDB, w.Status)
		}
	}
}

// TestElsewhere: a unit that stands by has the node that serves it answer.
func TestElsewhere(t *testing.T) {
	r := newRig(t)
	var fate error
	sent := true
	lu := scsi.NewLUAmong(r.lu.Volume(), scsi.Around{Elsewhere: func(q scsi.Question, done func(scsi.Answer, bool, error)) func() {
		if fate != nil {
			done(scsi.Answer{}, sent, fate)
			return func() {}
		}
		end, err := r.lu.Ask(q, func(a scsi.Answer, err error) { done(a, true, err) })
		if err != nil {
			t.Fatal(err)
		}
		return end
	}})
	standby := *r
	standby.target = scsi.NewTarget("iqn.2026-11.app.pmsapp:test", 4)
	if err := standby.target.SetLUNs(map[uint16]*scsi.LU{1: lu}); err != nil {
		t.Fatal(err)
	}
	a := standby.host("a")
	a.good(a.out(6, 0, 0, 1))
	a.status(a.out(0, 0, 7, 1), conflictStatus)
	a.sense(a.out(1, 2, 1, 0), illegalRequest, 0x2400)
	a.good(a.out(1, 5, 1, 0))
	if got := a.good(a.do(cdb(0x5e, 1, 0, 0, 0, 0, 0, 0, 24), nil, 24)); len(got) != 24 || got[15] != 1 || got[21] != 5 {
		t.Fatalf("%x", got)
	}
	r.status(r.put(), conflictStatus)
	a.sense(a.put(), 2, 0x040b)
	fate = errors.New("the node went away")
	if w := a.out(2, 5, 1, 0); !errors.Is(w.Drop, block.ErrEnded) {
		t.Errorf("status %02xh, and nobody knows", w.Status)
	}
	sent = false
	a.sense(a.out(2, 5, 1, 0), 2, 0x040a)
}

// TestElsewhereDescribes: a unit that stands by says what it is like, with the words of the node that serves it: a host that finds a
// path while it stands by asks never again, and takes the disk for one of no blocks, and without a cache to flush.
func TestElsewhereDescribes(t *testing.T) {
	r := newRig(t)
	var fate error
	lu := scsi.NewLUAmong(r.lu.Volume(), scsi.Around{Elsewhere: func(q scsi.Question, done func(scsi.Answer, bool, error)) func() {
		if fate != nil {
			done(scsi.Answer{}, true, fate)
			return func() {}
		}
		end, err := r.lu.Ask(q, func(a scsi.Answer, err error) { done(a, true, err) })
		if err != nil {
			t.Fatal(err)
		}
		return end
	}})
	standby := *r
	standby.target = scsi.NewTarget("iqn.2026-11.app.pmsapp:test", 4)
	units := func(readOnly bool) {
		t.Helper()
		if err := standby.target.SetMap(map[uint16]*scsi.LU{1: lu}, map[uint16]bool{1: readOnly}); err != nil {
			t.Fatal(err)
		}
	}
	units(false)
	a := standby.host("a")
	questions := [][]byte{cdb(0x25), cdb(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), cdb(0x1a, 0, 0x3f, 0, 192), cdb(0x5a, 0, 8, 0, 0, 0, 0, 0, 192),
		cdb(0x1a, 0, 0x3f, 0, 3), cdb(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8)}
	for _, q := range questions {
		if want, got := r.good(r.do(q, nil, 192)), a.good(a.do(q, nil, 192)); len(want) == 0 || !bytes.Equal(got, want) {
			t.Errorf("CDB %x: %x, and the node that serves says %x", q, got, want)
		}
	}
	a.sense(a.do(cdb(0x1a, 0, 0x3e, 0, 192), nil, 192), illegalRequest, 0x2400)
	a.sense(a.do(cdb(0x25, 0, 1), nil, 8), illegalRequest, 0x2400)
	a.sense(a.do(cdb(0x00), nil, 0), 2, 0x040b)
	units(true)
	a = standby.host("a")
	if b := a.good(a.do(cdb(0x1a, 0, 0x3f, 0, 192), nil, 192)); b[2] != 0x90 {
		t.Errorf("read-only to this host, and the device-specific parameter is %02xh", b[2])
	}
	r.dev.Fail(func(*block.Request) error { return block.ErrHeld })
	a.status(a.do(questions[0], nil, 8), busyStatus)
	r.dev.Fail(nil)
	r.lu.Standby()
	a.sense(a.do(questions[0], nil, 8), 2, 0x040b)
	fate = errors.New("the node went away")
	a.sense(a.do(questions[0], nil, 8), 2, 0x040a)
	if _, err := r.lu.Ask(scsi.Question{Volume: lu.Volume(), CDB: []byte{0x25, 0}}, nil); err == nil {
		t.Error("a question of two bytes is answered")
	}
}

// TestAbortedBeforeItBegan: a command about reservations that waits for another is not begun once its abort was answered.
func TestAbortedBeforeItBegan(t *testing.T) {
	r := newRig(t)
	a, b := r.host("a"), r.host("b")
	r.keeper.Hold = true
	c, list := prout(0, 0, 0, 1)
	_, first := a.start(c, list, 0)
	q, second := b.start(c, list, 0)
	if f, _, _ := b.nexus.Manage(target.Management{Function: target.AbortTask, LUN: b.lun}); f != target.FunctionComplete {
		t.Fatal(f)
	}
	<-second
	b.status(q, busyStatus)
	r.keeper.Hold = false
	r.keeper.Held[0].Done(r.keeper.Commit(r.keeper.Held[0].Seq, r.keeper.Held[0].C))
	<-first
	if s, _ := r.keeper.Reservations(); len(s.Registered) != 1 {
		t.Fatalf("%+v", s.Registered)
	}
}

// watched fails the test when a write of b, in the upper half, is submitted while a holds the unit.
type watched struct {
	block.Device
	held atomic.Bool
	bad  atomic.Int64
}

func (w *watched) Submit(q *block.Request) {
	if q.Op == block.Write && q.Off >= devSize/2 {
		runtime.Gosched()
		if w.held.Load() {
			w.bad.Add(1)
		}
	}
	w.Device.Submit(q)
}

// TestNobodySlipsThrough: no write is submitted after the reservation that forbids it was granted, however they race.
func TestNobodySlipsThrough(t *testing.T) {
	r := newRig(t)
	dev := &watched{Device: r.dev}
	k := &scsitest.Keeper{TargetPorts: []uint16{3}}
	if err := r.lu.Serve(dev, k); err != nil {
		t.Fatal(err)
	}
	a := r.host("a")
	a.good(a.out(0, 0, 0, 1))
	var over atomic.Bool
	var work sync.WaitGroup
	var done, refused atomic.Int64
	for i := range 3 {
		b := r.host("b" + string(rune('0'+i)))
		work.Go(func() {
			for !over.Load() {
				w := b.do(rw10(0x2a, 0, devSize/1024+uint32(i)*8, 1), fill(512, 1), 0)
				switch w.Status {
				case 0:
					done.Add(1)
				case conflictStatus, busyStatus:
					refused.Add(1)
				default:
					t.Errorf("status %x", w.Status)
				}
			}
		})
	}
	for i := 0; i < 2000 || done.Load() == 0 || refused.Load() == 0; i++ {
		c, list := prout(1, 1, 1, 0)
		p, granted := a.start(c, list, 0)
		<-granted
		a.status(p, 0)
		dev.held.Store(true)
		runtime.Gosched()
		dev.held.Store(false)
		c, list = prout(2, 1, 1, 0)
		p, released := a.start(c, list, 0)
		<-released // a write that is refused counts for a moment
		a.status(p, 0)
	}
	over.Store(true)
	work.Wait()
	if n := dev.bad.Load(); n > 0 {
		t.Errorf("%d writes after the reservation was granted", n)
	}
	if done.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d written, %d refused: nothing was tested", done.Load(), refused.Load())
	}
}

// FuzzQuestion asks what another node might: it is answered once, or refused.
func FuzzQuestion(f *testing.F) {
	c, list := prout(0, 0, 0, 1)
	f.Add(c, list, "iqn.a,i,0x000000000000", uint16(0))
	f.Add(cdb(0x5e, 3, 0, 0, 0, 0, 0, 1, 0), []byte{}, "iqn.a,i,0x000000000000", uint16(0))
	f.Add(cdb(0x16), []byte{}, "", uint16(0))
	f.Add([]byte{}, []byte{}, "x", uint16(reserve.Reset))
	f.Add([]byte{0x5f}, []byte{1}, "x", uint16(0x105))
	f.Fuzz(func(t *testing.T, c, list []byte, name string, action uint16) {
		r := newRigOf(t, 128<<10)
		answers := 0
		end, err := r.lu.Ask(scsi.Question{Volume: r.lu.Volume(), Nexus: reserve.Nexus{Initiator: name, Port: 3}, Action: reserve.Action(action),
			CDB: c, List: list}, func(a scsi.Answer, err error) {
			answers++
			if err != nil || a.Status != 0 && a.Status != 2 && a.Status != conflictStatus || a.Status == 2 && a.Key != illegalRequest {
				t.Errorf("%+v, %v", a, err)
			}
		})
		if err == nil {
			end()
		}
		if want := map[bool]int{true: 1, false: 0}[err == nil]; answers != want {
			t.Errorf("%d answers, %v", answers, err)
		}
	})
}

package scsi_test

import (
	"testing"
	"time"

	"pmsapp/internal/block/blocktest"
	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/target"
	"pmsapp/target/scsi"
	"pmsapp/target/scsi/scsitest"
)

// stoppable is a host whose session stops its tasks as the connection layer does.
func (r *rig) stoppable(name string) (h *rig, begin func(c, out []byte, in int64) (*target.Task, chan struct{}), stopped func() []*target.Task) {
	h = new(rig)
	*h = *r
	var tasks, gone []*target.Task
	h.nexus = r.target.Nexus(target.Login{Initiator: "iqn." + name, ISID: iscsi.ISID{0x80}, Group: 3,
		Stop: func(match func(*target.Task) bool) (n int) {
			for _, t := range tasks {
				if match(t) {
					n, gone = n+1, append(gone, t)
					if t.Stop != nil {
						t.Stop()
					}
				}
			}
			return n
		}})
	h.attention(0x2900)
	return h, func(c, out []byte, in int64) (*target.Task, chan struct{}) {
		t, ended := h.start(c, out, in)
		tasks = append(tasks, t)
		return t, ended
	}, func() []*target.Task { return gone }
}

func granted(t *testing.T, ended chan struct{}) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for what it was to abort")
	}
}

// TestPreemptAborts: PREEMPT AND ABORT is not kept waiting by what the preempted has under way, however long that takes; it is
// stopped first, and told. What comes before the change is committed is BUSY, afterwards it conflicts.
func TestPreemptAborts(t *testing.T) {
	r := newRig(t)
	dev := &slow{Device: r.dev}
	if err := r.lu.Serve(dev, r.keeper); err != nil {
		t.Fatal(err)
	}
	a, other := r.host("a"), r.host("c")
	b, begin, stopped := r.stoppable("b")
	a.good(a.out(0, 0, 0, 1))
	b.good(b.out(0, 0, 0, 2))
	b.good(b.out(1, 5, 2, 0))
	other.good(other.out(0, 0, 0, 3))
	dev.set(true)
	w, written := begin(rw10(0x2a, 0, 0, 1), fill(512, 1), 0)
	_, kept := other.start(rw10(0x2a, 0, 16, 1), fill(512, 1), 0) // of a registrant that stays one
	r.keeper.Hold = true
	c, list := prout(5, 5, 1, 2)
	p, ended := a.start(c, list, 0)
	for late := time.After(10 * time.Second); r.keeper.Waiting() == 0; {
		select {
		case <-late:
			t.Fatal("it waits for what it was to abort")
		case <-time.After(time.Millisecond):
		}
	}
	if s := stopped(); len(s) != 1 || s[0] != w {
		t.Fatalf("%d tasks were stopped before the change was committed", len(s))
	}
	b.status(b.do(rw10(0x28, 0, 0, 1), nil, 512), 2) // the unit attention
	b.status(b.do(rw10(0x28, 0, 0, 1), nil, 512), busyStatus)
	r.keeper.Release()
	granted(t, ended)
	a.status(p, 0)
	b.sense(b.put(), 6, 0x2a05)
	b.status(b.put(), conflictStatus)
	select {
	case <-written:
		t.Fatal("the write has ended")
	case <-kept:
		t.Fatal("the write of another has ended")
	default:
	}
	dev.set(false)
	<-written
	<-kept
}

// TestPreemptStopsCopies: a copy of the preempted is stopped; one that it makes here by a command to another unit is waited for.
func TestPreemptStopsCopies(t *testing.T) {
	r := newRig(t)
	id, err := ids.Parse("ffeeddccbbaa99887766554433221100")
	if err != nil {
		t.Fatal(err)
	}
	dev := &slow{Device: r.dev}
	if err := r.lu.Serve(dev, r.keeper); err != nil {
		t.Fatal(err)
	}
	lu := scsi.NewLU(ids.Volume(id))
	if err := lu.Serve(blocktest.NewMemory(devSize, 512), &scsitest.Keeper{TargetPorts: []uint16{3}}); err != nil {
		t.Fatal(err)
	}
	a := r.host("a")
	a.good(a.out(0, 0, 0, 1))
	if err := r.target.SetLUNs(map[uint16]*scsi.LU{1: r.lu, 2: lu}); err != nil {
		t.Fatal(err)
	}
	a.attention(0x3f0e)
	b, begin, stopped := r.stoppable("b")
	b.good(b.out(0, 0, 0, 2))
	b.good(b.out(1, 5, 2, 0))
	from := *b
	from.lun = target.FlatLUN(2)
	from.attention(0x2900)
	b.write(0, pattern(4096))
	from.write(0, pattern(4096))
	for name, c := range map[string]struct {
		at   *rig
		wait bool
	}{
		"here":  {b, false},
		"there": {&from, true},
	} {
		t.Run(name, func(t *testing.T) {
			list := copyList(1, [][]byte{c.at.designator(), b.designator()}, segment{0, 1, 8, 0, 100})
			dev.set(true)
			b.lun = c.at.lun
			x, copied := begin(xcopy(0, list), list, 0)
			select {
			case <-copied:
				t.Fatalf("the copy has ended: status %x, sense %x", x.Status, x.Sense)
			default:
			}
			b.lun = r.lun
			before := len(stopped())
			k, params := prout(5, 5, 1, 2)
			_, ended := a.start(k, params, 0)
			if c.wait {
				select {
				case <-ended:
					t.Error("granted while a copy writes here")
				case <-time.After(50 * time.Millisecond):
				}
			} else {
				granted(t, ended)
				if len(stopped()) != before+1 {
					t.Error("the copy was not stopped")
				}
			}
			dev.set(false)
			<-copied
			granted(t, ended)
			// For the next one.
			for b.do(cdb(0x00), nil, 0).Status == 2 {
			}
			b.good(b.out(6, 0, 0, 2))
			a.good(a.out(2, 5, 1, 0))
			for b.do(cdb(0x00), nil, 0).Status == 2 {
			}
			b.good(b.out(1, 5, 2, 0))
		})
	}
}

package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOrderAndReplay(t *testing.T) {
	run := func(seed uint64) string {
		w := NewWorld(seed, 100)
		p := w.Proc("p")
		for i := range 20 {
			p.After(w.Rand.Between(0, time.Second), func() {
				w.Trace.Add("p", "%d", i)
				p.After(w.Rand.Between(0, time.Second), func() { w.Trace.Add("p", "again %d", i) })
			})
		}
		w.RunUntil(3*time.Second, func() bool { return false })
		return w.Trace.String()
	}
	if a, b := run(1), run(1); a != b {
		t.Errorf("two runs of one seed differ:\n%s\n%s", a, b)
	}
	if run(1) == run(2) {
		t.Error("two seeds give the same run")
	}
}

func TestPausedClock(t *testing.T) {
	for _, frozen := range []bool{true, false} {
		w := NewWorld(1, 10)
		p := w.Proc("p")
		var fired, got time.Duration
		p.After(10*time.Second, func() { fired = w.Now() })
		p.Deliver(2*time.Second, func() { got = w.Now() })
		w.After(time.Second, func() { p.Pause(frozen) })
		w.After(21*time.Second, func() { p.Resume() })
		w.RunUntil(time.Minute, func() bool { return false })
		want := 21 * time.Second
		if frozen {
			want = 30 * time.Second
		}
		if fired < want || fired > want+20*time.Millisecond || got != 21*time.Second {
			t.Errorf("frozen %v: timer at %v, want %v; message at %v", frozen, fired, want, got)
		}
	}
}

func TestKillDropsEvents(t *testing.T) {
	w := NewWorld(1, 10)
	p := w.Proc("p")
	p.After(2, func() { t.Error("an event of a dead process ran") })
	p.Pause(false)
	w.After(3, func() { p.Kill(); p.Resume() })
	w.RunUntil(time.Second, func() bool { return false })
}

func TestFailStopsTheRun(t *testing.T) {
	w := NewWorld(1, 10)
	w.After(1, func() { w.Fail(errors.New("first")); w.Fail(errors.New("second")) })
	w.After(2, func() { t.Error("went on") })
	w.RunUntil(time.Second, func() bool { return false })
	if w.Failed() == nil || w.Failed().Error() != "first" || !strings.Contains(w.Trace.String(), "first") {
		t.Error(w.Failed(), w.Trace)
	}
}

func pair(w *World) (*Net, *End, *End, *[]string) {
	n := NewNet(w, 2)
	a, b := n.Connect(0, w.Proc("a"), 1, w.Proc("b"))
	got := &[]string{}
	b.Recv = func(m any) { *got = append(*got, fmt.Sprint(m)) }
	b.Closed = func() { *got = append(*got, "closed") }
	return n, a, b, got
}

func TestConnKeepsOrderOverACut(t *testing.T) {
	w := NewWorld(3, 10)
	n, a, _, got := pair(w)
	a.Send(1)
	w.RunUntil(time.Second, func() bool { return false })
	n.Cut(0, 1)
	a.Send(2)
	a.Send(3)
	a.Close()
	w.RunUntil(2*time.Second, func() bool { return false })
	if !slices.Equal(*got, []string{"1"}) {
		t.Fatal("through a cut: ", *got)
	}
	n.Heal()
	w.RunUntil(3*time.Second, func() bool { return false })
	if !slices.Equal(*got, []string{"1", "2", "3", "closed"}) {
		t.Fatal(*got)
	}
}

func TestClosedEndReceivesNothing(t *testing.T) {
	w := NewWorld(3, 10)
	_, a, b, got := pair(w)
	a.Send(1)
	b.Close()
	w.RunUntil(time.Second, func() bool { return false })
	if len(*got) != 0 || !a.Over() {
		t.Fatal(*got, a.Over())
	}
}

func TestVanishSaysNothing(t *testing.T) {
	w := NewWorld(3, 10)
	n, a, _, got := pair(w)
	a.Vanish()
	n.SetHost(0, false)
	w.RunUntil(time.Second, func() bool { return false })
	if len(*got) != 0 {
		t.Fatal(*got)
	}
}

func TestDatagrams(t *testing.T) {
	w := NewWorld(5, 10)
	n := NewNet(w, 2)
	n.Loss, n.Double = 0.3, 0.3
	p, got := w.Proc("p"), 0
	for range 1000 {
		n.Datagram(0, 1, p, func() { got++ })
	}
	w.RunUntil(time.Minute, func() bool { return false })
	if got < 700 || got > 1100 {
		t.Errorf("%d of 1000 arrived", got)
	}
}

func TestFileCrash(t *testing.T) {
	r := NewRand(1)
	f := NewFile(64 * Sector)
	f.Write(0, fill(1, 64*Sector))
	f.Flush().Done()
	f.Write(0, fill(2, 64*Sector))
	f.FlushRange(0, 8*Sector).Done()
	f.Crash(r, nil)
	var old, young int
	for s := range int64(64) {
		b := f.Read(s*Sector, Sector)
		if !slices.Equal(b, fill(b[0], Sector)) {
			t.Fatal("a sector was torn")
		}
		switch {
		case s < 8 && b[0] != 2:
			t.Fatal("a flushed sector was lost")
		case b[0] == 1:
			old++
		case b[0] == 2:
			young++
		}
	}
	if old == 0 || young < 9 || old+young != 64 {
		t.Errorf("%d old, %d young", old, young)
	}
}

func TestFlushCoversWhatWasWrittenBefore(t *testing.T) {
	f := NewFile(Sector)
	f.Write(0, fill(1, Sector))
	fl := f.Flush()
	f.Write(0, fill(2, Sector))
	fl.Done()
	if f.Durable(0, 1)[0] != 1 || f.Read(0, 1)[0] != 2 {
		t.Error("the flush took what was written after it")
	}
	f.Flush().Done()
	if f.Durable(0, 1)[0] != 2 {
		t.Error("the second flush did nothing")
	}
}

func TestFailedFlushIsNotTriedAgain(t *testing.T) {
	r := NewRand(1)
	f := NewFile(100 * Sector)
	f.Write(0, fill(1, 100*Sector))
	f.Flush().Failed(r)
	f.Flush().Done()
	lost := 0
	for s := range int64(100) {
		if f.Durable(s*Sector, 1)[0] == 0 {
			lost++
		}
	}
	if lost == 0 || lost == 100 {
		t.Errorf("%d of 100 lost", lost)
	}
	f.Crash(r, nil)
	if !slices.Equal(f.Read(0, f.Size()), f.Durable(0, f.Size())) {
		t.Error("after the crash reads see what is not durable")
	}
}

func TestExtents(t *testing.T) {
	f := NewFile(10 * Sector)
	f.Write(Sector, fill(1, 2*Sector))
	f.Write(9*Sector, fill(1, Sector))
	var got []int64
	f.Extents(0, f.Size(), func(off, n int64) { got = append(got, off/Sector, n/Sector) })
	if !slices.Equal(got, []int64{1, 2, 9, 1}) {
		t.Error(got)
	}
}

func fill(c byte, n int) []byte { return slices.Repeat([]byte{c}, n) }

package share

import (
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// TestOldAnswersHaveOldTimes: what a call found out before a file grew is not told with a time of after that: a client would take
// the size for the newer one.
func TestOldAnswersHaveOldTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, _ := fixture(t, 1<<20)
		write(t, s, f, 0, make([]byte, 100))
		write(t, s, f, 0, make([]byte, 100)) // inside: its times are only shown
		w.delay.Store(int64(time.Second))
		type answer struct {
			r   nfs.ReadResult
			err error
		}
		got := make(chan answer)
		go func() {
			r, err := s.Read(t.Context(), f, 0, make([]byte, 300))
			got <- answer{r, err}
		}()
		synctest.Wait() // the read is at the device
		w.delay.Store(0)
		grown := write(t, s, f, 100, make([]byte, 100)).Wcc.After
		write(t, s, f, 0, make([]byte, 100))
		a := <-got
		if a.err != nil || a.r.N != 100 && a.r.N != 200 {
			t.Fatalf("%+v, %v", a.r, a.err)
		}
		if at := a.r.Attr; at != nil && ns(at.Ctime) >= ns(grown.Ctime) && at.Filesize < 200 {
			t.Fatalf("%d bytes at %v, after %d at %v", at.Filesize, at.Ctime, grown.Filesize, grown.Ctime)
		}
	})
}

// TestGrowthIsNewer: a file that has grown has a later time than any that was shown with its former size.
func TestGrowthIsNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, _ := fixture(t, 1<<20)
		write(t, s, f, 0, make([]byte, 100))
		write(t, s, f, 0, make([]byte, 100))
		w.delay.Store(int64(time.Second))
		grown := make(chan nfs.WriteResult)
		go func() {
			r, _ := s.Write(t.Context(), f, 8192, make([]byte, 100), nfs3.FileSync)
			grown <- r
		}()
		time.Sleep(2500 * time.Millisecond) // its block was read and written, its command is under way
		w.delay.Store(0)
		write(t, s, f, 0, make([]byte, 100))
		before, err := s.Getattr(t.Context(), f)
		if err != nil || before.Filesize != 100 {
			t.Fatal(before.Filesize, err)
		}
		r := <-grown
		after, err := s.Getattr(t.Context(), f)
		if err != nil || after.Filesize != 8292 || ns(after.Ctime) <= ns(before.Ctime) {
			t.Fatalf("%d bytes at %v, after %d at %v (%v)", after.Filesize, after.Ctime, before.Filesize, before.Ctime, err)
		}
		if a := r.Wcc.After; a == nil || a.Filesize != 8292 || ns(a.Ctime) <= ns(before.Ctime) {
			t.Fatalf("answered: %+v", a)
		}
	})
}

// TestSettledMeanwhile: a time that is shown while earlier ones are being committed is not forgotten.
func TestSettledMeanwhile(t *testing.T) {
	w, s, f, _ := fixture(t, 1<<20)
	write(t, s, f, 0, make([]byte, 100))
	write(t, s, f, 0, make([]byte, 100))
	n, _ := w.now().Inode(f.Ino)
	x := s.files.get(f.Ino)
	defer s.files.put(x)
	op, marked := x.settleOp()
	if !marked || op.Set.Ctime <= n.Ctime {
		t.Fatalf("%+v, %+v", op, n)
	}
	s.bump(filetree.Change{Ino: f.Ino, After: n}) // of a LINK that was proposed before the write
	shown, err := s.Getattr(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.change(t.Context(), op); err != nil && !status(err) {
		t.Fatal(err)
	}
	x.settled()
	if a, err := s.Getattr(t.Context(), f); err != nil || ns(a.Ctime) < ns(shown.Ctime) {
		t.Fatalf("%v after %v (%v)", a.Ctime, shown.Ctime, err)
	}
}

// TestFormerLeaderRefusesNothing: a leader that is none any more knows neither the files nor the space of the next one, so what it
// would refuse is no answer.
func TestFormerLeaderRefusesNothing(t *testing.T) {
	w, old, _, c := fixture(t, 1<<20)
	s, err := w.lead()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(nil)
	m, err := s.Create(t.Context(), c.next(), nfs.Name{Dir: s.Root(), Name: "new"}, nfs.Create{Mode: nfs3.Guarded, Attr: mode()})
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.former = true // its node has heard nothing of that
	w.mu.Unlock()
	for what, do := range map[string]func(f nfs.Ref) error{
		"write": func(f nfs.Ref) error { _, err := old.Write(t.Context(), f, 0, []byte{1}, nfs3.FileSync); return err },
		"read":  func(f nfs.Ref) error { _, err := old.Read(t.Context(), f, 0, make([]byte, 10)); return err },
		"size": func(f nfs.Ref) error {
			_, err := old.Setattr(t.Context(), c.next(), f, nfs3.SetAttr{Size: ptr(uint64(1))}, nil)
			return err
		},
	} {
		for _, f := range []nfs.Ref{m.Node.Ref, old.Root()} {
			if err := do(f); err == nil || status(err) {
				t.Errorf("%s of %v: %v", what, f, err)
			}
		}
	}
}

// TestMtimeStays: an mtime that was shown is not taken back by a change of the names.
func TestMtimeStays(t *testing.T) {
	_, s, f, c := fixture(t, 1<<20)
	write(t, s, f, 0, make([]byte, 100))
	write(t, s, f, 0, make([]byte, 100))
	before, err := s.Getattr(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Link(t.Context(), c.next(), f, nfs.Name{Dir: s.Root(), Name: "g"}); err != nil {
		t.Fatal(err)
	}
	if a, err := s.Getattr(t.Context(), f); err != nil || ns(a.Mtime) < ns(before.Mtime) || ns(a.Ctime) <= ns(before.Ctime) {
		t.Fatalf("%+v after %+v (%v)", a, before, err)
	}
}

// TestTimesOfTheNextLeader: the first write under a new leader gives a later time than the take-over, and that is no further ahead
// than the former leader may have been.
func TestTimesOfTheNextLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, f, _ := fixture(t, 1<<20)
		write(t, s, f, 0, make([]byte, 100))
		write(t, s, f, 0, make([]byte, 100))
		ceil := w.now().Ceiling()
		next, err := w.lead()
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close(nil)
		before, err := next.Getattr(t.Context(), f)
		if err != nil || ns(before.Ctime) > ceil+int64(time.Second) {
			t.Fatalf("%v, the ceiling was %d (%v)", before.Ctime, ceil, err)
		}
		write(t, next, f, 0, make([]byte, 100))
		if after, err := next.Getattr(t.Context(), f); err != nil || ns(after.Ctime) <= ns(before.Ctime) {
			t.Fatalf("%v after %v (%v)", after.Ctime, before.Ctime, err)
		}
	})
}

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

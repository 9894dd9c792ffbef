package share

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/rangelock"
	"pmsapp/nfs"
)

func lockOf(n int, off, length uint64) rangelock.Lock {
	return rangelock.Lock{Owner: rangelock.Owner{Addr: netip.MustParseAddr("192.0.2.1"), Host: "h", PID: int32(n)}, Off: off, Len: length, Exclusive: true}
}

func TestLocks(t *testing.T) {
	w, s, f, c := fixture(t, 4<<20)
	ctx := t.Context()
	lock := func(who nfs.Caller, l rangelock.Lock) *rangelock.Lock {
		t.Helper()
		held, err := s.Lock(ctx, who, f, l)
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	first := c.next()
	if lock(first, lockOf(1, 0, 10)) != nil || lock(c.next(), lockOf(1, 0, 10)) != nil {
		t.Error("what is free is held")
	}
	if held := lock(c.next(), lockOf(2, 5, 10)); held == nil || *held != lockOf(1, 0, 10) {
		t.Errorf("%+v", held)
	}
	if held, err := s.Locked(ctx, f, lockOf(2, 0, 1)); err != nil || held == nil || *held != lockOf(1, 0, 10) {
		t.Errorf("%+v %v", held, err)
	}
	// Another leader knows the locks.
	w.mu.Lock()
	w.dead = true
	w.mu.Unlock()
	s.Close(nil)
	s, err := w.lead()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(nil)
	if held := lock(c.next(), lockOf(2, 5, 10)); held == nil {
		t.Error("another leader has forgotten a lock")
	}
	if err := s.Unlock(ctx, c.next(), f, lockOf(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if lock(c.next(), lockOf(2, 5, 10)) != nil {
		t.Error("what was unlocked is held")
	}
	if lock(first, lockOf(1, 0, 10)) != nil {
		t.Error("a retry gets another answer")
	}
	if held, err := s.Locked(ctx, f, lockOf(3, 0, 5)); err != nil || held != nil {
		t.Errorf("a retry locks again: %+v %v", held, err)
	}
	other := lockOf(2, 0, 0).Owner
	other.Host = "another"
	for _, o := range []rangelock.Owner{other, lockOf(2, 0, 0).Owner} {
		if held, err := s.Locked(ctx, f, lockOf(3, 5, 1)); err != nil || held == nil {
			t.Errorf("released with another's: %v", err)
		}
		before := w.now()
		if err := s.Release(ctx, c.next(), o, 0); err != nil {
			t.Fatal(err)
		}
		if o == other && w.now() != before {
			t.Error("a command for a host without locks")
		}
	}
	if held, err := s.Locked(ctx, f, lockOf(3, 5, 1)); err != nil || held != nil {
		t.Errorf("after a release: %+v %v", held, err)
	}
	gone := nfs.Ref{Ino: f.Ino, Gen: f.Gen + 1}
	if _, err := s.Lock(ctx, c.next(), gone, lockOf(1, 0, 1)); err != nfs3.ErrStale {
		t.Error(err)
	}
	if err := s.Unlock(ctx, c.next(), gone, lockOf(1, 0, 1)); err != nfs3.ErrStale {
		t.Error(err)
	}
	if _, err := s.Locked(ctx, gone, lockOf(1, 0, 1)); err != nfs3.ErrStale {
		t.Error(err)
	}
}

// TestLocksExclude has owners lock and unlock at once: never two have it.
func TestLocksExclude(t *testing.T) {
	_, s, f, _ := fixture(t, 4<<20)
	const owners, turns = 6, 40
	in := make(chan int, owners)
	done := make(chan error, owners)
	for n := range owners {
		go func() {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			c := newClient(byte(n + 1))
			for range turns {
				for {
					held, err := s.Lock(t.Context(), c.next(), f, lockOf(n, 0, 1+r.Uint64N(5)))
					if err != nil {
						done <- err
						return
					}
					if held == nil {
						break
					}
				}
				in <- n
				if len(in) != 1 {
					t.Error(len(in), "owners have the lock")
				}
				<-in
				if err := s.Unlock(t.Context(), c.next(), f, lockOf(n, 0, 0)); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range owners {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

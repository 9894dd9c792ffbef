package throttle

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const chunk = 256 << 10

// copied is how many bytes a copier gets in d whose disk does at most disk bytes in a second, beside guests whose 99th percentile
// depends on the rate of the copies.
func copied(p *pace, from, d time.Duration, s Settings, disk float64, p99 func(rate float64) time.Duration, count int64) float64 {
	now, sum, last, begun := from, int64(0), int64(0), from
	for now < from+d {
		if p.over(now) {
			rate := float64(sum-last) / max(now-begun, 1).Seconds()
			p.look(now, count, p99(rate), s)
			last, begun = sum, now
		}
		if wait := p.take(now, chunk, s); wait > 0 {
			now += min(wait, poll)
			continue
		}
		sum += chunk
		now += time.Duration(chunk / disk * 1e9)
	}
	return float64(sum) / d.Seconds()
}

// TestPace: what copies get beside guests that suffer in proportion, that suffer whatever happens, that do not, and are idle.
func TestPace(t *testing.T) {
	s := Settings{GuestP99: 20 * time.Millisecond, Floor: 4 << 20}
	const disk = 400 << 20
	quiet := func(float64) time.Duration { return time.Millisecond }
	for _, x := range []struct {
		name   string
		s      Settings
		p99    func(float64) time.Duration
		count  int64
		lo, hi float64 // MiB in a second, after 20 s
	}{
		{"idle", s, quiet, 0, 390, 400},
		{"a few slow ones", s, func(float64) time.Duration { return time.Second }, fewest - 1, 390, 400},
		{"busy and content", s, quiet, 1000, 390, 400},
		// A guest feels 1 ms, and 1 ms more for each 5 MiB in a second: 20 ms are 95 MiB in a second.
		{"suffer in proportion", s, func(r float64) time.Duration {
			return time.Millisecond + time.Duration(r/(5<<20)*float64(time.Millisecond))
		}, 1000, 50, 100},
		{"suffer always", s, func(float64) time.Duration { return time.Second }, 1000, 3.9, 4.6},
		{"limit", Settings{GuestP99: s.GuestP99, Floor: s.Floor, Limit: 10 << 20}, quiet, 1000, 9.9, 10.6},
		{"limit below the floor", Settings{GuestP99: s.GuestP99, Floor: s.Floor, Limit: 1 << 20}, func(float64) time.Duration { return time.Second }, 1000, 0.9, 1.2},
		{"paused", Settings{GuestP99: s.GuestP99, Floor: s.Floor, Paused: true}, quiet, 1000, 0, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := newPace(0)
			copied(p, 0, 20*time.Second, x.s, disk, x.p99, x.count)
			got := copied(p, 20*time.Second, 20*time.Second, x.s, disk, x.p99, x.count) / (1 << 20)
			if got < x.lo || got > x.hi {
				t.Errorf("%.1f MiB in a second, and not %v to %v", got, x.lo, x.hi)
			}
		})
	}
	t.Run("recovers", func(t *testing.T) {
		p := newPace(0)
		copied(p, 0, 20*time.Second, s, disk, func(float64) time.Duration { return time.Second }, 1000)
		if got := copied(p, 20*time.Second, 20*time.Second, s, disk, quiet, 1000) / (1 << 20); got < 150 {
			t.Errorf("%.1f MiB in a second when the guests are content again", got)
		}
	})
}

func TestHistogram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 99, 100, 101, 5000} {
		var h histogram
		var all []time.Duration
		for range n {
			d := time.Duration(r.Int64N(1 << (10 + r.IntN(25))))
			h.add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		count, p99 := h.drain()
		want := all[n-1-n/100]
		if count != int64(n) || p99 < want || p99 > want*9/8+2*time.Microsecond {
			t.Errorf("of %d: %d, %v; it is %v", n, count, p99, want)
		}
		if count, p99 := h.drain(); count != 0 || p99 != 0 {
			t.Error("it is not empty")
		}
	}
	var h histogram
	for _, d := range []time.Duration{-1, 0, 1 << 62} {
		h.add(d)
	}
	if n, _ := h.drain(); n != 3 {
		t.Error(n)
	}
	for i := range 40*8 - 1 {
		if d := topOf(i); bucketOf(d-time.Microsecond) != i && d > 0 {
			t.Fatalf("bucket %d ends at %v, which is in %d", i, d, bucketOf(d-time.Microsecond))
		}
	}
}

// TestWait: two volumes share what there is; a pause holds both, and an end of their contexts lets them go.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Settings{GuestP99: time.Second, Floor: 1 << 20, Limit: 8 << 20}
		var paused atomic.Bool
		th := New(func() Settings {
			s := s
			s.Paused = paused.Load()
			return s
		})
		ctx, cancel := context.WithCancel(context.Background())
		var got [2]atomic.Int64
		all := func() int64 { return got[0].Load() + got[1].Load() }
		done := make(chan error, 2)
		for i := range got {
			go func() {
				for {
					if err := th.Wait(ctx, chunk); err != nil {
						done <- err
						return
					}
					got[i].Add(chunk)
				}
			}()
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if d := got[0].Load() - got[1].Load(); all() < 79<<20 || all() > 81<<20 || d > chunk || d < -chunk {
			t.Error(all(), d)
		}
		if st := th.State(); st.Rate != 8<<20 || st.GuestP99 != 0 {
			t.Errorf("%+v", st)
		}
		paused.Store(true)
		time.Sleep(poll)
		synctest.Wait()
		was := all()
		time.Sleep(time.Minute)
		synctest.Wait()
		if all() != was {
			t.Error("it is not paused")
		}
		paused.Store(false)
		for range 100 {
			th.Guest(30 * time.Millisecond)
		}
		time.Sleep(window)
		synctest.Wait()
		if now := all(); now == was || now > was+8<<20 {
			t.Errorf("%d bytes after the pause", now-was)
		}
		cancel()
		for range got {
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}

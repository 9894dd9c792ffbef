package reign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// opener makes fake mirrors and keeps them.
type opener struct {
	mu sync.Mutex
	ms map[ids.Volume]*fakeMirror
}

func (o *opener) open(ctx context.Context, cfg mirror.Config) (Mirror, error) {
	m := newFakeMirror(cfg)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ms == nil {
		o.ms = make(map[ids.Volume]*fakeMirror)
	}
	o.ms[cfg.Params.Volume.ID] = m
	return m, nil
}

func (o *opener) get(v string) *fakeMirror {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ms[volumeID(v)]
}

func state(r *Reign, v string) State {
	for _, x := range r.Status().Volumes {
		if x.Volume == volumeID(v) {
			return x.State
		}
	}
	return ""
}

func three() *fakes {
	f := newFakes()
	for _, n := range []string{"a", "b", "c"} {
		f.w.addNode(n, false, n+".1")
	}
	f.w.addVolume("v1", "a.1", "b.1")
	f.w.addVolume("v2", "b.1", "c.1")
	return f
}

func TestTakeOverAndFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := three(), &opener{}
		r := f.start(t, "a", o.open)
		r.Lead()
		time.Sleep(20 * time.Millisecond)
		if state(r, "v1") != Serving || state(r, "v2") != Serving {
			t.Fatalf("%+v", r.Status())
		}
		m := o.get("v1")
		r.Follow()
		synctest.Wait()
		if !f.saw("serving v1") || !f.saw("standby v1") || !f.saw("standby v2") {
			t.Error(f.seen)
		}
		select {
		case <-m.done:
		default:
			t.Error("the mirror is still open")
		}
		for n, s := range f.sessions {
			select {
			case <-s.done:
			default:
				t.Errorf("the session with %s is still open", name(n))
			}
		}
		// Again, above the epoch of before.
		r.Lead()
		time.Sleep(20 * time.Millisecond)
		if st := r.Status(); st.Epoch != 2 || state(r, "v1") != Serving {
			t.Errorf("%+v", st)
		}
		r.Close(nil)
		if _, err := r.CreateVolume(t.Context(), CreateVolume{}); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// A node that is dead, or hangs: the grace passes, then it is removed; when it comes its replica gets a resync.
func TestAbsentNode(t *testing.T) {
	for _, hang := range []bool{false, true} {
		t.Run(fmt.Sprint("hang=", hang), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, o := three(), &opener{}
				f.w.nodes[nodeID("b")].down = !hang
				f.hang[nodeID("b")] = hang
				r := f.start(t, "a", o.open)
				defer r.Close(nil)
				begin := time.Now()
				r.Lead()
				time.Sleep(450 * time.Millisecond)
				if state(r, "v1") != TakingOver {
					t.Fatal(state(r, "v1"))
				}
				for state(r, "v1") != Serving || state(r, "v2") != Serving {
					time.Sleep(time.Millisecond)
				}
				if d := time.Since(begin); d > 520*time.Millisecond {
					t.Errorf("served after %v", d)
				}
				f.mu.Lock()
				f.hang[nodeID("b")] = false
				f.mu.Unlock()
				f.kill("b", false)
				time.Sleep(4 * time.Second)
				m := o.get("v1")
				m.mu.Lock()
				n := len(m.resyncs)
				m.mu.Unlock()
				if n != 1 || r.Status().Volumes[0].Resyncs[0].State != "running" {
					t.Errorf("%d resyncs, %+v", n, r.Status().Volumes[0])
				}
				m.cfg.Resynced(nodeID("b"), mirror.ResyncStatus{}, errors.New("no"))
				if got := r.Status().Volumes[0].Resyncs[0]; got.State != "failed" || got.Err != "no" {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// All mirrors share one session per node; when it dies, one new session is opened, and who asks meanwhile gets it.
func TestSessionsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := three(), &opener{}
		r := f.start(t, "a", o.open)
		defer r.Close(nil)
		r.Lead()
		time.Sleep(20 * time.Millisecond)
		s1, err1 := o.get("v1").cfg.Sessions.Session(t.Context(), nodeID("b"))
		s2, err2 := o.get("v2").cfg.Sessions.Session(t.Context(), nodeID("b"))
		if err1 != nil || err2 != nil || s1 != s2 {
			t.Fatal(s1, err1, s2, err2)
		}
		f.mu.Lock()
		opens := f.opens
		f.sessions[nodeID("b")].end(peer.ErrLost)
		f.mu.Unlock()
		got := make(chan peer.Session, 2)
		for _, v := range []string{"v1", "v2"} {
			go func() {
				s, err := o.get(v).cfg.Sessions.Session(t.Context(), nodeID("b"))
				if err != nil {
					t.Error(err)
				}
				got <- s
			}()
		}
		a, b := <-got, <-got
		if a != b || a == s1 || f.opens != opens+1 {
			t.Errorf("%p %p %p, %d sessions opened", s1, a, b, f.opens-opens)
		}
		// While the node is down, the last error is the answer, at once.
		f.kill("b", true)
		synctest.Wait()
		time.Sleep(10 * time.Millisecond)
		if _, err := o.get("v1").cfg.Sessions.Session(t.Context(), nodeID("b")); !errors.Is(err, errDown) || !errors.Is(err, peer.ErrLost) {
			t.Error(err)
		}
	})
}

func TestAdmin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := three(), &opener{}
		r := f.start(t, "a", o.open)
		defer r.Close(nil)
		req := CreateVolume{Copies: 2, Volume: truth.Volume{
			ID: volumeID("v3"), Lineage: lineageID("L"), Name: "v3", Size: mib, Region: mib, Logical: 512},
			Space: []Space{{Node: nodeID("a"), Pool: poolID("a.1"), Free: 5}, {Node: nodeID("b"), Pool: poolID("b.1"), Free: 7}, {Node: nodeID("c"), Pool: poolID("c.1"), Free: 6}}}
		if _, err := r.CreateVolume(t.Context(), req); !errors.Is(err, ErrNotLeading) {
			t.Fatal(err)
		}
		r.Lead()
		time.Sleep(20 * time.Millisecond)
		v, err := r.CreateVolume(t.Context(), req)
		if err != nil || placeNames(v.InSync) != "b.1,c.1" {
			t.Fatal(v, err)
		}
		time.Sleep(20 * time.Millisecond)
		if state(r, "v3") != Serving {
			t.Fatal(state(r, "v3"))
		}
		if err := r.RestartResync(t.Context(), volumeID("v3"), nodeID("a")); !errors.Is(err, ErrUnknownVolume) {
			t.Error(err)
		}
		if err := r.DeleteVolume(t.Context(), volumeID("v3")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		f.mu.Lock()
		rep := f.w.pool(place("b.1")).replica(volumeID("v3"))
		f.mu.Unlock()
		if rep != nil || !o.get("v3").drained || !f.saw("standby v3") {
			t.Error("not deleted")
		}
		// A drain that does not end: the request fails, and the volume goes on.
		o.get("v1").stuck = true
		if err := r.DeleteVolume(t.Context(), volumeID("v1")); !errors.Is(err, ErrTimeout) {
			t.Error(err)
		}
		time.Sleep(20 * time.Millisecond)
		if state(r, "v1") != Serving {
			t.Errorf("%+v", r.Status())
		}
		// Whoever does not wait any more is forgotten.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		o.get("v2").stuck = true
		if err := r.DeleteVolume(ctx, volumeID("v2")); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := three(), &opener{}
		for _, n := range []string{"b", "c"} {
			f.reports[nodeID(n)] = Report{Electable: n == "c", LastIndex: 1, Reaches: []ids.Node{nodeID("b"), nodeID("c")}}
		}
		r := f.start(t, "a", o.open)
		defer r.Close(nil)
		r.Lead()
		time.Sleep(20 * time.Millisecond)
		if err := r.HandOver(t.Context(), nodeID("b")); !errors.Is(err, ErrNoTarget) {
			t.Fatal(err)
		}
		// It fails: all volumes go on here, under a new epoch.
		if err := r.HandOver(t.Context(), ids.Node{}); err == nil {
			t.Fatal("handed over")
		}
		time.Sleep(20 * time.Millisecond)
		if st := r.Status(); st.Epoch != 2 || state(r, "v1") != Serving {
			t.Fatalf("%+v", st)
		}
		f.transfer = func(to ids.Node) error {
			if to != nodeID("c") || !o.get("v1").drained || !o.get("v2").drained {
				t.Error("not drained, or another node", name(to))
			}
			go r.Follow()
			return nil
		}
		begin := time.Now()
		if err := r.HandOver(t.Context(), ids.Node{}); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d > 300*time.Millisecond {
			t.Errorf("took %v", d)
		}
		if state(r, "v1") != NotLeading {
			t.Error(state(r, "v1"))
		}
	})
}

// Close ends an attempt that hangs, a drain that hangs, and whoever waits.
func TestCloseEndsWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := three(), &opener{}
		f.hang[nodeID("c")] = true
		r := f.start(t, "a", o.open)
		r.Lead()
		time.Sleep(20 * time.Millisecond)
		o.get("v1").stuck = true
		done := make(chan error)
		go func() { done <- r.DeleteVolume(t.Context(), volumeID("v1")) }()
		synctest.Wait()
		begin := time.Now()
		r.Close(errors.New("enough"))
		if err := <-done; !errors.Is(err, ErrNotLeading) {
			t.Error(err)
		}
		if d := time.Since(begin); d > 10*time.Millisecond {
			t.Errorf("took %v", d)
		}
		if !f.saw("standby v1") {
			t.Error(f.seen)
		}
	})
}

// With real mirrors: bytes written before the leader changes are read after it, a node is lost and comes back, and the
// resync brings its replica up to date.
func TestWithRealMirrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := three()
		r := f.start(t, "a", nil)
		defer func() { r.Close(nil) }()
		r.Lead()
		time.Sleep(20 * time.Millisecond)
		data := bytes.Repeat([]byte{7}, 4096)
		if err := f.io(block.Write, "v1", 0, data); err != nil {
			t.Fatal(err)
		}
		f.kill("b", true)
		data2 := bytes.Repeat([]byte{9}, 4096)
		if err := f.io(block.Write, "v1", 8192, data2); err != nil { // held until b is removed
			t.Fatal(err)
		}
		f.kill("b", false)
		time.Sleep(10 * time.Second)
		for _, v := range r.Status().Volumes {
			if v.State != Serving || len(v.InSync) != 2 {
				t.Fatalf("%+v", r.Status())
			}
		}
		f.mu.Lock()
		same := bytes.Equal(f.bytes[place("a.1")][volumeID("v1")], f.bytes[place("b.1")][volumeID("v1")])
		f.mu.Unlock()
		if !same {
			t.Error("the replicas differ")
		}
		r.Close(nil)
		if err := f.io(block.Read, "v1", 0, make([]byte, 512)); !errors.Is(err, block.ErrEnded) {
			t.Error(err)
		}
		r = f.start(t, "b", nil)
		r.Lead()
		time.Sleep(50 * time.Millisecond)
		got := make([]byte, 4096)
		if err := f.io(block.Read, "v1", 8192, got); err != nil || !bytes.Equal(got, data2) {
			t.Error(err)
		}
	})
}

func (f *fakes) io(op block.Op, v string, off int64, data []byte) error {
	f.mu.Lock()
	dev := f.devices[volumeID(v)]
	f.mu.Unlock()
	done := make(chan struct{})
	q := &block.Request{Op: op, Off: off, Len: int64(len(data)), Data: data, Done: func(*block.Request) { close(done) }}
	dev.Submit(q)
	<-done
	return q.Err
}

// TestThousandVolumes: few commands, whatever the number of volumes; one of them removes a dead node from all sets.
func TestThousandVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := thousand(), &opener{}
		f.w.nodes[nodeID("c")].down = true
		r := f.start(t, "a", o.open)
		defer r.Close(nil)
		r.Lead()
		time.Sleep(600 * time.Millisecond)
		for _, v := range r.Status().Volumes {
			if v.State != Serving {
				t.Fatalf("%+v", v)
			}
		}
		if f.props["served"] > 4 || f.props["remove"] != 1 || f.props["takeover"] != 1 {
			t.Error(f.props)
		}
	})
}

func thousand() *fakes {
	f := newFakes()
	nodes := []string{"a", "b", "c"}
	for _, n := range nodes {
		f.w.addNode(n, false, n+".1")
	}
	for i := range 1000 {
		f.w.addVolume(fmt.Sprintf("v%d", i), nodes[i%3]+".1", nodes[(i+1)%3]+".1")
	}
	return f
}

// BenchmarkTakeOver is the time from the leadership to 1,000 open volumes, with nodes and a catalog that answer in 1 ms:
// what take-over itself adds, with mirrors that do nothing and with real ones.
func BenchmarkTakeOver(b *testing.B) {
	b.Run("fake", func(b *testing.B) { benchTakeOver(b, (&opener{}).open) })
	b.Run("real", func(b *testing.B) { benchTakeOver(b, nil) })
}

func benchTakeOver(b *testing.B, open func(context.Context, mirror.Config) (Mirror, error)) {
	for b.Loop() {
		f := thousand()
		r := f.start(b, "a", open)
		r.Lead()
		for {
			st, n := r.Status(), 0
			for _, v := range st.Volumes {
				if v.State == Serving {
					n++
				}
			}
			if n == 1000 {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		b.StopTimer()
		r.Close(nil)
		b.StartTimer()
	}
}

// TestTight: a pool that has promised too much gets no replica, and the refusal says that and not that there is no room.
func TestTight(t *testing.T) {
	w := newWorld()
	w.addNode("a", false, "a.1")
	w.addNode("b", false, "b.1")
	w.addNode("c", false, "c.1")
	w.addVolume("v", "a.1")
	s := &script{t: t, w: w, live: make(map[ids.Node]uint64)}
	for _, l := range []string{"core a", "lead", "commit", "open a b c", "commit", "opened v"} {
		f := strings.Fields(l)
		s.do(f[0], f[1:])
	}
	space := []Space{{Node: nodeID("a"), Pool: poolID("a.1"), Free: 5 * mib}, {Node: nodeID("b"), Pool: poolID("b.1"), Free: 9 * mib, Tight: true},
		{Node: nodeID("c"), Pool: poolID("c.1"), Free: 6 * mib}}
	reply := func(ev Event) (out Reply) {
		for _, e := range s.c.Step(s.now, ev) {
			if r, ok := e.(Reply); ok {
				out = r
			}
		}
		return out
	}
	v := truth.Volume{ID: volumeID("n"), Lineage: lineageID("L"), Name: "n", Size: mib, Region: mib, Logical: 512}
	if r := reply(CreateVolume{Request: 1, Volume: v, Copies: 3, Space: space}); !errors.Is(r.Err, ErrPromised) {
		t.Error(r.Err)
	}
	if r := reply(CreateVolume{Request: 2, Volume: v, Copies: 2, Space: space}); r.Err != nil || !s.c.isMaking(v.ID) {
		t.Error(r.Err)
	}
	if r := reply(AddReplica{Request: 3, Volume: volumeID("v"), Node: nodeID("b"), Space: space}); !errors.Is(r.Err, ErrPromised) {
		t.Error(r.Err)
	}
	if r := reply(AddReplica{Request: 4, Volume: volumeID("v"), Space: space}); r.Err != nil {
		t.Error(r.Err)
	}
}

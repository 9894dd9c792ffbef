package front

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

// TestHeld: what becomes of commands that are held when something happens: they go on, are answered BUSY when their time has come and not
// before, are dropped with their session, or are never answered because they were aborted. Never is one GOOD that was not done.
func TestHeld(t *testing.T) {
	const when = 3 * time.Second // after which it happens
	type outcome struct {
		want  string        // of each command that is held
		at    time.Duration // after it was sent
		async []byte        // events told before the connection ended
		next  []string      // unit attentions of the session after it, or of the next one
		login iscsi.LoginStatus
	}
	dropped := outcome{want: "dropped", at: when, async: []byte{iscsi.AsyncDropConnection}, next: []string{"2900"}}
	for _, c := range []struct {
		name  string
		waits bool // the node cannot reach the members at all; else one is silent
		do    func(w *world, m *fakeMirror, i *initiator, tags []uint32)
		out   outcome
	}{
		{"nothing", false, func(*world, *fakeMirror, *initiator, []uint32) {}, outcome{want: "busy", at: worldHold}},
		{"nothing, for a volume out of reach", true, func(*world, *fakeMirror, *initiator, []uint32) {}, outcome{want: "busy", at: worldHold}},
		{"the member answers", false, func(_ *world, m *fakeMirror, _ *initiator, _ []uint32) { m.release(nil) }, outcome{want: "good", at: when}},
		{"the volume is served", true, func(w *world, _ *fakeMirror, _ *initiator, _ []uint32) { w.a.serve() }, dropped},
		{"the epoch ends", false, func(_ *world, m *fakeMirror, _ *initiator, _ []uint32) { m.fence() }, dropped},
		{"leadership is lost", false, func(w *world, _ *fakeMirror, _ *initiator, _ []uint32) { w.a.hosts.StandbyAll() }, dropped},
		{"leadership is lost, of a volume out of reach", true, func(w *world, _ *fakeMirror, _ *initiator, _ []uint32) { w.a.hosts.StandbyAll() }, dropped},
		{"they are aborted", false, func(w *world, m *fakeMirror, i *initiator, tags []uint32) {
			for _, tag := range tags {
				if got, _ := i.await(i.manage(target.AbortTask, tag), time.Second); got != "response 0" {
					w.t.Errorf("abort: %s", got)
				}
			}
			m.release(nil)
		}, outcome{want: "held", at: time.Minute}},
		{"another host resets the unit", false, func(w *world, m *fakeMirror, _ *initiator, _ []uint32) {
			o, _ := w.a.connect(portName(2), false)
			if got, _ := o.await(o.manage(target.LogicalUnitReset, 0), time.Second); got != "response 0" {
				w.t.Errorf("reset: %s", got)
			}
			m.release(nil)
		}, outcome{want: "held", at: time.Minute, next: []string{"2903"}}},
		{"another host resets the target", false, func(w *world, m *fakeMirror, _ *initiator, _ []uint32) {
			o, _ := w.a.connect(portName(2), false)
			if got, _ := o.await(o.manage(target.TargetWarmReset, 0), time.Second); got != "response 0" {
				w.t.Errorf("reset: %s", got)
			}
			m.release(nil)
		}, outcome{want: "held", at: time.Minute, next: []string{"2903"}}},
		{"another host resets the unit by a port that stands by", false, func(w *world, m *fakeMirror, _ *initiator, _ []uint32) {
			o, _ := w.b.connect(portName(2), false)
			tag := o.manage(target.LogicalUnitReset, 0)
			synctest.Wait()
			if len(o.in) > 0 { // nobody has confirmed that A still serves
				w.t.Error("the reset was answered")
			}
			m.release(nil)
			if got, _ := o.await(tag, time.Second); got != "response 0" {
				w.t.Errorf("reset: %s", got)
			}
		}, outcome{want: "held", at: time.Minute, next: []string{"2903"}}},
		{"another host resets the target by a port that stands by", false, func(w *world, m *fakeMirror, _ *initiator, _ []uint32) {
			o, _ := w.b.connect(portName(2), false)
			tag := o.manage(target.TargetWarmReset, 0)
			synctest.Wait()
			m.release(nil)
			if got, _ := o.await(tag, time.Second); got != "response 0" {
				w.t.Errorf("reset: %s", got)
			}
		}, outcome{want: "held", at: time.Minute, next: []string{"2903"}}},
		{"the host logs in again", false, func(w *world, _ *fakeMirror, _ *initiator, _ []uint32) {
			o, status := w.a.connect(portName(1), false)
			if status != 0 {
				w.t.Errorf("login: %v", status)
			}
			o.conn.Close()
		}, outcome{want: "dropped", at: when, next: []string{"2900"}}},
		{"the export ends", false, func(w *world, _ *fakeMirror, _ *initiator, _ []uint32) {
			if _, err := w.a.hosts.Close(context.Background(), w.volume); err != nil {
				w.t.Error(err)
			}
		}, outcome{want: "dropped", at: when, login: iscsi.LoginUnavailable}},
		{"the node goes down", false, func(w *world, _ *fakeMirror, i *initiator, _ []uint32) {
			go w.a.server.Shutdown(context.Background())
			synctest.Wait()
			if again, status := w.a.connect(portName(1), false); again != nil || status != 0 {
				w.t.Errorf("login: %v", status)
			}
		}, outcome{want: "busy", at: worldHold}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, false)
				defer w.close()
				w.known = true
				w.catalog(groupA, groupA)
				w.raft = groupA
				m := &fakeMirror{}
				if c.waits {
					w.a.hosts.Wait(w.volume, geometry)
				} else {
					m = w.a.serve()
					m.hold()
				}
				i := w.a.fresh(c.name, nil)
				begin := time.Now()
				var tags []uint32
				var sent []probe
				for _, p := range probes() {
					changes := p.kind == write || p.kind == zero || p.kind == read || p.kind == flush || p.kind == size && !c.waits
					if changes && p.name != "COMPARE AND WRITE" || p.name == "PERSISTENT RESERVE IN, action 0" {
						tags = append(tags, i.start(&p, 1))
						sent = append(sent, p)
					}
				}
				time.Sleep(when)
				synctest.Wait()
				if len(i.in) > 0 {
					t.Fatalf("%d answers, and nothing has happened", len(i.in))
				}
				c.do(w, m, i, tags)
				for k, tag := range tags {
					got, _ := i.await(tag, time.Minute-time.Since(begin))
					if at := time.Since(begin); got != c.out.want || at != c.out.at {
						t.Errorf("%s: %s after %v, want %s after %v", sent[k].name, got, at, c.out.want, c.out.at)
					}
				}
				if c.name == "the node goes down" {
					if got, _, _ := i.do(&sent[0]); got != "dropped" {
						t.Errorf("at the end: %s", got)
					}
					if !slices.Equal(i.async, []byte{iscsi.AsyncLogoutRequest, iscsi.AsyncDropConnection}) {
						t.Errorf("events %v", i.async)
					}
					return
				}
				if !slices.Equal(i.async, c.out.async) {
					t.Errorf("events %v, want %v", i.async, c.out.async)
				}
				if c.out.want == "dropped" {
					var status iscsi.LoginStatus
					if i, status = w.a.connect(portName(1), false); status != c.out.login {
						t.Errorf("login: %v, want %v", status, c.out.login)
					}
				}
				if i == nil {
					return
				}
				if a, gone := i.attentions(); gone || !slices.Equal(a, c.out.next) {
					t.Errorf("unit attentions %v, want %v", a, c.out.next)
				}
			})
		})
	}
}

// TestNothingBetween: an export that ends, and one that has ended: only the second is told that there is no such target, by a node that
// knows.
func TestNothingBetween(t *testing.T) {
	for _, mapped := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, mapped)
			defer w.close()
			login := func(want iscsi.LoginStatus) {
				t.Helper()
				i, status := w.a.connect(portName(1), false)
				if status != want {
					t.Errorf("login: %v, want %v", status, want)
				}
				if i != nil {
					i.conn.Close()
				}
			}
			none := iscsi.LoginNotFound
			if mapped {
				none = iscsi.LoginForbidden
			}
			login(iscsi.LoginUnavailable)
			w.certain = true
			login(none)
			if d, status := w.a.connect(portName(9), true); d == nil {
				t.Errorf("discovery of nothing, by a node that knows: %v", status)
			} else {
				d.conn.Close()
			}
			w.certain, w.known = false, true
			w.catalog(0, 0)
			login(iscsi.LoginOK)
			var undo func()
			var err error
			if mapped {
				undo, err = w.a.hosts.CloseHost(t.Context(), "h")
			} else {
				undo, err = w.a.hosts.Close(t.Context(), w.volume)
			}
			if err != nil {
				t.Fatal(err)
			}
			w.certain = true
			login(iscsi.LoginUnavailable)
			undo()
			login(iscsi.LoginOK)
			w.known, w.certain = false, false
			w.catalog(0, 0)
			login(iscsi.LoginUnavailable)
			w.certain = true
			login(none)
		})
	}
}

// TestPatient: a question that describes is asked until somebody answers, or the time is over; one that is given up ends, and leaves
// nothing behind; any other is passed on once.
func TestPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, false)
		defer w.close()
		w.known = true
		w.catalog(0, 0)
		i := w.a.fresh("", nil)
		c := probes()[slices.IndexFunc(probes(), func(p probe) bool { return p.name == "READ CAPACITY(10)" })]
		tag := i.start(&c, 1)
		time.Sleep(4 * time.Second)
		w.catalog(groupB, 0)
		w.mu.Lock()
		w.raft = groupB
		w.mu.Unlock()
		m := w.b.serve()
		m.hold() // one who hangs is given up after a while
		time.Sleep(time.Second)
		m.release(nil)
		begin := time.Now()
		if got, data := i.await(tag, time.Minute); got != "good" || len(data) != 8 || time.Since(begin) > askAgain {
			t.Errorf("%s after %v, %x", got, time.Since(begin), data)
		}
		// An abort, and the end of the session, while it is held. A reset waits for the node that serves, as long as that holds.
		m.hold()
		if got, _ := i.await(i.manage(target.AbortTask, i.start(&c, 1)), time.Second); got != "response 0" {
			t.Errorf("abort: %s", got)
		}
		i.start(&c, 1)
		if got, _ := i.await(i.manage(target.LogicalUnitReset, 0), worldHold+time.Second); got != "response 255" {
			t.Errorf("reset: %s", got)
		}
		i.start(&c, 1)
		i.conn.Close()
		synctest.Wait()
		asked := 0
		m.fail(func(*block.Request) error { asked++; return nil })
		time.Sleep(time.Minute)
		if asked > 0 {
			t.Errorf("%d questions, and nobody is there", asked)
		}
	})
}

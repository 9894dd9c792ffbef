package front

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

// seen is all that a host can see of a node in a state: what each kind of command comes to, and the access states that are reported of
// the port that was asked and of the other one. What is not named is "good"; "busy" comes after hold_timeout and not before.
type seen struct {
	name       string
	login      iscsi.LoginStatus
	want       map[kind]string
	own, other byte
}

// all is the same for all kinds but identity, with exceptions. 04h/0Ah is "wait here", 04h/0Bh "look elsewhere".
func all(s string, but map[kind]string) map[kind]string {
	m := map[kind]string{}
	for _, k := range []kind{ready, size, local, read, write, zero, flush, reserved} {
		m[k] = s
	}
	for k, v := range but {
		m[k] = v
	}
	return m
}

func unknownYet() seen { return seen{name: "does not know the volume", login: iscsi.LoginUnavailable} }

// standsBy asks who serves: what describes the unit and what is reserved has an answer, and the unit is reset there.
func standsBy(other byte) seen {
	return seen{"stands by", 0, all("2/040b", map[kind]string{size: "good", reserved: "good", reset: "good"}), 2, other}
}

// alone stands by while nobody serves: what describes the unit is held; a command about reservations is to come again.
func alone(other byte) seen {
	return seen{"stands by, nobody serves", 0, all("2/040b", map[kind]string{size: "busy", reserved: "2/040a", reset: "refused"}), 2, other}
}

// coming leads, or was serving a moment ago, and has no device.
func coming(other byte) seen {
	return seen{"is about to serve", 0, all("2/040a", map[kind]string{size: "busy", reserved: "2/040a", reset: "refused"}), 0xf, other}
}

// waits leads and cannot reach the volume: I/O is held.
func waits() seen {
	return seen{"waits for members", 0, map[kind]string{read: "busy", write: "busy", zero: "busy", flush: "busy", reserved: "busy"}, 0xf, 2}
}

func serves() seen { return seen{"serves", 0, nil, 0, 2} }

// holds serves, and its members do not answer.
func holds() seen {
	return seen{"holds", 0, map[kind]string{size: "busy", read: "busy", write: "busy", zero: "busy", flush: "busy", reserved: "busy"}, 0, 2}
}

// fenced serves as far as it knows, and may not: whoever asks is dropped without an answer.
func fenced() seen {
	return seen{"is fenced", 0, map[kind]string{size: "dropped", read: "dropped", write: "dropped", zero: "dropped", flush: "dropped", reserved: "dropped"}, 0, 2}
}

// step is one of a failover, with what is seen of both nodes after it, and what the sessions see that were there before it: unit
// attentions in their order, or "dropped".
type step struct {
	name       string
	do         func(w *world)
	a, b       seen
	oldA, oldB string
}

// scenario is the life of a volume: exported, taken over, in all sorts of trouble, lost with its leader, taken over, handed over, and gone.
func scenario() []step {
	var m *fakeMirror
	raft := func(leader uint16) func(*world) {
		return func(w *world) { w.mu.Lock(); w.raft = leader; w.mu.Unlock() }
	}
	catalog := func(leader, serves uint16) func(*world) { return func(w *world) { w.catalog(leader, serves) } }
	return []step{
		{"boot", catalog(0, 0), unknownYet(), unknownYet(), "", ""},
		{"the catalog is there", func(w *world) { w.known = true; w.catalog(0, 0) }, alone(2), alone(2), "", ""},
		{"A is elected", raft(groupA), alone(2), alone(2), "", ""},
		{"A's take-over is applied", catalog(groupA, 0), coming(2), alone(0xf), "", ""},
		{"A cannot reach the members", func(w *world) { w.a.hosts.Wait(w.volume, geometry) }, waits(), with(alone(0xf), size, "good"), "", ""},
		{"A serves", func(w *world) { m = w.a.serve() }, serves(), standsBy(0xf), "", ""},
		{"the catalog says so", catalog(groupA, groupA), serves(), standsBy(0), "2a06", "2a06"},
		{"a member is silent", func(*world) { m.hold() }, holds(), with(standsBy(0), size, "busy", reserved, "busy", reset, "busy"), "", ""},
		{"it was removed", func(*world) { m.release(nil) }, serves(), standsBy(0), "", ""},
		{"a pool is full", func(*world) {
			m.fail(func(r *block.Request) error {
				if r.Op == block.Write || r.Op == block.Update {
					return block.ErrNoSpace
				}
				return nil
			})
		}, with(serves(), write, "7/2707"), standsBy(0), "", ""},
		{"a threshold", func(w *world) { m.fail(nil); w.a.hosts.SoftThreshold(w.volume) }, serves(), standsBy(0), "3807", ""},
		{"the last member's medium fails", func(*world) {
			m.fail(func(r *block.Request) error {
				if r.Len > 0 {
					return fmt.Errorf("broken: %w", block.ErrMedium)
				}
				return nil
			})
		}, with(serves(), read, "3/1100", write, "3/0c00", zero, "3/0c00", flush, "3/0c00"), standsBy(0), "", ""},
		{"it is mended", func(*world) { m.fail(nil) }, serves(), standsBy(0), "", ""},
		{"members have accepted a newer epoch", func(*world) { m.fence() }, fenced(), with(standsBy(0), size, "busy", reserved, "dropped", reset, "refused"), "", ""},
		{"A steps down", func(w *world) { raft(0)(w); w.a.hosts.StandbyAll() }, coming(2), alone(0), "dropped", ""},
		{"B is elected", raft(groupB), coming(2), alone(0), "", ""},
		{"B's take-over is applied", catalog(groupB, 0), alone(0xf), coming(2), "2a06", "2a06"},
		{"B serves", func(w *world) { m = w.b.serve() }, standsBy(0xf), serves(), "", ""},
		{"the catalog says so, too", catalog(groupB, groupB), standsBy(0), serves(), "2a06", "2a06"},
		{"B hands over", func(w *world) { w.b.hosts.StandbyAll() }, alone(0), coming(2), "", "dropped"},
		{"to A", raft(groupA), alone(0), coming(2), "", ""},
		{"A takes over", catalog(groupA, 0), coming(2), alone(0xf), "2a06", "2a06"},
		{"and serves", func(w *world) { m = w.a.serve() }, serves(), standsBy(0xf), "", ""},
		{"as the catalog says", catalog(groupA, groupA), serves(), standsBy(0), "2a06", "2a06"},
		{"several things happen, one of them twice", func(w *world) {
			w.catalog(groupA, 0)
			w.a.hosts.SoftThreshold(w.volume)
			w.catalog(groupA, groupA)
			w.size *= 2
			w.a.serve()
			w.catalog(groupA, groupA)
		}, serves(), standsBy(0), "2a06 3807 2a09", "2a06 2a09"},
		{"it grows, where it is served", func(w *world) { w.size *= 2; w.a.serve() }, serves(), standsBy(0), "2a09", ""},
		{"and in the catalog", catalog(groupA, groupA), serves(), standsBy(0), "", "2a09"},
		{"what was acknowledged in memory may be lost", func(w *world) { w.a.serveLost(1) }, serves(), standsBy(0), "2901", ""},
	}
}

// with is a state in which some kinds of commands come to something else.
func with(s seen, pairs ...any) seen {
	want := map[kind]string{}
	for k, v := range s.want {
		want[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		want[pairs[i].(kind)] = pairs[i+1].(string)
	}
	s.want = want
	return s
}

// TestTransitions: at every step of a failover, and of all other trouble, every command at every node comes to what the table says, on
// sessions that were there before the step and on new ones.
func TestTransitions(t *testing.T) {
	for _, mapped := range []bool{false, true} {
		t.Run(map[bool]string{false: "exported", true: "mapped"}[mapped], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, mapped)
				defer w.close()
				var oldA, oldB *initiator
				for _, s := range scenario() {
					t.Logf("%s: A %s, B %s", s.name, s.a.name, s.b.name)
					s.do(w)
					oldA, oldB = w.a.told(s.name, s.a, oldA, s.oldA), w.b.told(s.name, s.b, oldB, s.oldB)
					w.a.look(s.name, s.a, oldA)
					w.b.look(s.name, s.b, oldB)
					if oldA, oldB = nil, nil; s.a.login == iscsi.LoginOK {
						oldA, oldB = w.a.fresh(s.name, nil), w.b.fresh(s.name, nil)
					}
				}
			})
		})
	}
}

// told checks what a session was told of a step that was there before it, and returns it if it is there still.
func (n *worldNode) told(at string, s seen, old *initiator, want string) *initiator {
	t := n.w.t
	t.Helper()
	if old == nil {
		return nil
	}
	at = fmt.Sprintf("%s: node %d, which %s", at, n.group, s.name)
	got, dropped := old.attentions()
	if dropped {
		got = append(got, "dropped")
		if !slices.Equal(old.async, []byte{iscsi.AsyncDropConnection}) {
			t.Errorf("%s: events %v before the connection ended", at, old.async)
		}
	}
	if g := strings.Join(got, " "); g != want {
		t.Errorf("%s: an old session has got %q, want %q", at, g, want)
	}
	if dropped {
		old.conn.Close()
		return nil
	}
	return old
}

// look checks what is seen of a node after a step, first on a session that was there before. What it leaves of resets to sessions of the
// other node is told there.
func (n *worldNode) look(at string, s seen, old *initiator) {
	t := n.w.t
	t.Helper()
	at = fmt.Sprintf("%s: node %d, which %s", at, n.group, s.name)
	if old != nil {
		if a, dropped := old.attentions(); dropped || len(a) > 0 && !slices.Equal(a, []string{"2903"}) {
			t.Errorf("%s: the other node's resets have told an old session %v, dropped: %v", at, a, dropped)
		}
		n.table(at+", old session", s, old)
		old.conn.Close()
	}
	d, status := n.connect(portName(9), true)
	if status != s.login {
		t.Errorf("%s: discovery: %v, want %v", at, status, s.login)
	}
	if d != nil {
		d.conn.Close()
	}
	l := target.Login{Initiator: "iqn.h", Portal: n.addr}
	if d := n.hosts.Discover(l); n.w.known && (len(d) != 1 || len(d[0].Portals) != 2) {
		t.Errorf("%s: discovered %v", at, d)
	}
	i, status := n.connect(portName(1), false)
	if status != s.login {
		t.Errorf("%s: login %v, want %v", at, status, s.login)
	}
	if i != nil {
		n.table(at, s, n.fresh(at, i))
	}
}

// fresh takes the first unit attention of a session, a new one if there is none.
func (n *worldNode) fresh(at string, i *initiator) *initiator {
	n.w.t.Helper()
	if i == nil {
		var status iscsi.LoginStatus
		if i, status = n.connect(portName(1), false); i == nil {
			n.w.t.Fatalf("%s: login %v", at, status)
		}
	}
	if a, dropped := i.attentions(); dropped || !slices.Equal(a, []string{"2900"}) {
		n.w.t.Errorf("%s: a new session has got %v, dropped: %v", at, a, dropped)
	}
	return i
}

// table runs all commands.
func (n *worldNode) table(at string, s seen, i *initiator) {
	t := n.w.t
	t.Helper()
	for _, c := range probes() {
		if c.kind == write {
			n.w.prepare(&c)
		}
		got, took, data := i.do(&c)
		want := s.want[c.kind]
		if want == "" {
			want = "good"
		}
		if got != want {
			t.Errorf("%s: %s: %s, want %s", at, c.name, got, want)
		}
		if early := want != "busy" && want != "dropped" && took > 0; early || want == "busy" && took != worldHold {
			t.Errorf("%s: %s: %s after %v", at, c.name, got, took)
		}
		if got == "good" {
			n.check(at, s, &c, data)
		}
		if got == "dropped" {
			if !slices.Equal(i.async, []byte{iscsi.AsyncDropConnection}) {
				t.Errorf("%s: %s: events %v before the connection ended", at, c.name, i.async)
			}
			i.conn.Close()
			i = n.fresh(at, nil)
		}
	}
	for _, f := range []struct {
		f    target.Function
		want string
	}{{target.AbortTask, "response 1"}, {target.AbortTaskSet, "response 0"}, {target.ClearTaskSet, "response 0"}, {target.ClearACA, "response 5"},
		{target.TaskReassign, "response 4"}} {
		if got, _ := i.await(i.manage(f.f, 4711), time.Minute); got != f.want {
			t.Errorf("%s: task management function %d: %s, want %s", at, f.f, got, f.want)
		}
	}
	begin, want := time.Now(), "response 0"
	if s.want[reset] == "refused" || s.want[reset] == "busy" {
		want = "response 255"
	}
	got, _ := i.await(i.manage(target.LogicalUnitReset, 0), time.Minute)
	if took := time.Since(begin); got != want || s.want[reset] == "busy" && took != worldHold || s.want[reset] != "busy" && took > 0 {
		t.Errorf("%s: reset: %s after %v, want %s", at, got, took, want)
	}
	if a, dropped := i.attentions(); dropped || !slices.Equal(a, []string{"2903"}) {
		t.Errorf("%s: after a reset: %v, dropped: %v", at, a, dropped)
	}
	i.conn.Close()
	synctest.Wait()
}

// check looks at what a command has brought that was GOOD: a host keeps it.
func (n *worldNode) check(at string, s seen, c *probe, data []byte) {
	t := n.w.t
	t.Helper()
	bad := func() { t.Errorf("%s: %s: %x", at, c.name, data) }
	switch c.name {
	case "INQUIRY":
		if len(data) < 36 || data[0] != 0 || data[5]&0x30 != 0x10 || string(data[8:14]) != "PMSAPP" {
			bad()
		}
	case "REPORT LUNS":
		if len(data) != 24 || data[17] != 1 {
			bad()
		}
	case "REPORT TARGET PORT GROUPS":
		states := map[byte]byte{data[7]: data[4] & 0xf, data[19]: data[16] & 0xf}
		if len(data) != 28 || states[byte(n.group)] != s.own || states[groupA+groupB-byte(n.group)] != s.other {
			t.Errorf("%s: %v, want own %x, other %x", at, states, s.own, s.other)
		}
	case "READ CAPACITY(10)":
		if len(data) != 8 || !bytes.Equal(data, []byte{0, 0, byte((n.w.size - 1) >> 17), 0xff, 0, 0, 2, 0}) {
			bad()
		}
	case "READ CAPACITY(16)":
		if len(data) != 32 || data[6] != byte((n.w.size-1)>>17) || data[7] != 0xff || data[10] != 2 || data[13] != 3 || data[14] != 0xc0 {
			bad()
		}
	case "MODE SENSE(6)", "MODE SENSE(10)":
		if len(data) < 24 {
			bad()
		}
	case "INQUIRY, page b0":
		if data[5] != 8 || data[7] != 8 || data[21] == 0 || data[26] == 0 || data[31] != 8 {
			bad()
		}
	case "INQUIRY, page b2":
		if data[5] != 0xe4 || data[4] != 11 {
			bad()
		}
	}
	if c.kind == write && !bytes.Equal(n.w.data.Bytes(0, 512), c.out[len(c.out)-512:]) {
		t.Errorf("%s: %s: GOOD, and nothing was written", at, c.name)
	}
}

// prepare puts there what a command that writes is to meet: what COMPARE AND WRITE compares with, else zeros.
func (w *world) prepare(c *probe) {
	b := make([]byte, 512)
	copy(b, c.out[:len(c.out)-512])
	w.data.Submit(&block.Request{Op: block.Write, Len: 512, Data: b, Done: func(*block.Request) {}})
}

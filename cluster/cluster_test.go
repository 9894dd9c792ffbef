package cluster

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

func TestMain(m *testing.M) {
	// memberlist's own goroutines end a moment after Shutdown.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/go-metrics.(*InmemSink).rollup"),
		goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// machine is a host whose node runs at times.
type machine struct {
	t    *testing.T
	dir  string
	addr string
	name string
	pool ids.Pool
	c    *Cluster

	written []Written // what its pools have recorded

	mu     sync.Mutex
	failed error
}

func (m *machine) Leads()                     {}
func (m *machine) Follows()                   {}
func (m *machine) Changed()                   {}
func (m *machine) Opinion(ids.Node, Liveness) {}
func (m *machine) Failed(err error) {
	m.mu.Lock()
	m.failed = err
	m.mu.Unlock()
}

func newMachine(t *testing.T, i int) *machine {
	t.Helper()
	ip := fmt.Sprintf("127.0.0.%d:0", i+1)
	l, err := net.Listen("tcp", ip)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return &machine{t: t, dir: t.TempDir(), addr: l.Addr().String(), name: fmt.Sprint("node", i), pool: ids.NewPool()}
}

func (m *machine) open() error {
	m.t.Helper()
	log := slog.New(slog.NewTextHandler(testLog{m.t, m.name}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	c, err := Open(m.t.Context(), Config{Dir: m.dir, Listen: m.addr, Advertise: m.addr, Observer: m, Log: log, Written: m.written,
		HeartbeatTimeout: 300 * time.Millisecond, ElectionTimeout: 300 * time.Millisecond, LeaseTimeout: 200 * time.Millisecond,
		About: func() catalog.Node {
			return catalog.Node{Name: m.name, Pools: []catalog.Pool{{ID: m.pool, Path: "/" + m.name}}, Release: "test"}
		}}, map[string]Handler{"echo": Handle(func(_ context.Context, from ids.Node, s string) (string, error) {
		return from.String() + " " + s, nil
	})})
	m.c = c
	return err
}

func (m *machine) start() {
	m.t.Helper()
	if err := m.open(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(m.stop)
}

func (m *machine) stop() {
	if m.c != nil {
		m.c.Close()
		m.c = nil
	}
}

type testLog struct {
	t    *testing.T
	name string
}

func (l testLog) Write(b []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Logf("%s %s", l.name, b)
	}
	return len(b), nil
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func leader(all []*machine) *machine {
	for _, m := range all {
		if m.c != nil && m.c.IsLeader() {
			return m
		}
	}
	return nil
}

// form makes a cluster.
func form(t *testing.T, n int) (all []*machine) {
	t.Helper()
	for i := range n {
		m := newMachine(t, i)
		all = append(all, m)
		if i == 0 {
			if _, err := Init(m.dir, m.name, m.addr, nil, func(*x509.Certificate) (string, error) { return "admin", nil }); err != nil {
				t.Fatal(err)
			}
			m.start()
			eventually(t, "the first leads", func() bool { return leader(all) != nil && len(m.c.State().Nodes) == 1 })
			continue
		}
		token, _, err := all[0].c.NewToken(t.Context(), false, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Join(t.Context(), m.dir, m.name, token, false); err != nil {
			t.Fatal(err)
		}
		m.start()
		voters(t, all, i+1)
		if i == 1 { // used
			if _, err := Join(t.Context(), t.TempDir(), "other", token, false); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "used already") {
				t.Fatal(err)
			}
		}
	}
	return all
}

// voters waits until all machines know n voters that are in the catalog.
func voters(t *testing.T, all []*machine, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " voters"), func() bool {
		for _, m := range all {
			if m.c == nil {
				continue
			}
			count := 0
			for id, v := range m.c.Voters() {
				if _, known := m.c.State().Nodes[id]; v && known {
					count++
				}
			}
			if _, known := m.c.State().Nodes[m.c.Self()]; !known || !m.c.Voters()[m.c.Self()] {
				return false
			}
			if count != n || len(m.c.State().Nodes) != n || len(m.c.Voters()) != n {
				return false
			}
		}
		return true
	})
}

func propose(t *testing.T, all []*machine, text string) {
	t.Helper()
	eventually(t, "a proposal is committed", func() bool {
		l := leader(all)
		if l == nil {
			return false
		}
		_, err := l.c.Propose(t.Context(), catalog.Command{Request: text, Body: catalog.AddEvents{Events: []catalog.Event{{Text: text}}}})
		return err == nil
	})
}

func TestThreeNodes(t *testing.T) {
	all := form(t, 3)
	propose(t, all, "one")
	old := leader(all)
	// A call to a node, and one to the leader from another.
	for _, m := range all {
		var s string
		if m != old {
			if err := m.c.CallLeader(t.Context(), "echo", "x", &s); err != nil || s != m.c.Self().String()+" x" {
				t.Fatal(s, err)
			}
		}
		if err := old.c.Call(t.Context(), m.c.Self(), "none", "x", &s); !errors.Is(err, ErrCall) || !strings.Contains(err.Error(), "not known here") {
			t.Fatal(err)
		}
	}
	old.stop()
	propose(t, all, "two")
	old.start()
	eventually(t, "the former leader has what it missed", func() bool {
		e := old.c.State().Events
		return len(e) == 2 && e[1].Text == "two"
	})
	l := leader(all)
	for _, m := range all {
		if m != l {
			if err := l.c.Transfer(t.Context(), m.c.Self()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the leadership is transferred", func() bool { return leader(all) == m })
			break
		}
	}
	eventually(t, "gossip finds all alive", func() bool {
		n := 0
		for _, l := range all[0].c.Opinions() {
			if l == Alive {
				n++
			}
		}
		return n == 3
	})
}

// TestLostCatalog: nodes whose catalog was lost, damaged or reverted come back under new identities (invariant 9).
func TestLostCatalog(t *testing.T) {
	all := form(t, 3)
	propose(t, all, "one")
	for name, harm := range map[string]func(m *machine, old []byte){
		"lost":    func(m *machine, _ []byte) { os.Remove(catalogPath(m.dir)) },
		"emptied": func(m *machine, _ []byte) { os.WriteFile(catalogPath(m.dir), nil, 0o600) },
		"garbage": func(m *machine, _ []byte) {
			os.WriteFile(catalogPath(m.dir), []byte(strings.Repeat("garbage!", 8192)), 0o600)
		},
		"reverted": func(m *machine, old []byte) { os.WriteFile(catalogPath(m.dir), old, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			m := all[0]
			if leader(all) == m {
				if err := m.c.Transfer(t.Context(), all[1].c.Self()); err != nil {
					t.Fatal(err)
				}
				eventually(t, "another leads", func() bool { l := leader(all); return l != nil && l != m })
			}
			was := m.c.Self()
			m.stop()
			old, err := os.ReadFile(catalogPath(m.dir))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.open(); err != nil {
				t.Fatal(err)
			}
			if m.c.Self() != was {
				t.Fatal("a new identity without evidence")
			}
			propose(t, all, name)
			last := func() bool {
				for _, e := range m.c.State().Events {
					if e.Text == name {
						return true
					}
				}
				return false
			}
			eventually(t, "it has the newest", last)
			m.stop()
			harm(m, old)
			if err := m.open(); err != nil {
				t.Fatal(err)
			}
			if m.c.Self() == was {
				t.Fatal("it came back under its old identity")
			}
			voters(t, all, 3)
			eventually(t, "it has the newest again", last)
			eventually(t, "the old identity is no member", func() bool {
				_, still := m.c.State().Nodes[was]
				return !still
			})
		})
	}
}

func TestRemoveNode(t *testing.T) {
	all := form(t, 2)
	l, other := all[0], all[1]
	if !l.c.IsLeader() {
		l, other = other, l
	}
	if err := l.c.RemoveNode(t.Context(), "r", other.c.Self()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the removed node knows", func() bool {
		other.mu.Lock()
		defer other.mu.Unlock()
		return errors.Is(other.failed, ErrRemoved)
	})
	voters(t, []*machine{l}, 1)
}

// TestRemovedWhileDown: a node that was away when it was removed learns of it when it comes back, though nobody lets it in.
func TestRemovedWhileDown(t *testing.T) {
	all := form(t, 3)
	l := leader(all)
	i := slices.IndexFunc(all, func(m *machine) bool { return m != l })
	other, gone := all[i], all[i].c.Self()
	other.stop()
	if err := l.c.RemoveNode(t.Context(), "r", gone); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all know that it is removed", func() bool {
		return !slices.ContainsFunc(all, func(m *machine) bool { return m != other && !m.c.wasRemoved(gone) })
	})
	l.stop() // which may send it the log still
	l.start()
	eventually(t, "somebody leads", func() bool { return leader(all) != nil })
	other.start()
	eventually(t, "the removed node knows", func() bool {
		other.mu.Lock()
		defer other.mu.Unlock()
		return errors.Is(other.failed, ErrRemoved)
	})
}

func TestBadInput(t *testing.T) {
	m := newMachine(t, 0)
	if err := m.open(); !errors.Is(err, ErrNoCluster) || !strings.Contains(err.Error(), "pmsapp init") {
		t.Fatal(err)
	}
	made := func() error {
		_, err := Init(m.dir, m.name, m.addr, nil, func(*x509.Certificate) (string, error) { return "admin", nil })
		return err
	}
	if err := made(); err != nil {
		t.Fatal(err)
	}
	if err := made(); !errors.Is(err, ErrMember) {
		t.Fatal(err)
	}
	m.start()
	twice := &machine{t: t, dir: m.dir, addr: m.addr, name: m.name}
	if err := twice.open(); !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
	// A port in use.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m.stop()
	free := m.addr
	m.addr = l.Addr().String()
	if err := m.open(); err == nil || !strings.Contains(err.Error(), "address.cluster") {
		t.Fatal(err)
	}
	m.addr = free
	m.start()
	eventually(t, "it leads", m.c.IsLeader)
	// Garbage on the port.
	for _, g := range []string{"GET / HTTP/1.0\r\n\r\n", strings.Repeat("\x00", 4096), "\x16\x03\x01\xff\xff\x01"} {
		conn, err := net.Dial("tcp", m.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(g))
		conn.Close()
	}
	u, err := net.Dial("udp", m.addr)
	if err != nil {
		t.Fatal(err)
	}
	u.Write([]byte("garbage"))
	u.Close()
	token, _, err := m.c.NewToken(t.Context(), true, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	expired, _, err := m.c.NewToken(t.Context(), false, -time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	other := newJoinToken(m.c.id.CA, []string{m.addr})
	foreign := newJoinToken([]byte("another CA"), []string{m.addr})
	for name, c := range map[string]struct{ token, want string }{
		"garbage": {"x", "not a join token"},
		"short":   {"pmsapp-join.AAAA", "not complete"},
		"damaged": {token[:20] + "!" + token[21:], "damaged"},
		"wrong":   {other.String(), "not known here"},
		"expired": {expired, "has expired"},
		"witness": {token, "for a witness"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Join(t.Context(), t.TempDir(), "x", c.token, false); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), c.want) {
				t.Fatal(err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := Join(ctx, t.TempDir(), "x", foreign.String(), false); err == nil || !strings.Contains(err.Error(), "not a node of this cluster") {
		t.Fatal(err)
	}
	m.stop()
	if err := os.WriteFile(filepath.Join(m.dir, "identity"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.open(); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

func FuzzJoinToken(f *testing.F) {
	f.Add(newJoinToken([]byte("ca"), []string{"127.0.0.1:1"}).String())
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := parseJoinToken(s); err == nil && len(tok.addrs) == 0 {
			t.Fatal("no address")
		}
	})
}

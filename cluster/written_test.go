package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// TestCount: every durable transaction is counted, over restarts, and nothing else.
func TestCount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	want := func(n uint64) {
		t.Helper()
		if s.count() != n {
			t.Fatalf("%d transactions are counted, and there were %d", s.count(), n)
		}
	}
	want(0)
	logs := []*raft.Log{{Index: 1, Term: 1}, {Index: 2, Term: 3}}
	for _, err := range []error{s.StoreLogs(logs), s.SetUint64([]byte("CurrentTerm"), 4)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want(2)
	// A new leader has this node's suffix cut off; the entries that come instead may be of a lower term, and a crash may come before
	// them. By its last entry such a log looks as if it had been put back; by the count it does not.
	if err := s.DeleteRange(2, 2); err != nil {
		t.Fatal(err)
	}
	want(3)
	failed := errors.New("no")
	if err := s.update(func(*bbolt.Tx) error { return failed }); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	want(3)
	for range 3 { // to open it is no promise to anybody, and must not make up for what was lost
		s.close()
		if s, err = openStore(path); err != nil {
			t.Fatal(err)
		}
		want(3)
	}
	s.close()
}

// TestPoolsKnowTheCatalog: what the pools recorded is evidence against a catalog that was put back, though every peer has forgotten; it
// is none against one that lacks the newest epoch, nor against the catalog of another identity (invariant 9).
func TestPoolsKnowTheCatalog(t *testing.T) {
	all := form(t, 3)
	m := all[0]
	reopen := func() {
		t.Helper()
		m.stop()
		if err := m.open(); err != nil {
			t.Fatal(err)
		}
	}
	m.stop()
	old, err := os.ReadFile(catalogPath(m.dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	propose(t, all, "one")
	eventually(t, "it has the newest", func() bool { return len(m.c.State().Events) > 0 })
	was, now := m.c.Self(), m.c.Written()
	m.stop()
	propose(t, all[1:], "an epoch that m's log lacks, and its pool has")
	m.written = []Written{{}, now, {all[1].c.Self(), now.Count + 1000}}
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	if m.c.Self() != was {
		t.Fatal("a new identity without evidence")
	}
	reopen()
	if m.c.Self() != was {
		t.Fatal("a new identity without evidence")
	}
	m.written = []Written{m.c.Written(), {}}
	m.stop()
	if err := os.WriteFile(catalogPath(m.dir), old, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range all[1:] {
		o.stop()
	}
	for _, o := range all[1:] {
		if err := o.open(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the others have a leader", func() bool { return leader(all[1:]) != nil })
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	if m.c.Self() == was {
		t.Fatal("it came back under its old identity")
	}
	voters(t, all, 3)
	reopen() // what the pools have is of its former identity now
	voters(t, all, 3)
	if m.c.Self() == was || m.c.id.Former != was {
		t.Fatal("another identity, for what was of the former one")
	}
}

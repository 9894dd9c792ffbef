package appliance

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// TestMemory: what a state says is there after a start; nothing is, if the file is damaged or another cluster's.
func TestMemory(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	s := catalog.Empty()
	open := func(of ids.Cluster) *memory {
		t.Helper()
		m, err := openMemory(dir, of, log)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := open(ids.NewCluster())
	if err := m.keep(s); err != nil { // of which nothing is known yet
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "known")); err == nil {
		t.Fatal("nothing is remembered")
	}
	s.Cluster, s.Admin = ids.NewCluster(), bytes.Repeat([]byte{7}, 32)
	n := catalog.Node{ID: ids.NewNode(), Name: "node1"}
	s.Nodes = map[ids.Node]catalog.Node{n.ID: n}
	if err := m.keep(s); err != nil {
		t.Fatal(err)
	}
	want := known{s.Cluster, s.Admin, []knownNode{{n.ID, "node1", false}}}
	if d := cmp.Diff(want, open(s.Cluster).get()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(known{}, open(ids.NewCluster()).get()); d != "" {
		t.Error(d)
	}
	path := filepath.Join(dir, "known")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1
		if k, ok := parseKnown(b); ok {
			t.Fatalf("a flipped bit in byte %d: %+v", i, k)
		}
	}
	if err := os.WriteFile(path, whole[:len(whole)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	m = open(s.Cluster)
	if d := cmp.Diff(known{}, m.get()); d != "" {
		t.Error(d)
	}
	if err := m.keep(s); err != nil || cmp.Diff(want, open(s.Cluster).get()) != "" {
		t.Error(err)
	}
}

func FuzzKnown(f *testing.F) {
	body := []byte(`{"Cluster":"00000000000000000000000000000001","Admin":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","Nodes":[]}`)
	f.Add(append([]byte(knownCRC(body)+"\n"), body...))
	f.Add([]byte("pmsapp known 1 00000000\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, ok := parseKnown(b); ok && len(k.Admin) != 32 {
			t.Fatal(k)
		}
	})
}

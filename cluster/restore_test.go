package cluster

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// backup is what a machine's catalog is now, written and read.
func (m *machine) backup() *catalog.State {
	m.t.Helper()
	var b bytes.Buffer
	if err := catalog.WriteSnapshot(&b, m.c.State()); err != nil {
		m.t.Fatal(err)
	}
	s, err := ReadBackup(b.Bytes())
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// TestRestore: two of three machines lose their catalogs. One begins the cluster anew from a backup, the other joins it and takes the place
// that it had; the third, which still has its catalog, is of the former history, and nobody of the new one hears it.
func TestRestore(t *testing.T) {
	all := form(t, 3)
	propose(t, all, "before")
	l := leader(all)
	if _, err := l.c.Propose(t.Context(), catalog.Command{Body: catalog.TakeOver{Node: l.c.Self(), Epoch: 7}}); err != nil {
		t.Fatal(err)
	}
	v := catalog.Volume{ID: ids.NewVolume(), Lineage: ids.NewLineage(), Name: "v", Size: 1 << 20, Region: 1 << 20, Logical: 512}
	for _, m := range all[:2] {
		v.Replicas = append(v.Replicas, catalog.Place{Node: m.c.Self(), Pool: m.pool})
	}
	if _, err := l.c.Propose(t.Context(), catalog.Command{Body: catalog.CreateVolume{Epoch: 7, Volume: v}}); err != nil {
		t.Fatal(err)
	}
	deleted := v
	deleted.ID, deleted.Name = ids.NewVolume(), "deleted"
	if _, err := l.c.Propose(t.Context(), catalog.Command{Body: catalog.CreateVolume{Epoch: 7, Volume: deleted}}); err != nil {
		t.Fatal(err)
	}
	backup, id, old := l.backup(), l.c.ID(), [2]ids.Node{all[0].c.Self(), all[1].c.Self()}
	propose(t, all, "after")
	third := all[2]
	for _, m := range all {
		m.stop()
	}
	// What the third took from a leader, and nobody else has.
	store, err := openStore(catalogPath(third.dir))
	if err != nil {
		t.Fatal(err)
	}
	last, err := store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	gone, err := catalog.Encode(catalog.Command{Body: catalog.DeleteVolume{Epoch: 7, Volume: deleted.ID, Version: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.StoreLogs([]*raft.Log{{Index: last + 1, Term: 9, Type: raft.LogCommand, Data: gone}}), store.close()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(catalogPath(third.dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all[:2] {
		m.dir = t.TempDir()
	}
	if _, err := ReadOffline(t.TempDir()); !errors.Is(err, ErrBackup) {
		t.Fatal(err)
	}
	// What is left of the former cluster is as good as a backup, and newer.
	left, err := ReadOffline(third.dir)
	if err != nil || left.Cluster != id || len(left.Nodes) != 3 || left.Events[len(left.Events)-1].Text != "after" || left.Volumes[v.ID].Name != "v" ||
		left.Volumes[deleted.ID].Name != "" || left.Trash[deleted.ID].Volume.Name != "deleted" {
		t.Fatal(left, err)
	}
	if after, err := os.ReadFile(catalogPath(third.dir)); err != nil || !bytes.Equal(before, after) {
		t.Fatal("it was changed", err)
	}
	token := func(*x509.Certificate) (string, error) { return "another", nil }
	first, second := all[0], all[1]
	made, err := Init(first.dir, first.name, first.addr, backup, token)
	if err != nil || made.Cluster != id || made.Node == old[0] {
		t.Fatal(made, err)
	}
	for range 2 { // and again from its own log
		first.start()
		eventually(t, "the first leads, with its pools", func() bool {
			st := first.c.State()
			n := st.Nodes[first.c.Self()]
			return first.c.IsLeader() && len(n.Pools) == 1 && n.Pools[0].ID == first.pool && len(st.Former) == 2
		})
		propose(t, all[:1], "now")
		st := first.c.State()
		w := st.Volumes[v.ID]
		if st.Base == 0 || st.Epoch != st.Base || len(st.Nodes) != 3 || !w.Foreign || w.Replicas[0].Node != first.c.Self() || w.Replicas[1].Node != old[1] {
			t.Fatalf("%+v", st)
		}
		if e := st.Events; len(e) != 3 || e[0].Text != "before" || e[1].Kind != "catalog-restored" || e[2].Text != "now" {
			t.Fatalf("%+v", e)
		}
		if err := first.c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	first.start()
	eventually(t, "the first leads again", func() bool { return first.c.IsLeader() })

	join := func(m *machine, witness bool) error {
		t.Helper()
		k, _, err := first.c.NewToken(t.Context(), witness, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Join(t.Context(), m.dir, m.name, k, witness)
		return err
	}
	if err := join(second, true); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "node1 was a storage node") {
		t.Fatal(err)
	}
	if err := join(second, false); err != nil {
		t.Fatal(err)
	}
	second.start()
	eventually(t, "the second has its place, and votes", func() bool {
		st := second.c.State()
		w := st.Volumes[v.ID]
		return len(st.Former) == 1 && len(st.Nodes) == 3 && second.c.Voters()[second.c.Self()] && w.Replicas[1].Node == second.c.Self()
	})
	if err := join(second, false); !errors.Is(err, ErrMember) {
		t.Fatal(err)
	}
	taken := newMachine(t, 5)
	taken.name = second.name
	if err := join(taken, false); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "a node named node1 exists") {
		t.Fatal(err)
	}

	// The third has the newer catalog, and no quorum: nobody believes it.
	third.start()
	propose(t, all[:2], "while it is there")
	if st := first.c.State(); !st.IsFormer(third.c.Self()) || first.c.Voters()[third.c.Self()] || third.c.IsLeader() {
		t.Fatalf("%+v", st)
	}
	if err := join(third, false); !errors.Is(err, ErrMember) {
		t.Fatal(err)
	}
	third.stop()
	third.dir = t.TempDir()
	if err := join(third, false); err != nil {
		t.Fatal(err)
	}
	third.start()
	voters(t, all, 3)
	first.stop()
	propose(t, all, "with another leader")
	first.start()
	eventually(t, "all have everything", func() bool {
		for _, m := range all {
			if e := m.c.State().Events; e[len(e)-1].Text != "with another leader" || len(m.c.State().Former) != 0 {
				return false
			}
		}
		return true
	})
}

// TestReadBackup: what is cut, changed or empty is no backup.
func TestReadBackup(t *testing.T) {
	var b bytes.Buffer
	if err := catalog.WriteSnapshot(&b, catalog.Empty()); err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(b.Bytes())
	bad[30] ^= 1
	newer := catalog.Empty()
	newer.Cluster, newer.Index = ids.NewCluster(), 1
	newer.Nodes[ids.NewNode()] = catalog.Node{Name: "n", Version: catalog.Version + 1}
	var nb bytes.Buffer
	if err := catalog.WriteSnapshot(&nb, newer); err != nil {
		t.Fatal(err)
	}
	for _, x := range [][]byte{nil, []byte("x"), b.Bytes(), b.Bytes()[:b.Len()-1], bad, nb.Bytes()} {
		if _, err := ReadBackup(x); !errors.Is(err, ErrBackup) {
			t.Fatal(err)
		}
	}
}

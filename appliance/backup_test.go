package appliance

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pmsapp/appliance/config"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// TestSaveBackup: a backup is whole or not there, and has secrets: nobody else can read it, whatever is in the directory.
func TestSaveBackup(t *testing.T) {
	s := catalog.Empty()
	s.Cluster, s.Index = ids.NewCluster(), 7
	s.Nodes[ids.NewNode()] = catalog.Node{Name: "n", Pools: []catalog.Pool{{ID: ids.NewPool(), Path: "/x"}}}
	var b bytes.Buffer
	if err := catalog.WriteSnapshot(&b, s); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, other := filepath.Join(dir, "b"), filepath.Join(dir, "other")
	for _, f := range []string{file, file + ".new", other} {
		if err := os.WriteFile(f, []byte("what was there"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := SaveBackup(file, b.Bytes()[:b.Len()-1]); !errors.Is(err, cluster.ErrBackup) {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "what was there" {
		t.Fatal(string(got), err)
	}
	out, err := SaveBackup(file, b.Bytes())
	if err != nil || out.Index != 7 || out.Nodes != 1 || out.File != file {
		t.Fatal(out, err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	if back, err := ReadBackup(file); err != nil || back.Cluster != s.Cluster {
		t.Fatal(back, err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	if _, err := SaveBackup(link, b.Bytes()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(other); err != nil || string(got) != "what was there" {
		t.Fatal("the backup went where the link leads", err)
	}
	if _, err := SaveBackup(dir, b.Bytes()); err == nil || !strings.Contains(err.Error(), "no file") {
		t.Fatal(err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 4 {
		t.Fatal("something was left behind", names, err)
	}
	if _, err := ReadBackup(other); !errors.Is(err, cluster.ErrBackup) {
		t.Fatal(err)
	}
}

// TestMounted: a directory that was a pool, and is empty, is one whose disk is not mounted.
func TestMounted(t *testing.T) {
	empty, full := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := catalog.Empty()
	s.Nodes[ids.NewNode()] = catalog.Node{Name: "n", Pools: []catalog.Pool{{Path: empty}, {Path: full}, {Path: "/gone"}}}
	for pools, bad := range map[string]bool{full: false, empty + "/": true, "/gone": true, t.TempDir(): false} {
		cfg := config.Config{Name: "n"}
		cfg.Pools = []string{pools}
		if err := mounted(cfg, s); (err != nil) != bad {
			t.Error(pools, err)
		}
	}
	if err := mounted(config.Config{Name: "another", Pools: []string{empty}}, s); err != nil {
		t.Error(err)
	}
}

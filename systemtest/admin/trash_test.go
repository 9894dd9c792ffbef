package admin

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// TestTrash: a deleted volume keeps its bytes and its identity over a change of the leader and the death of a node that held it, and
// is gone, with its files, when its time is over.
func TestTrash(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Binary: bin, Nodes: 3, Change: func(_ int, f *config.Config) { f.Volumes.TrashKeep = 20 * time.Second }})
	cl := c.Client()
	made, err := cl.CreateVolume(t.Context(), api.NewVolume{Name: "v", Size: 4 << 20, Replicas: 2, Nodes: []string{"node1", "node2"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Export(t.Context(), api.NewLUN{Volume: "v"}); err != nil {
		t.Fatal(err)
	}
	want := content(4 << 20)
	d := login(t, c, "v")
	if err := d.WriteAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if err := cl.Unexport(t.Context(), "v"); err != nil {
		t.Fatal(err)
	}
	if err := cl.DeleteVolume(t.Context(), "v", false); err != nil {
		t.Fatal(err)
	}
	if err := cl.Transfer(t.Context(), "node3"); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(0); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(0); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "node3 to lead and nothing to be amiss", func(s api.Status) bool {
		return s.Leader == "node3" && len(s.Warnings) == 0 && len(s.Volumes) == 0
	})
	if v, err := cl.RestoreVolume(t.Context(), "v", api.Restore{As: "w"}); err != nil || v.ID != made.ID || v.Name != "w" {
		t.Fatal(err, v)
	}
	wait(t, c, "it to be in sync, and served", synced)
	if _, err := cl.Export(t.Context(), api.NewLUN{Volume: "w"}); err != nil {
		t.Fatal(err)
	}
	compare(t, c, "w", want)
	if err := cl.Unexport(t.Context(), "w"); err != nil {
		t.Fatal(err)
	}
	if err := cl.DeleteVolume(t.Context(), "w", false); err != nil {
		t.Fatal(err)
	}
	files := func() (all []string) {
		for _, n := range c.Nodes {
			found, err := filepath.Glob(filepath.Join(n.Config.Pools[0], "replicas", "*"))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, found...)
		}
		return all
	}
	kept := files()
	if len(kept) != 2 || !slices.ContainsFunc(kept, func(f string) bool { return filepath.Base(f) == made.ID }) {
		t.Fatal("in the trash its files are", kept)
	}
	if err := local.Wait(t.Context(), "its time to be over, and its files to be gone", 60*time.Second, func(context.Context) (bool, error) {
		return len(files()) == 0, nil
	}); err != nil {
		t.Error(err)
	}
	if all, err := cl.Trash(t.Context()); err != nil || len(all) != 0 {
		t.Error(err, all)
	}
	if _, err := os.Stat(c.Nodes[0].Config.Pools[0]); err != nil {
		t.Error(err)
	}
}

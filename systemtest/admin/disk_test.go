package admin

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/front"
	"pmsapp/appliance/local"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/program"
)

// content is what the volume of a test has.
func content(size int) []byte {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// login opens a LUN at every portal of the cluster.
func login(t *testing.T, c *local.Cluster, volume string) *initiator.Disk {
	t.Helper()
	portals := []string{c.Virtual}
	for _, n := range c.Nodes {
		portals = append(portals, n.Config.Address.Portal)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d, err := initiator.OpenDisk(ctx, initiator.DiskConfig{Portals: portals, Initiator: "iqn.2026-11.test:admin",
		Target: front.TargetName(volume), LUN: front.DefaultLUN, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// compare reads the whole volume through iSCSI.
func compare(t *testing.T, c *local.Cluster, volume string, want []byte) {
	t.Helper()
	d := login(t, c, volume)
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make([]byte, len(want))
	if err := d.ReadAt(ctx, got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("the volume has other bytes than were written")
	}
}

// synced tells whether every replica of every volume is in its in-sync set.
func synced(s api.Status) bool {
	for _, v := range s.Volumes {
		if !v.Served || slices.ContainsFunc(v.Replicas, func(r api.Replica) bool { return r.State != "in sync" }) {
			return false
		}
	}
	return s.Leader != "" && len(s.Volumes) > 0
}

func find(t *testing.T, dir, name string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == name {
			found = path
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("no %s below %s: %v", name, dir, err)
	}
	return found
}

// garble overwrites a file with noise, or cuts it.
func garble(t *testing.T, path string, cut bool) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if cut {
		b = b[:len(b)/3]
	} else {
		copy(b, content(len(b)))
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamage damages what one node has on its disks while it is down. The others serve; the node starts all the same, or says
// what to do; when its disk is well again, or its replica copied anew, all is as before.
func TestDamage(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Binary: bin, Nodes: 3})
	victim := c.Nodes[1]
	if _, err := c.Client().CreateVolume(t.Context(), api.NewVolume{Name: "v", Size: 4 << 20, Replicas: 2, Nodes: []string{"node1", "node2"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().Export(t.Context(), api.NewLUN{Volume: "v"}); err != nil {
		t.Fatal(err)
	}
	want := content(4 << 20)
	d := login(t, c, "v")
	if err := d.WriteAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	d.Close()
	state, pool := victim.Config.State, victim.Config.Pools[0]

	starts := func(string) {
		if err := c.Start(1); err != nil {
			t.Fatal(err)
		}
	}
	// without starts the node, which goes on without the pool and says why; then mends the pool.
	without := func(why string, mend func()) func(string) {
		return func(string) {
			starts("")
			s := wait(t, c, "node2 to start without its pool", func(s api.Status) bool {
				return slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "node2: ") && strings.Contains(w, why) })
			})
			if !slices.ContainsFunc(s.Volumes, func(v api.Volume) bool { return v.Served }) {
				t.Errorf("the volume is not served without node2's pool: %+v", s.Volumes)
			}
			if mend != nil {
				mend()
			}
		}
	}
	// refuses has the node say what to do, and mends it.
	refuses := func(mend func(), words ...string) func(string) {
		return func(string) {
			refused(t, bin, victim.File, []string{"serve"}, words...)
			mend()
			starts("")
		}
	}
	saved := map[string][]byte{}
	save := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		saved[path] = b
	}
	restore := func(path string) func() {
		return func() {
			if err := os.WriteFile(path, saved[path], 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	rename := func(from, to string) func() {
		return func() {
			if err := os.Rename(from, to); err != nil {
				t.Error(err)
			}
		}
	}
	super, epochs := filepath.Join(pool, "pmsapp-pool"), filepath.Join(pool, "epochs")
	identity, list := filepath.Join(state, "identity"), filepath.Join(state, "pools")
	catalogFile := filepath.Join(state, "catalog.db")

	for _, test := range []struct {
		name   string
		damage func()
		then   func(string)
	}{
		{"catalog cut", func() { garble(t, catalogFile, true) }, starts},
		{"catalog garbage", func() { garble(t, catalogFile, false) }, starts},
		{"catalog gone", func() { os.Remove(catalogFile) }, starts},
		{"identity garbage", func() { save(identity); garble(t, identity, false) }, refuses(restore(identity), "identity", "damaged")},
		{"list of pools garbage", func() { save(list); garble(t, list, false) }, refuses(restore(list), list, "is damaged", "disks of all pools are mounted")},
		{"epoch garbage", func() { garble(t, filepath.Join(state, "epoch"), false) },
			refuses(func() { os.Remove(filepath.Join(state, "epoch")) }, "epoch", "damaged", "or remove it, and what the pools say counts")},
		{"superblock garbage", func() { save(super); garble(t, super, false) }, without("damaged", restore(super))},
		{"superblock cut", func() { save(super); garble(t, super, true) }, without("damaged", restore(super))},
		{"epochs garbage", func() { save(epochs); garble(t, epochs, false) }, without("damaged", restore(epochs))},
		{"replica's superblock garbage", func() { garble(t, find(t, pool, "super"), false) }, starts},
		{"map garbage", func() { garble(t, find(t, pool, "map"), false) }, starts},
		{"map cut", func() { garble(t, find(t, pool, "map"), true) }, starts},
		{"data cut", func() { garble(t, find(t, pool, "data"), true) }, starts},
		{"pool's directory is gone", rename(pool, pool+".away"), without("no such file", rename(pool+".away", pool))},
		{"pool's disk is not mounted", func() { rename(pool, pool+".away")(); os.Mkdir(pool, 0o700) },
			without("is its disk mounted?", func() { os.Remove(pool); rename(pool+".away", pool)() })},
	} {
		t.Run(test.name, func(t *testing.T) {
			begun := time.Now()
			if err := c.Terminate(1, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			test.damage()
			if test.then == nil {
				t.Log(pmsapp(t, bin, victim.File, "serve"))
				return
			}
			test.then(test.name)
			wait(t, c, "all to be in sync again", func(s api.Status) bool { return synced(s) && len(s.Warnings) == 0 })
			compare(t, c, "v", want)
			t.Logf("%v", time.Since(begun).Round(10*time.Millisecond))
		})
	}
	// And from the replica that was damaged most.
	if err := c.Kill(0); err != nil {
		t.Fatal(err)
	}
	compare(t, c, "v", want)
}

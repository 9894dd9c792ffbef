package daemons

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance"
	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/internal/nfs3"
	"pmsapp/systemtest/program"
)

// other is the node of a volume's replica that is not on a node.
func other(v api.Volume, node string) string {
	for _, r := range v.Replicas {
		if r.Node != node {
			return r.Node
		}
	}
	return ""
}

// withdraw ends the exports of a volume that waits, by command: after its name was typed, and not before.
func withdraw(t *testing.T, c *local.Cluster, bin, volume string) {
	t.Helper()
	run := func(typed string) (string, error) {
		cmd := exec.CommandContext(t.Context(), bin, "--api", c.Nodes[0].Config.Address.API+","+c.Nodes[1].Config.Address.API, "--token-file", c.TokenFile(), "volume", "withdraw", volume)
		cmd.Stdin = strings.NewReader(typed + "\n")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("x"); err == nil || !strings.Contains(out, "nothing was done") {
		t.Fatalf("%v: %s", err, out)
	}
	if err := local.Wait(t.Context(), volume+" to be withdrawn", 30*time.Second, func(context.Context) (bool, error) {
		out, err := run(volume)
		if err != nil && !strings.Contains(out, "repeat the command") { // a reign has begun anew
			t.Fatalf("%v: %s", err, out)
		}
		return err == nil && strings.Contains(out, "Done: "+volume+" is not exported."), err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestWithdraw: the only replica of volumes that hosts use is lost for good, and the leader too. All that they were exported as can be withdrawn, they
// can be deleted, and the node can be removed.
func TestWithdraw(t *testing.T) {
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Nodes: 3, NFS: true})
	if _, err := c.WaitStatus(t.Context(), "node3 to lead", time.Minute, func(s api.Status) bool {
		if s.Leader != "node3" {
			c.Client().Transfer(t.Context(), "node3")
		}
		return s.Leader == "node3" && s.Nodes[2].State == "alive"
	}); err != nil {
		t.Fatal(err)
	}
	cl, root := mountShare(t, c, 1, "node3")
	d := export(t, c, api.NewVolume{Size: 16 << 20, Replicas: 1, Nodes: []string{"node3"}})
	if err := d.WriteAt(t.Context(), pattern(4096, 1), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().CreateVolume(t.Context(), api.NewVolume{Name: "m", Size: 1 << 20, Replicas: 1, Nodes: []string{"node3"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().AddHost(t.Context(), api.NewHost{Name: "h", IQNs: []string{"iqn.2026-11.app.pmsapp:other"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().MapLUN(t.Context(), api.NewMap{Volume: "m", Host: "h"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().WithdrawVolume(t.Context(), "v", api.Withdraw{Confirm: "v"}); !errors.Is(err, api.ErrConflict) || !strings.Contains(err.Error(), "pmsapp lun unexport") {
		t.Fatal(err)
	}
	if err := c.Kill(2); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { ended <- d.ReadAt(ctx, make([]byte, 4096), 0) }() // which is held
	go func() {
		_, err := cl.Create(ctx, nfs3.CreateArgs{Where: nfs3.DirOp{Dir: root, Name: "f"}, How: nfs3.Guarded})
		ended <- err
	}()
	if _, err := c.WaitStatus(t.Context(), "all to wait", time.Minute, func(s api.Status) bool {
		n := 0
		for _, v := range s.Volumes {
			if v.State == "waiting" {
				n++
			}
		}
		return s.Leader != "" && s.Leader != "node3" && n == 3
	}); err != nil {
		t.Fatal(err)
	}
	var would api.Withdrawn
	if err := local.Wait(t.Context(), "what a withdrawal would mean", 30*time.Second, func(ctx context.Context) (bool, error) {
		var err error
		would, err = c.Client().WithdrawVolume(ctx, "v", api.Withdraw{})
		return err == nil && !would.Done && slices.Equal(would.MayServe, []string{"node3"}), err
	}); err != nil {
		t.Fatalf("%v: %+v", err, would)
	}
	if !strings.Contains(would.Running, "node3 cannot be reached from here, and may still be serving it") {
		t.Fatalf("%+v", would)
	}
	for _, v := range []string{"s", "v"} {
		if err := c.Client().DeleteVolume(t.Context(), v, true); !errors.Is(err, api.ErrConflict) || !strings.Contains(err.Error(), "pmsapp volume withdraw "+v+" first") {
			t.Fatal(err)
		}
	}
	select {
	case err := <-ended:
		t.Fatal("a call that is held has ended before its volume was withdrawn:", err)
	default:
	}
	for _, v := range []string{"v", "m", "s"} {
		withdraw(t, c, bin, v)
		if err := c.Client().DeleteVolume(t.Context(), v, true); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) { // a client that finds nobody tries for ever
			t.Error("a client was answered for good:", err)
		}
	}
	if err := c.Client().RemoveNode(t.Context(), "node3"); err != nil {
		t.Fatal(err)
	}
}

// TestCatalogRestore: the catalogs of all nodes are lost, their pools are not. A backup from before the newest changes begins the cluster anew:
// nothing is served, moved or deleted by what it says; it is told which replicas are newer; and each volume goes on with the one that an admin
// names, with every acknowledged write that is on it.
func TestCatalogRestore(t *testing.T) {
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Nodes: 3, NFS: true})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cl, root := mountShare(t, c, 2)
	file, err := cl.Create(ctx, nfs3.CreateArgs{Where: nfs3.DirOp{Dir: root, Name: "f"}, How: nfs3.Guarded})
	if err != nil {
		t.Fatal(err)
	}
	write := func(b byte) {
		t.Helper()
		if _, err := cl.Write(ctx, file.File, 0, pattern(4096, b), nfs3.FileSync); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	d := export(t, c, api.NewVolume{Size: 16 << 20, Replicas: 2, Nodes: []string{"node1", "node2"}})
	if err := d.WriteAt(ctx, pattern(4096, 1), 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"trashed", "unwanted"} {
		if _, err := c.Client().CreateVolume(ctx, api.NewVolume{Name: name, Size: 1 << 20, Replicas: 1, Nodes: []string{"node2"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Client().DeleteVolume(ctx, "trashed", false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().Export(ctx, api.NewLUN{Volume: "unwanted"}); err != nil {
		t.Fatal(err)
	}

	// A backup by way of every node is the same catalog, or a newer one.
	backup := filepath.Join(t.TempDir(), "catalog")
	var about appliance.Backup
	for _, n := range c.Nodes {
		out, err := exec.CommandContext(ctx, bin, "--json", "--api", n.Config.Address.API, "--token-file", c.TokenFile(), "catalog", "backup", backup).Output()
		before := about
		if err != nil || json.Unmarshal(out, &about) != nil || about.Nodes != 3 || about.Volumes != 3 || about.Trash != 1 || about.Index < before.Index {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}

	// What the backup does not know: v has grown, and its newest replica is on node3; node1's lacks the last write.
	if _, err := c.Client().ResizeVolume(ctx, "v", api.NewSize{Size: 32 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().AddReplica(ctx, "v", api.NewReplica{Node: "node3", Instead: "node2"}); err != nil {
		t.Fatal(err)
	}
	late, err := c.Client().CreateVolume(ctx, api.NewVolume{Name: "late", Size: 8 << 20, Replicas: 2, Nodes: []string{"node2", "node3"}})
	if err != nil {
		t.Fatal(err)
	}
	volume := func(name string) (v api.Volume) {
		t.Helper()
		s, err := c.Client().Status(ctx, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, v = range s.Volumes {
			if v.Name == name {
				return v
			}
		}
		return api.Volume{}
	}
	wait := func(what string, f func() bool) {
		t.Helper()
		if err := local.Wait(ctx, what, time.Minute, func(context.Context) (bool, error) { return f(), nil }); err != nil {
			t.Fatalf("%v: %+v", err, volume("v"))
		}
	}
	inSync := func(v api.Volume, nodes ...string) bool {
		n := 0
		for _, r := range v.Replicas {
			if r.State == "in sync" && slices.Contains(nodes, r.Node) {
				n++
			}
		}
		return n == len(nodes) && len(v.Replicas) == n
	}
	wait("the move", func() bool { v := volume("v"); return inSync(v, "node1", "node3") && len(v.Gone) == 0 })
	d = login(t, c) // with the new size
	if err := c.Kill(0); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(ctx, pattern(4096, 2), 24<<20); err != nil {
		t.Fatal(err)
	}
	write(2)
	for i := range c.Nodes {
		if err := c.Kill(i); err != nil {
			t.Fatal(err)
		}
	}

	// What is left of a node that does not run is a backup too.
	offline := func(n *local.Node, file string) ([]byte, error) {
		return exec.CommandContext(ctx, bin, "--config", n.File, "catalog", "backup", "--offline", file).CombinedOutput()
	}
	left := filepath.Join(t.TempDir(), "left")
	if out, err := offline(c.Nodes[1], left); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i := range c.Nodes {
		if err := c.LoseState(i); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := offline(c.Nodes[1], left); err == nil || !strings.Contains(string(out), "there is no") {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.CommandContext(ctx, bin, "init", "--restore", c.Nodes[0].File, "--config", c.Nodes[0].File).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "no backup of a catalog") {
		t.Fatalf("%v: %s", err, out)
	}
	if err := c.Restore(ctx, backup); err != nil {
		t.Fatal(err)
	}
	if v := volume("v"); v.Served || !v.Restored || v.Size != 16<<20 {
		t.Fatalf("%+v", v)
	}
	st, err := c.Client().Status(ctx, false)
	if err != nil || !slices.Contains(st.Warnings, "node node2 has not joined since the catalog was restored") {
		t.Fatal(st.Warnings, err)
	}
	would := func(name, replica string) (out api.Forced, err error) {
		t.Helper()
		wait(name+" to be judged", func() bool {
			out, err = c.Client().ForceVolume(ctx, name, api.Force{Replica: replica})
			return err == nil || !strings.Contains(err.Error(), "repeat the command")
		})
		return out, err
	}
	alone, err := would("v", "node1")
	if err != nil || alone.Done || len(alone.Unseen) != 2 || !slices.Equal(alone.MayServe, []string{"node2", "node3"}) ||
		!strings.Contains(alone.Loss, "A newer one may be where nobody has looked: node node2 has not joined since the restore; node node3") {
		t.Fatalf("%v: %+v", err, alone)
	}
	for _, i := range []int{1, 2} {
		if err := c.Join(ctx, i); err != nil {
			t.Fatal(err)
		}
	}

	// node3's replica knows what node1's has missed.
	if _, err := would("v", "node1"); !errors.Is(err, api.ErrConflict) || !strings.Contains(err.Error(), "The replica on node3 has it on record as not in sync") {
		t.Fatal(err)
	}
	all, err := would("v", "")
	if err != nil || len(all.Replicas) != 3 || len(all.Unseen) != 0 {
		t.Fatalf("%v: %+v", err, all)
	}
	for _, r := range all.Replicas {
		switch r.Node {
		case "node1":
			if r.Why != "" || !slices.Equal(r.DoubtedBy, []string{"node3"}) || r.Epoch == 0 || r.Epoch >= 1e9 {
				t.Errorf("%+v", r)
			}
		case "node2":
			if r.Why != "there is no replica in its pool" {
				t.Errorf("%+v", r)
			}
		case "node3":
			if r.Why != "" || r.DoubtedBy != nil || r.InSync || r.Size != 32<<20 || r.Epoch == 0 {
				t.Errorf("%+v", r)
			}
		}
	}
	force := func(name, replica string) {
		t.Helper()
		if out, err := c.Client().ForceVolume(ctx, name, api.Force{Replica: replica, Confirm: name}); err != nil || !out.Done {
			t.Fatalf("%v: %+v", err, out)
		}
		wait(name+" to be served", func() bool { return volume(name).Served })
	}
	force("v", "node3")
	if v := volume("v"); v.Restored || v.Size != 32<<20 {
		t.Fatalf("%+v", v)
	}
	d = login(t, c)
	check(t, d, 0, 4096, 1)
	check(t, d, 24<<20, 4096, 2)
	if err := d.WriteAt(ctx, pattern(4096, 3), 8192); err != nil {
		t.Fatal(err)
	}
	wait("v to be whole again", func() bool { v := volume("v"); return len(v.Gone) == 0 && inSync(v, "node3", other(v, "node3")) })

	// The share has its file, and what was written into it since.
	s, err := would("s", "")
	if err != nil {
		t.Fatal(err)
	}
	best := slices.IndexFunc(s.Replicas, func(r api.ForceReplica) bool { return r.Why == "" && len(r.DoubtedBy) == 0 })
	force("s", s.Replicas[best].Node)
	cl.Close()
	again, h := remount(t, c)
	found, err := again.Lookup(ctx, h, "f")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Read(ctx, found.File, 0, 4096); err != nil || !bytes.Equal(got.Data, pattern(4096, 2)) {
		t.Fatalf("%v: %.8x", err, got.Data)
	}
	if _, err := again.Create(ctx, nfs3.CreateArgs{Where: nfs3.DirOp{Dir: h, Name: "g"}, How: nfs3.Guarded}); err != nil {
		t.Fatal(err)
	}

	// What was in the trash waits, too, once it is back; what nobody wants goes, though it is exported.
	if v, err := c.Client().RestoreVolume(ctx, "trashed", api.Restore{}); err != nil || !v.Restored {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := would("trashed", "node2"); err != nil {
		t.Fatal(err)
	}
	force("trashed", "node2")
	if err := c.Client().DeleteVolume(ctx, "unwanted", true); !errors.Is(err, api.ErrConflict) || !strings.Contains(err.Error(), "pmsapp volume withdraw unwanted first") {
		t.Fatal(err)
	}
	if err := c.Client().Unexport(ctx, "unwanted"); !errors.Is(err, api.ErrConflict) {
		t.Fatal(err)
	}
	withdraw(t, c, bin, "unwanted")
	if err := c.Client().DeleteVolume(ctx, "unwanted", true); err != nil {
		t.Fatal(err)
	}

	// What the backup does not know at all is told of, left alone, and comes back when it is asked for.
	unknown := func(s api.Status) bool {
		return slices.ContainsFunc(s.Warnings, func(w string) bool {
			return strings.Contains(w, "pmsapp volume adopt "+late.ID+" --name NAME brings it back, if it is missed")
		})
	}
	if _, err := c.WaitStatus(ctx, "a warning of the volume that is not known", 30*time.Second, unknown); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().AdoptVolume(ctx, strings.Repeat("ab", 16), api.Adopt{Name: "late"}); !errors.Is(err, api.ErrNotFound) {
		t.Fatal(err)
	}
	if v, err := c.Client().AdoptVolume(ctx, late.ID, api.Adopt{Name: "late"}); err != nil || !v.Restored || v.Size != 8<<20 || len(v.Replicas) != 2 {
		t.Fatalf("%+v, %v", v, err)
	}
	if v, err := c.Client().AdoptVolume(ctx, late.ID, api.Adopt{Name: "late"}); err != nil || len(v.Replicas) != 2 { // again
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := c.Client().AdoptVolume(ctx, late.ID, api.Adopt{Name: "other"}); !errors.Is(err, api.ErrConflict) || !strings.Contains(err.Error(), "is known, as late") {
		t.Fatal(err)
	}
	known, err := would("late", "")
	if err != nil || len(known.Replicas) != 2 || known.Replicas[0].Other || !slices.Equal(known.Replicas[0].With, []string{known.Replicas[1].Node}) {
		t.Fatalf("%+v, %v", known, err)
	}
	force("late", "node2")

	// The new history survives its leader, and the other replica has all of it.
	if err := c.Kill(c.Index("node3")); err != nil {
		t.Fatal(err)
	}
	wait("v to be served without node3", func() bool { return volume("v").Served })
	check(t, d, 24<<20, 4096, 2)
	check(t, d, 8192, 4096, 3)
	events, err := c.Client().Events(ctx, 0, 1000)
	if err != nil || !slices.ContainsFunc(events, func(e api.Event) bool { return e.Kind == "catalog-restored" }) {
		t.Error("no event says that the catalog was restored:", err)
	}
}

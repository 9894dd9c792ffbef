package daemons

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/appliance/front"
	"pmsapp/appliance/local"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/program"
)

// export makes a volume a LUN and logs in to it as a host that tries all portals.
func export(t *testing.T, c *local.Cluster, v api.NewVolume) *initiator.Disk {
	t.Helper()
	v.Name = "v"
	if _, err := c.Client().CreateVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().Export(t.Context(), api.NewLUN{Volume: "v"}); err != nil {
		t.Fatal(err)
	}
	return login(t, c)
}

// login opens the LUN of export at every portal.
func login(t *testing.T, c *local.Cluster) *initiator.Disk {
	t.Helper()
	portals := []string{c.Virtual}
	for _, n := range c.Nodes {
		portals = append(portals, n.Config.Address.Portal)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	d, err := initiator.OpenDisk(ctx, initiator.DiskConfig{Portals: portals, Initiator: "iqn.2026-11.app.pmsapp:test", Target: front.TargetName("v"),
		LUN: front.DefaultLUN, Timeouts: initiator.PeerTimeouts(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// settled waits until the volume is served and all its replicas are in sync.
func settled(t *testing.T, c *local.Cluster) api.Status {
	t.Helper()
	st, err := c.WaitStatus(t.Context(), "all replicas to be in sync", time.Minute, func(s api.Status) bool {
		ok := s.Leader != "" && len(s.Volumes) == 1 && s.Volumes[0].Served
		for _, n := range s.Nodes {
			ok = ok && n.State == "alive" && n.Voter
		}
		return ok && synced(s) == len(s.Volumes[0].Replicas)
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func synced(s api.Status) (n int) {
	for _, r := range s.Volumes[0].Replicas {
		if r.State == "in sync" {
			n++
		}
	}
	return n
}

func pattern(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

func check(t *testing.T, d *initiator.Disk, off int64, n int, b byte) {
	t.Helper()
	got := make([]byte, n)
	if err := d.ReadAt(t.Context(), got, off); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, pattern(n, b)) {
		t.Fatalf("%d bytes at %d are not all %#x", n, off, b)
	}
}

// TestOutOfReach: the only replica's node is gone. I/O is held, not failed; status and the event log say what is waited for; and
// the write that was held ends well when the node is back (invariant 5).
func TestOutOfReach(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	st, err := c.Client().Status(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	holder := "node3"
	if st.Leader == holder {
		holder = "node2"
	}
	d := export(t, c, api.NewVolume{Size: 64 << 20, Replicas: 1, Nodes: []string{holder}})
	if err := d.WriteAt(t.Context(), pattern(8192, 1), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(c.Index(holder)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.WriteAt(context.Background(), pattern(4096, 2), 4096) }()
	if _, err := c.WaitStatus(t.Context(), "status to name the node", 20*time.Second, func(s api.Status) bool {
		return len(s.Volumes) == 1 && !s.Volumes[0].Served && strings.Contains(s.Volumes[0].Reason+s.Volumes[0].Holding, holder)
	}); err != nil {
		t.Fatal(err)
	}
	if err := local.Wait(t.Context(), "an event that says so", 10*time.Second, func(ctx context.Context) (bool, error) {
		events, err := c.Client().Events(ctx, 0, 1000)
		for _, e := range events {
			if (e.Kind == "volume-waits" || e.Kind == "volume-holds") && e.Volume == "v" {
				return true, nil
			}
		}
		return false, err
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Fatalf("the write ended while its only replica was away: %v", err)
	case <-time.After(2 * time.Second):
	}
	if err := c.Start(c.Index(holder)); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal("the write that was held failed:", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the write is held although the node is back")
	}
	check(t, d, 0, 4096, 1)
	check(t, d, 4096, 4096, 2)
}

// mount makes a file system of its own for a pool, and returns where it is mounted. It needs root.
func mount(t *testing.T, dir, name, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a file system")
	}
	at, image := filepath.Join(dir, name), filepath.Join(dir, name+".image")
	for _, cmd := range [][]string{{"truncate", "-s", size, image}, {"mkfs.ext4", "-q", "-m", "0", image}, {"mkdir", at},
		{"mount", "-o", "loop", image, at}, {"rm", "-r", filepath.Join(at, "lost+found")}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			if cmd[0] == "mount" {
				t.Skipf("this machine mounts no image: %v: %s", err, out)
			}
			t.Fatalf("%v: %v: %s", cmd, err, out)
		}
		if cmd[0] == "mount" {
			t.Cleanup(func() {
				if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
					t.Errorf("umount: %v: %s", err, out)
				}
			})
		}
	}
	return at
}

// TestHungDisk: the disk of a member hangs while its node goes on answering, once a follower's and once the leader's own. I/O stands
// still for recovery_timeout and a little, no write fails, and when the disk is back so is the member.
func TestHungDisk(t *testing.T) {
	dir := t.TempDir()
	pools := []string{mount(t, dir, "pool1", "256M"), mount(t, dir, "pool2", "256M")}
	freeze := func(i int, f string) {
		t.Helper()
		if out, err := exec.Command("fsfreeze", f, pools[i]).CombinedOutput(); err != nil {
			t.Fatalf("fsfreeze %s: %v: %s", f, err, out)
		}
	}
	frozen := -1
	t.Cleanup(func() { // whatever happens, nobody must wait for the disk for ever
		if frozen >= 0 {
			exec.Command("fsfreeze", "-u", pools[frozen]).Run()
		}
	})
	c := program.Cluster(t, local.Config{Nodes: 3, Dir: filepath.Join(dir, "cluster"), Change: func(i int, cfg *config.Config) {
		if i < 2 {
			cfg.Pools = []string{pools[i]}
		}
	}})
	d := export(t, c, api.NewVolume{Size: 64 << 20, Replicas: 2, Nodes: []string{"node1", "node2"}})
	st := settled(t, c)
	leader := c.Index(st.Leader)
	if leader == 2 {
		t.Fatal("node3 leads, without any fault")
	}
	for round, hangs := range []int{1 - leader, leader} {
		settled(t, c)
		// A region that is marked, so that the write itself meets the disk, and one that is not.
		if err := d.WriteAt(t.Context(), pattern(4096, 1), 0); err != nil {
			t.Fatal(err)
		}
		frozen = hangs
		freeze(hangs, "-f")
		began := time.Now()
		for i := range 8 {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			err := d.WriteAt(ctx, pattern(4096, byte(0x10+round)), int64(i)*(5<<20))
			cancel()
			if err != nil {
				t.Fatalf("the disk of %s hangs, and a write failed: %v", c.Nodes[hangs].Name, err)
			}
		}
		if took := time.Since(began); took < 2*time.Second || took > 8*time.Second {
			t.Errorf("the disk of %s hung: the writes took %v", c.Nodes[hangs].Name, took)
		} else {
			t.Logf("the disk of %s hung: I/O stood still for %v", c.Nodes[hangs].Name, took)
		}
		st, err := c.Client().Status(t.Context(), false)
		if err != nil || synced(st) != 1 {
			t.Fatalf("%d members are in sync: %v", synced(st), err)
		}
		freeze(hangs, "-u")
		frozen = -1
		settled(t, c)
		for i := range 8 {
			check(t, d, int64(i)*(5<<20), 4096, byte(0x10+round))
		}
	}
}

// TestFullPool: a write that finds a member's pool full gets DATA PROTECT 27h/07h and removes nobody; what was there is there, and
// writes go on when space is free again (invariant 16).
func TestFullPool(t *testing.T) {
	dir := t.TempDir()
	small := mount(t, dir, "small", "128M")
	c := program.Cluster(t, local.Config{Nodes: 3, Dir: filepath.Join(dir, "cluster"), Change: func(i int, cfg *config.Config) {
		if i == 1 {
			cfg.Pools = []string{small}
		}
	}})
	d := export(t, c, api.NewVolume{Size: 256 << 20, Replicas: 2, Nodes: []string{"node1", "node2"}, OverSubscribe: true})
	const chunk = 1 << 20
	full := int64(-1)
	for off := int64(0); off < 256<<20; off += chunk {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := d.WriteAt(ctx, pattern(chunk, byte(off/chunk+1)), off)
		cancel()
		if err == nil {
			continue
		}
		var refused *initiator.StatusError
		if !errors.As(err, &refused) {
			t.Fatalf("writing at %d: %v", off, err)
		}
		if s := refused.Sense; s.Key != 7 || s.ASC != 0x27 || s.ASCQ != 7 {
			t.Fatalf("writing at %d: sense %x", off, refused.Sense)
		}
		full = off
		break
	}
	if full < 32<<20 {
		t.Fatalf("full at %d", full)
	}
	st, err := c.Client().Status(t.Context(), false)
	if err != nil || synced(st) != 2 {
		t.Fatalf("a full pool removed a member: %+v, %v", st.Volumes, err)
	}
	for off := int64(0); off < full; off += chunk {
		check(t, d, off, chunk, byte(off/chunk+1))
	}
	filling := false
	for begin := time.Now(); !filling && time.Since(begin) < 30*time.Second; time.Sleep(100 * time.Millisecond) {
		events, err := c.Client().Events(t.Context(), 0, 100)
		filling = err == nil && slices.ContainsFunc(events, func(e api.Event) bool { return e.Kind == "pool-filling" && e.Node == "node2" })
	}
	if !filling {
		t.Error("no event says that the pool fills up")
	}
	if err := d.Zero(t.Context(), 0, 16<<20); err != nil {
		t.Fatal("freeing space:", err)
	}
	if err := d.WriteAt(t.Context(), pattern(chunk, 0xee), full); err != nil {
		t.Fatal("writing after space was freed:", err)
	}
	check(t, d, 0, chunk, 0)
	check(t, d, full, chunk, 0xee)
	if st := settled(t, c); synced(st) != 2 {
		t.Fatal(st.Volumes)
	}
}

// TestPortalThatDoesNotServe: it accepts the login, answers INQUIRY, and NOT READY 04h/0Bh to everything that needs the medium.
func TestPortalThatDoesNotServe(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	export(t, c, api.NewVolume{Size: 64 << 20, Replicas: 2})
	st := settled(t, c)
	for i, n := range c.Nodes {
		if n.Name == st.Leader {
			continue
		}
		var s *initiator.Session
		// The export may not be known there yet: then the login is refused for the moment (03/01).
		if err := local.Wait(t.Context(), "the login", 5*time.Second, func(ctx context.Context) (bool, error) {
			var err error
			s, err = initiator.Dial(ctx, initiator.Config{Portal: c.Nodes[i].Config.Address.Portal, Initiator: "iqn.2026-11.app.pmsapp:test",
				Target: st.Volumes[0].LUN.Target, Log: slog.New(slog.DiscardHandler)})
			return err == nil, err
		}); err != nil {
			t.Fatal(err)
		}
		run := func(cdb []byte, in int) *initiator.Command {
			ended := make(chan struct{})
			cmd := &initiator.Command{LUN: uint64(st.Volumes[0].LUN.Number) << 48, CDB: cdb, DataIn: make([]byte, in),
				Done: func(*initiator.Command) { close(ended) }}
			s.Submit(cmd)
			<-ended
			return cmd
		}
		if cmd := run([]byte{0x12, 0, 0, 0, 96, 0}, 96); cmd.Err != nil || cmd.Status != 0 || !bytes.HasPrefix(cmd.DataIn[8:], []byte("PMSAPP")) {
			t.Errorf("INQUIRY: %v, status %#x, %q", cmd.Err, cmd.Status, cmd.DataIn)
		}
		read := []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0}
		var cmd *initiator.Command
		for range 5 { // unit attentions come first
			if cmd = run(read, 4096); cmd.Err != nil || initiator.ParseSense(cmd.Sense).Key != initiator.KeyUnitAttention {
				break
			}
		}
		if got := initiator.ParseSense(cmd.Sense); cmd.Err != nil || got.Key != initiator.KeyNotReady || got.ASC != 4 || got.ASCQ != 0x0b {
			t.Errorf("READ: %v, status %#x, sense %x", cmd.Err, cmd.Status, cmd.Sense)
		}
		s.Close()
		<-s.Done()
	}
}

// TestShutdown: after `cluster shutdown` the nodes come back in the opposite order, and nothing has to be copied.
func TestShutdown(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	d := export(t, c, api.NewVolume{Size: 64 << 20, Replicas: 3})
	if err := d.WriteAt(t.Context(), pattern(1<<20, 7), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Client().ShutdownCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := local.Wait(t.Context(), "the daemons to end", 20*time.Second, func(context.Context) (bool, error) {
		for _, n := range c.Nodes {
			if n.Running() {
				return false, nil
			}
		}
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	for i := len(c.Nodes) - 1; i >= 0; i-- {
		if err := c.Start(i); err != nil {
			t.Fatal(err)
		}
		if i > 0 { // one after another, as machines boot; two are a quorum, and do not wait for the third
			if err := pause(t.Context(), 300*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
	}
	settled(t, c)
	check(t, d, 0, 1<<20, 7)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestWitness: two storage nodes and a witness. The leader dies, the other storage node goes on, and the witness never leads.
func TestWitness(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3, Witness: true})
	d := export(t, c, api.NewVolume{Size: 64 << 20, Replicas: 2})
	for round := range 2 {
		st := settled(t, c)
		if err := d.WriteAt(t.Context(), pattern(4096, byte(round+1)), int64(round)*4096); err != nil {
			t.Fatal(err)
		}
		i := c.Index(st.Leader)
		if err := c.Kill(i); err != nil {
			t.Fatal(err)
		}
		next, err := c.WaitStatus(t.Context(), "the other storage node to serve", 20*time.Second, func(s api.Status) bool {
			return s.Leader != "" && s.Leader != st.Leader && len(s.Volumes) == 1 && s.Volumes[0].Served
		})
		if err != nil {
			t.Fatal(err)
		}
		if next.Leader == c.Nodes[2].Name {
			t.Fatal("the witness serves")
		}
		for k := range round + 1 {
			check(t, d, int64(k)*4096, 4096, byte(k+1))
		}
		if err := c.Start(i); err != nil {
			t.Fatal(err)
		}
	}
	st := settled(t, c)
	for _, n := range st.Nodes {
		if want := map[bool]string{true: "witness", false: "storage"}[n.Name == c.Nodes[2].Name]; n.Role != want {
			t.Error(fmt.Errorf("%s is a %s", n.Name, n.Role))
		}
	}
}

package admin

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/appliance/front"
	"pmsapp/appliance/local"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/program"
)

// TestLife is what an admin does to a running cluster at bad moments.
func TestLife(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Binary: bin, Nodes: 3})
	first := c.Nodes[0].File
	ok := func(args ...string) string {
		t.Helper()
		out, err := pmsapp(t, bin, first, args...)
		if err != nil {
			t.Fatalf("pmsapp %s: %s", strings.Join(args, " "), out)
		}
		return out
	}
	ok("volume", "create", "v", "--size", "8M", "--replicas", "3")
	ok("volume", "create", "w", "--size", "8M", "--nodes", "node1,node2")
	ok("lun", "export", "v")

	t.Run("unexport under I/O", func(t *testing.T) {
		d := login(t, c, "v")
		ctx, cancel := context.WithCancel(t.Context())
		var load sync.WaitGroup
		writes := 0
		started := make(chan struct{})
		load.Go(func() {
			b := content(64 << 10)
			for ctx.Err() == nil {
				if err := d.WriteAt(ctx, b, 0); err == nil {
					if writes++; writes == 10 {
						close(started)
					}
				}
			}
		})
		<-started
		begun := time.Now()
		ok("lun", "unexport", "v")
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("unexport took %v", took)
		}
		ok("lun", "export", "v") // and the host goes on
		was := login(t, c, "v")
		was.Close()
		cancel()
		load.Wait()
		d.Close()
	})

	t.Run("reload", func(t *testing.T) {
		good, err := os.ReadFile(first)
		if err != nil {
			t.Fatal(err)
		}
		reload := func(text []byte, says string) {
			t.Helper()
			if err := os.WriteFile(first, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(c.Nodes[0].PID(), syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if err := local.Wait(t.Context(), says, 10*time.Second, func(context.Context) (bool, error) {
				return strings.Contains(c.Nodes[0].Tail(20), says), nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		reload([]byte("[adress]\n"), "the configuration was not read again; what holds goes on holding")
		reload(append(good, "\nnonsense = = 1\n"...), "line ")
		reload(bytes.Replace(good, []byte(`noop_interval = "15s"`), []byte(`noop_interval = "20s"`), 1), "the configuration was read again")
		reload(good, "need a restart")
	})

	t.Run("an image larger than the volume", func(t *testing.T) {
		d := login(t, c, "v")
		defer d.Close()
		if err := d.WriteAt(t.Context(), make([]byte, 9<<20), 0); err == nil || !strings.Contains(err.Error(), "outside the disk") {
			t.Error(err)
		}
		if _, err := exec.LookPath("qemu-img"); err != nil {
			t.Skip("qemu-img is not here")
		}
		image := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(image, make([]byte, 9<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-n", "-O", "raw", image,
			"iscsi://"+c.Virtual+"/"+front.TargetName("v")+"/1").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "smaller") {
			t.Errorf("%v: %s", err, out)
		}
	})

	t.Run("a host that is not listed, a wrong secret", func(t *testing.T) {
		secret := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(secret, []byte("correct horse battery\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		ok("lun", "export", "w", "--initiator", "iqn.2026-01.test:a", "--chap-user", "u", "--chap-secret-file", secret)
		try := func(limit time.Duration, name, user, secret string) error {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			cfg := initiator.DiskConfig{Portals: []string{c.Virtual}, Initiator: name, Target: front.TargetName("w"),
				LUN: front.DefaultLUN, Log: slog.New(slog.DiscardHandler)}
			cfg.Own.Name, cfg.Own.Secret = user, []byte(secret)
			d, err := initiator.OpenDisk(ctx, cfg)
			if err == nil {
				d.Close()
			}
			return err
		}
		if err := try(20*time.Second, "iqn.2026-01.test:a", "u", "correct horse battery"); err != nil {
			t.Error(err)
		}
		for _, h := range [][3]string{{"iqn.2026-01.test:b", "u", "correct horse battery"}, {"iqn.2026-01.test:a", "u", "wrong horse battery"},
			{"iqn.2026-01.test:a", "x", "correct horse battery"}, {"iqn.2026-01.test:a", "", ""}} {
			if try(time.Second, h[0], h[1], h[2]) == nil {
				t.Errorf("%q could log in", h)
			}
		}
	})

	t.Run("a node is removed", func(t *testing.T) {
		refused(t, bin, first, []string{"node", "remove", "node3"}, "node3 is needed", "stop pmsapp there first")
		if err := c.Terminate(2, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		wait(t, c, "node3's replica to leave", func(s api.Status) bool {
			return slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "2 of 3 replicas") })
		})
		ok("node", "remove", "node3")
		refused(t, bin, c.Nodes[2].File, []string{"serve"}, "was removed from the cluster", "empty its state directory")
	})

	t.Run("no leader", func(t *testing.T) {
		if err := c.Kill(1); err != nil {
			t.Fatal(err)
		}
		wait(t, c, "the leader to step down", func(s api.Status) bool { return s.Leader == "" })
		begun := time.Now()
		refused(t, bin, first, []string{"volume", "create", "x", "--size", "8M"}, "leader", "repeat the command in a few seconds")
		for _, list := range []string{"volume", "pool"} { // which may be old, or empty though nothing is lost
			if out, _ := pmsapp(t, bin, first, list, "list"); !strings.Contains(out, "no node leads") || strings.Contains(out, "another node leads") {
				t.Errorf("%s list does not say that no node leads: %s", list, out)
			}
		}
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("that took %v", took)
		}
		if out := ok("status"); !strings.Contains(out, "no node leads: 2 of 2 voting nodes are needed") {
			t.Error(out)
		}
		if err := c.Start(1); err != nil {
			t.Fatal(err)
		}
		wait(t, c, "service again", synced)
	})

	t.Run("shutdown", func(t *testing.T) {
		ok("cluster", "shutdown")
		for _, n := range c.Nodes {
			if err := local.Wait(t.Context(), n.Name+" to stop", 15*time.Second, func(context.Context) (bool, error) { return !n.Running(), nil }); err != nil {
				t.Fatal(err)
			}
		}
		for _, i := range []int{1, 0} {
			if err := c.Start(i); err != nil {
				t.Fatal(err)
			}
		}
		wait(t, c, "service again", synced)
	})
}

// TestFull fills a cluster: the eighth node is refused, and keeps nothing.
func TestFull(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Binary: bin, Nodes: 7})
	tok, err := c.Client().NewToken(t.Context(), false)
	if err == nil {
		cfg := config.Default()
		cfg.Name, cfg.State = "node8", filepath.Join(t.TempDir(), "state")
		text, _ := cfg.Text()
		file := filepath.Join(t.TempDir(), "node8.toml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, bin, file, []string{"join", tok.Token}, "7")
		if _, err := os.Stat(filepath.Join(cfg.State, "identity")); err == nil {
			t.Error("a refused machine has an identity")
		}
	} else if !strings.Contains(err.Error(), "7") {
		t.Error(err)
	}
}

// TestReadOnly starts where nothing can be written, as another user.
func TestReadOnly(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("", "pmsapp-readonly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "pmsapp")
	b, err := os.ReadFile(program.Build(t))
	if err == nil {
		err = os.WriteFile(bin, b, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Name, cfg.State = "a", filepath.Join(dir, "state")
	cfg.Address = config.Address{Cluster: "127.0.0.1:0", API: "127.0.0.1:0", Portal: "127.0.0.1:0"}
	text, err := cfg.Text()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "a.toml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	nobody := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), bin, append(args, "--config", file)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%q succeeded: %s", args, out)
		}
		return string(out)
	}
	if out := nobody("init"); !strings.Contains(out, "permission denied") || !strings.Contains(out, cfg.State) {
		t.Error(out)
	}
	if out, err := pmsapp(t, bin, file, "init"); err != nil {
		t.Fatal(out)
	}
	// What is root's now, nobody else can read: least of all the keys.
	if out := nobody("serve"); !strings.Contains(out, "permission denied") || !strings.Contains(out, cfg.State) {
		t.Error(out)
	}
	if out := nobody("status"); !strings.Contains(out, "permission denied") {
		t.Error(out)
	}
}

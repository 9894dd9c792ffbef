package admin

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/appliance/local"
)

// program builds pmsapp as it ships.
func program(t testing.TB) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "pmsapp")
	cmd := exec.Command("go", "build", "-o", bin, "pmsapp/cmd/pmsapp")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building pmsapp: %v\n%s", err, out)
	}
	return bin
}

// form makes a cluster; its logs must tell of no panic.
func form(t *testing.T, bin string, nodes int, witness bool, change func(int, *config.Config)) *local.Cluster {
	t.Helper()
	c, err := local.New(local.Config{Binary: bin, Dir: t.TempDir(), Nodes: nodes, Witness: witness, Change: change, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		for _, n := range c.Nodes {
			b, _ := os.ReadFile(n.Log)
			if i := strings.Index(string(b), "panic"); i >= 0 || t.Failed() {
				t.Errorf("the log of %s: %s", n.Name, b[max(0, i):][:min(6000, len(b)-max(0, i))])
			}
		}
	})
	if err := c.Form(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// pmsapp runs a command of an admin and returns what it says.
func pmsapp(t *testing.T, bin, file string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, append(args, "--config", file)...)
	cmd.Stdin = strings.NewReader("")
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "panic:") || strings.Contains(string(out), "goroutine ") {
		t.Errorf("pmsapp %s: %s", strings.Join(args, " "), out)
	}
	return string(out), err
}

// refused runs a command that must fail and say all of words.
func refused(t *testing.T, bin, file string, args []string, words ...string) {
	t.Helper()
	out, err := pmsapp(t, bin, file, args...)
	if err == nil {
		t.Errorf("pmsapp %s succeeded: %s", strings.Join(args, " "), out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("pmsapp %s does not say %q: %s", strings.Join(args, " "), w, out)
		}
	}
}

// TestScripts runs the commands by scripts: testdata/alone without a cluster, the others on one of two storage nodes and
// a witness.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	bin := program(t)
	c := form(t, bin, 3, true, nil)
	setup := func(e *testscript.Env) error {
		e.Setenv("PATH", filepath.Dir(bin)+":"+os.Getenv("PATH"))
		e.Setenv("PMSAPP_CONFIG", c.Nodes[0].File)
		e.Setenv("TOKEN", c.TokenFile())
		for i, n := range c.Nodes {
			e.Setenv(fmt.Sprintf("API%d", i+1), n.Config.Address.API)
			e.Setenv(fmt.Sprintf("PORTAL%d", i+1), n.Config.Address.Portal)
			e.Setenv(fmt.Sprintf("CLUSTER%d", i+1), n.Config.Address.Cluster)
			e.Setenv(fmt.Sprintf("DIR%d", i+1), filepath.Dir(n.File))
		}
		// Files of a script may name what it cannot know.
		files, err := filepath.Glob(filepath.Join(e.WorkDir, "*.toml"))
		if err != nil {
			return err
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err == nil {
				err = os.WriteFile(f, []byte(os.Expand(string(b), e.Getenv)), 0o600)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	// One after the other: they share the cluster, and what they say is checked whole.
	for _, dir := range []string{"alone", "cluster", "trash", "hosts"} {
		t.Run(dir, func(t *testing.T) {
			testscript.Run(t, testscript.Params{Dir: filepath.Join("testdata", dir), Setup: setup})
		})
	}
	s, err := c.Client().Status(t.Context(), false)
	if err != nil || len(s.Warnings) > 0 {
		t.Errorf("after all scripts: %v %q", err, s.Warnings)
	}
}

// wait waits until the cluster's status is as f wants it.
func wait(t *testing.T, c *local.Cluster, what string, f func(api.Status) bool) api.Status {
	t.Helper()
	s, err := c.WaitStatus(t.Context(), what, 30*time.Second, f)
	if err != nil {
		t.Fatalf("%v; status: %+v", err, s)
	}
	return s
}

package admin

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

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
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Binary: bin, Nodes: 3, Witness: true})
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

package program

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"

	"pmsapp/appliance/local"
)

// Cluster forms a cluster of daemons that ends with the test. Without a Binary the program is built, without a Dir it is the test's. No log of
// a node may tell of a panic; of a test that failed, the log has the end of each.
func Cluster(t testing.TB, cfg local.Config) *local.Cluster {
	t.Helper()
	if cfg.Log = slog.New(slog.DiscardHandler); cfg.Binary == "" {
		cfg.Binary = Build(t)
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	c, err := local.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		for _, n := range c.Nodes {
			b, err := os.ReadFile(n.Log)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			if i := strings.Index(string(b), "panic"); i >= 0 {
				t.Errorf("the log of %s: %s", n.Name, b[i:min(i+6000, len(b))])
			}
			if t.Failed() {
				t.Logf("%s:\n%s", n.Name, n.Tail(40))
			}
		}
	})
	if err := c.Form(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

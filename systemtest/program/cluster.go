package program

import (
	"log/slog"
	"testing"

	"pmsapp/appliance/local"
)

// Cluster forms a cluster of daemons that ends with the test; of one that failed, the log has the end of what each said. Without a Binary
// the program is built, without a Dir it is the test's.
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
		if t.Failed() {
			for _, n := range c.Nodes {
				t.Logf("%s:\n%s", n.Name, n.Tail(40))
			}
		}
	})
	if err := c.Form(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

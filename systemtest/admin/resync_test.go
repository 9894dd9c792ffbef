package admin

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// TestResync has a replica miss a few regions, and pauses, limits and resumes its way back, over a hand-over: it gets what it missed,
// and the event says so.
func TestResync(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Binary: bin, Nodes: 3})
	ok := func(args ...string) string {
		t.Helper()
		out, err := pmsapp(t, bin, c.Nodes[0].File, args...)
		if err != nil {
			t.Fatalf("pmsapp %s: %s", strings.Join(args, " "), out)
		}
		return out
	}
	says := func(out string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("%q is not in:\n%s", w, out)
			}
		}
	}
	ok("volume", "create", "v", "--size", "64M", "--nodes", "node1,node2")
	ok("lun", "export", "v")
	want := content(64 << 20)
	d := login(t, c, "v")
	if err := d.WriteAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	says(ok("resync"), "as fast as they can be", "30ms", "8 MiB/s")
	refused(t, bin, c.Nodes[0].File, []string{"resync", "limit", "2000000"}, "is not 0 to")

	for end := time.Now().Add(13 * time.Second); time.Now().Before(end); { // until the marks of that are cleared
		status(t, c)
	}
	if err := c.Kill(1); err != nil {
		t.Fatal(err)
	}
	node2 := func(s api.Status) (r api.Replica) {
		for _, r = range s.Volumes[0].Replicas {
			if r.Node == "node2" {
				break
			}
		}
		return r
	}
	away := func(s api.Status) bool {
		return s.Leader != "" && len(s.Volumes) == 1 && s.Volumes[0].Served && !synced(s)
	}
	wait(t, c, "node2's replica to leave the set", away)
	const region = 1 << 20
	for _, off := range []int{3 * region, 17*region + 4096, 40 * region} {
		b := want[off : off+8192]
		for i := range b {
			b[i] ^= 0xff
		}
		if err := d.WriteAt(t.Context(), b, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	says(ok("resync", "pause"), "paused")
	ok("resync", "limit", "100")
	ok("hand-over", "node3") // what was said holds under another leader
	s := wait(t, c, "node3 to lead", func(s api.Status) bool { return s.Leader == "node3" && s.Volumes[0].Served })
	says(strings.Join(s.Warnings, "\n"), "resyncs and scrubs are paused", "limited to 100 MiB")
	if err := c.Start(1); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "the resync to begin", func(s api.Status) bool {
		return len(s.Volumes) == 1 && node2(s).State == "resync" && node2(s).Total > 0
	})
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if r := node2(status(t, c)); r.State == "in sync" || r.Copied > 0 {
			t.Fatalf("it is paused: %+v", r)
		}
	}
	ok("resync", "limit", "0")
	says(ok("resync", "resume"), "as fast as they can be")
	wait(t, c, "all to be in sync", synced)
	var m []string
	wait(t, c, "the event", func(api.Status) bool {
		m = regexp.MustCompile(`is in sync: ([0-9]+) KiB written of ([0-9]+) in`).FindStringSubmatch(ok("event", "list", "--limit", "1000"))
		return m != nil
	})
	wrote, _ := strconv.Atoi(m[1])
	looked, _ := strconv.Atoi(m[2])
	if wrote < 24 || wrote > 64 || looked > 16<<10 {
		t.Errorf("%d KiB of %d were written, where 24 in three regions were missed", wrote, looked)
	}
	if err := c.Kill(0); err != nil {
		t.Fatal(err)
	}
	compare(t, c, "v", want)
}

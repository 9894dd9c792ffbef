package admin

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/front"
	"pmsapp/appliance/local"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/program"
)

// TestResize makes a volume larger under load, twice: with all members, and while one is away. The host is told.
func TestResize(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	bin := program.Build(t)
	c := program.Cluster(t, local.Config{Binary: bin, Nodes: 3})
	ok := func(args ...string) {
		t.Helper()
		if out, err := pmsapp(t, bin, c.Nodes[0].File, args...); err != nil {
			t.Fatalf("pmsapp %s: %s", strings.Join(args, " "), out)
		}
	}
	ok("volume", "create", "v", "--size", "16M", "--nodes", "node1,node2")
	ok("lun", "export", "v")
	want := content(16 << 20)
	told := make(chan struct{}, 16)
	d, err := initiator.OpenDisk(t.Context(), initiator.DiskConfig{Portals: []string{c.Virtual}, Initiator: "iqn.2026-11.test:resize",
		Target: front.TargetName("v"), LUN: front.DefaultLUN, Log: slog.New(slog.DiscardHandler),
		Hooks: initiator.Hooks{Retried: func(_ string, why error) {
			if s := new(initiator.StatusError); errors.As(why, &s) && s.Sense.Key == 6 && s.Sense.ASC == 0x2a && s.Sense.ASCQ == 0x09 {
				told <- struct{}{}
			}
		}}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.WriteAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var failed error
	load.Go(func() {
		for off := int64(0); ctx.Err() == nil; off = (off + 1<<20) % (16 << 20) {
			if err := d.WriteAt(ctx, want[off:off+64<<10], off); err != nil && ctx.Err() == nil {
				failed = err
				return
			}
		}
	})
	resized := func(size int64, word string) {
		t.Helper()
		ok("volume", "resize", "v", word)
		select {
		case <-told:
		case <-time.After(20 * time.Second):
			t.Fatal("the host was not told")
		}
		l := login(t, c, "v")
		defer l.Close()
		if g := l.Geometry().Size; g != size {
			t.Fatalf("the LUN has %d bytes, not %d", g, size)
		}
		b := bytes.Repeat([]byte{byte(size >> 20)}, 4096)
		if err := l.WriteAt(t.Context(), b, size-4096); err != nil {
			t.Fatal(err)
		}
		want = append(want, make([]byte, size-int64(len(want)))...)
		copy(want[size-4096:], b)
	}
	refused(t, bin, c.Nodes[0].File, []string{"volume", "resize", "v", "8M"}, "only become larger")
	resized(24<<20, "24M")
	if err := c.Kill(1); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "node2's replica to leave the set", func(s api.Status) bool {
		return s.Leader != "" && len(s.Volumes) == 1 && s.Volumes[0].Served && slices.ContainsFunc(s.Volumes[0].Replicas,
			func(r api.Replica) bool { return r.Node == "node2" && r.State != "in sync" })
	})
	resized(64<<20, "64M")
	if err := c.Start(1); err != nil {
		t.Fatal(err)
	}
	wait(t, c, "all to be in sync", synced)
	data, err := os.Stat(find(t, filepath.Join(c.Nodes[1].Config.Pools[0], "replicas"), "data"))
	if err != nil || data.Size() != 64<<20 {
		t.Errorf("node2's replica: %v %v", data, err)
	}
	cancel()
	load.Wait()
	if failed != nil {
		t.Errorf("the load failed: %v", failed)
	}
	if err := c.Kill(0); err != nil {
		t.Fatal(err)
	}
	compare(t, c, "v", want)
}

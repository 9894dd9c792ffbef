package daemons

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/program"
)

// TestForce: the only in-sync replica is gone. An admin has the volume go on with the stale one, after being told what that means; when
// the node comes back it is copied over, and what it had alone is never seen again.
func TestForce(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	st, err := c.Client().Status(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	others := slices.DeleteFunc([]string{"node1", "node2", "node3"}, func(n string) bool { return n == st.Leader })
	newest, stale := others[0], others[1]
	d := export(t, c, api.NewVolume{Size: 16 << 20, Replicas: 2, Nodes: others})
	if err := d.WriteAt(t.Context(), pattern(8192, 1), 0); err != nil {
		t.Fatal(err)
	}
	refused := func(replica, confirm string, kind error, words ...string) {
		t.Helper()
		_, err := c.Client().ForceVolume(t.Context(), "v", api.Force{Replica: replica, Confirm: confirm})
		if !errors.Is(err, kind) {
			t.Errorf("%v, not %v", err, kind)
		}
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%v does not say %q", err, w)
			}
		}
	}
	refused(stale, "v", api.ErrConflict, "the volume is served: there is nothing to force")
	if err := c.Kill(c.Index(stale)); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(t.Context(), pattern(4096, 2), 4096); err != nil { // which the stale one lacks
		t.Fatal(err)
	}
	if err := c.Kill(c.Index(newest)); err != nil {
		t.Fatal(err)
	}
	held := make(chan error, 1)
	got := make([]byte, 4096)
	go func() { held <- d.ReadAt(context.Background(), got, 4096) }()
	if err := c.Start(c.Index(stale)); err != nil {
		t.Fatal(err)
	}
	if s, err := c.WaitStatus(t.Context(), "status to name the node that it waits for", 30*time.Second, func(s api.Status) bool {
		return len(s.Volumes) == 1 && !s.Volumes[0].Served && strings.Contains(s.Volumes[0].Reason+s.Volumes[0].Holding, newest)
	}); err != nil {
		t.Fatalf("%v: %+v", err, s)
	}
	var would api.Forced
	if err := local.Wait(t.Context(), "the stale replica to be reached", 30*time.Second, func(ctx context.Context) (bool, error) {
		var err error
		would, err = c.Client().ForceVolume(ctx, "v", api.Force{Replica: stale})
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	if would.Done || !slices.Equal(would.MayServe, []string{newest}) || !strings.Contains(would.Running, newest+" cannot be reached from here, and may still be serving it") ||
		!strings.Contains(would.Loss, "when the replica on "+stale+" left the in-sync set, is lost for good") {
		t.Errorf("%+v", would)
	}
	refused(stale, "w", api.ErrInvalid, `"w" is not the name of the volume`)
	refused(newest, "v", api.ErrConflict, "cannot be adopted: its node or pool cannot be reached")
	refused(st.Leader, "v", api.ErrConflict, "cannot be adopted: there is none")
	bin := program.Build(t)
	until := func(what string, f func(context.Context) (bool, error)) { // a session may be lost, and come again, at any time
		t.Helper()
		if err := local.Wait(t.Context(), what, 30*time.Second, f); err != nil {
			t.Fatal(err)
		}
	}
	until("the command to ask, and to be content with no other name", func(ctx context.Context) (bool, error) {
		cmd := exec.CommandContext(ctx, bin, "volume", "force", "v", "--replica", stale, "--config", c.Nodes[c.Index(st.Leader)].File)
		cmd.Stdin = strings.NewReader("w\n")
		said, err := cmd.CombinedOutput()
		for _, w := range []string{newest + ": in sync, cannot be reached", stale + ": not in sync since ", would.Running, `that is not "v": nothing was done`} {
			if err == nil || !strings.Contains(string(said), w) {
				return false, fmt.Errorf("%w: %s", err, said)
			}
		}
		return true, nil
	})
	until("it to be forced", func(ctx context.Context) (bool, error) {
		out, err := c.Client().ForceVolume(ctx, "v", api.Force{Replica: stale, Confirm: "v"})
		return out.Done, err
	})
	select {
	case err := <-held:
		if err != nil || !bytes.Equal(got, pattern(4096, 1)) {
			t.Error("the read that was held, and is answered by the other replica:", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("a read is held although the volume was forced")
	}
	check(t, d, 0, 8192, 1) // the loss
	if err := d.WriteAt(t.Context(), pattern(4096, 3), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(c.Index(newest)); err != nil {
		t.Fatal(err)
	}
	settled(t, c)
	if err := c.Kill(c.Index(stale)); err != nil { // and the other has what it had
		t.Fatal(err)
	}
	check(t, d, 0, 4096, 3)
	check(t, d, 4096, 4096, 1)
	events, err := c.Client().Events(t.Context(), 0, 1000)
	if err != nil || !slices.ContainsFunc(events, func(e api.Event) bool {
		return e.Kind == "volume-forced" && e.Volume == "v" && strings.Contains(e.Text, "goes on with the replica on "+stale)
	}) {
		t.Error("no event says so:", err)
	}
}

// TestForceLostDisks: of three replicas one was away, and then the disks of the two others are lost. The volume goes on with the first, and
// when one of the lost disks comes back with the newest bytes, it gets a copy of the new history: nothing of the old one is served.
func TestForceLostDisks(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	st, err := c.Client().Status(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	stale := c.Index(slices.DeleteFunc([]string{"node1", "node2", "node3"}, func(n string) bool { return n == st.Leader })[0])
	d := export(t, c, api.NewVolume{Size: 16 << 20, Replicas: 3})
	if err := d.WriteAt(t.Context(), pattern(8192, 1), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(stale); err != nil {
		t.Fatal(err)
	}
	away := time.Now()
	if err := d.WriteAt(t.Context(), pattern(4096, 2), 4096); err != nil {
		t.Fatal(err)
	}
	var lost []int
	for i := range c.Nodes {
		if i != stale {
			lost = append(lost, i)
			if err := c.Kill(i); err != nil {
				t.Fatal(err)
			}
		}
	}
	disk := func(i int, from, to string) {
		t.Helper()
		if p := c.Nodes[i].Config.Pools[0]; os.Rename(p+from, p+to) != nil {
			t.Fatal("the disk of", c.Nodes[i].Name)
		}
	}
	for _, i := range lost {
		disk(i, "", ".lost")
	}
	for i := range c.Nodes {
		if err := c.Start(i); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := c.WaitStatus(t.Context(), "status to name the nodes that it waits for", time.Minute, func(s api.Status) bool {
		return s.Leader != "" && len(s.Volumes) == 1 && !s.Volumes[0].Served && strings.Contains(s.Volumes[0].Reason, c.Nodes[lost[0]].Name) &&
			strings.Contains(s.Volumes[0].Reason, c.Nodes[lost[1]].Name)
	}); err != nil {
		t.Fatalf("%v: %+v", err, s)
	}
	name := c.Nodes[stale].Name
	var would api.Forced
	if err := local.Wait(t.Context(), "it to be forced", 30*time.Second, func(ctx context.Context) (bool, error) {
		out, err := c.Client().ForceVolume(ctx, "v", api.Force{Replica: name})
		if err == nil {
			would = out
			out, err = c.Client().ForceVolume(ctx, "v", api.Force{Replica: name, Confirm: "v"})
		}
		return out.Done, err
	}); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(would.Replicas, func(r api.ForceReplica) bool { return r.Node == name })
	if r := would.Replicas[i]; r.InSync || r.Incomplete || r.Reverted || r.LeftEpoch == 0 || r.Left.Before(away.Add(-5*time.Second)) || r.Left.After(time.Now()) {
		t.Errorf("%+v", r)
	}
	check(t, d, 0, 8192, 1)
	if err := d.WriteAt(t.Context(), pattern(4096, 3), 0); err != nil {
		t.Fatal(err)
	}
	back := lost[0]
	if err := c.Kill(back); err != nil {
		t.Fatal(err)
	}
	disk(back, ".lost", "")
	if err := c.Start(back); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitStatus(t.Context(), "the disk that came back to be in sync", time.Minute, func(s api.Status) bool {
		return len(s.Volumes) == 1 && s.Volumes[0].Served && synced(s) == 2
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(stale); err != nil { // it is alone now
		t.Fatal(err)
	}
	check(t, d, 0, 4096, 3)
	check(t, d, 4096, 4096, 1)
}

// TestForceInReign: both members of a volume in memory die, and one comes back while the other stays away, which may have had what was
// acknowledged and not flushed. The leader, which has no replica and a quorum, goes on leading under its epoch, with the mirror open: it
// says for whom it waits. An admin has the volume go on with the replica that is there, and hosts are told that something may be lost.
func TestForceInReign(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 5})
	st, err := c.Client().Status(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	others := slices.DeleteFunc([]string{"node1", "node2", "node3"}, func(n string) bool { return n == st.Leader })[:2]
	here, away := c.Index(others[0]), c.Index(others[1])
	d := export(t, c, api.NewVolume{Size: 16 << 20, Replicas: 2, Nodes: others, Durability: api.Memory})
	if err := d.WriteAt(t.Context(), pattern(8192, 1), 0); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "the members to be volatile", func(s api.Status) bool { return s.Leader != "" && s.Volumes[0].Cached })
	if err := d.WriteAt(t.Context(), pattern(4096, 2), 4096); err != nil {
		t.Fatal(err)
	}
	reign := settled(t, c)
	for _, do := range []func(int) error{c.Pause, c.Kill} {
		for _, i := range []int{here, away} {
			if err := do(i); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Start(here); err != nil {
		t.Fatal(err)
	}
	held := make(chan error, 1)
	go func() { held <- d.WriteAt(context.Background(), pattern(4096, 3), 0) }()
	expect(t, c, "the volume to wait for who may have what was not flushed", func(s api.Status) bool {
		return s.Leader == reign.Leader && s.Epoch == reign.Epoch && !s.Volumes[0].Served && strings.Contains(s.Volumes[0].Reason+s.Volumes[0].Holding, others[1])
	})
	if err := local.Wait(t.Context(), "it to be forced", 30*time.Second, func(ctx context.Context) (bool, error) {
		out, err := c.Client().ForceVolume(ctx, "v", api.Force{Replica: others[0], Confirm: "v"})
		return out.Done, err
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-held:
		if err != nil {
			t.Error("the write that was held:", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("a write is held although the volume was forced")
	}
	expect(t, c, "it to be served by the same leader, and hosts to be told", func(s api.Status) bool {
		return s.Leader == reign.Leader && s.Epoch > reign.Epoch && s.Volumes[0].Served && s.Volumes[0].Losses == 1 && synced(s) == 1
	})
	check(t, d, 0, 4096, 3)
	if err := c.Start(away); err != nil {
		t.Fatal(err)
	}
	settled(t, c)
	if err := c.Kill(here); err != nil {
		t.Fatal(err)
	}
	check(t, d, 0, 4096, 3)
	check(t, d, 4096, 4096, 2) // a process that is killed takes nothing with it
}

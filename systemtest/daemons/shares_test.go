package daemons

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/systemtest/program"
)

// mountShare makes a share, exports it and mounts it as a client that tries all nodes in turn.
func mountShare(t *testing.T, c *local.Cluster, replicas int, nodes ...string) (*nfsclient.Client, nfs3.Handle) {
	t.Helper()
	if _, err := c.Client().CreateShare(t.Context(), api.NewVolume{Name: "s", Size: 256 << 20, Replicas: replicas, Nodes: nodes}); err != nil {
		t.Fatal(err)
	}
	s, err := c.Client().ExportShare(t.Context(), "s", api.ShareRule{Client: "127.0.0.0/8", Squash: "none"})
	if err != nil || len(s.Rules) != 1 || s.Path != "/s" {
		t.Fatal(s, err)
	}
	return remount(t, c)
}

// remount mounts the share that is there.
func remount(t *testing.T, c *local.Cluster) (*nfsclient.Client, nfs3.Handle) {
	t.Helper()
	cfg := nfsclient.Dial("")
	next := 0
	cfg.Dial = func(ctx context.Context) (net.Conn, error) {
		n := c.Nodes[next%len(c.Nodes)]
		next++
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", n.Config.Address.NFS)
	}
	cfg.Timeout, cfg.Retry = 3*time.Second, 20*time.Millisecond
	cl := nfsclient.New(cfg)
	t.Cleanup(cl.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for { // a node that does not lead may not have heard of the share yet
		h, _, err := cl.Mount(ctx, "/s")
		if err == nil {
			return cl, h
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestShareOverALeadersDeath: a client that makes, fills, renames and removes files, each once, while the leader is killed,
// again and again: no error, no stale handle, nothing lost, nothing twice.
func TestShareOverALeadersDeath(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3, NFS: true})
	cl, root := mountShare(t, c, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	kept, err := cl.Create(ctx, nfs3.CreateArgs{Where: nfs3.DirOp{Dir: root, Name: "kept"}, How: nfs3.Guarded})
	if err != nil {
		t.Fatal(err)
	}
	const workers = 6
	stop := make(chan struct{})
	type result struct {
		left map[string][]byte
		n    int
		err  error
	}
	results := make(chan result, workers)
	for w := range workers {
		go func() {
			r := result{left: map[string][]byte{}}
			r.n, r.err = churn(ctx, cl, root, fmt.Sprint("w", w, "-"), stop, r.left)
			results <- r
		}()
	}
	whole := func() (api.Status, error) {
		return c.WaitStatus(ctx, "all replicas to be in sync", time.Minute, func(s api.Status) bool {
			ok := s.Leader != "" && len(s.Volumes) == 1 && s.Volumes[0].Served && synced(s) == 3
			for _, n := range s.Nodes {
				ok = ok && n.State == "alive" && n.Voter
			}
			return ok
		})
	}
	longest := time.Duration(0)
	var mtime nfs3.Time
	for round := range 3 {
		st, err := whole()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cl.Write(ctx, kept.File, uint64(round)*5000, bytes.Repeat([]byte{byte(round + 1)}, 5000), nfs3.FileSync); err != nil {
			t.Fatal(err)
		}
		leader := slices.IndexFunc(c.Nodes, func(n *local.Node) bool { return n.Name == st.Leader })
		begin := time.Now()
		if err := c.Kill(leader); err != nil {
			t.Fatal(err)
		}
		a, err := cl.Getattr(ctx, kept.File)
		if err != nil {
			t.Fatal("after the death of ", st.Leader, ": ", err)
		}
		longest = max(longest, time.Since(begin))
		if later := a.Mtime.Seconds > mtime.Seconds || a.Mtime.Seconds == mtime.Seconds && a.Mtime.Nseconds > mtime.Nseconds; !later || a.Filesize != uint64(round+1)*5000 {
			t.Fatalf("round %d: %+v after %+v", round, a, mtime)
		}
		mtime = a.Mtime
		if err := c.Start(leader); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	all := map[string][]byte{"kept": append(append(bytes.Repeat([]byte{1}, 5000), bytes.Repeat([]byte{2}, 5000)...), bytes.Repeat([]byte{3}, 5000)...)}
	total := 0
	for range workers {
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		total += r.n
		for name, p := range r.left {
			all[name] = p
		}
	}
	t.Logf("%d files made; the longest standstill of one call was %v", total, longest)
	names := map[string]bool{}
	var cookie uint64
	for {
		l, err := cl.Readdirplus(ctx, nfs3.ReaddirplusArgs{Dir: root, Cookie: cookie, DirCount: 8192, MaxCount: 32768})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range l.Entries {
			cookie = e.Cookie
			if e.Name != "." && e.Name != ".." {
				names[e.Name] = true
			}
		}
		if l.EOF {
			break
		}
	}
	for name, want := range all {
		f, err := cl.Lookup(ctx, root, name)
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := cl.Read(ctx, f.File, 0, 100<<10)
		if err != nil || !bytes.Equal(got.Data, want) {
			t.Fatal(name, len(got.Data), len(want), err)
		}
		delete(names, name)
	}
	if len(names) > 0 {
		t.Fatal("too many files: ", names)
	}
	// What the export forbids ends with it. A node that has just started does not know the admin's token yet.
	if _, err := whole(); err != nil {
		t.Fatal(err)
	}
	if err := c.Client().UnexportShare(ctx, "s", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Getattr(ctx, kept.File); !errors.Is(err, nfs3.ErrStale) {
		t.Fatal(err)
	}
	if err := c.Client().DeleteShare(ctx, "s", true); err != nil {
		t.Fatal(err)
	}
}

// churn works with files of its own until stop: each call must end as if it was done once. left is what is there at the end.
func churn(ctx context.Context, cl *nfsclient.Client, root nfs3.Handle, prefix string, stop <-chan struct{}, left map[string][]byte) (n int, err error) {
	for ; ; n++ {
		select {
		case <-stop:
			return n, nil
		default:
		}
		at := nfs3.DirOp{Dir: root, Name: fmt.Sprint(prefix, n)}
		f, err := cl.Create(ctx, nfs3.CreateArgs{Where: at, How: nfs3.Guarded})
		if err != nil {
			return n, fmt.Errorf("creating %s: %w", at.Name, err)
		}
		p := []byte(strings.Repeat(at.Name+" ", 1+n%2000))
		if _, err := cl.Write(ctx, f.File, 0, p, nfs3.Unstable); err != nil {
			return n, fmt.Errorf("writing %s: %w", at.Name, err)
		}
		if _, err := cl.Commit(ctx, f.File, 0, 0); err != nil {
			return n, fmt.Errorf("committing %s: %w", at.Name, err)
		}
		to := nfs3.DirOp{Dir: root, Name: at.Name + "-moved"}
		if _, _, err := cl.Rename(ctx, at, to); err != nil {
			return n, fmt.Errorf("renaming %s: %w", at.Name, err)
		}
		left[to.Name] = p
		if n >= 20 { // keep some
			old := fmt.Sprint(prefix, n-20, "-moved")
			if _, err := cl.Remove(ctx, root, old); err != nil {
				return n, fmt.Errorf("removing %s: %w", old, err)
			}
			delete(left, old)
		}
	}
}

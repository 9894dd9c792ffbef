package daemons

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/internal/xdr"
	"pmsapp/systemtest/program"
)

// Procedures and answers of NLM version 4.
const (
	nlmLock, nlmUnlock             = 2, 4
	nlmGranted, nlmDenied, nlmWait = 0, 1, 3
)

// nlm locks or unlocks a whole file as a host of that name.
func nlm(ctx context.Context, c *nfsclient.Client, proc uint32, host string, file nfs3.Handle, wait bool) (uint32, error) {
	r, err := c.RPC().Call(ctx, 100021, 4, proc, func(e *xdr.Encoder) {
		e.String("cookie")
		if proc == nlmLock {
			e.Bool(wait)
			e.Bool(true)
		}
		e.String(host)
		e.Opaque(file)
		e.String("owner")
		e.Uint32(1)
		e.Uint64(0)
		e.Uint64(0)
		if proc == nlmLock {
			e.Bool(false)
			e.Uint32(1)
		}
	}, nil)
	if err != nil {
		return 0, err
	}
	if cookie := r.String(64); cookie != "cookie" {
		return 0, fmt.Errorf("the answer is to %q", cookie)
	}
	return r.Uint32(), r.Err()
}

// TestLocksOverALeadersDeath: a lock stays its owner's when the leader has died, nobody has to reclaim it; who waits for it asks
// again, as lock managers do, and gets it when it is free.
func TestLocksOverALeadersDeath(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3, NFS: true})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := c.Client().CreateShare(ctx, api.NewVolume{Name: "s", Size: 64 << 20, Replicas: 2}); err != nil {
		t.Fatal(err)
	}
	s, err := c.Client().ExportShare(ctx, "s", api.ShareRule{Client: "127.0.0.0/8", Squash: "none"})
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddrPort(c.Virtual).Addr(), s.Servers[0].Port).String()
	a, b := nfsclient.New(nfsclient.Dial(at)), nfsclient.New(nfsclient.Dial(at))
	defer a.Close()
	defer b.Close()
	h, _, err := a.Mount(ctx, s.Path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := a.Create(ctx, nfs3.CreateArgs{Where: nfs3.DirOp{Dir: h, Name: "f"}, How: nfs3.Guarded})
	if err != nil {
		t.Fatal(err)
	}
	is := func(what string, c *nfsclient.Client, proc uint32, host string, wait bool, want uint32) {
		t.Helper()
		if got, err := nlm(ctx, c, proc, host, f.File, wait); err != nil || got != want {
			t.Fatalf("%s: %d, not %d (%v)", what, got, want, err)
		}
	}
	is("the first lock", a, nlmLock, "a", false, nlmGranted)
	is("the second waits", b, nlmLock, "b", true, nlmWait)
	st, err := c.WaitStatus(ctx, "all to be well", 30*time.Second, func(st api.Status) bool { return st.Bound && synced(st) == 2 })
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(c.Index(st.Leader)); err != nil {
		t.Fatal(err)
	}
	is("the lock is there under the next leader", b, nlmLock, "b", false, nlmDenied)
	is("its owner has it", a, nlmLock, "a", false, nlmGranted)
	is("the first gives it back", a, nlmUnlock, "a", false, nlmGranted)
	is("the second gets it", b, nlmLock, "b", true, nlmGranted)
	is("then the first has to wait", a, nlmLock, "a", false, nlmDenied)
}

package daemons

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/systemtest/program"
)

// TestShareAtTheVirtualAddress: a client that knows one address mounts there and goes on there when the leader has died; the
// address carries MOUNT by UDP, too.
func TestShareAtTheVirtualAddress(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3, NFS: true})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := c.Client().CreateShare(ctx, api.NewVolume{Name: "s", Size: 256 << 20, Replicas: 2}); err != nil {
		t.Fatal(err)
	}
	s, err := c.Client().ExportShare(ctx, "s", api.ShareRule{Client: "127.0.0.0/8", Squash: "none"})
	virtual := netip.MustParseAddrPort(c.Virtual).Addr()
	if err != nil || len(s.Warnings) != 0 || len(s.Servers) != 1 || s.Servers[0] != (api.ShareServer{Host: virtual.String(), Port: c.NFS}) {
		t.Fatalf("%+v, %v", s, err)
	}
	at := netip.AddrPortFrom(virtual, c.NFS).String()
	cl := nfsclient.New(nfsclient.Dial(at))
	defer cl.Close()
	h, _, err := cl.Mount(ctx, s.Path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := cl.Create(ctx, nfs3.CreateArgs{Where: nfs3.DirOp{Dir: h, Name: "f"}, How: nfs3.Guarded})
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.WaitStatus(ctx, "all to be well", 30*time.Second, func(st api.Status) bool { return st.Bound && synced(st) == 2 })
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(c.Index(st.Leader)); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Write(ctx, f.File, 0, []byte("after"), nfs3.FileSync); err != nil {
		t.Fatal(err)
	}
	if got, err := cl.Read(ctx, f.File, 0, 100); err != nil || string(got.Data) != "after" {
		t.Fatal(got, err)
	}
	// The null procedure of MOUNT, by UDP.
	u, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	null := []byte{0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0x86, 0xa5, 0, 0, 0, 3, 0, 0, 0, 0, 39: 0}
	if err := local.Wait(ctx, "MOUNT by UDP", 10*time.Second, func(context.Context) (bool, error) {
		u.SetDeadline(time.Now().Add(time.Second))
		b := make([]byte, 100)
		if _, err := u.Write(null); err != nil {
			return false, err
		}
		n, err := u.Read(b)
		if err == nil && (n != 24 || b[3] != 9) {
			err = fmt.Errorf("%d bytes: %x", n, b[:n])
		}
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestNobodyListens: a share that is exported where no node listens for NFS is no silent success.
func TestNobodyListens(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 1})
	if _, err := c.Client().CreateShare(t.Context(), api.NewVolume{Name: "s", Size: 64 << 20, Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	s, err := c.Client().ExportShare(t.Context(), "s", api.ShareRule{Client: "127.0.0.0/8"})
	if err != nil || len(s.Servers) != 0 || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "no node listens for NFS") {
		t.Fatalf("%+v, %v", s, err)
	}
	st, err := c.Client().Status(t.Context(), false)
	if err != nil || !strings.Contains(strings.Join(st.Warnings, "\n"), s.Warnings[0]) {
		t.Fatal(st.Warnings, err)
	}
	if err := c.Client().DeleteShare(t.Context(), "s", true); err == nil || errors.Is(err, api.ErrNotFound) {
		t.Fatal("an exported share was deleted: ", err)
	}
}

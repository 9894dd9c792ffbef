package nfs_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
	"pmsapp/nfs"
)

func TestMount(t *testing.T) {
	d, ctx := open(t), t.Context()
	sub := d.mkdir("sub", 0o755)
	d.file("f", 0o644, "")
	r, err := d.c.Mkdir(ctx, sub, "below", mode(0o700))
	if err != nil {
		t.Fatal(err)
	}
	for path, h := range map[string]nfs3.Handle{"/vol": d.root, "/vol/": d.root, "//vol": d.root, "/vol/sub": sub, "/vol/sub/below/": r.File} {
		got, flavors, err := d.c.Mount(ctx, path)
		if err != nil || string(got) != string(h) || !slices.Contains(flavors, sunrpc.AuthSys) {
			t.Errorf("%s: %v %x %v", path, err, got, flavors)
		}
	}
	for path, status := range map[string]error{"/": nfs3.ErrNoEnt, "/none": nfs3.ErrNoEnt, "/volume": nfs3.ErrNoEnt, "/vol/none": nfs3.ErrNoEnt,
		"/vol/f": nfs3.ErrNotDir, "/vol/f/g": nfs3.ErrNotDir, "/vol/../vol": nfs3.ErrInval, "/vol/sub//below": nfs3.ErrInval, "": nfs3.ErrNoEnt} {
		_, _, err := d.c.Mount(ctx, path)
		want(t, path, err, status)
	}
	_, _, err = d.user(5, 5).Mount(ctx, "/vol/sub/below")
	want(t, "below a directory that one may search", err, nil)
	if _, err = d.c.Setattr(ctx, sub, mode(0o700), nil); err != nil {
		t.Fatal(err)
	}
	_, _, err = d.user(5, 5).Mount(ctx, "/vol/sub/below")
	want(t, "below a directory that one may not search", err, nfs3.ErrAccess)
}

func TestMountLists(t *testing.T) {
	d, ctx := open(t), t.Context()
	d.exports.Set(nfs.Export{Path: "/second", ID: ids.Volume{2}, Rules: []nfs.Rule{{Clients: netip.MustParsePrefix("192.0.2.0/24")},
		{Clients: netip.MustParsePrefix("192.0.2.1/32")}, {Clients: netip.MustParsePrefix("2001:db8::/32")}}})
	all, err := d.c.Exports(ctx)
	if diff := cmp.Diff(all, []nfsclient.Exported{{Path: "/second", Groups: []string{"192.0.2.0/24", "192.0.2.1", "2001:db8::/32"}}, {Path: "/vol", Groups: []string{"*"}}}); err != nil || diff != "" {
		t.Error(err, diff)
	}
	d.mkdir("sub", 0o755)
	for range 2 {
		if _, _, err = d.c.Mount(ctx, "/vol/sub"); err != nil {
			t.Fatal(err)
		}
	}
	mounts := func(want ...nfsclient.Mounted) {
		t.Helper()
		all, err := d.c.Mounts(ctx)
		if diff := cmp.Diff(all, want); err != nil || diff != "" {
			t.Error(err, diff)
		}
	}
	mounts(nfsclient.Mounted{Client: "127.0.0.1", Path: "/vol"}, nfsclient.Mounted{Client: "127.0.0.1", Path: "/vol/sub"})
	if err := d.c.Unmount(ctx, "/vol"); err != nil {
		t.Fatal(err)
	}
	mounts(nfsclient.Mounted{Client: "127.0.0.1", Path: "/vol/sub"})
	if err := d.c.UnmountAll(ctx); err != nil {
		t.Fatal(err)
	}
	mounts()
}

func TestPortmap(t *testing.T) {
	d, ctx := open(t), t.Context()
	port := uint32(netip.MustParseAddrPort(d.addr).Port())
	for _, c := range []struct{ prog, vers, prot, want uint32 }{
		{nfs3.Program, 3, 6, port}, {nfs3.Program, 3, 17, 0}, {nfs3.MountProgram, 3, 6, port}, {nfs3.MountProgram, 3, 17, port},
		{nfs3.MountProgram, 1, 17, port}, {nfs3.PortProgram, 2, 6, port}, {100021, 4, 6, port}, {100024, 1, 17, port}, {100227, 3, 6, 0}, {nfs3.Program, 3, 99, 0},
	} {
		if got, err := d.c.Port(ctx, c.prog, c.vers, c.prot); err != nil || got != c.want {
			t.Errorf("%+v: %v %d", c, err, got)
		}
	}
	all, err := d.c.Mappings(ctx)
	if diff := cmp.Diff(all, []nfsclient.Mapping{{Prog: 100000, Vers: 2, Prot: 6, Port: port}, {Prog: 100000, Vers: 2, Prot: 17, Port: port},
		{Prog: 100005, Vers: 3, Prot: 6, Port: port}, {Prog: 100005, Vers: 3, Prot: 17, Port: port}, {Prog: 100003, Vers: 3, Prot: 6, Port: port},
		{Prog: 100021, Vers: 4, Prot: 6, Port: port}, {Prog: 100021, Vers: 4, Prot: 17, Port: port},
		{Prog: 100024, Vers: 1, Prot: 6, Port: port}, {Prog: 100024, Vers: 1, Prot: 17, Port: port}}); err != nil || diff != "" {
		t.Error(err, diff)
	}
	set, err := d.c.RPC().Call(ctx, nfs3.PortProgram, 2, 1, func(e *xdr.Encoder) {
		for range 4 {
			e.Uint32(1)
		}
	}, nil)
	if err != nil || set.Bool() {
		t.Error("somebody registers a program:", err)
	}
	_, err = d.c.RPC().Call(ctx, nfs3.PortProgram, 2, 5, nil, nil)
	want(t, "CALLIT", err, sunrpc.ProcUnavail)
}

// packets makes the door answer datagrams, and returns a client's socket.
func (d *door) packets() net.Conn {
	d.t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		d.t.Fatal(err)
	}
	go d.srv.ServePacket(p)
	c, err := net.Dial("udp", p.LocalAddr().String())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

func TestDatagrams(t *testing.T) {
	d := open(t)
	c := d.packets()
	ask := func(prog, vers, proc uint32, args func(*xdr.Encoder)) (*xdr.Decoder, error) {
		var e xdr.Encoder
		sunrpc.WriteCall(&e, sunrpc.Header{XID: 77, Prog: prog, Vers: vers, Proc: proc, Cred: sunrpc.Cred{Flavor: sunrpc.AuthSys}}, "h")
		if args != nil {
			args(&e)
		}
		b := make([]byte, 9000)
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(e.B); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		r := xdr.NewDecoder(b[:n], nil)
		_, err = sunrpc.ReadReply(r)
		return r, err
	}
	if _, err := c.Write([]byte("no call")); err != nil { // not answered
		t.Fatal(err)
	}
	r, err := ask(nfs3.PortProgram, 2, 3, func(e *xdr.Encoder) {
		for _, v := range []uint32{nfs3.Program, 3, 6, 0} {
			e.Uint32(v)
		}
	})
	if port := r.Uint32(); err != nil || port != uint32(netip.MustParseAddrPort(d.addr).Port()) {
		t.Error("GETPORT:", err, port)
	}
	r, err = ask(nfs3.MountProgram, 3, 1, func(e *xdr.Encoder) { e.String("/vol") })
	if status, h := r.Uint32(), r.Opaque(64); err != nil || status != 0 || string(h) != string(d.root) {
		t.Error("MNT:", err, status)
	}
	_, err = ask(nfs3.Program, 3, 0, nil)
	want(t, "NFS over UDP", err, sunrpc.ProgUnavail)
	_, err = ask(nfs3.MountProgram, 2, 1, nil)
	want(t, "MOUNT version 2", err, sunrpc.ProgMismatch)
}

func TestRPCErrors(t *testing.T) {
	d, ctx := open(t), t.Context()
	call := func(h sunrpc.Header) error {
		h.XID = 1
		_, err := d.c.RPC().CallAs(ctx, h, nil, nil)
		return err
	}
	sys := sunrpc.Cred{Flavor: sunrpc.AuthSys}
	want(t, "a program", call(sunrpc.Header{Prog: 100227, Vers: 3, Cred: sys}), sunrpc.ProgUnavail)
	want(t, "NFS version 4", call(sunrpc.Header{Prog: nfs3.Program, Vers: 4, Cred: sys}), sunrpc.ProgMismatch)
	want(t, "NFS version 2", call(sunrpc.Header{Prog: nfs3.Program, Vers: 2, Cred: sys}), sunrpc.ProgMismatch)
	want(t, "rpcbind version 4", call(sunrpc.Header{Prog: nfs3.PortProgram, Vers: 4, Cred: sys}), sunrpc.ProgMismatch)
	want(t, "procedure 22", call(sunrpc.Header{Prog: nfs3.Program, Vers: 3, Proc: 22, Cred: sys}), sunrpc.ProcUnavail)
	want(t, "MOUNT procedure 6", call(sunrpc.Header{Prog: nfs3.MountProgram, Vers: 3, Proc: 6, Cred: sys}), sunrpc.ProcUnavail)
	want(t, "NULL", call(sunrpc.Header{Prog: nfs3.Program, Vers: 3}), nil)
	want(t, "RPCSEC_GSS", call(sunrpc.Header{Prog: nfs3.Program, Vers: 3, Proc: 1, Cred: sunrpc.Cred{Flavor: 6}}), sunrpc.AuthRejectedCred)
	want(t, "17 groups", call(sunrpc.Header{Prog: nfs3.Program, Vers: 3, Proc: 1, Cred: sunrpc.Cred{Flavor: 1, Groups: make([]uint32, 17)}}), sunrpc.AuthBadCred)
	for proc := uint32(1); proc < nfs3.Procedures; proc++ {
		want(t, "no arguments", call(sunrpc.Header{Prog: nfs3.Program, Vers: 3, Proc: proc, Cred: sys}), sunrpc.GarbageArgs)
	}
	for _, proc := range []uint32{1, 3} {
		want(t, "no path", call(sunrpc.Header{Prog: nfs3.MountProgram, Vers: 3, Proc: proc, Cred: sys}), sunrpc.GarbageArgs)
	}
	want(t, "no mapping", call(sunrpc.Header{Prog: nfs3.PortProgram, Vers: 2, Proc: 3, Cred: sys}), sunrpc.GarbageArgs)
	want(t, "what follows", d.c.Null(ctx), nil)
}

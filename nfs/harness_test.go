package nfs_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/internal/sunrpc"
	"pmsapp/nfs"
	"pmsapp/nfs/memshare"
	"pmsapp/nfs/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// door is a server with one share in memory, and clients of it.
type door struct {
	t       *testing.T
	srv     *nfs.Server
	share   *memshare.Share
	exports *memshare.Exports
	export  nfs.Export
	addr    string
	root    nfs3.Handle
	c       *nfsclient.Client // root
}

const shareSize = 64 << 20

var everybody = netip.MustParsePrefix("0.0.0.0/0")

func open(t *testing.T, limits ...rpc.Limits) *door {
	t.Helper()
	d := &door{t: t, share: memshare.New(shareSize), exports: &memshare.Exports{}}
	d.export = nfs.Export{Path: "/vol", ID: ids.Volume{1, 2, 3}, Share: d.share, Rules: []nfs.Rule{{Clients: everybody, AnonUID: 65534, AnonGID: 65534}}}
	d.exports.Set(d.export)
	d.srv, d.addr = serve(t, d.exports, limits...)
	d.c = d.client(sunrpc.Cred{Flavor: sunrpc.AuthSys})
	var err error
	if d.root, _, err = d.c.Mount(t.Context(), "/vol"); err != nil {
		t.Fatal(err)
	}
	return d
}

// serve makes a server of exports on a port of its own.
func serve(t *testing.T, exports nfs.Exports, limits ...rpc.Limits) (*nfs.Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	cfg := nfs.Config{Exports: exports, Key: []byte("key"), Ports: nfs.Ports{NFS: port, Mount: port, Portmap: port}}
	if len(limits) > 0 {
		cfg.Limits = limits[0]
	}
	srv, err := nfs.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error("shutdown:", err)
		}
		if err := <-served; !errors.Is(err, rpc.ErrShutdown) {
			t.Error("serve:", err)
		}
	})
	return srv, l.Addr().String()
}

// client is a client with credentials of its own.
func (d *door) client(cred sunrpc.Cred) *nfsclient.Client {
	cfg := nfsclient.Dial(d.addr)
	cfg.Cred = cred
	cfg.Retry = 5 * time.Millisecond
	c := nfsclient.New(cfg)
	d.t.Cleanup(c.Close)
	return c
}

func (d *door) user(uid, gid uint32, groups ...uint32) *nfsclient.Client {
	return d.client(sunrpc.Cred{Flavor: sunrpc.AuthSys, UID: uid, GID: gid, Groups: groups})
}

// rule changes what clients may do.
func (d *door) rule(change func(*nfs.Rule)) {
	e := d.export
	e.Rules = []nfs.Rule{d.export.Rules[0]}
	change(&e.Rules[0])
	d.exports.Set(e)
}

func ptr[T any](v T) *T { return &v }

func mode(m uint32) nfs3.SetAttr { return nfs3.SetAttr{Mode: &m} }

// want fails the test unless err is what it should be.
func want(t *testing.T, what string, got, want error) {
	t.Helper()
	if want == nil && got != nil || want != nil && !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// file makes a file with contents.
func (d *door) file(name string, m uint32, contents string) nfs3.Handle {
	d.t.Helper()
	r, err := d.c.Create(d.t.Context(), nfs3.CreateArgs{Where: nfs3.DirOp{Dir: d.root, Name: name}, How: nfs3.Guarded, Attr: mode(m)})
	if err == nil && contents != "" {
		_, err = d.c.Write(d.t.Context(), r.File, 0, []byte(contents), nfs3.FileSync)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return r.File
}

func (d *door) mkdir(name string, m uint32) nfs3.Handle {
	d.t.Helper()
	r, err := d.c.Mkdir(d.t.Context(), d.root, name, mode(m))
	if err != nil {
		d.t.Fatal(err)
	}
	return r.File
}

func (d *door) chown(f nfs3.Handle, uid, gid uint32) {
	d.t.Helper()
	if _, err := d.c.Setattr(d.t.Context(), f, nfs3.SetAttr{UID: &uid, GID: &gid}, nil); err != nil {
		d.t.Fatal(err)
	}
}

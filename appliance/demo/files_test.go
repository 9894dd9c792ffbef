package demo

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/nfs"
	"pmsapp/nfs/memshare"
)

// TestFiles: the tree is copied again and again until the end, and a share that differs in one byte is found.
func TestFiles(t *testing.T) {
	exports := &memshare.Exports{}
	exports.Set(nfs.Export{Path: "/s", ID: ids.Volume{1}, Share: memshare.New(1 << 30), Rules: []nfs.Rule{{Clients: netip.MustParsePrefix("127.0.0.0/8")}}})
	srv, err := nfs.New(nfs.Config{Exports: exports, Ports: nfs.Ports{NFS: 2049, Mount: 2049, Portmap: 111}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- srv.Serve(l) }()
	f := &files{meter: meter{begun: time.Now()}, client: nfsclient.New(nfsclient.Dial(l.Addr().String()))}
	defer func() {
		f.client.Close()
		srv.Shutdown(context.Background())
		<-served
	}()
	dir := t.TempDir()
	if f.bytes, err = makeTree(dir, rand.New(rand.NewPCG(1, 2))); err != nil || f.bytes < 1<<20 {
		t.Fatal(f.bytes, err)
	}
	f.from = os.DirFS(dir)
	if f.root, _, err = f.client.Mount(t.Context(), "/s"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.run(ctx, time.Minute) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for f.copies.Load() < 2 {
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := f.compare(t.Context()); err != nil || f.acked.Load() != f.copies.Load()*treeEntries {
		t.Fatal(f.acked.Load(), f.copies.Load(), err)
	}
	at := f.root
	for _, name := range []string{copyName(2), "dir2", "file05"} {
		r, err := f.client.Lookup(t.Context(), at, name)
		if err != nil {
			t.Fatal(err)
		}
		at = r.File
	}
	if _, err := f.client.Write(t.Context(), at, 100, []byte{'x', 'y'}, nfs3.FileSync); err != nil {
		t.Fatal(err)
	}
	if err := f.compare(t.Context()); !errors.Is(err, errFiles) {
		t.Fatal(err)
	}
}

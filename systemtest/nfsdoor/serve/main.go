// Command serve serves a share in memory through the NFS front door, for guests, benchmarks and looking at it by hand:
//
//	serve [-addr address] [-size bytes] [-profile addr] [-drop interval]
//
// Clients expect portmap at port 111; NFS and MOUNT are at 2049.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/nfs"
	"pmsapp/nfs/memshare"
)

var errDropped = errors.New("it is time for it")

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run() error {
	addr := flag.String("addr", "127.0.0.1", "the address")
	size := flag.Uint64("size", 4<<30, "size of the share in bytes")
	profile := flag.String("profile", "", "serve pprof here")
	drop := flag.Duration("drop", 0, "end all connections every so often, as a failover does; never if 0")
	flag.Parse()
	exports := &memshare.Exports{}
	exports.Set(nfs.Export{Path: "/vol", ID: ids.Volume{1}, Share: memshare.New(*size), Rules: []nfs.Rule{{Clients: netip.MustParsePrefix("0.0.0.0/0")}}})
	srv, err := nfs.New(nfs.Config{Exports: exports, Ports: nfs.Ports{NFS: 2049, Mount: 2049, Portmap: 111},
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		return err
	}
	for _, port := range []string{"111", "2049"} {
		l, err := net.Listen("tcp", net.JoinHostPort(*addr, port))
		if err != nil {
			return err
		}
		p, err := net.ListenPacket("udp", net.JoinHostPort(*addr, port))
		if err != nil {
			return err
		}
		go srv.Serve(l)
		go srv.ServePacket(p)
	}
	if *profile != "" {
		go http.ListenAndServe(*profile, nil) // until the process ends
	}
	fmt.Printf("nfs://%s/vol\n", *addr)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	for *drop > 0 && ctx.Err() == nil {
		select {
		case <-time.After(*drop):
			srv.Drop(errDropped)
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}

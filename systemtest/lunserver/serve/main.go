// Command serve serves a file, or memory, as a LUN, for benchmarks and for looking at a target by hand:
//
//	serve [-addr host:port] [-size bytes] [-file path] [-profile addr]
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/signal"
	"syscall"

	"pmsapp/internal/block"
	"pmsapp/internal/block/blocktest"
	"pmsapp/systemtest/lunserver"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run() error {
	addr := flag.String("addr", "127.0.0.1:0", "the portal")
	size := flag.Int64("size", 256<<20, "size of the volume in bytes")
	path := flag.String("file", "", "keep the volume in this file (O_DIRECT, O_DSYNC); memory if empty")
	profile := flag.String("profile", "", "serve pprof here")
	flag.Parse()
	var dev block.Device = blocktest.NewMemory(*size, 512)
	if *path != "" {
		f, err := blocktest.OpenFile(*path, *size)
		if err != nil {
			return err
		}
		defer f.Close()
		dev = f
	}
	s, err := lunserver.New(*addr, dev)
	if err != nil {
		return err
	}
	defer s.Close()
	if *profile != "" {
		go http.ListenAndServe(*profile, nil) // until the process ends
	}
	fmt.Println(s.URL())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return nil
}

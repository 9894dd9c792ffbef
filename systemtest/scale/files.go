package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
)

// How the files are made.
const (
	perDirectory = 1000
	connections  = 4
	calls        = 96 // of each connection under way
)

// takeOverFiles kills the leader of a cluster with an empty share, and again when it has many files, and tells how long it takes each
// time until an NFS client has its next answer. The files are made by that client's calls, one by one, and hold nothing.
func takeOverFiles(ctx context.Context) error {
	c, stop, err := start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if _, err := c.Client().CreateShare(ctx, api.NewVolume{Name: "files", Size: 1 << 30, Replicas: 2}); err != nil {
		return err
	}
	if _, err := c.Client().ExportShare(ctx, "files", api.ShareRule{Client: "127.0.0.0/8", Squash: "none"}); err != nil {
		return err
	}
	client := nfsClient(c)
	defer client.Close()
	root, _, err := client.Mount(ctx, "/files")
	if err != nil {
		return err
	}
	asked := func(ctx context.Context) error { _, err := client.Getattr(ctx, root); return err }
	few, err := kill(ctx, c, asked)
	if err != nil {
		return err
	}
	resident(c, "with no file")
	began := time.Now()
	if err := makeFiles(ctx, c, root, *files); err != nil {
		return err
	}
	took := time.Since(began)
	fmt.Printf("%d files made in %.0f s, %.0f a second\n", *files, took.Seconds(), float64(*files)/took.Seconds())
	resident(c, "with all files")
	many, err := kill(ctx, c, asked)
	if err != nil {
		return err
	}
	resident(c, "after the take-overs")
	a, b := median(few), median(many)
	fmt.Printf("from the leader's death until a client's GETATTR is answered: no file %v, median %v; %d files %v, median %v: %v more (target: under 1 s)\n",
		few, a, *files, many, b, b-a)
	return nil
}

// nfsClient returns a client that tries all nodes in turn.
func nfsClient(c *local.Cluster) *nfsclient.Client {
	cfg := nfsclient.Dial("")
	next := 0
	cfg.Dial = func(ctx context.Context) (net.Conn, error) {
		n := c.Nodes[next%len(c.Nodes)]
		next++
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", n.Config.Address.NFS)
	}
	cfg.Timeout, cfg.Retry = 3*time.Second, 10*time.Millisecond
	return nfsclient.New(cfg)
}

// makeFiles makes n files, perDirectory in each directory.
func makeFiles(ctx context.Context, c *local.Cluster, root nfs3.Handle, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64 // the next directory
	var all sync.WaitGroup
	for range connections {
		client := nfsClient(c)
		defer client.Close()
		for range calls {
			all.Go(func() {
				for {
					d := int(next.Add(1)) - 1
					if d*perDirectory >= n {
						return
					}
					if err := makeDirectory(ctx, client, root, d, min(perDirectory, n-d*perDirectory)); err != nil {
						cancel(err)
						return
					}
				}
			})
		}
	}
	all.Wait()
	return context.Cause(ctx)
}

func makeDirectory(ctx context.Context, client *nfsclient.Client, root nfs3.Handle, number, n int) error {
	dir, err := client.Mkdir(ctx, root, fmt.Sprint("directory", number), nfs3.SetAttr{})
	for i := 0; i < n && err == nil; i++ {
		_, err = client.Create(ctx, nfs3.CreateArgs{Where: nfs3.DirOp{Dir: dir.File, Name: fmt.Sprintf("file%06d-%06d", number, i)}, How: nfs3.Guarded})
	}
	return err
}

// resident tells each node's memory.
func resident(c *local.Cluster, when string) {
	fmt.Printf("resident %s:", when)
	for _, n := range c.Nodes {
		fmt.Printf(" %s %.0f MiB", n.Name, status(n.PID(), "VmRSS"))
	}
	fmt.Println()
}

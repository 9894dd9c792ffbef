// Command scale measures what grows with a cluster: the memory of a node with 1 TiB of sparse volumes, and what 1,000 volumes
// and 1,000,000 files in a share add to a take-over. It starts three real daemons on this machine, and needs no root. `make scale` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/replication/initiator"
)

var (
	binary  = flag.String("binary", "bin/pmsapp", "the program")
	volumes = flag.Int("volumes", 1000, "of the second measurement")
	kills   = flag.Int("kills", 9, "take-overs with that many volumes or files, and with one or none")
	files   = flag.Int("files", 1_000_000, "of the third measurement")
	only    = flag.String("case", "", "only the measurements whose names have this in them: memory, volumes, files")
	writes  = flag.Int("writes", 20000, "random writes of 4 KiB over the TiB")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, m := range []struct {
		name string
		do   func(context.Context) error
	}{{"memory", memory}, {"volumes", takeOver}, {"files", takeOverFiles}} {
		if !strings.Contains(m.name, *only) {
			continue
		}
		if err := m.do(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "scale:", err)
			os.Exit(1)
		}
	}
}

// start forms a cluster in a new directory.
func start(ctx context.Context) (*local.Cluster, func(), error) {
	bin, err := filepath.Abs(*binary)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "pmsapp-scale-")
	if err != nil {
		return nil, nil, err
	}
	c, err := local.New(local.Config{Binary: bin, Dir: dir, Nodes: 3, NFS: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		os.RemoveAll(dir)
		return nil, nil, err
	}
	stop := func() { c.Close(); os.RemoveAll(dir) }
	if err := c.Form(ctx); err != nil {
		stop()
		return nil, nil, err
	}
	return c, stop, nil
}

// memory makes 1 TiB of volumes with three replicas, writes at random over all of them, and tells each node's memory.
func memory(ctx context.Context) error {
	c, stop, err := start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	const count, size = 4, 256 << 30
	before := map[string]float64{}
	for _, n := range c.Nodes {
		before[n.Name] = status(n.PID(), "VmRSS")
	}
	var work sync.WaitGroup
	errs := make([]error, count)
	for i := range count {
		name := fmt.Sprintf("v%d", i)
		if _, err := c.Client().CreateVolume(ctx, api.NewVolume{Name: name, Size: size, Replicas: 3, OverSubscribe: true}); err != nil {
			return err
		}
		lun, err := c.Client().Export(ctx, api.NewLUN{Volume: name})
		if err != nil {
			return err
		}
		work.Go(func() { errs[i] = load(ctx, c, lun, size, *writes/count) })
	}
	work.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	st, err := c.Client().Status(ctx, false)
	if err != nil {
		return err
	}
	fmt.Printf("memory of a node with 1 TiB of sparse volumes, after %d random writes of 4 KiB over all of it (target: under 200 MiB, and 32 MiB more than without)\n", *writes)
	for _, n := range c.Nodes {
		role := ""
		if n.Name == st.Leader {
			role = ", leads"
		}
		now := status(n.PID(), "VmRSS")
		fmt.Printf("  %s: %.0f MiB resident, %.0f MiB at most, %.0f MiB more than before the volumes were made%s\n", n.Name, now, status(n.PID(), "VmHWM"), now-before[n.Name], role)
	}
	return nil
}

// load writes at random.
func load(ctx context.Context, c *local.Cluster, lun api.LUN, size int64, n int) error {
	octx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	d, err := initiator.OpenDisk(octx, initiator.DiskConfig{Portals: append([]string{c.Virtual}, c.Nodes[0].Config.Address.Portal),
		Initiator: "iqn.2026-11.app.pmsapp:scale", Target: lun.Target, LUN: int(lun.Number), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer d.Close()
	const depth = 16
	errs := make(chan error, depth)
	for w := range depth {
		go func() {
			random, b := rand.New(rand.NewPCG(1, uint64(w))), make([]byte, 4096)
			b[0] = 1
			var err error
			for i := 0; i < n/depth && err == nil; i++ {
				err = d.WriteAt(ctx, b, random.Int64N(size/4096)*4096)
			}
			errs <- err
		}()
	}
	for range depth {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return err
}

// status reads a number of kilobytes of /proc/PID/status, as MiB.
func status(pid int, key string) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				return -1
			}
			return kb / 1024
		}
	}
	return -1
}

// takeOver kills the leader of a cluster with one volume, and of one with many, and tells how long it takes until the next says that
// all volumes are served: their mirrors are open.
func takeOver(ctx context.Context) error {
	c, stop, err := start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	var few, many []time.Duration
	if err := create(ctx, c, 0, 1); err != nil {
		return err
	}
	if few, err = kill(ctx, c, nil); err != nil {
		return err
	}
	began := time.Now()
	if err := create(ctx, c, 1, *volumes); err != nil {
		return err
	}
	fmt.Printf("%d volumes created in %.1f s\n", *volumes, time.Since(began).Seconds())
	if many, err = kill(ctx, c, nil); err != nil {
		return err
	}
	a, b := median(few), median(many)
	fmt.Printf("from the leader's death until all volumes are served: 1 volume %v, median %v; %d volumes %v, median %v: %v more (target: under 1 s)\n",
		few, a, *volumes, many, b, b-a)
	for _, n := range c.Nodes {
		fmt.Printf("  %s: %.0f MiB resident\n", n.Name, status(n.PID(), "VmRSS"))
	}
	return nil
}

func median(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

// create makes volumes with two replicas, several at a time.
func create(ctx context.Context, c *local.Cluster, from, to int) error {
	const parallel = 8
	errs := make(chan error, parallel)
	for w := range parallel {
		go func() {
			var err error
			for i := from + w; i < to && err == nil; i += parallel {
				_, err = c.Client().CreateVolume(ctx, api.NewVolume{Name: fmt.Sprintf("volume%d", i), Size: 64 << 20, Replicas: 2, OverSubscribe: true})
			}
			errs <- err
		}()
	}
	var err error
	for range parallel {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return err
}

// kill kills the leader, several times, and returns how long each take-over took: until all volumes are served, or until asked, where
// it is given, returns.
func kill(ctx context.Context, c *local.Cluster, asked func(context.Context) error) (all []time.Duration, err error) {
	for range *kills {
		st, err := settled(ctx, c)
		if err != nil {
			return nil, err
		}
		i, began := c.Index(st.Leader), time.Now()
		if err := c.Kill(i); err != nil {
			return nil, err
		}
		if asked != nil {
			err = asked(ctx)
		} else {
			_, err = c.WaitStatus(ctx, "another leader to serve all volumes", time.Minute, func(s api.Status) bool {
				ok := s.Leader != "" && s.Leader != st.Leader
				for _, v := range s.Volumes {
					ok = ok && v.Served
				}
				return ok
			})
		}
		if err != nil {
			return nil, err
		}
		all = append(all, time.Since(began).Round(time.Millisecond))
		if err := c.Start(i); err != nil {
			return nil, err
		}
	}
	_, err = settled(ctx, c)
	return all, err
}

// settled waits until everything is in sync.
func settled(ctx context.Context, c *local.Cluster) (api.Status, error) {
	return c.WaitStatus(ctx, "all replicas to be in sync", 5*time.Minute, func(s api.Status) bool {
		ok := s.Leader != "" && len(s.Nodes) == len(c.Nodes)
		for _, v := range s.Volumes {
			ok = ok && v.Served
			for _, r := range v.Replicas {
				ok = ok && r.State == "in sync"
			}
		}
		for _, n := range s.Nodes {
			ok = ok && n.State == "alive" && n.Voter
		}
		return ok
	})
}

// Command bench compares a cluster of three real daemons, a volume with two replicas, with Debian's tgtd, one copy and write
// cache off, on the same file system: one client for both, in turn, medians and ratios. `make bench` runs it. It needs root
// and the Debian package tgt, and nothing else running on the machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

var (
	binary = flag.String("binary", "bin/pmsapp", "the program")
	rounds = flag.Int("rounds", 5, "how often each case is run on each side")
	length = flag.Duration("time", 2*time.Second, "of one run")
	size   = flag.Int64("size", 512<<20, "of the LUNs, in bytes")
	parent = flag.String("dir", "", "where the data go; a new directory in the system's temporary one by default")
	copies = flag.Int("replicas", 2, "of our volume, 1 or 2")
	only   = flag.String("case", "", "only the case of this name")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// job is one case.
type job struct {
	name   string
	write  bool
	bytes  int
	depth  int
	random bool
	target float64 // the ratio to reach
}

func jobs() []job {
	return []job{
		{"4k-random-write-qd1", true, 4 << 10, 1, true, 0.5},
		{"4k-random-write-qd32", true, 4 << 10, 32, true, 0.7},
		{"4k-random-read-qd32", false, 4 << 10, 32, true, 0.8},
		{"256k-sequential-write-qd8", true, 256 << 10, 8, false, 0.8},
		{"256k-sequential-read-qd8", false, 256 << 10, 8, false, 0},
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp(*parent, "pmsapp-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ours, err := startOurs(ctx, filepath.Join(dir, "cluster"))
	if err != nil {
		return fmt.Errorf("the cluster: %w", err)
	}
	defer ours.stop()
	theirs, err := startTgtd(ctx, dir)
	if err != nil {
		return fmt.Errorf("tgtd: %w", err)
	}
	defer theirs.stop()
	sides := []*side{ours, theirs}
	for _, s := range sides {
		if err := s.connect(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		// Every block is written once: neither side measures the making of blocks.
		if _, err := s.run(ctx, job{write: true, bytes: 1 << 20, depth: 8}, 0); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	fmt.Printf("%-26s %10s %10s %7s %7s   CPU seconds per 100,000 I/Os\n", "case, I/Os per second", ours.name, theirs.name, "ratio", "target")
	for _, j := range jobs() {
		if *only != "" && *only != j.name {
			continue
		}
		if err := compare(ctx, j, sides); err != nil {
			return err
		}
	}
	return nil
}

// compare runs a case on both sides in turn.
func compare(ctx context.Context, j job, sides []*side) error {
	rates := make([][]float64, len(sides))
	cpu := make([]map[string]float64, len(sides))
	done := make([]int, len(sides))
	for round := range *rounds + 1 {
		for i, s := range sides {
			before := s.cpu()
			r, err := s.run(ctx, j, *length)
			if err != nil {
				return fmt.Errorf("%s on %s: %w", j.name, s.name, err)
			}
			if round == 0 {
				continue // to warm up
			}
			rates[i] = append(rates[i], float64(r.count)/r.took.Seconds())
			done[i] += r.count
			if cpu[i] == nil {
				cpu[i] = map[string]float64{}
			}
			for k, v := range s.cpu() {
				cpu[i][k] += v - before[k]
			}
		}
	}
	a, b := median(rates[0]), median(rates[1])
	target := "-"
	if j.target > 0 {
		target = fmt.Sprintf("%.1f", j.target)
	}
	fmt.Printf("%-26s %10.0f %10.0f %7.2f %7s  ", j.name, a, b, a/b, target)
	for i, s := range sides {
		for _, p := range s.procs {
			fmt.Printf(" %s %.1f", p.name, cpu[i][p.name]*1e5/float64(done[i]))
		}
		fmt.Printf(" client %.1f;", cpu[i]["client"]*1e5/float64(done[i]))
	}
	fmt.Println()
	return nil
}

func median(all []float64) float64 {
	s := slices.Sorted(slices.Values(all))
	return s[len(s)/2]
}

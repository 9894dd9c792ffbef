// Command bench compares a cluster of three real daemons with Debian's tgtd, one copy and write cache off, on the same file
// system: one client for all, in turn, medians and ratios. It has two LUNs of ours: one with two replicas, one of them at the
// leader, and one with one replica at the leader. `make bench` runs it. It needs root and the Debian package tgt, and nothing
// else running on the machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pmsapp/systemtest/bench/measure"
)

var (
	binary = flag.String("binary", "bin/pmsapp", "the program")
	rounds = flag.Int("rounds", 5, "how often each case is run on each side")
	length = flag.Duration("time", 2*time.Second, "of one run")
	size   = flag.Int64("size", 512<<20, "of the LUNs, in bytes")
	parent = flag.String("dir", "", "where the data go; a new directory in the system's temporary one by default")
	copies = flag.String("replicas", "2,1", "of our volumes: 2, 1 or both")
	beside = flag.String("beside", "", "another version of the program, in a cluster of its own, in turn with -binary")
	only   = flag.String("case", "", "only the cases whose names have this in them")
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
	name     string
	write    bool
	bytes    int
	depth    int // of each session
	random   bool
	sessions int // 1 if 0
	targets  map[int]float64
}

func jobs() []job {
	const k = 1 << 10
	return []job{
		{"4k-random-write-qd1", true, 4 * k, 1, true, 1, map[int]float64{2: 0.5, 1: 1}},
		{"4k-random-write-qd32", true, 4 * k, 32, true, 1, map[int]float64{2: 0.7, 1: 1.5}},
		{"4k-random-read-qd1", false, 4 * k, 1, true, 1, map[int]float64{1: 1}},
		{"4k-random-read-qd32", false, 4 * k, 32, true, 1, map[int]float64{2: 0.8, 1: 1.3}},
		{"256k-sequential-write-qd8", true, 256 * k, 8, false, 1, map[int]float64{2: 0.8, 1: 1.2}},
		{"256k-sequential-read-qd8", false, 256 * k, 8, false, 1, map[int]float64{1: 1.2}},
		{"4k-random-read-64-sessions-qd32", false, 4 * k, 32, true, manySessions, nil},
		{"4k-random-write-64-sessions-qd32", true, 4 * k, 32, true, manySessions, nil},
	}
}

const manySessions = 64

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp(*parent, "pmsapp-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	theirs, err := startTgtd(ctx, dir)
	if err != nil {
		return fmt.Errorf("tgtd: %w", err)
	}
	defer theirs.stop()
	sides := []*side{theirs}
	for i, program := range []string{*binary, *beside} {
		if program == "" {
			continue
		}
		ours, stop, err := startOurs(ctx, program, filepath.Join(dir, fmt.Sprint("cluster", i)))
		if err != nil {
			return fmt.Errorf("the cluster of %s: %w", program, err)
		}
		defer stop()
		for _, s := range ours {
			if i > 0 {
				s.name = "beside" + strings.TrimPrefix(s.name, "pmsapp")
			}
			sides = append(sides, s)
		}
	}
	for _, s := range sides {
		defer s.disconnect()
		if err := s.connect(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		// Every block is written once, and read: no side measures the making of blocks, and each may have in memory what it keeps there.
		for _, write := range []bool{true, false} {
			if _, err := s.run(ctx, job{write: write, bytes: 1 << 20, depth: 8}, 0); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	for _, j := range jobs() {
		if !strings.Contains(j.name, *only) {
			continue
		}
		if err := compare(ctx, j, sides); err != nil {
			return err
		}
	}
	return nil
}

// compare runs a case on all sides in turn, and prints a line for each: the first is what the others are compared with.
func compare(ctx context.Context, j job, sides []*side) error {
	all := make([]measure.Runs, len(sides))
	for round := range *rounds + 1 {
		for i, s := range sides {
			before := measure.CPU(s.procs)
			r, err := s.run(ctx, j, *length)
			if err != nil {
				return fmt.Errorf("%s on %s: %w", j.name, s.name, err)
			}
			if round > 0 { // the first is to warm up
				all[i].Add(float64(r.count)/r.took.Seconds(), r.count, before, measure.CPU(s.procs))
				all[i].Fair = append(all[i].Fair, r.slowest)
			}
		}
	}
	fmt.Println(j.name)
	base := 0.0
	for i, s := range sides {
		fmt.Print(all[i].Line(s.name, base, j.targets[s.copies], s.procs))
		if i == 0 {
			base = measure.Median(all[0].Rates)
		}
		if j.sessions > 1 {
			fmt.Printf("   slowest session %.2f of the mean; memory", measure.Median(all[i].Fair))
			for _, p := range s.procs {
				fmt.Printf(" %s %d MiB", p.Name, measure.Memory(p.PID)>>20)
			}
		}
		fmt.Println()
	}
	return nil
}

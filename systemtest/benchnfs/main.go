// Command benchnfs compares a share with two replicas of a cluster of three real daemons with Debian's nfs-ganesha (VFS), one
// copy, on the same file system: one client for both, one connection, in turn, medians and ratios. Two versions of the program can be
// compared in the same way (-beside). `make bench-nfs` runs it. It
// needs root and the Debian packages nfs-ganesha, nfs-ganesha-vfs and rpcbind, and nothing else running on the machine.
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

	"pmsapp/internal/nfs3"
	"pmsapp/systemtest/bench/measure"
)

var (
	binary = flag.String("binary", "bin/pmsapp", "the program")
	beside = flag.String("beside", "", "other versions of the program, separated by commas, each in a cluster of its own, in turn with -binary")
	alone  = flag.Bool("alone", false, "without ganesha: ratios are those to the first cluster")
	rounds = flag.Int("rounds", 5, "how often each case is run on each side")
	length = flag.Duration("time", 2*time.Second, "of one run")
	size   = flag.Int64("size", 256<<20, "of the files, in bytes")
	parent = flag.String("dir", "", "where the data go; a new directory in the system's temporary one by default")
	only   = flag.String("case", "", "only the cases whose names have this in them")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "benchnfs:", err)
		os.Exit(1)
	}
}

// settle is left after a file was removed: a share makes its space zeros in the background, which would be measured with the next side.
const settle = 2 * time.Second

// job is one case.
type job struct {
	name   string
	kind   kind
	bytes  int
	depth  int
	random bool
	holes  bool // every run has a file of its own, of which nothing was written
	target float64
}

type kind uint8

const (
	read  kind = iota
	write      // FILE_SYNC
	files      // CREATE, WRITE of 4 KiB unstable, COMMIT
)

func jobs() []job {
	const k = 1 << 10
	return []job{
		{"4k-random-write-qd1", write, 4 * k, 1, true, false, 0},
		{"4k-random-write-qd32", write, 4 * k, 32, true, false, 1},
		{"4k-random-write-into-holes-qd32", write, 4 * k, 32, true, true, 0.7},
		{"4k-random-read-qd32", read, 4 * k, 32, true, false, 1},
		{"1m-sequential-write-qd4", write, k * k, 4, false, false, 0.5},
		{"1m-sequential-read-qd4", read, k * k, 4, false, false, 1},
		{"create-write-commit-16", files, 4 * k, 16, false, false, 0},
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp(*parent, "pmsapp-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var sides []*side
	defer func() {
		for _, s := range sides {
			s.stop()
		}
	}()
	if !*alone {
		theirs, err := startGanesha(ctx, dir)
		if err != nil {
			return fmt.Errorf("ganesha: %w", err)
		}
		sides = append(sides, theirs)
	}
	programs := []string{*binary}
	if *beside != "" {
		programs = append(programs, strings.Split(*beside, ",")...)
	}
	for i, program := range programs {
		ours, err := startOurs(ctx, program, i, filepath.Join(dir, fmt.Sprint("cluster", i)))
		if err != nil {
			return fmt.Errorf("the cluster: %w", err)
		}
		sides = append(sides, ours)
	}
	for _, s := range sides {
		if s.file, err = s.make(ctx, "file", *size); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		// Every block is written once, and read: neither side measures the making of blocks, but where that is the case.
		for _, k := range []kind{write, read} {
			if _, err := s.run(ctx, job{kind: k, bytes: 1 << 20, depth: 4}, 0); err != nil {
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

// compare runs a case on both sides in turn.
func compare(ctx context.Context, j job, sides []*side) error {
	all := make([]measure.Runs, len(sides))
	for round := range *rounds + 1 {
		for i, s := range sides {
			file, name := s.file, fmt.Sprintf("%s-%d", j.name, round)
			var err error
			switch {
			case j.holes:
				s.file, err = s.make(ctx, name, *size)
			case j.kind == files:
				s.dir, err = s.mkdir(ctx, name)
			}
			if err != nil {
				return fmt.Errorf("%s on %s: %w", j.name, s.name, err)
			}
			before := measure.CPU(s.procs)
			r, err := s.run(ctx, j, *length)
			if err != nil {
				return fmt.Errorf("%s on %s: %w", j.name, s.name, err)
			}
			if round > 0 { // the first is to warm up
				all[i].Add(float64(r.count)/r.took.Seconds(), r.count, before, measure.CPU(s.procs))
			}
			if s.file = file; j.holes {
				if _, err := s.client.Remove(ctx, s.root, name); err != nil {
					return fmt.Errorf("%s on %s: %w", j.name, s.name, err)
				}
				time.Sleep(settle)
			}
		}
	}
	fmt.Println(j.name)
	fmt.Println(all[0].Line(sides[0].name, 0, 0, sides[0].procs))
	for i := range sides[1:] {
		fmt.Println(all[i+1].Line(sides[i+1].name, measure.Median(all[0].Rates), j.target, sides[i+1].procs))
	}
	return nil
}

// make makes a file of n bytes of which nothing is written.
func (s *side) make(ctx context.Context, name string, n int64) (nfs3.Handle, error) {
	r, err := s.client.Create(ctx, nfs3.CreateArgs{Where: nfs3.DirOp{Dir: s.root, Name: name}, How: nfs3.Guarded})
	if err != nil {
		return nil, fmt.Errorf("making %s: %w", name, err)
	}
	length := uint64(n)
	if _, err := s.client.Setattr(ctx, r.File, nfs3.SetAttr{Size: &length}, nil); err != nil {
		return nil, fmt.Errorf("the size of %s: %w", name, err)
	}
	return r.File, nil
}

func (s *side) mkdir(ctx context.Context, name string) (nfs3.Handle, error) {
	r, err := s.client.Mkdir(ctx, s.root, name, nfs3.SetAttr{})
	return r.File, err
}

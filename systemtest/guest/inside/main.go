// Inside is what the tests of package guest run in their guests: a server that runs commands for the test, and loads that check
// what they read. It is a static binary that the guest finds in the directory that it shares with the test.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// errUsage is returned for a command line that says nothing that can be done.
var errUsage = errors.New("usage: inside serve|blocks|churn|compare|fsx|hold|many|found [flags]")

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
	}
}

// run runs one of the programs. Loads run until ctx ends and then prove what they wrote.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := fs.String("dir", ".", "where the files are")
	workers := fs.Int("workers", 4, "how many write at once")
	seed := fs.Uint64("seed", 1, "of what is written, and in which order")
	switch args[0] {
	case "serve":
		addr := fs.String("addr", "", "where to listen")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return serve(ctx, *addr)
	case "blocks":
		size := fs.Int64("size", 16<<20, "of a worker's file")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return runBlocks(ctx, blocksConfig{dir: *dir, workers: *workers, size: *size, seed: *seed}, out)
	case "churn":
		manifest := fs.String("manifest", "", "the file that says in the end what is there")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return runChurn(ctx, churnConfig{dir: *dir, workers: *workers, seed: *seed, manifest: *manifest}, out)
	case "compare":
		manifest := fs.String("manifest", "", "what churn wrote")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return runCompare(*dir, *manifest, out)
	case "fsx":
		ops := fs.Int("ops", 10000, "how many operations")
		size := fs.Int64("size", 256<<10, "of the file at most")
		file := fs.String("file", "", "which")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return runFSX(ctx, fsxConfig{file: *file, ops: *ops, size: *size, seed: *seed}, out)
	case "hold":
		var c holdConfig
		fs.StringVar(&c.file, "file", "", "which")
		fs.StringVar(&c.kind, "kind", "fcntl", "of lock: fcntl or flock")
		fs.BoolVar(&c.shared, "shared", false, "others may share the lock")
		fs.BoolVar(&c.try, "try", false, "neither wait for the lock nor hold it")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return runHold(ctx, c, out)
	case "many", "found":
		files := fs.Int("files", 1000, "how many")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		c := manyConfig{dir: *dir, files: *files, workers: *workers}
		if args[0] == "found" {
			return runFound(ctx, c, out)
		}
		return runMany(ctx, c, out)
	}
	return errUsage
}

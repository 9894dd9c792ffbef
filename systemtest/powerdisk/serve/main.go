// Command serve serves a disk of package powerdisk, in a process of its own: while the kernel waits for an answer of the disk's, the
// process that it waits for must not be the one that asked.
package main

import (
	"flag"
	"fmt"
	"os"

	"pmsapp/systemtest/powerdisk"
)

func main() {
	var c powerdisk.ServeConfig
	flag.StringVar(&c.Dir, "dir", "", "for the image and the mount")
	flag.StringVar(&c.Mount, "mount", "", "where a file system may be mounted")
	flag.Int64Var(&c.Size, "size", 0, "in bytes")
	flag.Uint64Var(&c.Seed, "seed", 0, "of what is lost")
	flag.Parse()
	if err := powerdisk.Serve(c, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

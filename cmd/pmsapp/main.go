// Command pmsapp is a node of a pmsApp cluster, and the tool to administer one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"pmsapp/appliance/cli"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pmsapp:", err)
		os.Exit(1)
	}
}

// run ends when the command has, or in order when a signal asks for it.
func run(ctx context.Context, args []string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
}

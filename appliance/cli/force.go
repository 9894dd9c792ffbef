package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"pmsapp/appliance/api"
)

type volumeForceCmd struct {
	Volume  string `arg:"" help:"The volume's name."`
	Replica string `required:"" help:"The node whose replica the volume goes on with." placeholder:"NODE"`
	Yes     bool   `help:"Do not ask for the volume's name."`
}

func (cmd volumeForceCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		would, err := c.ForceVolume(e.ctx, cmd.Volume, api.Force{Replica: cmd.Replica})
		if err != nil {
			return err
		}
		if !cmd.Yes {
			warnForce(e.Err, would)
			fmt.Fprintf(e.Err, "Type the name of the volume to go on: ")
			line, err := bufio.NewReader(io.LimitReader(e.In, 4096)).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("reading the answer: %w", err)
			}
			if strings.TrimSpace(line) != would.Volume {
				return fmt.Errorf("that is not %q: nothing was done", would.Volume)
			}
		}
		out, err := c.ForceVolume(e.ctx, cmd.Volume, api.Force{Replica: cmd.Replica, Confirm: would.Volume})
		if err != nil {
			return err
		}
		return e.show(out, func(w io.Writer) {
			warnForce(w, would)
			fmt.Fprintf(w, "Done: %s goes on with the replica on %s.\n", out.Volume, cmd.Replica)
		})
	})
}

func warnForce(w io.Writer, f api.Forced) {
	fmt.Fprintf(w, "%s is to go on with the replica on %s.\n", f.Volume, f.Replica)
	for _, r := range f.Replicas {
		state := "not in sync"
		if r.InSync {
			state = "in sync"
		}
		if r.Reached {
			fmt.Fprintf(w, "  %s: %s, last knew epoch %d\n", r.Node, state, r.Epoch)
		} else {
			fmt.Fprintf(w, "  %s: %s, cannot be reached\n", r.Node, state)
		}
	}
	fmt.Fprintf(w, "%s\n%s\n", f.Loss, f.Running)
}

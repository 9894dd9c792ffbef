package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"pmsapp/appliance/api"
)

type volumeForceCmd struct {
	Volume  string `arg:"" help:"The volume's name."`
	Replica string `required:"" help:"The node whose replica the volume goes on with." placeholder:"NODE"`
	Yes     bool   `help:"Do not ask for the volume's name."`

	Incomplete bool `help:"Accept a replica that was never in sync, or to which a resync was begun: no copy of any one moment."`
}

func (cmd volumeForceCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		would, err := c.ForceVolume(e.ctx, cmd.Volume, api.Force{Replica: cmd.Replica, Incomplete: cmd.Incomplete})
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
		out, err := c.ForceVolume(e.ctx, cmd.Volume, api.Force{Replica: cmd.Replica, Confirm: would.Volume, Incomplete: cmd.Incomplete})
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
		fmt.Fprintf(w, "  %s: %s\n", r.Node, describeForce(r))
	}
	fmt.Fprintf(w, "%s\n%s\n", f.Loss, f.Running)
}

func describeForce(r api.ForceReplica) string {
	var out []string
	switch {
	case r.InSync:
		out = append(out, "in sync")
	case r.Left.IsZero():
		out = append(out, "never in sync")
	default:
		out = append(out, fmt.Sprintf("not in sync since %s (epoch %d)", r.Left.Local().Format(time.DateTime), r.LeftEpoch))
	}
	if r.Incomplete && !r.Left.IsZero() {
		out = append(out, "partly overwritten by a resync")
	}
	if r.Reverted {
		out = append(out, "put back to an earlier state")
	}
	if r.Reached {
		out = append(out, fmt.Sprintf("last knew epoch %d", r.Epoch))
	} else {
		out = append(out, "cannot be reached")
	}
	return strings.Join(out, ", ")
}

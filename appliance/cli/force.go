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
	Replica string `help:"The node whose replica the volume goes on with; without it nothing is done, and they are listed." placeholder:"NODE"`
	Pool    string `help:"The pool on that node, if it has several replicas." placeholder:"PATH"`
	Yes     bool   `help:"Do not ask for the volume's name."`

	Incomplete bool `help:"Accept a replica that was never in sync, or to which a resync was begun: no copy of any one moment. After a restore of the catalog: one that another has on record as not in sync."`
}

func (cmd volumeForceCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		would, err := c.ForceVolume(e.ctx, cmd.Volume, api.Force{Replica: cmd.Replica, Pool: cmd.Pool, Incomplete: cmd.Incomplete})
		if err != nil {
			return err
		}
		if cmd.Replica == "" {
			return e.show(would, func(w io.Writer) {
				fmt.Fprintf(w, "%s may go on with one of these (--replica NODE):\n", would.Volume)
				listForce(w, would)
			})
		}
		if !cmd.Yes {
			warnForce(e.Err, would)
			if err := e.confirm(would.Volume); err != nil {
				return err
			}
		}
		out, err := c.ForceVolume(e.ctx, cmd.Volume, api.Force{Replica: cmd.Replica, Pool: cmd.Pool, Confirm: would.Volume, Incomplete: cmd.Incomplete})
		if err != nil {
			return err
		}
		return e.show(out, func(w io.Writer) {
			warnForce(w, would)
			fmt.Fprintf(w, "Done: %s goes on with the replica on %s.\n", out.Volume, cmd.Replica)
		})
	})
}

// confirm has the user type a volume's name.
func (e *env) confirm(volume string) error {
	fmt.Fprintf(e.Err, "Type the name of the volume to go on: ")
	line, err := bufio.NewReader(io.LimitReader(e.In, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if strings.TrimSpace(line) != volume {
		return fmt.Errorf("that is not %q: nothing was done", volume)
	}
	return nil
}

func warnForce(w io.Writer, f api.Forced) {
	fmt.Fprintf(w, "%s is to go on with the replica on %s.\n", f.Volume, f.Replica)
	listForce(w, f)
	fmt.Fprintf(w, "%s\n%s\n", f.Loss, f.Running)
}

func listForce(w io.Writer, f api.Forced) {
	for _, r := range f.Replicas {
		where := r.Node
		if f.Restored { // it may have several
			where += ", pool " + r.Pool
		}
		fmt.Fprintf(w, "  %s: %s\n", where, describeForce(r, f.Restored))
	}
	for _, u := range f.Unseen {
		fmt.Fprintf(w, "  not looked at: %s\n", u)
	}
}

// describeRestored is describeForce's beginning where a backup is all that the catalog knows.
func describeRestored(r api.ForceReplica) (out []string) {
	out = append(out, map[bool]string{true: "in sync by the backup", false: "not in sync by the backup"}[r.InSync])
	if r.Other {
		out = append(out, "of another history, older or newer")
	}
	if r.Silent {
		out = append(out, "did not say what it knows")
	}
	if len(r.DoubtedBy) > 0 {
		out = append(out, "not in sync by that on "+strings.Join(r.DoubtedBy, " and "))
	}
	if len(r.With) > 0 {
		out = append(out, "in sync to the end with "+strings.Join(r.With, " and "))
	}
	if len(r.Missing) > 0 {
		out = append(out, "has one on record that nobody has found, on "+strings.Join(r.Missing, " and "))
	}
	if r.Reached && r.Why == "" {
		out = append(out, fmt.Sprintf("marks up to %d", r.Marks))
	}
	return out
}

func describeForce(r api.ForceReplica, restored bool) string {
	var out []string
	switch {
	case restored:
		out = describeRestored(r)
	case r.InSync:
		out = append(out, "in sync")
	case r.Left.IsZero():
		out = append(out, "never in sync")
	default:
		out = append(out, fmt.Sprintf("not in sync since %s (epoch %d)", r.Left.Local().Format(time.DateTime), r.LeftEpoch))
	}
	if r.Incomplete && !restored && !r.Left.IsZero() {
		out = append(out, "partly overwritten by a resync")
	}
	if r.Reverted {
		out = append(out, "put back to an earlier state")
	}
	switch {
	case r.Reached && r.Epoch > 0:
		out = append(out, fmt.Sprintf("its pool last knew epoch %d", r.Epoch))
	case !r.Reached:
		out = append(out, "cannot be reached")
	}
	if r.Reached && r.Why != "" {
		out = append(out, r.Why)
	}
	return strings.Join(out, ", ")
}

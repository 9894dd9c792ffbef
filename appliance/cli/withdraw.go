package cli

import (
	"fmt"
	"io"
	"strings"

	"pmsapp/appliance/api"
)

type volumeWithdrawCmd struct {
	Volume string `arg:"" help:"The volume's name."`
	Yes    bool   `help:"Do not ask for the volume's name."`
}

func (cmd volumeWithdrawCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		would, err := c.WithdrawVolume(e.ctx, cmd.Volume, api.Withdraw{})
		if err != nil {
			return err
		}
		warn := func(w io.Writer) {
			fmt.Fprintf(w, "%s is to be no LUN and no share any more (%s).\n%s\n", would.Volume, strings.Join(would.Exports, ", "), would.Running)
		}
		if !cmd.Yes {
			warn(e.Err)
			if err := e.confirm(would.Volume); err != nil {
				return err
			}
		}
		out, err := c.WithdrawVolume(e.ctx, cmd.Volume, api.Withdraw{Confirm: would.Volume})
		if err != nil {
			return err
		}
		return e.show(out, func(w io.Writer) {
			if cmd.Yes {
				warn(w)
			}
			fmt.Fprintf(w, "Done: %s is not exported. pmsapp volume delete %s gives it up.\n", out.Volume, out.Volume)
		})
	})
}

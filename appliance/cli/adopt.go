package cli

import (
	"fmt"
	"io"

	"pmsapp/appliance/api"
)

type volumeAdoptCmd struct {
	ID    string `arg:"" help:"The volume's id, as status tells it."`
	Name  string `required:"" help:"Its name from now on."`
	Block int    `help:"The logical block in bytes that it was created with: 512 or 4096." enum:"512,4096" default:"512"`

	durabilityFlag
}

func (cmd volumeAdoptCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		v, err := c.AdoptVolume(e.ctx, cmd.ID, api.Adopt{Name: cmd.Name, Logical: cmd.Block, Durability: cmd.Durability})
		if err != nil {
			return err
		}
		return e.show(v, func(w io.Writer) {
			fmt.Fprintf(w, "%s is known again, with %s and %s. If other nodes may have more of it, repeat this when they are there. pmsapp volume force %s lists its replicas, and names the one that it goes on with.\n", v.Name, bytes(v.Size), plural(len(v.Replicas), "replica"), v.Name)
		})
	})
}

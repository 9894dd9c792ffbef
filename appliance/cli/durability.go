package cli

import (
	"fmt"
	"io"

	"pmsapp/appliance/api"
)

type volumeSetCmd struct {
	Volume     string `arg:"" help:"The volume's name."`
	Durability string `required:"" enum:"disk,memory" help:"disk: a write is acknowledged when every in-sync replica has it on stable media. memory: when every one has it in memory; what hosts have not flushed is lost if all replicas lose power, or restart, at once, and hosts must look at the disk again to learn of its write cache."`
}

func (cmd volumeSetCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		v, err := c.SetDurability(e.ctx, cmd.Volume, api.NewDurability{Durability: cmd.Durability})
		if err != nil {
			return err
		}
		return e.show(v, func(w io.Writer) {
			fmt.Fprintf(w, "%s has the durability %s. %s\n", v.Name, v.Durability, whatItMeans(v))
		})
	})
}

// durabilityFlag is for what makes volumes.
type durabilityFlag struct {
	Durability string `enum:"disk,memory" default:"disk" help:"What an acknowledged write means: on stable media of every in-sync replica, or in its memory; then what hosts have not flushed is lost if all replicas lose power, or restart, at once."`
}

// showDurability tells a volume's durability, if it is another than the usual one.
func showDurability(line func(k, format string, a ...any), v api.Volume) {
	if v.Durability == api.Memory || v.Cached {
		line("durability", "%s: %s", v.Durability, whatItMeans(v))
	}
	if v.Losses > 0 {
		line("unflushed lost", "%d times all replicas had restarted, or failed to flush, with writes that hosts had not flushed", v.Losses)
	}
}

// whatItMeans says what a user risks.
func whatItMeans(v api.Volume) string {
	switch {
	case v.Durability == api.Memory:
		return "What hosts have written and not flushed (SYNCHRONIZE CACHE, FUA, NFS COMMIT) is lost if all in-sync replicas lose power, or restart, " +
			"at once; it is flushed every few seconds. A host that has the disk open must look at it again, or it never flushes."
	case v.Cached:
		return "What was acknowledged before is being flushed."
	}
	return "Every acknowledged write is on stable media of all in-sync replicas."
}

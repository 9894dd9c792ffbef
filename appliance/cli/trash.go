package cli

import (
	"fmt"
	"io"
	"time"

	"pmsapp/appliance/api"
)

type volumeListCmd struct {
	Trash bool `help:"The deleted volumes that can be restored."`
}

func (cmd volumeListCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if cmd.Trash {
			t, err := c.Trash(e.ctx)
			if err != nil {
				return err
			}
			return e.show(t, func(w io.Writer) { trashTable(w, t) })
		}
		s, err := e.known(c)
		if err != nil {
			return err
		}
		return e.show(s.Volumes, func(w io.Writer) { volumeTable(w, s.Volumes) })
	})
}

func trashTable(w io.Writer, all []api.Trashed) {
	row(w, "VOLUME", "SIZE", "DELETED", "PURGED IN", "REPLICAS", "ID")
	for _, t := range all {
		left, deleted := "by command", ""
		if t.Left >= 0 {
			left = seconds(float64(t.Left))
		}
		if !t.Deleted.IsZero() {
			deleted = t.Deleted.Local().Format(time.DateTime)
		}
		row(w, t.Name, bytes(t.Size), deleted, left, replicas(api.Volume{Replicas: t.Replicas}), t.ID)
	}
}

type volumeDeleteCmd struct {
	Volume string `arg:"" help:"The volume's name."`
	Purge  bool   `help:"For good, without the trash."`
	Yes    bool   `help:"Confirm --purge; without it nothing is done."`
}

func (cmd volumeDeleteCmd) Run(e *env) error {
	if cmd.Purge && !cmd.Yes {
		return fmt.Errorf("purging %s destroys its data: say --yes if that is what you want", cmd.Volume)
	}
	return e.call(func(c *api.Client) error {
		if err := c.DeleteVolume(e.ctx, cmd.Volume, cmd.Purge); err != nil {
			return err
		}
		if cmd.Purge {
			return e.done("%s and its data are deleted.", cmd.Volume)
		}
		return e.done("%s is in the trash: pmsapp volume restore %s brings it back, pmsapp volume list --trash tells for how long.", cmd.Volume, cmd.Volume)
	})
}

type volumeRestoreCmd struct {
	Volume string `arg:"" help:"The name that the volume had, or its id."`
	As     string `help:"The name that it gets; by default the one that it had." placeholder:"NAME"`

	OverSubscribe bool `help:"Promise more than volumes.over_subscription allows."`
}

func (cmd volumeRestoreCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		v, err := c.RestoreVolume(e.ctx, cmd.Volume, api.Restore{As: cmd.As, OverSubscribe: cmd.OverSubscribe})
		if err != nil {
			return err
		}
		return e.show(v, func(w io.Writer) {
			if v.Share {
				fmt.Fprintf(w, "%s is back, with its files. pmsapp share export %s --client PREFIX lets clients use it again.\n", v.Name, v.Name)
				return
			}
			fmt.Fprintf(w, "%s is back, with its data. pmsapp lun export %s makes it a LUN again.\n", v.Name, v.Name)
		})
	})
}

type volumePurgeCmd struct {
	Volume string `arg:"" help:"The name that the volume had, or its id."`
	Yes    bool   `help:"Destroy its data; without it nothing is done."`
}

func (cmd volumePurgeCmd) Run(e *env) error {
	if !cmd.Yes {
		return fmt.Errorf("purging %s destroys its data: say --yes if that is what you want", cmd.Volume)
	}
	return e.call(func(c *api.Client) error {
		if err := c.PurgeVolume(e.ctx, cmd.Volume); err != nil {
			return err
		}
		return e.done("%s and its data are deleted.", cmd.Volume)
	})
}

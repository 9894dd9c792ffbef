package cli

import (
	"fmt"
	"io"
	"strings"

	"pmsapp/appliance/api"
)

// shareCmd are the commands for shares.
type shareCmd struct {
	List     shareListCmd     `cmd:"" help:"List the shares."`
	Show     shareShowCmd     `cmd:"" help:"Show a share, and what its top-level directories take."`
	Create   shareCreateCmd   `cmd:"" help:"Create a share."`
	Resize   shareResizeCmd   `cmd:"" help:"Make a share larger while it is in use."`
	Delete   shareDeleteCmd   `cmd:"" help:"Delete a share and its files."`
	Export   shareExportCmd   `cmd:"" help:"Export a share to NFS clients."`
	Unexport shareUnexportCmd `cmd:"" help:"End the export of a share, or that to some clients; its files stay."`
}

type shareListCmd struct{}

func (shareListCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		all, err := c.Shares(e.ctx)
		if err != nil {
			return err
		}
		return e.show(all, func(w io.Writer) {
			row(w, "SHARE", "SIZE", "USED", "FILES", "STATE", "REPLICAS", "CLIENTS")
			for _, s := range all {
				clients := []string{}
				for _, r := range s.Rules {
					clients = append(clients, r.Client)
				}
				row(w, s.Name, bytes(s.Size), bytes(s.Used), fmt.Sprint(s.Files), s.State, replicas(s.Volume), strings.Join(clients, ", "))
			}
		})
	})
}

type shareShowCmd struct {
	Share string `arg:"" help:"The share's name."`
}

func (cmd shareShowCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		s, err := c.Share(e.ctx, cmd.Share)
		if err != nil {
			return err
		}
		return e.show(s, func(w io.Writer) { showShare(w, s) })
	})
}

func showShare(w io.Writer, s api.Share) {
	line := func(k, format string, a ...any) { fmt.Fprintf(w, "%s\t%s\n", k, fmt.Sprintf(format, a...)) }
	line("name", "%s", s.Name)
	line("size", "%s (%d bytes), %s used by %d files", bytes(s.Size), s.Size, bytes(s.Used), s.Files)
	open := "open"
	if !s.Open {
		open = "not open"
	}
	line("state", "%s, %s", s.State, open)
	for _, r := range s.Replicas {
		line("replica", "on %s in pool %s: %s%s", r.Node, r.Pool, r.State, progress(r))
	}
	showDurability(line, s.Volume)
	if len(s.Rules) == 0 {
		line("exported", "no")
	}
	for _, r := range s.Rules {
		how := "read and write"
		if r.ReadOnly {
			how = "read only"
		}
		line("exported", "to %s: %s, squash %s (uid %d, gid %d)", r.Client, how, r.Squash, r.AnonUID, r.AnonGID)
	}
	for _, at := range s.Servers {
		line("mount", "%s", at.MountCommand(s.Path))
	}
	for _, warning := range s.Warnings {
		line("warning", "%s", warning)
	}
	for _, u := range s.Usages {
		line("usage", "%s in %d files: %s", bytes(u.Used), u.Files, u.Name)
	}
}

type shareCreateCmd struct {
	Name     string   `arg:"" help:"The share's name: letters, digits and hyphens."`
	Size     size     `required:"" help:"Its size, as in 200G." placeholder:"SIZE"`
	Replicas int      `help:"How many copies, each on a node of its own: 1 to 3. By default 2, or as many as there are --nodes." placeholder:"N"`
	Nodes    []string `help:"The nodes that get them; by default those with the most free space." placeholder:"NODE"`

	OverSubscribe bool `help:"Promise more than volumes.over_subscription allows."`
	durabilityFlag
}

func (cmd shareCreateCmd) Run(e *env) error {
	n := api.NewVolume{Name: cmd.Name, Size: int64(cmd.Size), Replicas: cmd.Replicas, Nodes: cmd.Nodes, Durability: cmd.Durability,
		OverSubscribe: cmd.OverSubscribe}
	if n.Replicas == 0 {
		if n.Replicas = len(n.Nodes); n.Replicas == 0 {
			n.Replicas = 2
		}
	}
	return e.call(func(c *api.Client) error {
		s, err := c.CreateShare(e.ctx, n)
		if err != nil {
			return err
		}
		return e.show(s, func(w io.Writer) {
			fmt.Fprintf(w, "%s has %s. pmsapp share export %s --client PREFIX lets clients use it.\n", s.Name, bytes(s.Size), s.Name)
			if s.Durability == api.Memory {
				fmt.Fprintf(w, "Its durability is memory. %s\n", whatItMeans(s.Volume))
			}
		})
	})
}

type shareResizeCmd struct {
	Share string `arg:"" help:"The share's name."`
	Size  size   `arg:"" help:"Its new size, as in 300G."`

	OverSubscribe bool `help:"Promise more than volumes.over_subscription allows."`
}

func (cmd shareResizeCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if _, err := c.Share(e.ctx, cmd.Share); err != nil { // a LUN's volume is not meant
			return err
		}
		v, err := c.ResizeVolume(e.ctx, cmd.Share, api.NewSize{Size: int64(cmd.Size), OverSubscribe: cmd.OverSubscribe})
		if err != nil {
			return err
		}
		return e.show(v, func(w io.Writer) { fmt.Fprintf(w, "%s has %s.\n", v.Name, bytes(v.Size)) })
	})
}

type shareDeleteCmd struct {
	Share string `arg:"" help:"The share's name."`
	Purge bool   `help:"For good, without the trash."`
	Yes   bool   `help:"Confirm --purge; without it nothing is done."`
}

func (cmd shareDeleteCmd) Run(e *env) error {
	if cmd.Purge && !cmd.Yes {
		return fmt.Errorf("purging %s destroys its files: say --yes if that is what you want", cmd.Share)
	}
	return e.call(func(c *api.Client) error {
		if err := c.DeleteShare(e.ctx, cmd.Share, cmd.Purge); err != nil {
			return err
		}
		if cmd.Purge {
			return e.done("%s and its files are deleted.", cmd.Share)
		}
		return e.done("%s is in the trash: pmsapp volume restore %s brings it back.", cmd.Share, cmd.Share)
	})
}

type shareExportCmd struct {
	Share    string `arg:"" help:"The share's name."`
	Client   string `required:"" help:"An address, or a prefix as in 192.0.2.0/24. The most specific one that has a client's address counts." placeholder:"PREFIX"`
	ReadOnly bool   `help:"Clients may not change anything."`
	Squash   string `help:"Whose identity is replaced by the anonymous one: nobody's, root's or everybody's. ESXi and Proxmox need none." enum:"none,root,all" default:"root"`
	AnonUID  uint32 `help:"The anonymous user." default:"65534" placeholder:"UID"`
	AnonGID  uint32 `help:"The anonymous group." default:"65534" placeholder:"GID"`
}

func (cmd shareExportCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		s, err := c.ExportShare(e.ctx, cmd.Share, api.ShareRule{Client: cmd.Client, ReadOnly: cmd.ReadOnly, Squash: cmd.Squash, AnonUID: cmd.AnonUID, AnonGID: cmd.AnonGID})
		if err != nil {
			return err
		}
		return e.show(s, func(w io.Writer) {
			for _, warning := range s.Warnings {
				fmt.Fprintf(w, "Warning: %s\n", warning)
			}
			for _, at := range s.Servers {
				fmt.Fprintln(w, at.MountCommand(s.Path))
			}
		})
	})
}

type shareUnexportCmd struct {
	Share  string `arg:"" help:"The share's name."`
	Client string `help:"Only the rule for these clients; by default all." placeholder:"PREFIX"`
}

func (cmd shareUnexportCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if err := c.UnexportShare(e.ctx, cmd.Share, cmd.Client); err != nil {
			return err
		}
		return e.done("%s is not exported so any more.", cmd.Share)
	})
}

package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"pmsapp/appliance/api"
)

func volumeTable(w io.Writer, volumes []api.Volume) {
	row(w, "VOLUME", "SIZE", "STATE", "REPLICAS", "WHY")
	for _, v := range volumes {
		why := v.Reason
		if v.Holding != "" && !strings.Contains(why, v.Holding) { // else it names the nodes, too
			why = v.Holding
		}
		row(w, v.Name, bytes(v.Size), v.State, replicas(v), why)
	}
}

// replicas tells a volume's replicas in one cell.
func replicas(v api.Volume) (s string) {
	for i, r := range v.Replicas {
		if i > 0 {
			s += ", "
		}
		s += r.Node + " " + r.State
		if r.Leaves != "" {
			s += ", " + r.Leaves
		}
		if (r.State == "running" || r.State == "resync") && r.Total > 0 {
			s += fmt.Sprintf(" %d%%, %s to go", 100*r.Done/r.Total, seconds(r.Seconds))
		}
	}
	return s
}

type volumeShowCmd struct {
	Volume string `arg:"" help:"The volume's name."`
}

func (cmd volumeShowCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		v, err := findVolume(e, c, cmd.Volume)
		if err != nil {
			return err
		}
		return e.show(v, func(w io.Writer) { showVolume(w, v) })
	})
}

func showVolume(w io.Writer, v api.Volume) {
	line := func(k, format string, a ...any) { fmt.Fprintf(w, "%s\t%s\n", k, fmt.Sprintf(format, a...)) }
	line("name", "%s", v.Name)
	line("id", "%s", v.ID)
	line("size", "%s (%d bytes)", bytes(v.Size), v.Size)
	line("state", "%s", v.State)
	if v.Reason != "" {
		line("why", "%s", v.Reason)
	}
	if v.Holding != "" {
		line("I/O waits", "%s", v.Holding)
	}
	line("served last", "in epoch %d", v.Epoch)
	showDurability(line, v)
	if v.Dirty > 0 {
		line("to reconcile", "%d regions", v.Dirty)
	}
	showScrub(line, v.Scrub)
	for _, r := range v.Replicas {
		line("replica", "on %s in pool %s: %s%s", r.Node, r.Pool, r.State, progress(r))
		if r.Leaves != "" {
			line("", "%s", map[string]string{"moving": "it leaves when the one that takes its place is in sync", "leaving": "it is to leave"}[r.Leaves])
		}
	}
	for _, g := range v.Gone {
		line("was", "on %s in pool %s: its data is deleted when that is reachable", g.Node, g.Pool)
	}
	switch {
	case v.Share:
		line("exported", "it is a share: pmsapp share show %s", v.Name)
		return
	case v.LUN == nil:
		line("exported", "no")
		return
	}
	for _, p := range v.LUN.Portals {
		line("exported", "iscsi://%s/%s/%d", p, v.LUN.Target, v.LUN.Number)
	}
}

func progress(r api.Replica) string {
	switch {
	case r.Error != "":
		return ": " + r.Error
	case r.Total > 0 && r.State != "in sync":
		return fmt.Sprintf(": %s of %s looked at, %s copied, %s to go", bytes(r.Done), bytes(r.Total), bytes(r.Copied), seconds(r.Seconds))
	}
	return ""
}

type volumeCreateCmd struct {
	Name     string   `arg:"" help:"The volume's name: letters, digits and hyphens."`
	Size     size     `required:"" help:"Its size, as in 10G." placeholder:"SIZE"`
	Replicas int      `help:"How many copies, each on a node of its own: 1 to 3. By default 2, or as many as there are --nodes." placeholder:"N"`
	Nodes    []string `help:"The nodes that get them; by default those with the most free space." placeholder:"NODE"`
	Block    int      `help:"The logical block in bytes: 512 or 4096." enum:"512,4096" default:"512"`

	OverSubscribe bool `help:"Promise more than volumes.over_subscription allows."`
	durabilityFlag
}

func (cmd volumeCreateCmd) Run(e *env) error {
	n := api.NewVolume{Name: cmd.Name, Size: int64(cmd.Size), Replicas: cmd.Replicas, Nodes: cmd.Nodes, Logical: cmd.Block, Durability: cmd.Durability,
		OverSubscribe: cmd.OverSubscribe}
	if n.Replicas == 0 {
		if n.Replicas = len(n.Nodes); n.Replicas == 0 {
			n.Replicas = 2
		}
	}
	return e.call(func(c *api.Client) error {
		v, err := c.CreateVolume(e.ctx, n)
		if err != nil {
			return err
		}
		return e.show(v, func(w io.Writer) {
			fmt.Fprintf(w, "%s has %s on", v.Name, bytes(v.Size))
			for i, r := range v.Replicas {
				sep := ""
				if i > 0 {
					sep = " and"
				}
				fmt.Fprintf(w, "%s %s", sep, r.Node)
			}
			fmt.Fprintf(w, ". pmsapp lun export %s makes it a LUN.\n", v.Name)
			if v.Durability == api.Memory {
				fmt.Fprintf(w, "Its durability is memory. %s\n", whatItMeans(v))
			}
		})
	})
}

type volumeResyncCmd struct {
	Volume string `arg:"" help:"The volume's name."`
	Node   string `help:"The node whose replica is meant; by default all that are not in sync." placeholder:"NAME"`
}

func (cmd volumeResyncCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if err := c.Resync(e.ctx, cmd.Volume, api.Resync{Node: cmd.Node}); err != nil {
			return err
		}
		return e.done("The resync of %s begins; pmsapp volume show %s tells how far it is.", cmd.Volume, cmd.Volume)
	})
}

type volumeScrubCmd struct {
	Volume string `arg:"" help:"The volume's name."`
	Stop   bool   `help:"Stop the one that is under way."`
	Rate   int64  `help:"MiB of the volume in a second; by default scrub.rate of the leader's configuration." placeholder:"MIB"`
}

func (cmd volumeScrubCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		s, err := c.Scrub(e.ctx, cmd.Volume, api.NewScrub{Stop: cmd.Stop, Rate: cmd.Rate})
		if err != nil {
			return err
		}
		if cmd.Stop {
			return e.done("%s is not scrubbed.", cmd.Volume)
		}
		return e.show(s, func(w io.Writer) {
			fmt.Fprintf(w, "The scrub of %s began at %s; pmsapp volume show %s tells how far it is and what it found.\n", cmd.Volume,
				s.Began.Format(time.DateTime), cmd.Volume)
		})
	})
}

// showScrub tells of a volume's scrubs.
func showScrub(line func(k, format string, a ...any), s *api.Scrub) {
	if s == nil {
		line("scrubbed", "never")
		return
	}
	if s.Running {
		line("scrub", "began at %s: %s of %s looked at", s.Began.Format(time.DateTime), bytes(s.Done), bytes(s.Total))
	}
	if r := s.Last; r != nil {
		line("scrubbed", "until %s: %s read in %s; mended %d bytes, unreadable %d, differing %d", r.Ended.Format(time.DateTime), bytes(r.Bytes),
			seconds(r.Seconds), r.Mended, r.Unreadable, r.Differing)
	}
}

type statusCmd struct {
	Local bool `help:"Only what the node that is asked knows itself."`
}

func (cmd statusCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		s, err := c.Status(e.ctx, cmd.Local)
		if err != nil {
			return err
		}
		return e.show(s, func(w io.Writer) { showStatus(w, s) })
	})
}

func showStatus(w io.Writer, s api.Status) {
	leader := "no node leads: " + s.Answered + " tells what it knows"
	if s.Leader != "" {
		leader = fmt.Sprintf("%s leads in epoch %d", s.Leader, s.Epoch)
	}
	fmt.Fprintf(w, "Cluster %s: %s.\n", s.Cluster, leader)
	if s.Virtual != "" {
		bound := "nobody has it"
		if s.Bound {
			bound = s.Leader + " has it"
		}
		fmt.Fprintf(w, "Virtual address %s: %s.\n", s.Virtual, bound)
	}
	for _, warning := range s.Warnings {
		fmt.Fprintf(w, "Warning: %s\n", warning)
	}
	fmt.Fprintln(w)
	nodeTable(w, s.Nodes)
	if len(s.Volumes) > 0 {
		fmt.Fprintln(w)
		volumeTable(w, s.Volumes)
	}
}

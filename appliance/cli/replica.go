package cli

import (
	"fmt"
	"io"

	"pmsapp/appliance/api"
)

type replicaCmd struct {
	Add    replicaAddCmd    `cmd:"" help:"Give a volume one more replica."`
	Remove replicaRemoveCmd `cmd:"" help:"Take a replica from a volume and delete its data there."`
	Move   replicaMoveCmd   `cmd:"" help:"Move a replica to another node, or make a lost one anew there."`
}

type replicaAddCmd struct {
	Volume string `arg:"" help:"The volume's name."`
	Node   string `help:"The node that gets it; by default the one with the most free space." placeholder:"NODE"`
	Pool   string `help:"The pool on that node; by default the one with the most free space." placeholder:"PATH"`

	OverSubscribe bool `help:"Promise more than volumes.over_subscription allows."`
}

func (cmd replicaAddCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		r := api.NewReplica{Node: cmd.Node, Pool: cmd.Pool, OverSubscribe: cmd.OverSubscribe}
		if r.Node == "" {
			v, err := findVolume(e, c, cmd.Volume)
			if err != nil {
				return err
			}
			for _, x := range v.Replicas {
				if x.Leaves == "" {
					r.Replicas++
				}
			}
			r.Replicas++
		}
		return e.changed(c.AddReplica(e.ctx, cmd.Volume, r))
	})
}

type replicaMoveCmd struct {
	Volume string `arg:"" help:"The volume's name."`
	From   string `required:"" help:"The node whose replica leaves when the new one is in sync." placeholder:"NODE"`
	To     string `help:"The node that gets the new one; by default the one with the most free space." placeholder:"NODE"`
	Pool   string `help:"The pool on that node; by default the one with the most free space." placeholder:"PATH"`

	OverSubscribe bool `help:"Promise more than volumes.over_subscription allows."`
}

func (cmd replicaMoveCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		return e.changed(c.AddReplica(e.ctx, cmd.Volume, api.NewReplica{Node: cmd.To, Pool: cmd.Pool, Instead: cmd.From, OverSubscribe: cmd.OverSubscribe}))
	})
}

// changed tells where a volume's replicas are now.
func (e *env) changed(v api.Volume, err error) error {
	if err != nil {
		return err
	}
	return e.show(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s. pmsapp volume show %s tells how far it is.\n", v.Name, replicas(v), v.Name)
	})
}

type replicaRemoveCmd struct {
	Volume string `arg:"" help:"The volume's name."`
	Node   string `required:"" help:"The node whose replica is to go." placeholder:"NODE"`
}

func (cmd replicaRemoveCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if err := c.RemoveReplica(e.ctx, cmd.Volume, cmd.Node); err != nil {
			return err
		}
		return e.done("The replica of %s on %s leaves; its data there is deleted as soon as the node is reachable.", cmd.Volume, cmd.Node)
	})
}

type volumeResizeCmd struct {
	Volume string `arg:"" help:"The volume's name."`
	Size   size   `arg:"" help:"Its new size, as in 20G."`

	OverSubscribe bool `help:"Promise more than volumes.over_subscription allows."`
}

func (cmd volumeResizeCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		v, err := c.ResizeVolume(e.ctx, cmd.Volume, api.NewSize{Size: int64(cmd.Size), OverSubscribe: cmd.OverSubscribe})
		if err != nil {
			return err
		}
		return e.show(v, func(w io.Writer) { fmt.Fprintf(w, "%s has %s.\n", v.Name, bytes(v.Size)) })
	})
}

type nodeDrainCmd struct {
	Node   string `arg:"" help:"The node's name."`
	Cancel bool   `help:"Its replicas may stay after all."`
}

func (cmd nodeDrainCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if err := c.Drain(e.ctx, cmd.Node, api.Drain{Cancel: cmd.Cancel}); err != nil {
			return err
		}
		if cmd.Cancel {
			return e.done("%s is not drained any more.", cmd.Node)
		}
		return e.done("%s is being drained; pmsapp status tells how many replicas are left.", cmd.Node)
	})
}

type poolEvacuateCmd struct {
	Node   string `arg:"" help:"The node's name."`
	Path   string `arg:"" help:"The pool's path."`
	Cancel bool   `help:"Its replicas may stay after all."`
}

func (cmd poolEvacuateCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if err := c.Drain(e.ctx, cmd.Node, api.Drain{Pool: cmd.Path, Cancel: cmd.Cancel}); err != nil {
			return err
		}
		if cmd.Cancel {
			return e.done("%s on %s is not evacuated any more.", cmd.Path, cmd.Node)
		}
		return e.done("%s on %s is being evacuated; pmsapp status tells how many replicas are left.", cmd.Path, cmd.Node)
	})
}

// known asks for the state of the cluster, for a command that lists a part of it: while no node leads a list may be old, or empty though
// nothing is lost, and that is to be seen.
func (e *env) known(c *api.Client) (api.Status, error) {
	s, err := c.Status(e.ctx, false)
	switch {
	case err != nil || s.Leader != "":
		return s, err
	case len(s.Volumes) == 0:
		return api.Status{}, api.Errorf(api.ErrNoLeader, "pmsapp status tells which nodes are missing", "no node leads: %s does not know what there is", s.Answered)
	}
	fmt.Fprintf(e.Err, "Warning: no node leads: this is what %s knew last\n", s.Answered)
	return s, nil
}

// findVolume asks for the state of one volume.
func findVolume(e *env, c *api.Client, name string) (api.Volume, error) {
	s, err := e.known(c)
	if err != nil {
		return api.Volume{}, err
	}
	for _, v := range s.Volumes {
		if v.Name == name || v.ID == name {
			return v, nil
		}
	}
	return api.Volume{}, api.Errorf(api.ErrNotFound, "pmsapp volume list shows them", "there is no volume %q", name)
}

package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/replication/poolfs"
	"pmsapp/replication/replica"
)

type doneAnswer struct {
	Done bool `json:"done"`
}

// done tells the end of a command that has nothing else to tell.
func (e *env) done(format string, a ...any) error {
	return e.show(doneAnswer{true}, func(w io.Writer) { fmt.Fprintf(w, format+"\n", a...) })
}

type nodeListCmd struct{}

func (nodeListCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		s, err := c.Status(e.ctx, false)
		if err != nil {
			return err
		}
		return e.show(s.Nodes, func(w io.Writer) { nodeTable(w, s.Nodes) })
	})
}

func nodeTable(w io.Writer, nodes []api.Node) {
	row(w, "NODE", "ROLE", "STATE", "VOTES", "LEADS", "INTER-NODE", "PORTAL", "API", "VERSION")
	for _, n := range nodes {
		state := n.State
		if n.Drained {
			state += ", draining"
		}
		row(w, n.Name, n.Role, state, yes(n.Voter), yes(n.Leader), n.Address, n.Portal, n.API, n.Version)
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

type nodeRemoveCmd struct {
	Node string `arg:"" help:"The node's name."`
}

func (cmd nodeRemoveCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if err := c.RemoveNode(e.ctx, cmd.Node); err != nil {
			return err
		}
		return e.done("%s is no longer a node of the cluster.", cmd.Node)
	})
}

type nodeTokenCmd struct {
	Witness bool `help:"The machine is to be a witness: it votes and has no pools."`
}

func (cmd nodeTokenCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		t, err := c.NewToken(e.ctx, cmd.Witness)
		if err != nil {
			return err
		}
		return e.show(t, func(w io.Writer) { fmt.Fprintln(w, t.Token) })
	})
}

type poolListCmd struct{}

func (poolListCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		s, err := e.known(c)
		if err != nil {
			return err
		}
		pools := []api.Pool{}
		for _, n := range s.Nodes {
			pools = append(pools, n.Pools...)
		}
		return e.show(pools, func(w io.Writer) {
			row(w, "NODE", "PATH", "SIZE", "FREE", "PROMISED", "IN TRASH", "STATE", "ID")
			for _, p := range pools {
				state := p.State
				if p.Drained {
					state += ", evacuating"
				}
				promised := bytes(p.Promised)
				if p.Size > 0 {
					promised += fmt.Sprintf(" (%.2f x)", float64(p.Promised)/float64(p.Size))
				}
				row(w, p.Node, p.Path, bytes(p.Size), bytes(p.Free), promised, bytes(p.Trash), state, p.ID)
			}
		})
	})
}

type poolAddCmd struct {
	Path string `arg:"" help:"An empty directory, or a blank block device, on the node."`
	Node string `help:"The node's name; by default the one that is asked." placeholder:"NAME"`
}

func (cmd poolAddCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		p, err := c.AddPool(e.ctx, api.NewPool{Node: cmd.Node, Path: cmd.Path})
		if err != nil {
			return err
		}
		return e.show(p, func(w io.Writer) {
			fmt.Fprintf(w, "%s on %s is a pool now (%s free).\n", p.Path, p.Node, bytes(p.Free))
		})
	})
}

type poolFormatCmd struct {
	Path string `arg:"" help:"A block device of this machine, by a name that stays, as in /dev/disk/by-id."`
	Wipe bool   `help:"Give up whatever it holds: a partition table, a file system, a pool."`
}

func (cmd poolFormatCmd) Run(e *env) error {
	if err := replica.FormatDevice(cmd.Path, cmd.Wipe); err != nil {
		if errors.Is(err, poolfs.ErrOccupied) || errors.Is(err, replica.ErrNotEmpty) {
			return fmt.Errorf("%w; --wipe gives that up", err)
		}
		return err
	}
	return e.show(struct {
		Path string `json:"path"`
	}{cmd.Path}, func(w io.Writer) { fmt.Fprintf(w, "%s is ready to become a pool.\n", cmd.Path) })
}

type lunListCmd struct{}

func (lunListCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		s, err := c.Status(e.ctx, false)
		if err != nil {
			return err
		}
		luns := []api.LUN{}
		for _, v := range s.Volumes {
			if v.LUN != nil {
				luns = append(luns, *v.LUN)
			}
		}
		maps, err := c.Maps(e.ctx)
		if err != nil {
			return err
		}
		all := struct {
			Exports []api.LUN `json:"exports"`
			Maps    []api.Map `json:"maps"`
		}{luns, maps}
		return e.show(all, func(w io.Writer) {
			row(w, "VOLUME", "TARGET", "LUN", "FOR", "CHAP", "PORTALS")
			for _, l := range luns {
				who := strings.Join(l.Initiators, ",")
				if who == "" {
					who = "any"
				}
				row(w, l.Volume, l.Target, fmt.Sprint(l.Number), who, l.CHAPUser, strings.Join(l.Portals, ","))
			}
			for _, m := range maps {
				who := "host " + m.Host
				if m.ReadOnly {
					who += ", read-only"
				}
				row(w, m.Volume, m.Target, fmt.Sprint(m.LUN), who, "", strings.Join(m.Portals, ","))
			}
		})
	})
}

type lunExportCmd struct {
	Volume     string   `arg:"" help:"The volume's name."`
	Initiator  []string `help:"The iSCSI name of a host that may log in; repeat it for several. Without one any may." placeholder:"IQN"`
	CHAPUser   string   `name:"chap-user" help:"The name that hosts must prove by CHAP." placeholder:"NAME"`
	SecretFile string   `name:"chap-secret-file" help:"The file of the CHAP secret, 12 to 255 characters; by default it is read from standard input." type:"existingfile" placeholder:"FILE"`
	Paths      string   `help:"By which portals hosts come: virtual (the virtual address), nodes (each node's own, with multipath) or redirect (any node's own, without)." enum:"virtual,nodes,redirect" default:"virtual"`
	Change     bool     `help:"Replace the initiators, the CHAP and the paths of an export that exists; hosts' sessions end and begin anew."`
}

func (cmd lunExportCmd) Run(e *env) error {
	l := api.NewLUN{Volume: cmd.Volume, Initiators: cmd.Initiator, CHAPUser: cmd.CHAPUser, Paths: cmd.Paths, Change: cmd.Change}
	switch {
	case cmd.CHAPUser != "":
		s, err := secret(e.In, cmd.SecretFile)
		if err != nil {
			return err
		}
		l.CHAPSecret = s
	case cmd.SecretFile != "":
		return errors.New("--chap-secret-file needs --chap-user")
	}
	return e.call(func(c *api.Client) error {
		out, err := c.Export(e.ctx, l)
		if err != nil {
			return err
		}
		return e.show(out, func(w io.Writer) {
			fmt.Fprintf(w, "%s is LUN %d of %s\n", out.Volume, out.Number, out.Target)
			for _, p := range out.Portals {
				fmt.Fprintf(w, "  iscsi://%s/%s/%d\n", p, out.Target, out.Number)
			}
		})
	})
}

// secret reads the first line of a file, or of standard input.
func secret(in io.Reader, file string) (string, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("reading the CHAP secret: %w", err)
		}
		defer f.Close()
		in = f
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the CHAP secret: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if len(line) < 12 || len(line) > 255 {
		return "", errors.New("the CHAP secret must have 12 to 255 characters (give it on standard input, or with --chap-secret-file)")
	}
	return line, nil
}

type lunUnexportCmd struct {
	Volume string `arg:"" help:"The volume's name."`
}

func (cmd lunUnexportCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if err := c.Unexport(e.ctx, cmd.Volume); err != nil {
			return err
		}
		return e.done("%s is no longer exported; its data is kept.", cmd.Volume)
	})
}

type eventListCmd struct {
	After uint64 `help:"Only events after this index." default:"0"`
	Limit int    `help:"At most so many." default:"100"`
}

func (cmd eventListCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		events, err := c.Events(e.ctx, cmd.After, cmd.Limit)
		if err != nil {
			return err
		}
		return e.show(events, func(w io.Writer) {
			row(w, "INDEX", "TIME", "KIND", "NODE", "VOLUME", "WHAT")
			for _, v := range events {
				row(w, fmt.Sprint(v.Index), v.Time.Local().Format(time.DateTime), v.Kind, v.Node, v.Volume, v.Text)
			}
		})
	})
}

type transferCmd struct {
	To string `arg:"" optional:"" help:"The node's name; by default the one that serves most."`
}

func (cmd transferCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		s, err := c.Status(e.ctx, false)
		if err != nil {
			return err
		}
		before := s
		if err := c.Transfer(e.ctx, cmd.To); err != nil {
			return err
		}
		for range 50 { // the next epoch begins within milliseconds; who was named and leads already goes on with its own
			if s, err = c.Status(e.ctx, false); err != nil {
				return err
			}
			if s.Epoch > before.Epoch || cmd.To != "" && cmd.To == before.Leader {
				return e.done("%s leads in epoch %d.", s.Leader, s.Epoch)
			}
			select {
			case <-e.ctx.Done():
				return e.ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
		return e.done("The leadership was handed over; pmsapp status tells how it goes on.")
	})
}

type shutdownCmd struct{}

func (shutdownCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if err := c.ShutdownCluster(e.ctx); err != nil {
			return err
		}
		return e.done("All volumes are closed; the nodes are stopping. Any of them may be started first.")
	})
}

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
)

type hostListCmd struct{}

func (hostListCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		hosts, err := c.Hosts(e.ctx)
		if err != nil {
			return err
		}
		return e.show(hosts, func(w io.Writer) {
			row(w, "HOST", "IQN", "CHAP", "PATHS", "LUNS", "SESSION", "SINCE", "DIGESTS", "BURSTS", "COMMANDS", "WAIT FOR")
			for _, h := range hosts {
				hostRows(w, h)
			}
		})
	})
}

// hostRows are a row for each of a host's names, and for each session of it.
func hostRows(w io.Writer, h api.Host) {
	chap, luns := h.CHAPUser, make([]string, len(h.LUNs))
	if h.MutualUser != "" {
		chap += ", mutual " + h.MutualUser
	}
	for i, m := range h.LUNs {
		luns[i] = fmt.Sprintf("%d=%s", m.LUN, m.Volume)
		if m.ReadOnly {
			luns[i] += " (read-only)"
		}
	}
	for _, iqn := range h.IQNs {
		first := []string{h.Name, iqn, chap, h.Paths, strings.Join(luns, ", ")}
		logged := false
		for _, s := range h.Sessions {
			if s.Initiator != iqn {
				continue
			}
			logged = true
			row(w, append(append([]string{}, first...), s.Node+" from "+s.Remote, s.Since.Local().Format(time.DateTime), digests(s),
				fmt.Sprintf("%s/%s", bytes(int64(s.FirstBurst)), bytes(int64(s.MaxBurst))), fmt.Sprint(s.Commands), waits(s.Waits))...)
		}
		if !logged {
			row(w, append(first, "", "", "", "", "", "")...)
		}
	}
}

// waits says what commands wait for, the most usual first, and for how long the oldest has.
func waits(w api.Waits) string {
	var all []string
	for _, c := range []struct {
		n    int
		what string
	}{{w.Volume, "the volume"}, {w.Data, "the host's data"}, {w.Order, "earlier ones"}, {w.Memory, "memory"}, {w.Answers, "the host to take answers"}} {
		if c.n > 0 {
			all = append(all, fmt.Sprintf("%d: %s", c.n, c.what))
		}
	}
	if len(all) == 0 {
		return "-"
	}
	return fmt.Sprintf("%s; the oldest for %.1f s", strings.Join(all, ", "), w.OldestSeconds)
}

func digests(s api.Session) string {
	switch {
	case s.HeaderDigest && s.DataDigest:
		return "header, data"
	case s.HeaderDigest:
		return "header"
	case s.DataDigest:
		return "data"
	}
	return "none"
}

type hostAddCmd struct {
	Name        string   `arg:"" help:"A name for the host: letters, digits and hyphens."`
	IQN         []string `name:"iqn" required:"" help:"Its iSCSI name; repeat it for several." placeholder:"IQN"`
	CHAPUser    string   `name:"chap-user" help:"The name that it must prove by CHAP." placeholder:"NAME"`
	MutualUser  string   `name:"mutual-user" help:"The name that is proved to it by CHAP." placeholder:"NAME"`
	Paths       string   `help:"By which portals it comes: virtual (the virtual address), nodes (each node's own, with multipath) or redirect (any node's own, without)." enum:"virtual,nodes,redirect" default:"virtual"`
	SecretsFile string   `name:"secrets-file" help:"The file of the secrets, 12 to 255 characters each: that of --chap-user in the first line, that of --mutual-user in the second; by default they are read from standard input." type:"existingfile" placeholder:"FILE"`
}

func (cmd hostAddCmd) Run(e *env) error {
	h := api.NewHost{Name: cmd.Name, IQNs: cmd.IQN, CHAPUser: cmd.CHAPUser, MutualUser: cmd.MutualUser, Paths: cmd.Paths}
	switch {
	case cmd.MutualUser != "" && cmd.CHAPUser == "":
		return errors.New("--mutual-user needs --chap-user")
	case cmd.CHAPUser == "" && cmd.SecretsFile != "":
		return errors.New("--secrets-file needs --chap-user")
	case cmd.CHAPUser != "":
		want := 1
		if cmd.MutualUser != "" {
			want = 2
		}
		s, err := secrets(e.In, cmd.SecretsFile, want)
		if err != nil {
			return err
		}
		h.CHAPSecret = s[0]
		if want == 2 {
			h.MutualSecret = s[1]
		}
	}
	return e.call(func(c *api.Client) error {
		if _, err := c.AddHost(e.ctx, h); err != nil {
			return err
		}
		return e.done("%s is a host. pmsapp lun map VOLUME %s gives it a LUN.", cmd.Name, cmd.Name)
	})
}

// secrets reads the first lines of a file, or of standard input.
func secrets(in io.Reader, file string, n int) ([]string, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading the CHAP secrets: %w", err)
		}
		defer f.Close()
		in = f
	}
	var out []string
	for lines := bufio.NewScanner(io.LimitReader(in, 4096)); len(out) < n && lines.Scan(); {
		out = append(out, strings.TrimRight(lines.Text(), "\r"))
	}
	if len(out) < n {
		return nil, fmt.Errorf("%d secrets are needed, one a line, and %d came", n, len(out))
	}
	return out, nil
}

type hostRemoveCmd struct {
	Name string `arg:"" help:"The host's name."`
}

func (cmd hostRemoveCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if err := c.RemoveHost(e.ctx, cmd.Name); err != nil {
			return err
		}
		return e.done("%s is no host any more.", cmd.Name)
	})
}

type lunMapCmd struct {
	Volume   string  `arg:"" help:"The volume's name."`
	Host     string  `arg:"" help:"The host's name."`
	LUN      *uint16 `name:"lun" help:"Its number for this host, 0 to 16383; by default the lowest free one from 1." placeholder:"N"`
	ReadOnly bool    `name:"read-only" help:"This host may not write."`
}

func (cmd lunMapCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		m, err := c.MapLUN(e.ctx, api.NewMap{Volume: cmd.Volume, Host: cmd.Host, LUN: cmd.LUN, ReadOnly: cmd.ReadOnly})
		if err != nil {
			return err
		}
		return e.show(m, func(w io.Writer) {
			fmt.Fprintf(w, "%s is LUN %d of %s for %s\n", m.Volume, m.LUN, m.Target, m.Host)
			for _, p := range m.Portals {
				fmt.Fprintf(w, "  iscsi://%s/%s/%d\n", p, m.Target, m.LUN)
			}
		})
	})
}

type lunUnmapCmd struct {
	Volume string `arg:"" help:"The volume's name."`
	Host   string `arg:"" help:"The host's name."`
}

func (cmd lunUnmapCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		if err := c.UnmapLUN(e.ctx, cmd.Volume, cmd.Host); err != nil {
			return err
		}
		return e.done("%s is no LUN of %s any more; its data is kept.", cmd.Volume, cmd.Host)
	})
}

type lunVerifyCmd struct{}

func (lunVerifyCmd) Run(e *env) error {
	return e.call(func(c *api.Client) error {
		v, err := c.VerifyLUNs(e.ctx)
		if err != nil {
			return err
		}
		if err := e.show(v, func(w io.Writer) {
			row(w, "VOLUME", "SERIAL", "NAA", "T10")
			for _, l := range v.LUNs {
				row(w, l.Volume, l.Serial, l.NAA, l.T10)
			}
			fmt.Fprintf(w, "\nCompared: %s.\nLogged in to: %s.\n", strings.Join(v.Nodes, ", "), strings.Join(v.Portals, ", "))
		}); err != nil {
			return err
		}
		if len(v.Faults) > 0 {
			return fmt.Errorf("hosts do not see the same everywhere: %s", strings.Join(v.Faults, "; "))
		}
		return nil
	})
}

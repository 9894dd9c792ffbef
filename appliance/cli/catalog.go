package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"pmsapp/appliance"
	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
)

type catalogBackupCmd struct {
	File    string `arg:"" help:"Where to write it; what is there is replaced once the new one is whole." type:"path"`
	Offline bool   `help:"Read the catalog of this machine's stopped node: what is left of a cluster that cannot elect a leader any more."`
}

func (cmd catalogBackupCmd) Run(e *env) error {
	b, err := cmd.read(e)
	if err != nil {
		return err
	}
	out, err := appliance.SaveBackup(cmd.File, b)
	if err != nil {
		return err
	}
	return e.show(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s has the catalog of cluster %s, %s.\n", out.File, out.Cluster, describeBackup(out))
		fmt.Fprintf(w, "It has no data of volumes, but hosts' CHAP secrets: keep it as safe as the admin token, and not on these machines alone.\n")
	})
}

func (cmd catalogBackupCmd) read(e *env) (b []byte, err error) {
	if cmd.Offline {
		c, err := config.Load(e.Config)
		if err != nil {
			return nil, err
		}
		return appliance.OfflineBackup(c)
	}
	err = e.call(func(c *api.Client) error {
		b, err = c.BackupCatalog(e.ctx)
		return err
	})
	return b, err
}

func describeBackup(b appliance.Backup) string {
	s := fmt.Sprintf("index %d", b.Index)
	if !b.Newest.IsZero() {
		s += ", newest event " + b.Newest.Local().Format(time.DateTime)
	}
	s += fmt.Sprintf(": %s, %s", plural(b.Nodes, "node"), plural(b.Volumes, "volume"))
	if b.Trash > 0 {
		s += fmt.Sprintf(", %d in the trash", b.Trash)
	}
	return s
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// tellRestored says what has to follow an init with a backup.
func tellRestored(w io.Writer, made appliance.Made, config string) {
	fmt.Fprintf(w, "Cluster %s begins anew here, from %s.\n", made.Cluster, describeBackup(*made.Backup))
	fmt.Fprintf(w, "Its keys are new: other nodes that still run with the old ones are strangers. Stop them, and the hosts that use them.\n")
	fmt.Fprintf(w, "The admin token, a new one too, is in %s.\n", made.TokenFile)
	fmt.Fprintf(w, "Now: pmsapp serve --config %s\n", config)
	if len(made.Absent) > 0 {
		fmt.Fprintf(w, "Then let %s join under the same names (pmsapp node token here, pmsapp join there), each with an empty state directory and its pools as they are.\n", strings.Join(made.Absent, ", "))
	}
	fmt.Fprintf(w, "No volume is served until pmsapp volume force names the replica that it goes on with.\n")
}

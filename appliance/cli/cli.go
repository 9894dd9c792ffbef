// Package cli is the command line: its grammar, and what its commands print. What they do is done by the API, or, for
// serve, init, join and demo, by packages of appliance.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
)

// Streams are where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// globals are the flags of every command.
type globals struct {
	Config    string   `help:"The node's configuration file." default:"/etc/pmsapp/pmsapp.toml" env:"PMSAPP_CONFIG" type:"path" placeholder:"FILE"`
	API       []string `help:"API addresses of the cluster, tried in turn; by default that of the node of --config." env:"PMSAPP_API" placeholder:"HOST:PORT"`
	TokenFile string   `help:"The admin token; by default admin.token in the state directory of --config." env:"PMSAPP_TOKEN_FILE" type:"path" placeholder:"FILE"`
	JSON      bool     `help:"Print JSON."`
}

// grammar is the command line.
type grammar struct {
	globals

	Serve serveCmd `cmd:"" help:"Run this node."`
	Init  initCmd  `cmd:"" help:"Make this machine the first node of a new cluster."`
	Join  joinCmd  `cmd:"" help:"Make this machine a node of the cluster that gave the token."`
	Demo  demoCmd  `cmd:"" help:"Show three nodes on this machine, and kill one."`

	Status statusCmd `cmd:"" help:"Show the state of the cluster."`
	Node   struct {
		List   nodeListCmd   `cmd:"" help:"List the nodes."`
		Drain  nodeDrainCmd  `cmd:"" help:"Move all replicas of a node elsewhere."`
		Remove nodeRemoveCmd `cmd:"" help:"Take a node out of the cluster, for good."`
		Token  nodeTokenCmd  `cmd:"" help:"Make a token with which one machine can join."`
	} `cmd:"" help:"Nodes."`
	Pool struct {
		List     poolListCmd     `cmd:"" help:"List the pools."`
		Add      poolAddCmd      `cmd:"" help:"Make an empty directory or a blank device a pool."`
		Format   poolFormatCmd   `cmd:"" help:"Prepare a block device of this machine for a pool."`
		Evacuate poolEvacuateCmd `cmd:"" help:"Move all replicas in a pool to other nodes."`
	} `cmd:"" help:"Pools: directories and block devices that hold replicas."`
	Volume struct {
		List     volumeListCmd     `cmd:"" help:"List the volumes."`
		Show     volumeShowCmd     `cmd:"" help:"Show a volume."`
		Create   volumeCreateCmd   `cmd:"" help:"Create a volume."`
		Delete   volumeDeleteCmd   `cmd:"" help:"Delete a volume: to the trash, or for good."`
		Restore  volumeRestoreCmd  `cmd:"" help:"Bring a deleted volume back from the trash."`
		Adopt    volumeAdoptCmd    `cmd:"" help:"Bring a volume back of which there are replicas, and which a restored catalog does not know."`
		Withdraw volumeWithdrawCmd `cmd:"" help:"End all exports of a volume that waits for replicas and is not served."`
		Force    volumeForceCmd    `cmd:"" help:"Go on with one replica, whatever it lacks, when those in sync are out of reach."`
		Purge    volumePurgeCmd    `cmd:"" help:"Delete a volume in the trash for good."`
		Replica  replicaCmd        `cmd:"" help:"Change where a volume's replicas are."`
		Resize   volumeResizeCmd   `cmd:"" help:"Make a volume larger while it is in use."`
		Set      volumeSetCmd      `cmd:"" help:"Change the durability of a volume, or a share, while it is in use."`
		Resync   volumeResyncCmd   `cmd:"" help:"Try a resync that failed again now."`
		Scrub    volumeScrubCmd    `cmd:"" help:"Read all of a volume's replicas, prove and compare them, and mend what is bad."`
	} `cmd:"" help:"Volumes: replicated block devices."`
	Resync resyncCmd `cmd:"" help:"Copies in the background: resyncs and scrubs of all volumes."`
	LUN    struct {
		List     lunListCmd     `cmd:"" help:"List the LUNs."`
		Export   lunExportCmd   `cmd:"" help:"Export a volume to iSCSI hosts."`
		Unexport lunUnexportCmd `cmd:"" help:"End the export of a volume; its data stays."`
		Map      lunMapCmd      `cmd:"" help:"Make a volume a LUN of a host."`
		Unmap    lunUnmapCmd    `cmd:"" help:"Take a LUN from a host; its data stays."`
		Verify   lunVerifyCmd   `cmd:"" help:"Check that hosts see the same LUNs at all portals."`
	} `cmd:"" name:"lun" help:"LUNs: volumes exported by iSCSI."`
	Host struct {
		List   hostListCmd   `cmd:"" help:"List the hosts and their sessions."`
		Add    hostAddCmd    `cmd:"" help:"Add a host."`
		Remove hostRemoveCmd `cmd:"" help:"Take a host out that has no LUN."`
	} `cmd:"" help:"Hosts: initiators that LUNs are mapped to."`
	Share shareCmd `cmd:"" help:"Shares: volumes with files, exported by NFS."`
	Event struct {
		List eventListCmd `cmd:"" help:"List the newest events."`
	} `cmd:"" help:"The event log."`
	Leader struct {
		Transfer transferCmd `cmd:"" help:"Hand the leadership and all volumes over to another node."`
	} `cmd:"" help:"The leader."`
	HandOver transferCmd `cmd:"" name:"hand-over" help:"The same as leader transfer."`
	Catalog  struct {
		Backup catalogBackupCmd `cmd:"" help:"Save the catalog to a file, for pmsapp init --restore."`
	} `cmd:"" help:"The catalog: what the cluster knows of its nodes, volumes, hosts and shares."`
	Cluster struct {
		Shutdown shutdownCmd `cmd:"" help:"Close all volumes, then stop all nodes."`
	} `cmd:"" help:"The whole cluster."`
}

// env is what a command works with.
type env struct {
	*globals
	Streams
	ctx context.Context
}

// exited is how kong's own exits (--help) come back as a value.
type exited int

// Run runs the command that args name. Errors are for people: they say what to do.
func Run(ctx context.Context, args []string, s Streams) (err error) {
	var g grammar
	defer func() {
		if r := recover(); r != nil {
			code, ok := r.(exited)
			if !ok {
				panic(r)
			}
			if code != 0 {
				err = errors.New("pmsapp: wrong usage")
			}
		}
	}()
	p, err := kong.New(&g, kong.Name("pmsapp"), kong.Description("Shared storage from the local disks of your hosts."),
		kong.Writers(s.Out, s.Err), kong.Exit(func(code int) { panic(exited(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}), kong.UsageOnError())
	if err != nil {
		return fmt.Errorf("building the command line: %w", err)
	}
	k, err := p.Parse(args)
	if err != nil {
		return fmt.Errorf("%w (pmsapp --help lists the commands)", err)
	}
	return k.Run(&env{globals: &g.globals, Streams: s, ctx: ctx})
}

// client makes an API client from the flags, or from the configuration file where they say nothing.
func (e *env) client() (*api.Client, error) {
	addrs, tokenFile := e.API, e.TokenFile
	if len(addrs) == 0 || tokenFile == "" {
		c, err := config.Load(e.Config)
		if err != nil {
			return nil, fmt.Errorf("%w; without one, give --api and --token-file", err)
		}
		if len(addrs) == 0 {
			addrs = []string{local(c.Address.API)}
		}
		if tokenFile == "" {
			tokenFile = filepath.Join(c.State, "admin.token")
		}
	}
	token, err := api.ReadToken(tokenFile)
	if err != nil {
		return nil, err
	}
	c, err := api.NewClient(addrs, token)
	if err != nil {
		return nil, err
	}
	c.Retry, c.Refused = 10*time.Second, time.Second
	return c, nil
}

// local turns a listening address into one to connect to.
func local(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	switch host {
	case "0.0.0.0", "":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// call runs f with a client.
func (e *env) call(f func(c *api.Client) error) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// show prints v as JSON where that was asked for, and otherwise has people told.
func (e *env) show(v any, people func(w io.Writer)) error {
	if e.JSON {
		enc := json.NewEncoder(e.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	w := tabwriter.NewWriter(e.Out, 0, 8, 2, ' ', 0)
	people(w)
	return w.Flush()
}

// row prints the cells of a table's row; an empty one is a dash.
func row(w io.Writer, cells ...string) {
	for i, c := range cells {
		if c == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
)

// Config says what cluster to run.
type Config struct {
	Binary  string // pmsapp
	Dir     string // made if need be; the nodes' directories are below it
	Nodes   int    // 1 to 7
	Witness bool   // the last node is one
	Network string // the first three bytes of the nodes' addresses, wanted but not needed: "127.0.0"
	NFS     bool   // each node has a front door for shares, at the same port, which the virtual address has, too
	// Change changes a node's configuration before it is written. May be nil.
	Change func(node int, c *config.Config)
	Log    *slog.Logger
}

// Node is one node of the cluster.
type Node struct {
	Name   string
	Config config.Config
	File   string // its configuration file
	Log    string // the file of its log
	dir    string
	proc   *Process // nil when it does not run
}

// virtualHost is the last byte of the virtual address; the nodes' are 1 to 7.
const virtualHost = 100

// Cluster is a cluster of processes. Its methods are for one goroutine at a time.
type Cluster struct {
	Virtual string // portal
	NFS     uint16 // the port of the front door, 0 if there is none
	Nodes   []*Node
	network *network
	cfg     Config
	starter *starter
	client  *api.Client
}

// New writes the configuration of a cluster with addresses of its own; nothing runs yet. Close ends it, also if it never ran.
func New(cfg Config) (*Cluster, error) {
	if cfg.Nodes < 1 || cfg.Nodes > 7 {
		return nil, fmt.Errorf("%d nodes: a cluster has 1 to 7", cfg.Nodes)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", cfg.Dir, err)
	}
	cfg.Dir = dir
	c := &Cluster{cfg: cfg}
	if c.network, err = claimNetwork(cfg.Network); err != nil {
		return nil, err
	}
	if err := c.configure(); err != nil {
		c.network.release()
		return nil, err
	}
	c.starter = newStarter()
	return c, nil
}

func (c *Cluster) configure() (err error) {
	if c.Virtual, err = c.network.address(virtualHost); err != nil {
		return err
	}
	if c.cfg.NFS {
		hosts := []int{virtualHost}
		for i := range c.cfg.Nodes {
			hosts = append(hosts, i+1)
		}
		if c.NFS, err = c.network.port(hosts...); err != nil {
			return err
		}
	}
	for i := range c.cfg.Nodes {
		n, err := c.newNode(i)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, n)
	}
	return nil
}

func (c *Cluster) newNode(i int) (*Node, error) {
	name := fmt.Sprintf("node%d", i+1)
	dir := filepath.Join(c.cfg.Dir, name)
	n := &Node{Name: name, dir: dir, File: filepath.Join(dir, "pmsapp.toml"), Log: filepath.Join(dir, "log")}
	n.Config = config.Default()
	n.Config.Name, n.Config.State = name, filepath.Join(dir, "state")
	if !c.isWitness(i) {
		n.Config.Pools = []string{filepath.Join(dir, "pool")}
	}
	for _, a := range []*string{&n.Config.Address.Cluster, &n.Config.Address.API, &n.Config.Address.Portal} {
		p, err := c.network.address(i + 1)
		if err != nil {
			return nil, err
		}
		*a = p
	}
	if c.NFS != 0 {
		n.Config.Address.NFS = fmt.Sprintf("%s.%d:%d", c.network.prefix, i+1, c.NFS)
	}
	n.Config.Virtual.Portal = c.Virtual
	if c.cfg.Change != nil {
		c.cfg.Change(i, &n.Config)
	}
	if err := n.Config.Validate(); err != nil {
		return nil, err
	}
	for _, d := range append([]string{dir, n.Config.State}, n.Config.Pools...) {
		if info, err := os.Stat(d); err == nil && !info.IsDir() {
			continue // a block device
		}
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("making a node's directory: %w", err)
		}
	}
	text, err := n.Config.Text()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(n.File, text, 0o600); err != nil {
		return nil, fmt.Errorf("writing a node's configuration: %w", err)
	}
	return n, nil
}

func (c *Cluster) isWitness(i int) bool { return c.cfg.Witness && i == c.cfg.Nodes-1 }

// Form makes the first node the cluster, starts it, and has the others join, one by one.
func (c *Cluster) Form(ctx context.Context) error {
	first := c.Nodes[0]
	if err := c.command(ctx, "init", "--config", first.File); err != nil {
		return err
	}
	if err := c.Start(0); err != nil {
		return err
	}
	if err := c.connect(); err != nil {
		return err
	}
	if _, err := c.WaitStatus(ctx, "a leader", 30*time.Second, func(s api.Status) bool { return s.Leader != "" && s.Epoch > 0 }); err != nil {
		return err
	}
	for i := range c.Nodes[1:] {
		if err := c.Join(ctx, i+1); err != nil {
			return err
		}
	}
	return nil
}

// Join has a node join the cluster, starts it, and waits until it is a voter with its pools.
func (c *Cluster) Join(ctx context.Context, i int) error {
	n := c.Nodes[i]
	t, err := c.client.NewToken(ctx, c.isWitness(i))
	if err != nil {
		return fmt.Errorf("making a token for %s: %w", n.Name, err)
	}
	args := []string{"join", t.Token, "--config", n.File}
	if c.isWitness(i) {
		args = append(args, "--witness")
	}
	if err := c.command(ctx, args...); err != nil {
		return err
	}
	if err := c.Start(i); err != nil {
		return err
	}
	_, err = c.WaitStatus(ctx, n.Name+" to be a voter with its pool", time.Minute, func(s api.Status) bool {
		for _, m := range s.Nodes {
			if m.Name == n.Name {
				return m.Voter && m.State == "alive" && len(m.Pools) >= len(n.Config.Pools)
			}
		}
		return false
	})
	return err
}

// LoseState removes the state of a node that does not run, as if that disk had died. Its pools stay.
func (c *Cluster) LoseState(i int) error {
	n := c.Nodes[i]
	if n.Running() {
		return fmt.Errorf("%s runs", n.Name)
	}
	if err := os.RemoveAll(n.Config.State); err != nil {
		return fmt.Errorf("removing the state of %s: %w", n.Name, err)
	}
	return nil
}

// Restore has the first node, which has no state, begin the cluster anew from the backup of a catalog, and starts it.
func (c *Cluster) Restore(ctx context.Context, backup string) error {
	if err := c.command(ctx, "init", "--restore", backup, "--config", c.Nodes[0].File); err != nil {
		return err
	}
	if err := c.Start(0); err != nil {
		return err
	}
	c.client.Close() // the token is another
	if err := c.connect(); err != nil {
		return err
	}
	_, err := c.WaitStatus(ctx, "a leader", 30*time.Second, func(s api.Status) bool { return s.Leader != "" && s.Epoch > 0 })
	return err
}

// command runs pmsapp to its end.
func (c *Cluster) command(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, c.cfg.Binary, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pmsapp %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// TokenFile is the file with the admin token.
func (c *Cluster) TokenFile() string { return filepath.Join(c.Nodes[0].Config.State, "admin.token") }

// Client calls the API of any node that answers.
func (c *Cluster) Client() *api.Client { return c.client }

func (c *Cluster) connect() error {
	token, err := api.ReadToken(c.TokenFile())
	if err != nil {
		return err
	}
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, n.Config.Address.API)
	}
	if c.client, err = api.NewClient(addrs, token); err != nil {
		return err
	}
	c.client.Retry = 15 * time.Second
	return nil
}

// Index finds a node by its name; -1 if there is none.
func (c *Cluster) Index(name string) int {
	for i, n := range c.Nodes {
		if n.Name == name {
			return i
		}
	}
	return -1
}

// Start starts a node that does not run, and returns at once.
func (c *Cluster) Start(i int) error {
	n := c.Nodes[i]
	if n.Running() {
		return fmt.Errorf("%s runs already", n.Name)
	}
	p, err := c.starter.start(c.cfg.Binary, []string{"serve", "--config", n.File}, n.Log)
	if err != nil {
		return err
	}
	n.proc = p
	c.cfg.Log.Debug("node started", "node", n.Name, "pid", p.PID())
	return nil
}

// Running tells whether the node's process has not ended.
func (n *Node) Running() bool {
	if n.proc == nil {
		return false
	}
	select {
	case <-n.proc.Done():
		return false
	default:
		return true
	}
}

// PID is the process of the node, 0 if it does not run.
func (n *Node) PID() int {
	if !n.Running() {
		return 0
	}
	return n.proc.PID()
}

// Kill ends a node at once (SIGKILL) and waits for the end of its process.
func (c *Cluster) Kill(i int) error { return c.end(i, syscall.SIGKILL, 10*time.Second) }

// Terminate stops a node in order (SIGTERM). Past limit it is killed, which is an error.
func (c *Cluster) Terminate(i int, limit time.Duration) error {
	return c.end(i, syscall.SIGTERM, limit)
}

// Pause stops a node's process as a whole (SIGSTOP), and Resume lets it go on (SIGCONT).
func (c *Cluster) Pause(i int) error  { return c.signal(i, syscall.SIGSTOP) }
func (c *Cluster) Resume(i int) error { return c.signal(i, syscall.SIGCONT) }

func (c *Cluster) signal(i int, s syscall.Signal) error {
	if !c.Nodes[i].Running() {
		return fmt.Errorf("%s does not run: %w", c.Nodes[i].Name, os.ErrProcessDone)
	}
	return c.Nodes[i].proc.Signal(s)
}

func (c *Cluster) end(i int, s syscall.Signal, limit time.Duration) error {
	n := c.Nodes[i]
	if !n.Running() {
		return nil
	}
	if err := n.proc.Signal(s); err != nil {
		return err
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-n.proc.Done():
		return nil
	case <-t.C:
	}
	err := fmt.Errorf("%s did not end within %v of signal %v; it was killed", n.Name, limit, s)
	return errors.Join(err, n.proc.Signal(syscall.SIGKILL))
}

// Close stops all nodes, in order where they can, and waits for their ends.
func (c *Cluster) Close() {
	if c.client != nil {
		c.client.Close()
	}
	for _, n := range c.Nodes {
		if n.Running() {
			n.proc.Signal(syscall.SIGCONT)
			n.proc.Signal(syscall.SIGTERM)
		}
	}
	limit := time.After(5 * time.Second)
	for _, n := range c.Nodes {
		if n.proc == nil {
			continue
		}
		select {
		case <-n.proc.Done():
			continue
		case <-limit:
		}
		n.proc.Signal(syscall.SIGKILL)
		<-n.proc.Done()
		limit = time.After(0)
	}
	c.starter.close()
	c.network.release()
}

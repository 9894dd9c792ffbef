package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// Config is what a Cluster is made of.
type Config struct {
	Dir       string // the state directory
	Listen    string // host:port between nodes, TCP and UDP
	Advertise string // the same, as the others reach it
	// About returns what the catalog is to know of this node. ID, Witness, Address, Group and Version are filled in.
	About func() catalog.Node
	// Written is what this node's pools, and its own record of its epoch, know of the catalog: what Cluster.Written was when they
	// recorded an epoch (invariant 9).
	Written []Written
	// HeartbeatTimeout, ElectionTimeout and LeaseTimeout are Raft's; a witness waits three times as long.
	HeartbeatTimeout, ElectionTimeout, LeaseTimeout time.Duration
	// Observer is told what happens. Its methods are called one at a time and must not block.
	Observer Observer
	Log      *slog.Logger
}

// Observer is told what a node has to act on.
type Observer interface {
	// Leads says that this node is Raft's leader, and that its State has everything that was committed before.
	Leads()
	// Follows says that it is not (any more).
	Follows()
	// Changed says that State is newer.
	Changed()
	// Opinion is gossip's of another node, when it changes.
	Opinion(n ids.Node, l Liveness)
	// Failed says that this node cannot go on: ErrRemoved or ErrDiskHangs.
	Failed(err error)
}

// Cluster is this node's part in its cluster. Its methods are safe for concurrent use.
type Cluster struct {
	cfg       Config
	id        *identity
	log       *slog.Logger
	store     *store
	fsm       *fsm
	mux       *mux
	gossip    *gossip
	raft      *raft.Raft
	transport *watchedTransport
	stable    *queue
	notify    chan bool
	change    chan struct{} // has room for one
	refresh   chan struct{} // likewise
	started   chan struct{} // closed when raft is set
	ctx       context.Context
	cancel    context.CancelFunc
	work      sync.WaitGroup
	leads     atomic.Bool // Observer.Leads was called last

	mu       sync.Mutex // guards what follows
	handlers map[string]Handler
}

// Open makes the node take part. It returns ErrNoCluster, ErrInUse, ErrCorrupt, or what listening says. handlers answer the
// calls of other nodes, besides those of this package.
func Open(ctx context.Context, cfg Config, handlers map[string]Handler) (_ *Cluster, err error) {
	id, err := loadIdentity(cfg.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, id: id, log: cfg.Log, handlers: handlers, notify: make(chan bool, 64), change: make(chan struct{}, 1),
		refresh: make(chan struct{}, 1), started: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.fsm = newFSM(func() {
		select {
		case c.change <- struct{}{}:
		default:
		}
	}, cfg.Log)
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if err := c.openCatalog(ctx); err != nil {
		return nil, err
	}
	if err := c.listen(); err != nil {
		return nil, err
	}
	if err := c.startRaft(); err != nil {
		return nil, err
	}
	c.mux.serve()
	c.work.Go(c.watchLeadership)
	c.work.Go(c.watchChanges)
	c.work.Go(c.watchNodes)
	c.work.Go(c.enter)
	c.work.Go(c.watchDisk)
	c.work.Go(func() { keepShort(c.ctx, c.raft, c.fsm, c.log) })
	return c, nil
}

// listen opens the port between nodes.
func (c *Cluster) listen() error {
	l, err := net.Listen("tcp", c.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening on address.cluster %s: %w", c.cfg.Listen, err)
	}
	c.mux = newMux(c.id, l, c.wasRemoved, c.log)
	c.stable = newQueue(l.Addr())
	if c.gossip, err = newGossip(c.id, c.cfg.Listen, c.cfg.Advertise, c.cfg.About().Release, c.log); err != nil {
		return err
	}
	c.mux.streams[streamRaft] = func(conn net.Conn, _ ids.Node) { c.stable.put(conn) }
	c.mux.streams[streamGossip] = func(conn net.Conn, _ ids.Node) { c.gossip.wire.put(conn) }
	c.mux.streams[streamCall] = func(conn net.Conn, from ids.Node) {
		find := c.handler
		if c.wasRemoved(from) { // it may not know: nobody sends it the log any more
			find = func(string) Handler {
				return func(context.Context, ids.Node, json.RawMessage) (any, error) { return nil, ErrRemoved }
			}
		}
		answer(c.ctx, conn, from, maxMessage, find)
	}
	c.mux.streams[streamJoin] = func(conn net.Conn, from ids.Node) {
		answer(c.ctx, conn, from, 64<<10, func(method string) Handler {
			if method != "join" {
				return nil
			}
			return c.handleJoin
		})
	}
	return nil
}

// wasRemoved tells whether a node may not talk to us any more.
func (c *Cluster) wasRemoved(n ids.Node) bool {
	for _, r := range c.State().Removed {
		if r == n {
			return true
		}
	}
	return false
}

// handler finds who answers a method.
func (c *Cluster) handler(method string) Handler {
	switch method {
	case "join":
		return c.handleJoin
	case "enter":
		return c.handleEnter
	case "rejoin":
		return c.handleRejoin
	case "evidence":
		return c.handleEvidence
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handlers[method]
}

// streamLayer is Raft's part of the port.
type streamLayer struct {
	*queue
	c *Cluster
}

func (s streamLayer) Dial(server raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	node, addr, err := parseServer(server)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.c.ctx, timeout)
	defer cancel()
	return s.c.id.dial(ctx, addr, node, streamRaft)
}

// Addr is the address that the others reach.
func (s streamLayer) Addr() net.Addr { return advertised(s.c.cfg.Advertise) }

type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

func (c *Cluster) startRaft() error {
	log := hclog.New(&hclog.LoggerOptions{Name: "raft", Output: raftLog{c.log}, Level: hclog.Warn, DisableTime: true})
	timeout := max(c.cfg.HeartbeatTimeout, 500*time.Millisecond)
	c.transport = watch(raft.NewNetworkTransportWithLogger(streamLayer{c.stable, c}, 3, timeout, log), c.hopes)
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.id.Node.String())
	rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = c.cfg.HeartbeatTimeout, c.cfg.ElectionTimeout, c.cfg.LeaseTimeout
	if c.id.Witness { // it stands for election late (invariant 19)
		rc.HeartbeatTimeout, rc.ElectionTimeout = 3*rc.HeartbeatTimeout, 3*rc.ElectionTimeout
	}
	rc.CommitTimeout = 20 * time.Millisecond
	byBytes(rc)
	rc.NotifyCh, rc.Logger, rc.NoLegacyTelemetry = c.notify, log, true
	r, err := raft.NewRaft(rc, c.fsm, c.store, c.store, snapshots{c.store}, c.transport)
	if err != nil {
		return fmt.Errorf("starting Raft: %w", err)
	}
	c.raft = r
	close(c.started)
	return nil
}

// raftLog hands Raft's lines, as in "[WARN]  raft: text: key=value", on. Its errors are about single messages to other nodes:
// nothing that an admin must mend, and status tells more.
type raftLog struct{ log *slog.Logger }

func (r raftLog) Write(b []byte) (int, error) {
	level, text, ok := strings.Cut(strings.TrimSpace(string(b)), "]")
	if !ok {
		text = level
	}
	text = strings.TrimPrefix(strings.TrimSpace(text), "raft: ")
	to := slog.LevelInfo
	if repeated(text) {
		to = slog.LevelDebug
	}
	r.log.Log(context.Background(), to, "raft: "+text)
	return len(b), nil
}

// repeated tells of a line that comes several times a second as long as a node is away.
func repeated(text string) bool {
	for _, s := range []string{"failed to heartbeat to", "failed to contact", "failed to appendEntries to", "appendEntries rejected",
		"failed to make requestVote RPC"} {
		if strings.HasPrefix(text, s) {
			return true
		}
	}
	return false
}

// Written says how often the catalog of a Raft identity has been written, durably. The number only grows: a catalog with a lower
// one was lost or put back to an earlier state.
type Written struct {
	Node  ids.Node
	Count uint64
}

// Written is of this node's catalog now.
func (c *Cluster) Written() Written { return Written{c.id.Node, c.store.count()} }

// Self is this node.
func (c *Cluster) Self() ids.Node { return c.id.Node }

// ID is the cluster's.
func (c *Cluster) ID() ids.Cluster { return c.id.Cluster }

// Witness tells whether this node is one.
func (c *Cluster) Witness() bool { return c.id.Witness }

// Secret makes a key of the cluster for one purpose: the same on every node.
func (c *Cluster) Secret(purpose string) []byte { return c.id.derive(purpose) }

// Certificate is this node's, followed by the CA's.
func (c *Cluster) Certificate() (tls.Certificate, error) { return c.id.certificate() }

// CA is the cluster's certificate.
func (c *Cluster) CA() (*x509.Certificate, error) { return x509.ParseCertificate(c.id.CA) }

// State is the newest state of the catalog that was applied here.
func (c *Cluster) State() *catalog.State { return c.fsm.state.Load() }

// IsLeader tells whether this node leads and has applied everything that was committed before it did.
func (c *Cluster) IsLeader() bool { return c.leads.Load() && c.raft.State() == raft.Leader }

// Confirmed is IsLeader by an exchange with a majority that begins now: a process that was stopped still believes that it leads.
func (c *Cluster) Confirmed(ctx context.Context) bool {
	if !c.IsLeader() {
		return false
	}
	f := c.raft.VerifyLeader()
	done := make(chan error, 1)
	go func() { done <- f.Error() }() // ends when Raft has decided, or is shut down
	select {
	case err := <-done:
		return err == nil && c.leads.Load()
	case <-ctx.Done():
		return false
	}
}

// Leader returns who leads, as far as this node knows; zero if nobody does.
func (c *Cluster) Leader() ids.Node {
	_, id := c.raft.LeaderWithID()
	n, err := ids.Parse(string(id))
	if err != nil {
		return ids.Node{}
	}
	return ids.Node(n)
}

// Voters returns the nodes that vote, by this node's newest configuration.
func (c *Cluster) Voters() map[ids.Node]bool {
	out := map[ids.Node]bool{}
	f := c.raft.GetConfiguration()
	if f.Error() != nil {
		return out
	}
	for _, s := range f.Configuration().Servers {
		if id, err := ids.Parse(string(s.ID)); err == nil {
			out[ids.Node(id)] = s.Suffrage == raft.Voter
		}
	}
	return out
}

// Opinions is what gossip thinks of the nodes.
func (c *Cluster) Opinions() map[ids.Node]Liveness { return c.gossip.opinions() }

// LastIndex is the last index in this node's log.
func (c *Cluster) LastIndex() uint64 { return c.raft.LastIndex() }

// Propose proposes a command to this node's Raft and returns when it was applied here: with the state machine's error, with
// ErrNotLeader (nothing was proposed) or ErrUnknown. ctx bounds the wait, not the command.
func (c *Cluster) Propose(ctx context.Context, cmd catalog.Command) (catalog.Result, error) {
	if cmd.Time.IsZero() {
		cmd.Time = time.Now()
	}
	b, err := c.State().Encode(cmd)
	if err != nil {
		return catalog.Result{}, err
	}
	f := c.raft.Apply(b, 5*time.Second)
	done := make(chan error, 1)
	go func() { done <- f.Error() }() // ends when Raft has decided, or is shut down
	select {
	case err = <-done:
	case <-ctx.Done():
		return catalog.Result{}, fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	}
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return catalog.Result{}, fmt.Errorf("%w: %w", ErrNotLeader, err)
	case err != nil:
		return catalog.Result{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	a, ok := f.Response().(applied)
	if !ok {
		return catalog.Result{}, fmt.Errorf("%w: no answer of the state machine", ErrUnknown)
	}
	return a.result, a.err
}

// Transfer gives the leadership to a voter, after bringing its log up to date.
func (c *Cluster) Transfer(ctx context.Context, to ids.Node) error {
	f := c.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	for _, s := range f.Configuration().Servers {
		if s.ID != raft.ServerID(to.String()) || s.Suffrage != raft.Voter {
			continue
		}
		t := c.raft.LeadershipTransferToServer(s.ID, s.Address)
		done := make(chan error, 1)
		go func() { done <- t.Error() }()
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("transferring the leadership: %w", err)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("transferring the leadership: %w", context.Cause(ctx))
		}
	}
	return fmt.Errorf("node %s does not vote: %w", to, ErrCall)
}

// RemoveNode takes a node out of the catalog and of Raft's configuration.
func (c *Cluster) RemoveNode(ctx context.Context, request string, n ids.Node) error {
	if _, err := c.Propose(ctx, catalog.Command{Request: request, Body: catalog.RemoveNode{Node: n}}); err != nil {
		return err
	}
	if err := c.raft.RemoveServer(raft.ServerID(n.String()), 0, 10*time.Second).Error(); err != nil {
		return fmt.Errorf("%w: removing the node from Raft: %w", ErrUnknown, err)
	}
	return nil
}

// CallLeader has the leader answer.
func (c *Cluster) CallLeader(ctx context.Context, method string, in, out any) error {
	leader := c.Leader()
	if leader.IsZero() {
		return ErrNoLeader
	}
	if leader == c.Self() {
		return ErrNotLeader // Raft's, but it has not yet applied what was committed before
	}
	addr, _ := c.raft.LeaderWithID()
	conn, err := c.id.dial(ctx, string(addr), leader, streamCall)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoLeader, err)
	}
	return ask(ctx, conn, method, in, out)
}

// Call has a node answer.
func (c *Cluster) Call(ctx context.Context, to ids.Node, method string, in, out any) error {
	n, ok := c.State().Nodes[to]
	if !ok {
		return fmt.Errorf("node %s: %w", to, catalog.ErrNoNode)
	}
	conn, err := c.id.dial(ctx, n.Address, to, streamCall)
	if err != nil {
		return err
	}
	return ask(ctx, conn, method, in, out)
}

// Close ends the node's part. The order: nothing is proposed or voted any more when the port closes, and nothing is written
// when the store does.
func (c *Cluster) Close() error {
	c.cancel()
	var err error
	if c.raft != nil {
		err = c.raft.Shutdown().Error()
	}
	if c.stable != nil {
		c.stable.Close()
	}
	if c.transport != nil {
		err = errors.Join(err, c.transport.Close())
	}
	if c.gossip != nil {
		c.gossip.close(true)
	}
	if c.mux != nil {
		c.mux.close()
	}
	c.work.Wait()
	if c.mux != nil {
		c.mux.work.Wait()
	}
	if c.store != nil {
		err = errors.Join(err, c.store.close())
	}
	return err
}

var _ io.Closer = (*Cluster)(nil)

// handle decodes a call's body.
func handle[In, Out any](f func(context.Context, ids.Node, In) (Out, error)) Handler {
	return func(ctx context.Context, from ids.Node, body json.RawMessage) (any, error) {
		var in In
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, fmt.Errorf("%w: the call cannot be read: %w", ErrCall, err)
		}
		return f(ctx, from, in)
	}
}

// Handle makes a Handler of a typed function.
func Handle[In, Out any](f func(context.Context, ids.Node, In) (Out, error)) Handler {
	return handle(f)
}

// Peek returns the cluster that a state directory belongs to, and whether its node is a witness. It returns ErrNoCluster or
// ErrCorrupt.
func Peek(dir string) (c ids.Cluster, witness bool, err error) {
	id, err := loadIdentity(dir)
	if err != nil {
		return ids.Cluster{}, false, err
	}
	return id.Cluster, id.Witness, nil
}

// Refresh has the cluster told at once that About has changed.
func (c *Cluster) Refresh() {
	select {
	case c.refresh <- struct{}{}:
	default:
	}
}

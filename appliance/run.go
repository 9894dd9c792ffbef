package appliance

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/appliance/front"
	"pmsapp/appliance/vip"
	"pmsapp/cluster"
	"pmsapp/internal/ids"
	"pmsapp/replication/initiator"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
	"pmsapp/replication/remote"
	"pmsapp/replication/replica"
	"pmsapp/replication/throttle"
	"pmsapp/target"
	"pmsapp/target/scsi"
)

// node is a node that runs. Its fields do not change after run has wired them.
type node struct {
	cfg      config.Config
	log      *slog.Logger
	addrs    addresses
	pools    *pools
	cluster  *cluster.Cluster
	hosts    *front.Hosts
	door     *nfsDoor
	target   *target.Server
	reign    *reign.Reign
	service  *service
	events   *eventLog
	memory   *memory
	throttle *throttle.Throttle
	api      *api.Server
	failed   chan error    // what ends the node besides its context; has room for one
	stop     chan struct{} // closed by a cluster's shutdown
	once     sync.Once

	clients   clients
	poolCache poolCache
	limits    limits
	refusals  refusals

	ruling sync.Mutex // held by who changes the rules of a share

	mu       sync.Mutex // guards what follows
	timeouts config.Timeouts
	volumes  config.Volumes
	scrub    config.Scrub
	copies   config.Resync
	leaving  bool // on its way down: not electable
}

// run runs a node until ctx ends, and returns when everything of it has ended. It is the whole wiring.
func run(ctx context.Context, cfg config.Config, log *slog.Logger, reloads <-chan config.Reloadable) (err error) {
	n := &node{cfg: cfg, log: log, failed: make(chan error, 1), stop: make(chan struct{}), timeouts: cfg.Timeouts, volumes: cfg.Volumes,
		scrub: cfg.Scrub, copies: cfg.Resync}
	if n.addrs, err = advertise(cfg); err != nil {
		return err
	}

	// What this machine is: nothing else is touched before that is clear.
	clusterID, witness, err := cluster.Peek(cfg.State)
	if err != nil {
		return err
	}

	// The guardian keeps the memory that this process has when it is made: little now.
	var guardian *vip.Guardian
	if cfg.Virtual.Portal != "" && cfg.Virtual.Interface != "" {
		if guardian, err = vip.NewGuardian(netip.MustParseAddrPort(cfg.Virtual.Portal).Addr(), cfg.Virtual.Lifetime, log); err != nil {
			log.Warn("the virtual address has no guardian; should this process die, clients of shares find the next leader some seconds later", "err", err)
		}
		defer guardian.Close() // after the address's release
	}

	if n.memory, err = openMemory(cfg.State, clusterID, log); err != nil {
		return err
	}

	// The replicas. What they know of the catalog is evidence that the cluster asks for (invariant 9), so they come first, and end
	// last. Nobody fences them before the cluster is there.
	replicas, err := replica.OpenNode(replica.Config{Dir: cfg.State, Cluster: clusterID, Log: log, Cache: memoryShare(cfg.ReadCache),
		Written: func() replica.Written { return replica.Written(n.cluster.Written()) }})
	if err != nil {
		return err
	}
	defer replicas.Close()
	n.pools = newPools(cfg.State, replicas, log)
	defer n.pools.close()
	if !witness {
		if err := n.pools.openAll(cfg.Pools); err != nil {
			return err
		}
	} else if len(cfg.Pools) > 0 {
		return errors.New("pools: a witness has none: take them out of the configuration, or join again without --witness")
	}

	// Listeners before anything runs: a port in use is the user's to mend, and told at once.
	apiListener, err := listen("address.api", cfg.Address.API)
	if err != nil {
		return err
	}
	defer apiListener.Close()
	portals, err := n.listenPortals()
	if err != nil {
		return err
	}
	defer closeAll(portals)
	door, err := n.listenNFS()
	if err != nil {
		return err
	}
	defer door.close()

	// Cluster and reign tell the service what happens; it needs both, so it is made before them and completed after.
	n.service = &service{wake: make(chan struct{}, 1), mirrors: map[ids.Volume]reign.Mirror{}, failed: n.fail, log: log, ready: make(chan struct{}),
		gone: make(chan struct{})}
	n.cluster, err = cluster.Open(ctx, cluster.Config{Dir: cfg.State, Listen: cfg.Address.Cluster, Advertise: n.addrs.cluster,
		About: n.about, Written: written(replicas), HeartbeatTimeout: cfg.Timeouts.Cluster.Heartbeat,
		ElectionTimeout: cfg.Timeouts.Cluster.Election, LeaseTimeout: cfg.Timeouts.Cluster.Lease, Observer: n.service, Log: log},
		map[string]cluster.Handler{
			"api":      cluster.Handle(n.handleAPI),
			"events":   cluster.Handle(n.handleEvents),
			"report":   cluster.Handle(n.handleReport),
			"pools":    cluster.Handle(n.handlePools),
			"stop":     cluster.Handle(n.handleStop),
			"reserve":  cluster.Handle(n.handleReserve),
			"sessions": cluster.Handle(n.handleSessions),
			"identity": cluster.Handle(n.handleIdentity),
			"index":    cluster.Handle(n.handleIndex),
			"clients":  cluster.Handle(n.clients.handleClients),
		})
	if err != nil {
		return err
	}
	// Last of all but the replicas: until then others can ask this node, and it can propose.
	defer func() { err = errors.Join(err, n.cluster.Close()) }()
	defer close(n.service.gone)
	n.events = newEventLog(n.recordEvents, log)
	truth := &truths{c: n.cluster, limits: &n.limits}
	reservations := newReservations(n.cluster, cfg.Virtual.Portal != "")
	defer reservations.close() // after the target's end, before the cluster's

	// What hosts and peers log in to.
	group, err := n.group(ctx)
	if errors.Is(err, errStopped) {
		return nil
	}
	if err != nil {
		return err
	}
	n.hosts = front.NewHosts(front.HostsConfig{Group: group, Portals: n.discoverable, Certain: n.certain,
		Hold: func() time.Duration { return n.tunables().Hold }, Around: scsi.Around{Elsewhere: front.Patient(reservations.elsewhere, func() time.Duration { return n.tunables().Hold }), Groups: reservations.groups}, Cluster: clusterID,
		Verifier: n.verifierAuth(), Log: log})
	reservations.hosts = n.hosts
	if err := door.open(n.cluster, func() time.Duration { return n.tunables().Hold }, log); err != nil {
		return fmt.Errorf("the NFS server: %w", err)
	}
	defer door.shares.Close() // after the reign's end: the mirrors have answered
	n.door = door
	key := n.cluster.Secret("sessions between nodes")
	server := remote.NewServer(remote.ServerConfig{Cluster: clusterID, Node: replicas, Log: log})
	defer server.Wait() // after the target's end
	provider := front.Provider{Hosts: n.hosts}
	if !witness {
		provider.Peers = front.NewPeers(n.cluster.Self(), key, server)
	}
	n.target, err = target.New(target.Config{Provider: provider, Log: log, Group: group, GroupOf: n.groupOf(group), Refused: n.refused, Tunables: hostTunables(cfg.Timeouts.Hosts)})
	if err != nil {
		return fmt.Errorf("the target: %w", err)
	}

	// The leader's part.
	n.throttle = throttle.New(n.copySettings)
	n.reign, err = reign.New(reignConfig(cfg.Timeouts), reign.Deps{Self: n.cluster.Self(), Catalog: truth,
		Dialer: dialer{n.cluster.Self(), replicas, func() time.Duration { return n.tunables().Peers.Recovery }, remote.NewDialer(remote.DialerConfig{Cluster: clusterID, Self: n.cluster.Self(),
			Key: key, Portal: n.peerPortal, Timeouts: func() initiator.Timeouts { return peerTimeouts(n.tunables().Peers) }, Log: log})},
		Cluster: reignCluster{truth, n.report, n.space, n.askReport, func() time.Duration { return n.volumeTunables().TrashKeep }}, Observer: n.service, Log: log, Physical: physicalBlock, Budget: n.throttle,
		Tunables: mirror.Tunables{Hold: cfg.Timeouts.Hold, Slow: cfg.Timeouts.SlowWrite}})
	if err != nil {
		return fmt.Errorf("the reign: %w", err)
	}
	n.service.hosts, n.service.reign, n.service.cluster, n.service.events = n.hosts, n.reign, n.cluster, n.events
	n.service.reservations, n.service.door = reservations, door
	if cfg.Virtual.Portal != "" {
		n.service.vip = vip.New(vip.Config{Addr: netip.MustParseAddrPort(cfg.Virtual.Portal).Addr(), Prefix: cfg.Virtual.Prefix,
			Interface: cfg.Virtual.Interface, Lifetime: cfg.Virtual.Lifetime, Services: n.virtualServices(), Guardian: guardian,
			Former: n.clients.Former, Log: log})
	}
	n.api = api.NewServer(n, n.adminDigest, log)
	close(n.service.ready) // what cluster has told meanwhile is acted on now

	// Everything that runs besides, with one end.
	var work sync.WaitGroup
	rctx, cancel := context.WithCancel(context.Background())
	work.Go(func() { n.service.run(rctx) })
	work.Go(func() { n.events.run(rctx) })
	work.Go(func() { n.memory.run(rctx, n.cluster.State) })
	work.Go(func() { n.watchFill(rctx) })
	work.Go(func() { n.watchScrubs(rctx) })
	work.Go(func() { n.pools.retry(rctx, n.cluster.Refresh) })
	work.Go(func() { n.emptyTrash(rctx) })
	if n.service.vip != nil && cfg.Virtual.Interface != "" {
		work.Go(func() { n.tellClients(rctx) })
	}
	for _, l := range portals {
		work.Go(func() { n.serveErr("the portal "+l.Addr().String(), n.target.Serve(l)) })
	}
	for _, l := range door.streams {
		work.Go(func() { n.serveNFS(l.Addr(), func() error { return door.server.Serve(l) }) })
	}
	for _, p := range door.packets {
		work.Go(func() { n.serveNFS(p.LocalAddr(), func() error { return door.server.ServePacket(p) }) })
	}
	web, err := n.webServer()
	if err != nil {
		cancel()
		return err
	}
	work.Go(func() { n.serveErr("the API", web.ServeTLS(apiListener, "", "")) })
	log.Info("node runs", "name", cfg.Name, "node", n.cluster.Self().String(), "cluster", clusterID.String(), "api", apiListener.Addr().String())

	var cause error
wait:
	for {
		select {
		case <-ctx.Done():
			break wait
		case <-n.stop:
			break wait
		case cause = <-n.failed:
			log.Error("the node ends", "err", cause)
			break wait
		case r := <-reloads:
			n.reload(r)
		}
	}

	// The end, in order.
	log.Info("stopping")
	n.mu.Lock()
	n.leaving = true
	n.mu.Unlock()
	stop, stopped := context.WithTimeout(context.Background(), 10*time.Second)
	defer stopped()
	// 1. Another node serves before this one stops to: hosts wait for milliseconds, not for an election. Where there is none, nothing is left
	// in memory alone.
	if cause == nil && n.cluster.IsLeader() {
		if err := n.reign.HandOver(stop, ids.Node{}); err != nil {
			log.Info("there is nobody to hand over to", "err", err)
			n.settleVolumes(stop)
		}
	}
	// 2. No host finds this node any more, or it would come again while the rest ends.
	n.service.close()
	closeAll(portals)
	door.close()
	// 3. No request of the admin begins any more, and those under way end: they need all of the rest.
	if err := web.Shutdown(stop); err != nil {
		web.Close()
	}
	// 4. The mirrors: what they still hold ends with block.ErrEnded, and the hosts' sessions with it. Nothing proposes now.
	n.reign.Close(errors.New("the node stops"))
	// 5. Sessions of hosts and of other leaders; commands on replicas finish.
	sctx, scancel := context.WithTimeout(stop, time.Second)
	if err := n.target.Shutdown(sctx); err != nil {
		log.Debug("sessions were dropped", "err", err)
	}
	if door.server != nil {
		if err := door.server.Shutdown(sctx); err != nil {
			log.Debug("clients of shares were dropped", "err", err)
		}
	}
	scancel()
	// 6. The loops. The virtual address is released here at the latest. Then, by the defers above: the cluster, the replicas.
	cancel()
	work.Wait()
	return cause
}

// written is what the replicas know of the catalog.
func written(r *replica.Node) (out []cluster.Written) {
	for _, w := range r.Written() {
		out = append(out, cluster.Written(w))
	}
	return out
}

// certain tells whether the targets are those of all exports that exist.
func (n *node) certain() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return n.cluster.Confirmed(ctx) && n.service.applyExports() == nil
}

// fail ends the node.
func (n *node) fail(err error) {
	select {
	case n.failed <- err:
	default: // it ends already
	}
}

// serveErr ends the node if a server ends by itself.
func (n *node) serveErr(what string, err error) {
	if err != nil && !errors.Is(err, target.ErrClosed) && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		n.fail(fmt.Errorf("%s: %w", what, err))
	}
}

// webServer is the API over TLS.
func (n *node) webServer() (*http.Server, error) {
	cert, err := n.cluster.Certificate()
	if err != nil {
		return nil, err
	}
	return &http.Server{Handler: n.api, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}}, nil
}

// adminDigest is what the admin token must have.
func (n *node) adminDigest() (d [sha256.Size]byte) {
	admin := n.cluster.State().Admin
	if len(admin) == 0 { // no leader has told yet
		admin = n.memory.get().Admin
	}
	copy(d[:], admin)
	return d
}

// group is this node's portal group: the catalog's, which does not change. It is remembered in the state directory, so that
// a node that finds no leader has it too.
func (n *node) group(ctx context.Context) (uint16, error) {
	file := filepath.Join(n.cfg.State, "group")
	b, err := os.ReadFile(file)
	if err == nil {
		text, of, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
		g, err := strconv.ParseUint(text, 10, 16)
		switch {
		case err != nil || g == 0:
			n.log.Error("the file of the portal group is damaged; the catalog has it too", "path", file)
		case of == n.cluster.Self().String(): // not of an identity that this machine has given up
			return uint16(g), nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("reading the portal group: %w", err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for waited := 0; ; waited++ {
		if me, ok := n.cluster.State().Nodes[n.cluster.Self()]; ok && me.Group != 0 {
			return me.Group, cluster.WriteFile(file, fmt.Appendf(nil, "%d %s\n", me.Group, n.cluster.Self()))
		}
		if waited == 250 {
			n.log.Warn("waiting for the cluster to know this node: is a leader there, and address.cluster of the others reachable?")
		}
		select {
		case <-tick.C:
		case err := <-n.failed:
			return 0, err
		case <-n.stop:
			return 0, errStopped
		case <-ctx.Done():
			return 0, errStopped
		}
	}
}

// groupOf tells the portal group of an address: the virtual one has its own.
func (n *node) groupOf(own uint16) func(netip.AddrPort) uint16 {
	virtual, err := netip.ParseAddrPort(n.cfg.Virtual.Portal)
	return func(portal netip.AddrPort) uint16 {
		if err == nil && portal == virtual {
			return front.VirtualGroup
		}
		return own
	}
}

// errStopped ends the start of a node that is stopped meanwhile.
var errStopped = errors.New("stopped while starting")

func (n *node) tunables() config.Timeouts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.timeouts
}

func (n *node) volumeTunables() config.Volumes {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.volumes
}

// reload takes over what can change while the node runs. Sessions that exist keep what they were opened with.
func (n *node) reload(r config.Reloadable) {
	n.mu.Lock()
	n.timeouts, n.volumes, n.scrub, n.copies = r.Timeouts, r.Volumes, r.Scrub, r.Resync
	n.mu.Unlock()
	n.reign.Tune(r.Timeouts.ReplaceAfter)
	if err := n.target.Tune(hostTunables(r.Timeouts.Hosts)); err != nil {
		n.log.Error("the hosts' timeouts were not taken over", "err", err)
		return
	}
	n.log.Info("the configuration was read again; names, addresses and timeouts.cluster need a restart")
}

func hostTunables(t config.HostTimeouts) target.Tunables {
	return target.Tunables{LoginTimeout: t.Login, LogoutTimeout: t.Logout, NoopInterval: t.NoopInterval, NoopTimeout: t.NoopTimeout}
}

func peerTimeouts(t config.PeerTimeouts) initiator.Timeouts {
	return initiator.Timeouts{Login: t.Login, Logout: t.Logout, NoopInterval: t.NoopInterval, NoopTimeout: t.NoopTimeout, Recovery: t.Recovery}
}

func reignConfig(t config.Timeouts) reign.Config {
	c := reign.Default()
	c.OpenTimeout, c.ReplaceAfter = t.Peers.Login, t.ReplaceAfter
	return c
}

var _ remote.Node = (*replica.Node)(nil)
var _ peer.Dialer = dialer{}

package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"pmsapp/appliance/adapt"
	"pmsapp/appliance/api"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/reign"
	"pmsapp/target/scsi"
)

// What nodes ask each other, besides what package cluster does.

// errNotUp is returned to a node that asks before this one is complete.
var errNotUp = errors.New("appliance: the node is starting")

// up waits until the node is complete.
func (n *node) up(ctx context.Context) error {
	select {
	case <-n.service.ready:
		return nil
	case <-ctx.Done():
		return errNotUp
	}
}

// about is what the catalog is to know of this node.
func (n *node) about() catalog.Node {
	me := catalog.Node{Name: n.cfg.Name, API: n.addrs.api, Portal: n.addrs.portal, PeerPortal: n.addrs.peers, NFS: n.addrs.nfs, Portmap: n.addrs.portmap, Release: release()}
	for _, p := range n.pools.replicas.Pools() {
		me.Pools = append(me.Pools, catalog.Pool{ID: p.ID, Path: p.Path})
	}
	return me
}

// release is the program's version, for people.
func release() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(devel)"
}

// handleAPI answers an admin call that another node has passed on.
func (n *node) handleAPI(ctx context.Context, _ ids.Node, c api.Call) (api.Reply, error) {
	if err := n.up(ctx); err != nil {
		return api.Reply{}, err
	}
	return n.api.Do(ctx, c), nil
}

// handleReport answers a leader that considers to hand over to this node (invariant 19).
func (n *node) handleReport(ctx context.Context, _ ids.Node, _ struct{}) (reign.Report, error) {
	if err := n.up(ctx); err != nil {
		return reign.Report{}, err
	}
	return n.report(), nil
}

func (n *node) askReport(ctx context.Context, to ids.Node) (r reign.Report, err error) {
	return r, n.cluster.Call(ctx, to, "report", struct{}{}, &r)
}

// reachLimit bounds how long another node's portal is tried for a report.
const reachLimit = 500 * time.Millisecond

// report is what this node says of itself. Whom it reaches is tried, not remembered.
func (n *node) report() reign.Report {
	n.mu.Lock()
	leaving := n.leaving
	n.mu.Unlock()
	self := n.cluster.Self()
	r := reign.Report{Electable: !leaving && !n.cluster.Witness() && n.cluster.Voters()[self], LastIndex: n.cluster.LastIndex()}
	for _, p := range n.pools.replicas.Pools() {
		if p.Err == nil {
			r.Reaches = append(r.Reaches, self)
			break
		}
	}
	var (
		mu   sync.Mutex
		work sync.WaitGroup
	)
	for id, o := range n.cluster.State().Nodes {
		if id == self || o.Witness || o.PeerPortal == "" {
			continue
		}
		work.Go(func() {
			c, err := net.DialTimeout("tcp", o.PeerPortal, reachLimit)
			if err != nil {
				return
			}
			c.Close()
			mu.Lock()
			r.Reaches = append(r.Reaches, id)
			mu.Unlock()
		})
	}
	work.Wait()
	return r
}

// handleReserve answers a node through which a host asks about reservations.
func (n *node) handleReserve(ctx context.Context, from ids.Node, q scsi.Question) (asked, error) {
	if err := n.up(ctx); err != nil {
		return asked{}, err
	}
	return n.service.reservations.handle(ctx, from, q)
}

// handlePools tells another node about this one's pools.
func (n *node) handlePools(ctx context.Context, _ ids.Node, _ struct{}) ([]api.Pool, error) {
	if err := n.up(ctx); err != nil {
		return nil, err
	}
	return n.ownPools(), nil
}

func (n *node) ownPools() []api.Pool {
	all := []api.Pool{}
	for _, p := range append(n.pools.replicas.Pools(), n.pools.missing()...) {
		q := api.Pool{ID: p.ID.String(), Node: n.cfg.Name, Path: p.Path, Size: p.Size, Free: p.Free, State: "ok"}
		if p.Err != nil {
			q.State = p.Err.Error()
		}
		all = append(all, q)
	}
	return all
}

// poolsOf asks all storage nodes that seem to be there about their pools, all at once. Nodes that do not answer within the
// limit are not in the result.
func (n *node) poolsOf(ctx context.Context, limit time.Duration) map[ids.Node][]api.Pool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	self, opinions := n.cluster.Self(), n.cluster.Opinions()
	all := map[ids.Node][]api.Pool{self: n.ownPools()}
	var (
		mu   sync.Mutex
		work sync.WaitGroup
	)
	for id, o := range n.cluster.State().Nodes {
		if id == self || o.Witness || opinions[id] == cluster.Dead {
			continue
		}
		work.Go(func() {
			var p []api.Pool
			if err := n.cluster.Call(ctx, id, "pools", struct{}{}, &p); err != nil {
				n.log.Debug("a node did not tell its pools", "node", o.Name, "err", err)
				return
			}
			mu.Lock()
			all[id] = p
			mu.Unlock()
		})
	}
	work.Wait()
	return all
}

// poolCache remembers what poolsOf found for a moment: status is asked often.
type poolCache struct {
	mu   sync.Mutex
	at   time.Time
	of   string // the pools of the catalog then
	last map[ids.Node][]api.Pool
}

const poolAge = 2 * time.Second

func (c *poolCache) get(st *catalog.State, ask func() map[ids.Node][]api.Pool) map[ids.Node][]api.Pool {
	of := ""
	for _, n := range adapt.Nodes(st) {
		of += fmt.Sprint(n.ID, n.Pools)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || c.of != of || time.Since(c.at) > poolAge {
		c.last, c.at, c.of = ask(), time.Now(), of
	}
	return c.last
}

// handleStop ends this node in order: the leader has closed all volumes.
func (n *node) handleStop(ctx context.Context, _ ids.Node, _ struct{}) (struct{}, error) {
	if err := n.up(ctx); err != nil {
		return struct{}{}, err
	}
	n.stopSoon()
	return struct{}{}, nil
}

// stopSoon ends the node when answers under way have been given.
func (n *node) stopSoon() {
	n.mu.Lock()
	n.leaving = true
	n.mu.Unlock()
	n.once.Do(func() { time.AfterFunc(300*time.Millisecond, func() { close(n.stop) }) })
}

// recordEvents has the leader bring events into the catalog.
func (n *node) recordEvents(ctx context.Context, events []catalog.Event) error {
	_, err := n.cluster.Propose(ctx, catalog.Command{Body: catalog.AddEvents{Events: events}})
	if errors.Is(err, cluster.ErrNotLeader) {
		return n.cluster.CallLeader(ctx, "events", events, nil)
	}
	return err
}

// handleEvents records what another node has to tell.
func (n *node) handleEvents(ctx context.Context, _ ids.Node, events []catalog.Event) (struct{}, error) {
	_, err := n.cluster.Propose(ctx, catalog.Command{Body: catalog.AddEvents{Events: events}})
	return struct{}{}, err
}

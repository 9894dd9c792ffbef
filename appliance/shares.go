package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"pmsapp/appliance/shares"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/block"
	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
	"pmsapp/nfs"
	"pmsapp/nfs/rpc"
	"pmsapp/nfs/share"
)

// shareCatalog is the cluster's catalog to one share under one epoch.
type shareCatalog struct {
	c      *cluster.Cluster
	volume ids.Volume
	epoch  uint64
}

// Tree implements share.Catalog.
func (s shareCatalog) Tree() *filetree.Tree { return s.c.State().Trees[s.volume] }

// maxVersions bounds how often a command is proposed again because the in-sync set has changed meanwhile.
const maxVersions = 64

// Propose implements share.Catalog. A command that was rejected because of the set's version has had no effect, and is as good
// under the next version: what it says is durable on every member of that too, or that member has not joined yet (invariant 15).
func (s shareCatalog) Propose(ctx context.Context, b filetree.Batch) ([]filetree.Result, error) {
	body := catalog.ChangeTree{Epoch: s.epoch, Volume: s.volume, Ops: b.Encode()}
	var err error
	for range maxVersions {
		body.Version = s.c.State().Volumes[s.volume].Version
		var r catalog.Result
		if r, err = s.c.Propose(ctx, catalog.Command{Body: body}); err == nil {
			return r.Tree, nil
		}
		if !errors.Is(err, catalog.ErrVersion) {
			break
		}
	}
	return nil, fmt.Errorf("%w: %w", block.ErrEnded, err)
}

// exportCache has the catalog's exports as the front door wants them; each is made anew only when it has changed. Its methods are
// safe for concurrent use.
type exportCache struct {
	state func() *catalog.State

	mu  sync.Mutex // guards all
	all map[ids.Volume]exportKept
}

// exportKept is an export and what it was made of. Rules are never changed in place, so the address of the first is enough.
type exportKept struct {
	name   string
	rules  *catalog.ShareRule
	count  int
	export *nfs.Export
}

func newExportCache(state func() *catalog.State) *exportCache {
	return &exportCache{state: state, all: map[ids.Volume]exportKept{}}
}

// one returns a share's export, nil if there is none.
func (c *exportCache) one(id ids.Volume) *nfs.Export {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.get(c.state(), id)
}

// every returns all exports.
func (c *exportCache) every() (all []*nfs.Export) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.state()
	for id := range st.Shares {
		if e := c.get(st, id); e != nil {
			all = append(all, e)
		}
	}
	for id := range c.all {
		if _, is := st.Shares[id]; !is {
			delete(c.all, id)
		}
	}
	return all
}

// get is called with mu.
func (c *exportCache) get(st *catalog.State, id ids.Volume) *nfs.Export {
	e, exported := st.Shares[id]
	v, known := st.Volumes[id]
	if !exported || !known || len(e.Rules) == 0 {
		delete(c.all, id)
		return nil
	}
	k := c.all[id]
	if k.export == nil || k.name != v.Name || k.rules != &e.Rules[0] || k.count != len(e.Rules) {
		k = exportKept{v.Name, &e.Rules[0], len(e.Rules), &nfs.Export{Path: "/" + v.Name, ID: id, Rules: nfsRules(e.Rules)}}
		c.all[id] = k
	}
	return k.export
}

// nfsDoor is the NFS front door with its sockets.
type nfsDoor struct {
	shares  *shares.Shares
	server  *nfs.Server
	streams []net.Listener
	packets []net.PacketConn
}

// listenNFS opens the sockets of the front door; none if address.nfs is empty. Portmap's is left out, with a warning, if this
// user may not have it: then clients need the options port and mountport.
func (n *node) listenNFS() (d *nfsDoor, err error) {
	d = &nfsDoor{}
	a := n.cfg.Address
	if a.NFS == "" {
		return d, nil
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if err := d.listen("address.nfs", a.NFS); err != nil {
		return nil, err
	}
	if a.Portmap != "" {
		if err := d.listen("address.portmap", a.Portmap); err != nil {
			n.log.Warn("clients need the options port and mountport, and showmount does not work: there is no portmap", "err", err)
			n.addrs.portmap = ""
		}
	}
	return d, nil
}

// listen opens a TCP and a UDP socket of the same port.
func (d *nfsDoor) listen(key, addr string) error {
	l, err := listen(key, addr)
	if err != nil {
		return err
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		l.Close()
		return fmt.Errorf("%s, by UDP: %w", key, err)
	}
	d.streams, d.packets = append(d.streams, l), append(d.packets, p)
	return nil
}

func (d *nfsDoor) close() {
	closeAll(d.streams)
	for _, p := range d.packets {
		p.Close()
	}
}

// open makes the server. It is called when the cluster is there.
func (d *nfsDoor) open(c *cluster.Cluster, hold func() time.Duration, log *slog.Logger) (err error) {
	exports := newExportCache(c.State)
	d.shares = shares.New(shares.Config{
		Catalog: func(v ids.Volume, epoch uint64) share.Catalog { return shareCatalog{c, v, epoch} },
		Exports: exports.every, Export: exports.one,
		Certain: func(ctx context.Context) bool {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return c.Confirmed(ctx)
		},
		Hold: hold, Log: log,
	})
	if len(d.streams) == 0 {
		return nil
	}
	port := func(i int) uint16 {
		if i >= len(d.streams) {
			return 111
		}
		return netip.MustParseAddrPort(d.streams[i].Addr().String()).Port()
	}
	d.server, err = nfs.New(nfs.Config{Exports: d.shares, Key: c.Secret("file handles of shares"),
		Ports: nfs.Ports{NFS: port(0), Mount: port(0), Portmap: port(1)}, Log: log})
	return err
}

// drop ends the clients' connections: what they left unanswered is for the next leader (invariant 8).
func (d *nfsDoor) drop(cause error) {
	if d.server != nil {
		d.server.Drop(cause)
	}
}

// serve serves a socket until the end, and tells of an end that nobody asked for.
func (n *node) serveNFS(what net.Addr, serve func() error) {
	if err := serve(); err != nil && !errors.Is(err, rpc.ErrShutdown) && !errors.Is(err, net.ErrClosed) {
		n.fail(fmt.Errorf("the NFS server at %s: %w", what, err))
	}
}

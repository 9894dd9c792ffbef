package front

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/block/blocktest"
	"pmsapp/internal/ids"
	"pmsapp/target"
	"pmsapp/target/scsi"
	"pmsapp/target/scsi/scsitest"
)

const (
	worldHold = 10 * time.Second // hold_timeout
	groupA    = 3
	groupB    = 4
)

// world is two nodes with everything that hosts talk to, over connections in memory: what reign and mirror say to it, and what the
// catalog says, is the test's. It lives in a synctest bubble.
type world struct {
	t      *testing.T
	volume ids.Volume
	mapped bool // to a host, rather than exported
	data   *blocktest.Memory
	keeper *scsitest.Keeper
	a, b   *worldNode

	mu             sync.Mutex
	raft           uint16 // who leads by Raft
	leader, serves uint16 // as the catalog has them
	known, certain bool   // the nodes know the export; whether they know all
	size           int64  // of the volume
}

// worldNode is one of them.
type worldNode struct {
	w      *world
	group  uint16
	addr   netip.AddrPort
	hosts  *Hosts
	server *target.Server
	conns  chan net.Conn
	closed chan struct{}
}

func newWorld(t *testing.T, mapped bool) *world {
	w := &world{t: t, volume: ids.NewVolume(), mapped: mapped, size: geometry.Size, data: blocktest.NewMemory(4*geometry.Size, geometry.Logical),
		keeper: &scsitest.Keeper{TargetPorts: []uint16{groupA, groupB}}}
	w.a, w.b = w.node(groupA, "192.0.2.1:3260"), w.node(groupB, "192.0.2.2:3260")
	return w
}

func (w *world) node(group uint16, addr string) *worldNode {
	n := &worldNode{w: w, group: group, addr: netip.MustParseAddrPort(addr), conns: make(chan net.Conn), closed: make(chan struct{})}
	hold := func() time.Duration { return worldHold }
	n.hosts = NewHosts(HostsConfig{Group: group, Hold: hold, Log: slog.New(slog.DiscardHandler),
		Certain: func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.certain },
		Portals: func() []target.Portal {
			return []target.Portal{{Addr: w.a.addr, Group: groupA}, {Addr: w.b.addr, Group: groupB}}
		},
		Around: scsi.Around{Elsewhere: Patient(n.elsewhere, hold), Groups: func(ids.Volume) []scsi.PortGroup {
			w.mu.Lock()
			defer w.mu.Unlock()
			return Groups([]uint16{groupA, groupB}, w.leader, w.serves)
		}}})
	var err error
	n.server, err = target.New(target.Config{Provider: Provider{Hosts: n.hosts}, Group: group, Tunables: target.DefaultTunables()})
	if err != nil {
		w.t.Fatal(err)
	}
	go n.server.Serve(n) // ends with close
	return n
}

// elsewhere asks the leader, as appliance does by the cluster's port.
func (n *worldNode) elsewhere(q scsi.Question, done func(scsi.Answer, bool, error)) (end func()) {
	n.w.mu.Lock()
	to := n.w.a
	switch n.w.raft {
	case n.group, 0:
		to = nil
	case groupB:
		to = n.w.b
	}
	n.w.mu.Unlock()
	if to == nil {
		done(scsi.Answer{}, false, ErrNotServed)
		return func() {}
	}
	end, served, err := to.hosts.Ask(q, func(a scsi.Answer, err error) { done(a, true, err) })
	if err != nil || !served {
		done(scsi.Answer{}, false, ErrNotServed)
		return func() {}
	}
	return end
}

// catalog makes both nodes know what the catalog says now.
func (w *world) catalog(leader, serves uint16) {
	w.mu.Lock()
	w.leader, w.serves = leader, serves
	known := w.known
	w.mu.Unlock()
	for _, n := range []*worldNode{w.a, w.b} {
		s, index := w.keeper.Reservations()
		g := geometry
		g.Size = w.size
		var exports []Export
		var hosts []Host
		var volumes []Offered
		switch {
		case !known:
		case w.mapped:
			hosts = []Host{{Name: "h", IQNs: []string{"iqn.h"}, LUNs: []HostLUN{{w.volume, 1, false}}, Paths: PathsNodes}}
			volumes = []Offered{{Volume: w.volume, Name: "vol", Geometry: g, Access: serves, Reserved: s, Index: index}}
		default:
			exports = []Export{{Volume: w.volume, Name: "vol", Geometry: g, LUN: 1, Access: serves, Paths: PathsNodes, Reserved: s, Index: index}}
		}
		if err := n.hosts.Apply(exports); err != nil {
			w.t.Fatal(err)
		}
		if err := n.hosts.ApplyMaps(hosts, volumes); err != nil {
			w.t.Fatal(err)
		}
	}
}

// serve has a node serve the volume by a new mirror.
func (n *worldNode) serve() *fakeMirror { return n.serveLost(0) }

// serveLost is serve by a mirror that knows how often acknowledged writes may have been lost.
func (n *worldNode) serveLost(losses uint64) *fakeMirror {
	m := &fakeMirror{data: n.w.data, held: map[*block.Request]*time.Timer{}, losses: losses, size: n.w.size}
	n.hosts.Serve(n.w.volume, m, n.w.keeper)
	return m
}

func (w *world) close() {
	for _, n := range []*worldNode{w.a, w.b} {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		n.server.Shutdown(ctx)
		n.hosts.StandbyAll()
	}
}

// Accept implements net.Listener.
func (n *worldNode) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The server closes it more than once.
func (n *worldNode) Close() error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	select {
	case <-n.closed:
	default:
		close(n.closed)
	}
	return nil
}

// Addr implements net.Listener.
func (n *worldNode) Addr() net.Addr { return net.TCPAddrFromAddrPort(n.addr) }

// pipe is one end of a connection in memory that has addresses.
type pipe struct {
	net.Conn
	local, remote net.Addr
}

func (p pipe) LocalAddr() net.Addr  { return p.local }
func (p pipe) RemoteAddr() net.Addr { return p.remote }

// fakeMirror does to the data what it is told, or holds it as a mirror does, or fails it. What it holds it has not done.
type fakeMirror struct {
	data   *blocktest.Memory
	losses uint64
	size   int64

	mu      sync.Mutex
	holding bool
	fails   func(*block.Request) error
	held    map[*block.Request]*time.Timer
}

func (m *fakeMirror) Geometry() block.Geometry {
	g := geometry
	g.Losses, g.Size = m.losses, m.size
	return g
}

func (m *fakeMirror) Submit(r *block.Request) {
	m.mu.Lock()
	if m.fails != nil {
		if err := m.fails(r); err != nil {
			m.mu.Unlock()
			r.Err = err
			r.Done(r)
			return
		}
	}
	if m.holding {
		m.held[r] = time.AfterFunc(worldHold, func() { m.end(r, block.ErrHeld) })
		m.mu.Unlock()
		return
	}
	m.mu.Unlock()
	m.data.Submit(r)
}

// end ends a request that is held, with an error or by doing it.
func (m *fakeMirror) end(r *block.Request, err error) {
	m.mu.Lock()
	timer, ok := m.held[r]
	delete(m.held, r)
	m.mu.Unlock()
	if !ok {
		return
	}
	timer.Stop()
	if err == nil {
		m.data.Submit(r)
		return
	}
	r.Err = err
	r.Done(r)
}

func (m *fakeMirror) hold() {
	m.mu.Lock()
	m.holding = true
	m.mu.Unlock()
}

// release ends all that is held, and holds nothing any more.
func (m *fakeMirror) release(err error) {
	m.mu.Lock()
	m.holding = false
	var all []*block.Request
	for r := range m.held {
		all = append(all, r)
	}
	m.mu.Unlock()
	for _, r := range all {
		m.end(r, err)
	}
}

// fail makes everything that f fails fail; nil: nothing any more.
func (m *fakeMirror) fail(f func(*block.Request) error) {
	m.mu.Lock()
	m.fails = f
	m.mu.Unlock()
}

// fence is the end of the epoch: what is held ends, and what comes.
func (m *fakeMirror) fence() {
	m.fail(func(*block.Request) error { return block.ErrEnded })
	m.release(block.ErrEnded)
}

package vip

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// announcements is how often the address is announced, with each renewal, after it was added. Once is not enough: a host that misses it
// sends to the node that is gone, less and less often, for minutes (RFC 5227, 2.3 asks for two, 2 s apart).
const announcements = 5

// retry is the pause between attempts to get the address.
const retry = 100 * time.Millisecond

// Config describes the virtual address.
type Config struct {
	Addr      netip.Addr
	Prefix    int           // bits
	Interface string        // empty: the address is local already
	Lifetime  time.Duration // of the address on the interface, unless renewed; whole seconds
	// Services are served at the address while it is held: those for which this node does not listen on every address anyway.
	Services []Service
	Guardian *Guardian // of Addr; nil: there is none
	// Former are the connections that clients may still believe to have with the node that held the address before; it is called
	// while the address is held. nil: there are none.
	Former func() []Connection
	Log    *slog.Logger
}

// Service is a port of the address. Either function may be nil; both serve until what they were given is closed.
type Service struct {
	Port   uint16
	Stream func(net.Listener) error   // TCP
	Packet func(net.PacketConn) error // UDP
}

// Connection is a TCP connection between a client and a port of the address.
type Connection struct {
	Port   uint16
	Client netip.AddrPort
}

// MaxConnections is of how many connections a node tells the others.
const MaxConnections = 4096

// Holder has the address while it is told to. Its methods are for one owner.
type Holder struct {
	cfg    Config
	addrs  addresses
	bound  atomic.Bool
	untold int // announcements that are still to be made; the holding goroutine's
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// addresses changes an interface; the real one is a netlink socket.
type addresses interface {
	// add adds the address or renews its lifetime. fresh says that it was not there.
	add(c Config) (fresh bool, err error)
	remove(c Config) error
	announce(c Config) error
	// wake has clients find out that their connections are gone.
	wake(c Config, all []Connection) error
	connections(c Config) ([]Connection, error)
}

// New returns a Holder that does not hold.
func New(c Config) *Holder { return &Holder{cfg: c, addrs: kernel{}} }

// Bound tells whether this node has the address.
func (h *Holder) Bound() bool { return h.bound.Load() }

// Connections are those of clients to the address now, at most MaxConnections, in order. Without an interface there are none.
func (h *Holder) Connections() ([]Connection, error) {
	if h.cfg.Interface == "" {
		return nil, nil
	}
	return h.addrs.connections(h.cfg)
}

// Hold begins to hold the address and returns at once.
func (h *Holder) Hold() {
	if h.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	h.work.Go(func() { h.hold(ctx) })
}

// Release lets the address go and returns when it is gone: nobody listens on it here, the interface is without it.
// Connections accepted on it are the servers', and theirs to drop.
func (h *Holder) Release() {
	if h.cancel == nil {
		return
	}
	h.cancel()
	h.work.Wait()
	h.cancel = nil
}

func (h *Holder) hold(ctx context.Context) {
	log := h.cfg.Log.With("virtual", h.cfg.Addr.String(), "interface", h.cfg.Interface)
	all := newSockets(h.cfg)
	defer func() {
		h.bound.Store(false)
		all.close()
		h.cfg.Guardian.disarm()
		if h.cfg.Interface != "" {
			if err := h.addrs.remove(h.cfg); err != nil {
				log.Warn("the virtual address was not removed; it ends by itself", "err", err, "lifetime", h.cfg.Lifetime)
			}
		}
		log.Info("virtual address released")
	}()
	var told string // the last failure that was logged
	for {
		pause, err := h.step(all)
		switch {
		case err != nil:
			h.bound.Store(false)
			if err.Error() != told {
				told = err.Error()
				log.Warn("cannot have all of the virtual address yet; hosts can use this node's own", "err", err)
			}
		case !h.bound.Load():
			told = ""
			h.bound.Store(true)
			log.Info("virtual address held")
		}
		select {
		case <-ctx.Done():
			return
		case err := <-all.ended: // not by us, or ctx would be done: try again
			log.Warn("serving the virtual address ended", "err", err)
			h.bound.Store(false)
			select {
			case <-ctx.Done():
				return
			case <-time.After(retry):
			}
		case <-time.After(pause):
		}
	}
}

// step does what is missing, and says when to look again.
func (h *Holder) step(all *sockets) (time.Duration, error) {
	pause := time.Hour
	if h.cfg.Interface != "" {
		fresh, err := h.addrs.add(h.cfg)
		if err != nil {
			return retry, err
		}
		// A third, so that two renewals may be late.
		pause = h.cfg.Lifetime / 3
		if fresh {
			h.untold = announcements
			h.cfg.Guardian.disarm() // the interface may be another
		}
		if err := h.cfg.Guardian.arm(h.cfg); err != nil {
			h.cfg.Log.Warn("the virtual address has no guardian; should this process die, clients of shares find the next leader some seconds later", "err", err)
		}
	}
	err := all.open() // first: who comes because of the announcement is not to be refused
	if h.untold > 0 {
		h.untold--
		if err := h.addrs.announce(h.cfg); err != nil {
			h.cfg.Log.Warn("the virtual address was not announced; hosts may take a while to find it", "err", err)
		}
		if err := h.wake(); err != nil {
			h.cfg.Log.Warn("clients that wait for the former leader's answers were not told; they may take a minute to find out", "err", err)
		}
	}
	if err != nil {
		return retry, err
	}
	return pause, nil
}

// wake tells the clients of the former leader whose connections are not here.
func (h *Holder) wake() error {
	if h.cfg.Former == nil {
		return nil
	}
	former := h.cfg.Former()
	if len(former) == 0 {
		return nil
	}
	here, err := h.addrs.connections(h.cfg)
	if err != nil {
		return err
	}
	return h.addrs.wake(h.cfg, slices.DeleteFunc(slices.Clone(former), func(c Connection) bool { return slices.Contains(here, c) }))
}

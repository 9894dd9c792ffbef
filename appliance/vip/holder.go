package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// retry is the pause between attempts to get the address.
const retry = 100 * time.Millisecond

// Config describes the virtual address.
type Config struct {
	Portal    netip.AddrPort
	Prefix    int           // bits
	Interface string        // empty: the address is local already
	Lifetime  time.Duration // of the address on the interface, unless renewed; whole seconds
	// Listen is false where this node's own portal listens on every address and the same port: there is nothing to bind.
	Listen bool
	// Serve accepts connections until l is closed.
	Serve func(l net.Listener) error
	Log   *slog.Logger
}

// Holder has the address while it is told to. Its methods are for one owner.
type Holder struct {
	cfg    Config
	addrs  addresses
	bound  atomic.Bool
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// addresses changes an interface; the real one is a netlink socket.
type addresses interface {
	// add adds the address or renews its lifetime. fresh says that it was not there.
	add(c Config) (fresh bool, err error)
	remove(c Config) error
	announce(c Config) error
}

// New returns a Holder that does not hold.
func New(c Config) *Holder { return &Holder{cfg: c, addrs: kernel{}} }

// Bound tells whether this node has the address.
func (h *Holder) Bound() bool { return h.bound.Load() }

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
// Connections accepted on it are the target server's, and its sessions to drop.
func (h *Holder) Release() {
	if h.cancel == nil {
		return
	}
	h.cancel()
	h.work.Wait()
	h.cancel = nil
}

func (h *Holder) hold(ctx context.Context) {
	log := h.cfg.Log.With("virtual", h.cfg.Portal.String(), "interface", h.cfg.Interface)
	var serving sync.WaitGroup
	var l net.Listener
	ended := make(chan struct{})
	defer func() {
		h.bound.Store(false)
		if l != nil {
			l.Close()
		}
		serving.Wait()
		if h.cfg.Interface != "" {
			if err := h.addrs.remove(h.cfg); err != nil {
				log.Warn("the virtual address was not removed; it ends by itself", "err", err, "lifetime", h.cfg.Lifetime)
			}
		}
		log.Info("virtual address released")
	}()
	var told string // the last failure that was logged
	for {
		pause, err := h.step(&l)
		switch {
		case err != nil && err.Error() != told:
			told = err.Error()
			log.Warn("cannot have the virtual address yet; hosts can use this node's own portal", "err", err)
		case err == nil && !h.bound.Load():
			told = ""
			h.bound.Store(true)
			log.Info("virtual address held")
			if l != nil {
				ended = make(chan struct{})
				mine, over := l, ended
				serving.Go(func() {
					defer close(over)
					if err := h.cfg.Serve(mine); err != nil && !errors.Is(err, net.ErrClosed) {
						log.Warn("serving the virtual address ended", "err", err)
					}
				})
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ended: // not by us, or ctx would be done: try again
			l, ended = nil, make(chan struct{})
			h.bound.Store(false)
			pause = retry
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		case <-time.After(pause):
		}
	}
}

// step does what is missing, and says when to look again.
func (h *Holder) step(l *net.Listener) (time.Duration, error) {
	pause := time.Hour
	if h.cfg.Interface != "" {
		fresh, err := h.addrs.add(h.cfg)
		if err != nil {
			return retry, err
		}
		// A third, so that two renewals may be late.
		pause = h.cfg.Lifetime / 3
		if fresh {
			if err := h.addrs.announce(h.cfg); err != nil {
				h.cfg.Log.Warn("the virtual address was not announced; hosts may take a while to find it", "err", err)
			}
		}
	}
	if *l != nil || !h.cfg.Listen {
		return pause, nil
	}
	nl, err := net.Listen("tcp", h.cfg.Portal.String())
	if err != nil {
		h.bound.Store(false)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			err = fmt.Errorf("%s is in use, by the former leader perhaps: %w", h.cfg.Portal, err)
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			err = fmt.Errorf("%s is not an address of this host; name an interface in [virtual]: %w", h.cfg.Portal, err)
		}
		return retry, err
	}
	*l = nl
	return pause, nil
}

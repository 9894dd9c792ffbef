package vip

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// sockets are those of the services, open or to be opened. One that cannot be had keeps no other away.
type sockets struct {
	all   []*socket
	ended chan error // one has ended by itself; has room for one
	work  sync.WaitGroup
}

type socket struct {
	addr   netip.AddrPort
	listen func(addr string) (c io.Closer, serve func() error, err error)
	closer io.Closer     // nil while it is not open
	over   chan struct{} // closed when it is served no more
}

func newSockets(c Config) *sockets {
	s := &sockets{ended: make(chan error, 1)}
	for _, v := range c.Services {
		addr := netip.AddrPortFrom(c.Addr, v.Port)
		if v.Stream != nil {
			s.all = append(s.all, &socket{addr: addr, listen: func(addr string) (io.Closer, func() error, error) {
				l, err := Listen(addr)
				return l, func() error { return v.Stream(l) }, err
			}})
		}
		if v.Packet != nil {
			s.all = append(s.all, &socket{addr: addr, listen: func(addr string) (io.Closer, func() error, error) {
				p, err := net.ListenPacket("udp", addr)
				return p, func() error { return v.Packet(p) }, err
			}})
		}
	}
	return s
}

// open opens what is not, and returns why something could not be.
func (s *sockets) open() (err error) {
	for _, k := range s.all {
		if k.closer != nil {
			select {
			case <-k.over:
				k.closer.Close()
				k.closer = nil
			default:
				continue
			}
		}
		c, serve, e := k.listen(k.addr.String())
		switch {
		case errors.Is(e, syscall.EADDRINUSE):
			err = errors.Join(err, fmt.Errorf("%s is in use, by the former leader perhaps: %w", k.addr, e))
			continue
		case errors.Is(e, syscall.EADDRNOTAVAIL):
			err = errors.Join(err, fmt.Errorf("%s is not an address of this host; name an interface in [virtual]: %w", k.addr, e))
			continue
		case e != nil:
			err = errors.Join(err, e)
			continue
		}
		k.closer, k.over = c, make(chan struct{})
		over := k.over
		s.work.Go(func() {
			err := serve()
			close(over)
			select {
			case s.ended <- err:
			default: // one is told already
			}
		})
	}
	return err
}

// close closes all, and returns when nothing is served any more.
func (s *sockets) close() {
	for _, k := range s.all {
		if k.closer != nil {
			k.closer.Close()
		}
	}
	s.work.Wait()
}

package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"pmsapp/internal/xdr"
)

// maxPacket bounds datagrams, both ways. A call that is longer is cut, and garbage then.
const maxPacket = 8192

// ServePacket answers datagrams on p until p is closed or the server is shut down, which closes p. It always returns an
// error: ErrShutdown after Shutdown. Limits.Datagrams calls are under way at once; others are lost, as datagrams may be.
func (s *Server) ServePacket(p net.PacketConn) error {
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		p.Close()
		return ErrShutdown
	}
	s.packets[p] = struct{}{}
	s.work.Add(1)
	s.mu.Unlock()
	defer s.work.Done()
	var calls sync.WaitGroup
	defer func() {
		calls.Wait()
		s.mu.Lock()
		delete(s.packets, p)
		s.mu.Unlock()
		p.Close()
	}()
	slots := make(chan struct{}, s.cfg.Datagrams)
	d := newDatagrams(p)
	for {
		b := make([]byte, maxPacket)
		n, e, err := d.read(b)
		switch {
		case err == nil:
		case s.draining.Load():
			return ErrShutdown
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("reading datagrams: %w", err)
		default: // an ICMP error of an earlier reply
			select {
			case <-time.After(time.Millisecond):
			case <-s.ctx.Done():
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		calls.Add(1)
		go func() {
			defer calls.Done()
			defer func() { <-slots }()
			s.datagram(d, e, b[:n])
		}()
	}
}

// datagram answers one call. What takes longer than a client waits is not answered.
func (s *Server) datagram(d datagrams, e envelope, b []byte) {
	ctx, cancel := context.WithTimeoutCause(s.ctx, s.cfg.Stall, ErrStall)
	defer cancel()
	var r Reply
	if err := s.serve(ctx, xdr.NewDecoder(b, nil), &Call{Client: e.client, Server: e.server}, &r, true); err != nil {
		return
	}
	if len(r.data) == 0 && r.Len() <= maxPacket {
		// An error means a client that cannot be reached: it asks again, or it is gone.
		_ = d.write(r.B, e)
	}
	r.free()
}

// ErrStall is the cause of the end of a call over UDP that took too long.
var ErrStall = errors.New("rpc: a datagram's answer took too long")

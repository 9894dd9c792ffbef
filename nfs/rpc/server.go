package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"pmsapp/internal/accept"
)

// Server serves programs on any number of listeners and packet connections.
type Server struct {
	cfg      Config
	log      *slog.Logger
	programs map[uint32]Program
	incoming *memory // of calls
	outgoing *memory // of the data of replies
	ctx      context.Context
	end      context.CancelCauseFunc
	draining atomic.Bool
	idle     atomic.Int32 // goroutines of connections that wait for a call
	answers  sync.Pool    // of *answer

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	packets   map[net.PacketConn]struct{}
	conns     map[*conn]struct{}
	accepted  uint64             // connections
	perClient map[netip.Addr]int // how many of conns
	work      sync.WaitGroup
}

// New returns a Server. It starts no goroutine.
func New(cfg Config) (*Server, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	if err := cfg.Limits.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Place == nil {
		cfg.Place = func([]byte) int { return 0 }
	}
	s := &Server{cfg: cfg, log: cfg.Log, programs: map[uint32]Program{}, incoming: newMemory(cfg.Memory),
		outgoing: newMemory(cfg.Memory), listeners: map[net.Listener]struct{}{}, packets: map[net.PacketConn]struct{}{},
		conns: map[*conn]struct{}{}, perClient: map[netip.Addr]int{}}
	for _, p := range cfg.Programs {
		if _, twice := s.programs[p.Number]; twice || p.Serve == nil || p.Low > p.High {
			return nil, fmt.Errorf("%w: program %d", ErrConfig, p.Number)
		}
		s.programs[p.Number] = p
	}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	return s, nil
}

// Serve accepts connections on l until l is closed or the server is shut down, which closes l. It always returns an
// error: ErrShutdown after Shutdown.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		l.Close()
		return ErrShutdown
	}
	s.listeners[l] = struct{}{}
	s.work.Add(1)
	s.mu.Unlock()
	defer s.work.Done()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		l.Close()
	}()
	err := accept.Loop(l, s.log, s.ctx.Done(), s.start)
	if s.draining.Load() {
		return ErrShutdown
	}
	return err
}

// start gives a connection its goroutine, if there may be one more.
func (s *Server) start(nc net.Conn) {
	client := addrPort(nc.RemoteAddr())
	s.mu.Lock()
	full := len(s.conns) >= s.cfg.Connections || s.perClient[client.Addr()] >= s.cfg.PerClient
	if full || s.draining.Load() {
		s.mu.Unlock()
		nc.Close()
		if full {
			s.log.Warn("connection refused: too many are open", "client", client.String())
		}
		return
	}
	c := &conn{srv: s, net: nc, client: client, slots: make(chan struct{}, s.cfg.Calls), jobs: make(chan job)}
	c.ctx, c.end = context.WithCancelCause(s.ctx)
	s.accepted++
	c.number = s.accepted
	c.elders.Store(int32(s.perClient[client.Addr()]))
	s.conns[c] = struct{}{}
	s.perClient[client.Addr()]++
	s.work.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.work.Done()
		cause := c.run()
		s.forget(c)
		level := slog.LevelInfo
		if errors.Is(cause, errGone) {
			level = slog.LevelDebug
		}
		s.log.Log(context.Background(), level, "connection ended", "client", client.String(), "cause", cause)
	}()
}

// forget takes a connection that has ended out of the tables.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	client := c.client.Addr()
	if s.perClient[client]--; s.perClient[client] == 0 {
		delete(s.perClient, client)
		return
	}
	for o := range s.conns {
		if o.number > c.number && o.client.Addr() == client {
			o.elders.Add(-1)
		}
	}
}

// Drop ends all connections, whose calls get no answer, with a cause. It does not wait for them.
func (s *Server) Drop(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.end(cause)
		c.net.Close()
	}
}

// Shutdown stops accepting and reading, waits until the calls that were read are answered or ctx is done, and ends what is
// left. It returns when no goroutine of the server is left; its error is that of ctx if calls had to be left unanswered.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining.Store(true)
	for l := range s.listeners {
		l.Close()
	}
	for p := range s.packets {
		p.SetReadDeadline(time.Unix(1, 0))
	}
	for c := range s.conns {
		c.net.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.work.Wait()
		close(ended)
	}()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		err = context.Cause(ctx)
		s.end(ErrShutdown)
		s.Drop(ErrShutdown)
		<-ended
	}
	s.end(ErrShutdown)
	return err
}

func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch t := a.(type) {
	case *net.TCPAddr:
		ap = t.AddrPort()
	case *net.UDPAddr:
		ap = t.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

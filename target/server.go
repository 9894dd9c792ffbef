package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"pmsapp/internal/accept"
	"pmsapp/internal/iscsi"
)

// ErrClosed is returned by Serve after Shutdown.
var ErrClosed = errors.New("target: the server is shut down")

// port is what a session belongs to: a second login of the same reinstates it (RFC 7143 6.3.5).
type port struct {
	initiator, target string // in lower case: iSCSI names are alike in any (RFC 7143 4.2.7.2)
	isid              iscsi.ISID
	group             uint16
}

// Server serves targets on any number of listeners.
type Server struct {
	cfg      Config
	log      *slog.Logger
	tunables atomic.Pointer[Tunables]
	budget   *budget
	clock    atomic.Int64 // nanoseconds since begin, as the watchman had them at his last tick
	begin    time.Time

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[net.Conn]*guest
	sessions  map[*session]struct{}
	ports     map[port]*session
	tsihs     map[uint16]*session
	nextTSIH  uint16
	closed    bool
	quit      chan struct{} // closed by Shutdown: the watchman goes
	work      sync.WaitGroup
}

// New returns a Server. It starts nothing but what Serve and Shutdown need.
func New(cfg Config) (*Server, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.Group == 0 {
		cfg.Group = 1
	}
	if cfg.Tunables == (Tunables{}) {
		cfg.Tunables = DefaultTunables()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Provider == nil {
		return nil, fmt.Errorf("%w: no provider", ErrConfig)
	}
	if err := cfg.Limits.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Log, budget: newBudget(cfg.Limits), begin: time.Now(), quit: make(chan struct{}),
		listeners: map[net.Listener]struct{}{}, conns: map[net.Conn]*guest{}, sessions: map[*session]struct{}{},
		ports: map[port]*session{}, tsihs: map[uint16]*session{}}
	if err := s.Tune(cfg.Tunables); err != nil {
		return nil, err
	}
	s.work.Add(1)
	go s.watchAll()
	return s, nil
}

// Tune changes the tunables; it takes effect at once.
func (s *Server) Tune(t Tunables) error {
	if err := t.Validate(); err != nil {
		return err
	}
	s.tunables.Store(&t)
	return nil
}

// Serve accepts connections on l until l is closed or the server is shut down, which closes l. It always returns an
// error: ErrClosed after Shutdown, net.ErrClosed if somebody else closed l.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		l.Close()
		return ErrClosed
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
	err := accept.Loop(l, s.log, s.quit, s.start)
	if s.isClosed() {
		return ErrClosed
	}
	return err
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// start gives a connection its goroutine, if there may be one more.
func (s *Server) start(c net.Conn) {
	s.mu.Lock()
	from := addrPort(c.RemoteAddr()).Addr()
	full := len(s.conns) >= s.cfg.Connections && !s.makeRoom()
	if s.closed || full {
		s.mu.Unlock()
		c.Close()
		if full {
			s.log.Warn("connection refused: there are too many", "remote", c.RemoteAddr().String())
		}
		return
	}
	s.conns[c] = &guest{from: from, since: time.Now()}
	s.work.Add(1)
	s.mu.Unlock()
	go s.serve(c)
}

// leave is the end of a connection.
func (s *Server) leave(c net.Conn) {
	c.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.work.Done()
}

// guest is a connection that was accepted.
type guest struct {
	from  netip.Addr
	since time.Time
	in    bool // it has logged in, or was sent away
}

// makeRoom sends one away that has not logged in: the oldest of the address that has most of them. So whoever opens connections and says
// nothing takes the places of nobody else. Called with mu.
func (s *Server) makeRoom() bool {
	if len(s.conns) >= 2*s.cfg.Connections {
		return false // those that were sent away have not gone yet
	}
	many := map[netip.Addr]int{}
	for _, g := range s.conns {
		if !g.in {
			many[g.from]++
		}
	}
	var victim net.Conn
	var v *guest
	for c, g := range s.conns {
		if !g.in && (v == nil || many[g.from] > many[v.from] || many[g.from] == many[v.from] && g.since.Before(v.since)) {
			victim, v = c, g
		}
	}
	if v == nil {
		return false
	}
	v.in = true
	victim.Close()
	return true
}

// serve is the life of a connection, or the first part of it.
func (s *Server) serve(c net.Conn) {
	l := &loggingIn{srv: s, conn: c}
	se, err := l.run()
	if err != nil {
		if s.cfg.Refused != nil && l.login.Initiator != "" {
			s.cfg.Refused(l.login, err)
		}
		level := slog.LevelInfo
		if l.login.Initiator == "" && errors.Is(err, io.EOF) { // somebody looked whether the port is open
			level = slog.LevelDebug
		}
		s.log.Log(context.Background(), level, "login failed", "remote", c.RemoteAddr().String(), "initiator", l.login.Initiator,
			"target", l.login.Target, "err", err)
		s.leave(c)
		return
	}
	s.mu.Lock()
	if g := s.conns[c]; g != nil {
		g.in = true
	}
	s.mu.Unlock()
	s.log.Info("session begins", "remote", c.RemoteAddr().String(), "initiator", l.login.Initiator,
		"target", l.login.Target, "tsih", se.tsih)
	s.carryOn(se, l)
}

// carryOn is a session's reader, until the session is over or another goroutine is its reader.
func (s *Server) carryOn(se *session, first *loggingIn) {
	cause := se.run(first)
	if cause == errSuperseded {
		return // whose place in work the other has
	}
	s.log.Info("session ended", "remote", se.conn.RemoteAddr().String(), "initiator", se.login.Initiator,
		"target", se.login.Target, "tsih", se.tsih, "cause", cause)
	s.leave(se.conn)
}

// Shutdown stops accepting, asks initiators to log out, and ends what is left when ctx is done or after LogoutTimeout.
// It returns when no goroutine of the server is left; its error is that of ctx if sessions had to be dropped for it.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		if !s.hasSession(c) {
			c.Close()
		}
	}
	all := s.list(func(*session) bool { return true })
	s.mu.Unlock()
	if first {
		close(s.quit)
	}
	timeout := s.tunables.Load().LogoutTimeout
	for _, se := range all {
		se.askLogout(timeout)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var err error
wait:
	for _, se := range all {
		select {
		case <-se.gone:
		case <-timer.C:
			break wait
		case <-ctx.Done():
			err = context.Cause(ctx)
			break wait
		}
	}
	for _, se := range all {
		se.drop(ErrShutdown)
	}
	s.work.Wait()
	return err
}

// hasSession tells whether a connection has logged in. Called with mu.
func (s *Server) hasSession(c net.Conn) bool {
	for se := range s.sessions {
		if se.conn == c && se.opened.Load() {
			return true
		}
	}
	return false
}

// list returns the sessions that match. Called with mu.
func (s *Server) list(match func(*session) bool) (all []*session) {
	for se := range s.sessions {
		if match(se) {
			all = append(all, se)
		}
	}
	return all
}

// SessionInfo describes a session.
type SessionInfo struct {
	Login Login
	TSIH  uint16
	Since time.Time
	Nexus Nexus // nil for discovery
	// Params is what was agreed at login, Tasks how many commands are under way, and Waits for what.
	Params iscsi.Params
	Tasks  int
	Waits  Waits
}

func (s *session) info() SessionInfo {
	s.mu.Lock()
	n, w := len(s.tasks), s.waitsFor()
	s.mu.Unlock()
	return SessionInfo{Login: s.login, TSIH: s.tsih, Since: s.since, Nexus: s.nexus, Params: s.params, Tasks: n, Waits: w}
}

// Sessions returns the sessions whose login was accepted.
func (s *Server) Sessions() []SessionInfo {
	s.mu.Lock()
	all := s.list(func(se *session) bool { return se.opened.Load() })
	s.mu.Unlock()
	infos := make([]SessionInfo, len(all))
	for i, se := range all {
		infos[i] = se.info()
	}
	return infos
}

// DropSessions ends the sessions that match, with a cause, and returns when invariant 4 holds for all their tasks, or
// with the error of ctx. It must not be called by a nexus, which would wait for itself: Task.Drop and Login.Drop are for
// that.
func (s *Server) DropSessions(ctx context.Context, match func(SessionInfo) bool, cause error) error {
	s.mu.Lock()
	all := s.list(func(se *session) bool { return se.opened.Load() && match(se.info()) })
	s.mu.Unlock()
	for _, se := range all {
		se.drop(cause)
	}
	for _, se := range all {
		select {
		case <-se.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

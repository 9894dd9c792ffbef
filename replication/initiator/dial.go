package initiator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"pmsapp/internal/iscsi"
)

// Dial connects to the portal and logs in. It returns ErrConnect, ErrLoginTimeout, ErrLoginRefused (a *RefusedError),
// ErrAuth, ErrLogin, ErrPeerClosed, or the error of ctx.
func Dial(ctx context.Context, cfg Config) (*Session, error) {
	return dial(ctx, cfg, false)
}

// maxMoves is how often one login is sent to another portal.
const maxMoves = 4

// follow is Dial that goes where the target sends it (RFC 7143 11.13.5, "target moved"). The next time it asks cfg.Portal again,
// even if the target has moved for good: it is this end's configuration that says where to begin.
func follow(ctx context.Context, cfg Config) (*Session, error) {
	for moves := 0; ; moves++ {
		s, err := Dial(ctx, cfg)
		var refused *RefusedError
		if err == nil || !errors.As(err, &refused) || moves == maxMoves {
			return s, err
		}
		to, moved := refused.moved()
		if !moved {
			return nil, err
		}
		cfg.Log.Debug("the login is sent elsewhere", "portal", cfg.Portal, "to", to)
		cfg.Portal = to
	}
}

func dial(ctx context.Context, cfg Config, discovery bool) (*Session, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	login, err := iscsi.NewInitiatorLogin(iscsi.InitiatorLoginConfig{Initiator: cfg.Initiator, Alias: cfg.Alias,
		Target: cfg.Target, Discovery: discovery, ISID: cfg.ISID, Wish: cfg.Wish, Own: cfg.Own, Peer: cfg.Peer,
		Vendor: cfg.Vendor, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(cfg.Timeouts.Login)
	lctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := cfg.Dial(lctx, "tcp", cfg.Portal)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Portal, loginError(ctx, err, deadline, ErrConnect))
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetNoDelay(true)
	}
	s := newSession(cfg, conn)
	conn.SetDeadline(deadline)
	stop := context.AfterFunc(lctx, func() { conn.Close() })
	err = s.login(login)
	if !stop() && err == nil { // closed or about to be, although the login is done
		err = lctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", cfg.Portal, loginError(ctx, err, deadline, ErrPeerClosed))
	}
	conn.SetDeadline(time.Time{})
	s.start()
	return s, nil
}

// loginError says in the words of this package what ended a login. other is for errors of the connection.
func loginError(ctx context.Context, err error, deadline time.Time, other error) error {
	var refused *iscsi.LoginError
	switch {
	case errors.As(err, &refused):
		return &RefusedError{Status: refused.Status, Keys: refused.Keys}
	case errors.Is(err, iscsi.ErrAuth):
		return fmt.Errorf("%w: %w", ErrAuth, err)
	case errors.Is(err, iscsi.ErrLogin), errors.Is(err, iscsi.ErrNegotiation), errors.Is(err, iscsi.ErrText),
		errors.Is(err, iscsi.ErrDataLength):
		return fmt.Errorf("%w: %w", ErrLogin, err)
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), !time.Now().Before(deadline):
		return ErrLoginTimeout
	}
	return fmt.Errorf("%w: %w", other, err)
}

func newSession(cfg Config, conn net.Conn) *Session {
	s := &Session{
		cfg: cfg, log: cfg.Log.With("portal", cfg.Portal, "target", cfg.Target), conn: conn,
		r: iscsi.NewReader(conn), w: iscsi.NewWriter(conn),
		begun: time.Now(), kick: make(chan struct{}, 1), done: make(chan struct{}),
		waiters: map[uint32]*waiter{}, lastTag: tagFirst, cmdSN: 1,
	}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// login does the login phase, alone on the connection.
func (s *Session) login(l *iscsi.InitiatorLogin) error {
	buf := make([]byte, iscsi.LoginMaxData)
	next := l.First()
	for first := true; ; first = false {
		next.BHS.SetCmdSN(s.cmdSN)
		next.BHS.SetExpStatSN(s.expStatSN)
		if err := s.w.Write(&next.BHS, nil, next.Data); err != nil {
			return err
		}
		if err := s.w.Flush(); err != nil {
			return err
		}
		h, err := s.r.Next()
		if err != nil {
			return err
		}
		data := buf[:h.DataLen()]
		if err := s.r.ReadData(data); err != nil {
			return err
		}
		if h.Opcode() == iscsi.OpLoginResp && h.LoginStatus() == iscsi.LoginOK {
			if !first && h.StatSN() != s.expStatSN {
				return fmt.Errorf("StatSN %d, expected %d: %w", h.StatSN(), s.expStatSN, iscsi.ErrLogin)
			}
			s.expStatSN = h.StatSN() + 1
			s.expCmdSN, s.maxCmdSN = h.ExpCmdSN(), h.MaxCmdSN()
		}
		var done bool
		next, done, err = l.Response(h, data)
		if err != nil {
			return err
		}
		if done {
			break
		}
	}
	s.params, s.keys, s.tsih = l.Params(), l.Keys(), l.TSIH()
	s.r.SetDigests(s.params.HeaderDigest, s.params.DataDigest)
	s.r.SetMaxData(s.params.MaxRecv)
	s.w.SetDigests(s.params.HeaderDigest, s.params.DataDigest)
	return nil
}

// start starts the goroutines. The watcher owns the other two and ends last.
func (s *Session) start() {
	s.lastRecv = s.now()
	var workers sync.WaitGroup
	workers.Go(func() { s.die(s.read()) })
	workers.Go(func() { s.die(s.write()) })
	go func() {
		s.watch()
		workers.Wait()
		s.bury()
		close(s.done)
	}()
}

// bury ends all commands and waiters of a dead session. Nobody uses their buffers any more.
func (s *Session) bury() {
	s.mu.Lock()
	err := s.err
	s.control = nil
	for tag, w := range s.waiters {
		delete(s.waiters, tag)
		w.ch <- reply{err: err}
	}
	var ended list
	take := func(c *Command) {
		if s.end(c, err) {
			ended.push(c)
		}
	}
	for i := range s.slots {
		if c := s.slots[i].cmd; c != nil {
			c.refs = 0
			take(c)
		}
	}
	for s.pending.head != nil {
		take(s.pending.head)
	}
	s.mu.Unlock()
	s.log.Debug("session ended", "err", err)
	ended.finish()
}

// netError says in the words of this package what ended reading or writing.
func netError(err error) error {
	switch {
	case errors.Is(err, iscsi.ErrHeaderDigest), errors.Is(err, iscsi.ErrDataDigest):
		return fmt.Errorf("%w: %w", ErrDigest, err)
	case errors.Is(err, iscsi.ErrDataLength):
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	case errors.Is(err, io.EOF):
		return ErrPeerClosed
	}
	return fmt.Errorf("%w: %w", ErrPeerClosed, err)
}

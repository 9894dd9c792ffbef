package cluster

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"pmsapp/internal/ids"
)

// The kinds of streams, told by the first byte inside TLS.
const (
	streamRaft   = 'R'
	streamGossip = 'G'
	streamCall   = 'C'
	streamJoin   = 'J' // the only one without a certificate
)

const (
	handshakeTimeout = 5 * time.Second
	maxStreams       = 512 // at once
)

// mux is the port between nodes.
type mux struct {
	id      *identity
	refuses func(ids.Node) bool // a node that was removed
	log     *slog.Logger

	listener net.Listener
	streams  map[byte]func(c net.Conn, from ids.Node) // owns c
	slots    chan struct{}

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	over   chan struct{} // closed by close
	work   sync.WaitGroup
}

func newMux(id *identity, l net.Listener, refuses func(ids.Node) bool, log *slog.Logger) *mux {
	return &mux{id: id, listener: l, refuses: refuses, log: log, streams: map[byte]func(net.Conn, ids.Node){},
		slots: make(chan struct{}, maxStreams), conns: map[net.Conn]struct{}{},
		over: make(chan struct{})}
}

// serve accepts until close.
func (m *mux) serve() {
	m.work.Go(func() {
		for {
			c, err := m.listener.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				m.log.Warn("cannot accept a node's connection", "err", err)
				time.Sleep(50 * time.Millisecond) // out of descriptors, most likely
				continue
			}
			select {
			case m.slots <- struct{}{}:
			default:
				m.log.Warn("a node's connection refused: there are too many", "remote", c.RemoteAddr().String())
				c.Close()
				continue
			}
			if !m.keep(c) {
				<-m.slots
				c.Close()
				return
			}
			m.work.Go(func() {
				defer func() { <-m.slots }()
				m.accept(c)
			})
		}
	})
}

func (m *mux) keep(c net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.conns[c] = struct{}{}
	return true
}

func (m *mux) forget(c net.Conn) {
	m.mu.Lock()
	delete(m.conns, c)
	m.mu.Unlock()
}

// accept finds out who calls and what for, and hands the connection on; it returns when the stream has ended.
func (m *mux) accept(raw net.Conn) {
	defer m.forget(raw)
	cert, err := m.id.certificate()
	if err != nil {
		m.log.Error("this node's certificate", "err", err)
		raw.Close()
		return
	}
	roots, err := m.id.roots()
	if err != nil {
		m.log.Error("the cluster's CA", "err", err)
		raw.Close()
		return
	}
	raw.SetDeadline(time.Now().Add(handshakeTimeout))
	c := tls.Server(raw, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientCAs: roots,
		ClientAuth: tls.VerifyClientCertIfGiven, SessionTicketsDisabled: true})
	var kind [1]byte
	if _, err := c.Read(kind[:]); err != nil {
		m.log.Debug("a connection that is no node's", "remote", raw.RemoteAddr().String(), "err", err)
		c.Close()
		return
	}
	var from ids.Node
	if certs := c.ConnectionState().PeerCertificates; len(certs) > 0 {
		id, err := ids.Parse(certs[0].Subject.CommonName)
		if err != nil {
			c.Close()
			return
		}
		from = ids.Node(id)
	}
	handle := m.streams[kind[0]]
	if handle == nil || from.IsZero() != (kind[0] == streamJoin) || kind[0] != streamCall && m.refuses(from) {
		m.log.Warn("a node's connection refused", "remote", raw.RemoteAddr().String(), "node", from.String(), "kind", int(kind[0]))
		c.Close()
		return
	}
	raw.SetDeadline(time.Time{})
	s := &stream{Conn: c, ended: make(chan struct{})}
	handle(s, from)
	select {
	case <-s.ended:
	case <-m.over: // its owner may be gone already
		s.Close()
	}
}

// stream tells when it was closed.
type stream struct {
	net.Conn
	once  sync.Once
	ended chan struct{}
}

func (s *stream) Close() error {
	err := s.Conn.Close()
	s.once.Do(func() { close(s.ended) })
	return err
}

// close ends all connections and waits for their handlers.
func (m *mux) close() {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		close(m.over)
	}
	m.listener.Close()
	for c := range m.conns {
		c.Close()
	}
	m.mu.Unlock()
}

func (id *identity) roots() (*x509.CertPool, error) {
	ca, err := x509.ParseCertificate(id.CA)
	if err != nil {
		return nil, fmt.Errorf("the CA: %w: %w", ErrCorrupt, err)
	}
	p := x509.NewCertPool()
	p.AddCert(ca)
	return p, nil
}

// dial opens a stream to an address; if node is not zero, whoever answers must be that node.
func (id *identity) dial(ctx context.Context, addr string, node ids.Node, kind byte) (net.Conn, error) {
	cert, err := id.certificate()
	if err != nil {
		return nil, err
	}
	c, err := dialTLS(ctx, addr, &tls.Config{Certificates: []tls.Certificate{cert}}, sha256.Sum256(id.CA), kind)
	if err != nil {
		return nil, err
	}
	if who := c.ConnectionState().PeerCertificates[0].Subject.CommonName; !node.IsZero() && who != node.String() {
		c.Close()
		return nil, fmt.Errorf("%w: at %s is node %.40s, not %s", ErrCall, addr, who, node)
	}
	return c, nil
}

// dialTLS opens a stream to a node whose certificate is signed by the CA with a digest.
func dialTLS(ctx context.Context, addr string, cfg *tls.Config, ca [sha256.Size]byte, kind byte) (*tls.Conn, error) {
	cfg.MinVersion = tls.VersionTLS13
	cfg.InsecureSkipVerify = true // VerifyConnection does it: by the CA, not by names
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		roots := x509.NewCertPool()
		for _, c := range cs.PeerCertificates[1:] {
			if sha256.Sum256(c.Raw) == ca {
				roots.AddCert(c)
			}
		}
		_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if err != nil {
			return fmt.Errorf("not a node of this cluster: %w", err)
		}
		return nil
	}
	raw, err := (&net.Dialer{Timeout: handshakeTimeout}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCall, err)
	}
	c := tls.Client(raw, cfg)
	hctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	err = c.HandshakeContext(hctx)
	if err == nil {
		_, err = c.Write([]byte{kind})
	}
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("%w: %s: %w", ErrCall, addr, err)
	}
	return c, nil
}

// queue is a net.Listener that is fed with connections.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	over  chan struct{}
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn, 16), over: make(chan struct{})}
}

func (q *queue) put(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.over:
		c.Close()
	case <-time.After(handshakeTimeout):
		c.Close()
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.over:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error   { q.once.Do(func() { close(q.over) }); return nil }
func (q *queue) Addr() net.Addr { return q.addr }

package cluster

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pmsapp/internal/ids"
)

// wires are the network between nodes in a bubble: pipes that can be cut.
type wires struct {
	mu    sync.Mutex
	nodes map[string]*wire
	cut   map[[2]string]bool // from, to
	pipes map[[2]string][]net.Conn
	all   nodes // that ever were
}

// wire is a node's end; it is Raft's StreamLayer.
type wire struct {
	w      *wires
	id     ids.Node
	addr   string
	accept chan net.Conn
	over   chan struct{}
	once   sync.Once
}

func newWires() *wires {
	return &wires{nodes: map[string]*wire{}, cut: map[[2]string]bool{}, pipes: map[[2]string][]net.Conn{}}
}

func (w *wires) join(addr string, id ids.Node) *wire {
	l := &wire{w: w, id: id, addr: addr, accept: make(chan net.Conn), over: make(chan struct{})}
	w.mu.Lock()
	w.nodes[addr] = l
	w.mu.Unlock()
	return l
}

// set cuts, or mends, the way from a to b: what is under way is lost.
func (w *wires) set(a, b string, cut bool) {
	w.mu.Lock()
	w.cut[[2]string{a, b}] = cut
	pipes := w.pipes[[2]string{a, b}]
	if cut {
		delete(w.pipes, [2]string{a, b})
	}
	w.mu.Unlock()
	if cut {
		for _, p := range pipes {
			p.Close()
		}
	}
}

func (l *wire) Dial(server raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, to, err := parseServer(server)
	if err != nil {
		return nil, err
	}
	l.w.mu.Lock()
	far, cut := l.w.nodes[to], l.w.cut[[2]string{l.addr, to}] || l.w.cut[[2]string{to, l.addr}]
	l.w.mu.Unlock()
	if far == nil {
		return nil, errors.New("nothing listens there")
	}
	if far.id != id { // as identity.dial finds by the certificate
		return nil, errors.New("another node is there")
	}
	if cut {
		time.Sleep(timeout) // within a bubble
		return nil, os.ErrDeadlineExceeded
	}
	near, end := net.Pipe()
	select {
	case far.accept <- end:
	case <-far.over:
		near.Close()
		return nil, errors.New("nothing listens there")
	case <-time.After(timeout):
		near.Close()
		return nil, os.ErrDeadlineExceeded
	}
	l.w.mu.Lock()
	for _, way := range [][2]string{{l.addr, to}, {to, l.addr}} {
		l.w.pipes[way] = append(l.w.pipes[way], near)
	}
	l.w.mu.Unlock()
	return near, nil
}

func (l *wire) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}

func (l *wire) Close() error {
	l.once.Do(func() {
		close(l.over)
		l.w.mu.Lock()
		var pipes []net.Conn
		for way, all := range l.w.pipes {
			if way[0] == l.addr {
				pipes = append(pipes, all...)
				delete(l.w.pipes, way)
			}
		}
		if l.w.nodes[l.addr] == l {
			delete(l.w.nodes, l.addr)
		}
		l.w.mu.Unlock()
		for _, p := range pipes {
			p.Close()
		}
	})
	return nil
}

func (l *wire) Addr() net.Addr { return advertised(l.addr) }

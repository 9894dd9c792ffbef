package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"pmsapp/internal/ids"
)

// Liveness is gossip's opinion of a node. It never decides anything.
type Liveness string

const (
	Alive   Liveness = "alive"
	Suspect Liveness = "suspect"
	Dead    Liveness = "dead" // or never seen
)

// gossip finds out who is there.
type gossip struct {
	list *memberlist.Memberlist
	wire *gossipWire
	self ids.Node
	log  *slog.Logger
}

// gossipMeta is what a node says of itself, in memberlist's 512 bytes.
type gossipMeta struct {
	Release string `json:"r"`
}

// delegate is memberlist's view of this node.
type delegate struct{ meta []byte }

func (d delegate) NodeMeta(limit int) []byte            { return d.meta[:min(limit, len(d.meta))] }
func (delegate) NotifyMsg([]byte)                       {}
func (delegate) GetBroadcasts(int, int) [][]byte        { return nil }
func (delegate) LocalState(bool) []byte                 { return nil }
func (delegate) MergeRemoteState(buf []byte, join bool) {}

func newGossip(id *identity, listen, advertise, release string, log *slog.Logger) (*gossip, error) {
	w, err := newGossipWire(id, listen, advertise, log)
	if err != nil {
		return nil, err
	}
	meta, err := json.Marshal(gossipMeta{release})
	if err != nil {
		w.Shutdown()
		return nil, fmt.Errorf("encoding what this node says of itself: %w", err)
	}
	c := memberlist.DefaultLANConfig()
	c.Name, c.Transport, c.Delegate, c.SecretKey = id.Node.String(), w, delegate{meta}, id.derive("gossip")
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = 500*time.Millisecond, 250*time.Millisecond, 4
	c.GossipInterval, c.PushPullInterval, c.TCPTimeout = 100*time.Millisecond, 15*time.Second, 2*time.Second
	c.DeadNodeReclaimTime = time.Second // a node that comes back with another address
	c.LogOutput = gossipLog{log}
	list, err := memberlist.Create(c)
	if err != nil {
		w.Shutdown()
		return nil, fmt.Errorf("starting gossip: %w", err)
	}
	return &gossip{list: list, wire: w, self: id.Node, log: log}, nil
}

// gossipLog hands memberlist's lines on.
type gossipLog struct{ log *slog.Logger }

func (g gossipLog) Write(b []byte) (int, error) {
	g.log.Debug("gossip", "line", string(b[:max(0, len(b)-1)]))
	return len(b), nil
}

// meet asks addresses for the others, unless they are known.
func (g *gossip) meet(addrs []string) {
	if g.list.NumMembers() > len(addrs) || len(addrs) == 0 {
		return
	}
	if _, err := g.list.Join(addrs); err != nil {
		g.log.Debug("gossip has found nobody yet", "err", err)
	}
}

// opinions returns what gossip thinks of the nodes that it knows.
func (g *gossip) opinions() map[ids.Node]Liveness {
	out := map[ids.Node]Liveness{}
	for _, m := range g.list.Members() {
		id, err := ids.Parse(m.Name)
		if err != nil {
			continue
		}
		out[ids.Node(id)] = map[memberlist.NodeStateType]Liveness{memberlist.StateAlive: Alive, memberlist.StateSuspect: Suspect}[m.State]
	}
	out[g.self] = Alive
	return out
}

func (g *gossip) close(leave bool) {
	if leave {
		if err := g.list.Leave(500 * time.Millisecond); err != nil {
			g.log.Debug("leaving gossip", "err", err)
		}
	}
	if err := g.list.Shutdown(); err != nil {
		g.log.Debug("ending gossip", "err", err)
	}
}

// gossipWire is memberlist's transport: packets by UDP on the port between nodes, streams within its TLS.
type gossipWire struct {
	id        *identity
	advertise net.TCPAddr
	udp       net.PacketConn
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	once      sync.Once
	over      chan struct{}
	work      sync.WaitGroup
}

const maxPacket = 65536

func newGossipWire(id *identity, listen, advertise string, log *slog.Logger) (*gossipWire, error) {
	adv, err := net.ResolveTCPAddr("tcp", advertise)
	if err != nil {
		return nil, fmt.Errorf("the address between nodes: %w", err)
	}
	udp, err := net.ListenPacket("udp", listen)
	if err != nil {
		return nil, fmt.Errorf("listening for gossip: %w", err)
	}
	w := &gossipWire{id: id, advertise: *adv, udp: udp, packets: make(chan *memberlist.Packet, 64),
		streams: make(chan net.Conn), over: make(chan struct{})}
	w.work.Go(func() {
		buf := make([]byte, maxPacket)
		for {
			n, from, err := udp.ReadFrom(buf)
			select {
			case <-w.over:
				return
			default:
			}
			if err != nil || n == 0 {
				if err != nil {
					log.Debug("receiving gossip", "err", err)
					time.Sleep(10 * time.Millisecond) // it may be for good
				}
				continue
			}
			select {
			case w.packets <- &memberlist.Packet{Buf: append([]byte{}, buf[:n]...), From: from, Timestamp: time.Now()}:
			default: // full: a packet more or less
			}
		}
	})
	return w, nil
}

func (w *gossipWire) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return w.advertise.IP, w.advertise.Port, nil
}

func (w *gossipWire) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = w.udp.WriteTo(b, to)
	return time.Now(), err
}

func (w *gossipWire) PacketCh() <-chan *memberlist.Packet { return w.packets }
func (w *gossipWire) StreamCh() <-chan net.Conn           { return w.streams }

func (w *gossipWire) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return w.id.dial(ctx, addr, ids.Node{}, streamGossip)
}

// put hands a stream that was accepted on.
func (w *gossipWire) put(c net.Conn) {
	select {
	case w.streams <- c:
	case <-w.over:
		c.Close()
	case <-time.After(handshakeTimeout):
		c.Close()
	}
}

func (w *gossipWire) Shutdown() error {
	w.once.Do(func() {
		close(w.over)
		w.udp.Close()
	})
	w.work.Wait()
	return nil
}

package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/replication/initiator"
	"pmsapp/replication/peer"
)

// DialerConfig is what a Dialer is made of.
type DialerConfig struct {
	Cluster ids.Cluster
	Self    ids.Node
	Key     []byte // the cluster's key
	// Portal returns host:port of a node's target.
	Portal func(ids.Node) (string, error)
	// Timeouts returns the tunables for the next session; initiator.PeerTimeouts if nil.
	Timeouts func() initiator.Timeouts
	Log      *slog.Logger // slog.Default if nil
	// Dial makes connections; a net.Dialer does if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Dialer opens sessions with other nodes; it is a peer.Dialer. It is safe for concurrent use.
type Dialer struct{ cfg DialerConfig }

// NewDialer returns a Dialer.
func NewDialer(cfg DialerConfig) *Dialer {
	if cfg.Timeouts == nil {
		cfg.Timeouts = initiator.PeerTimeouts
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Dialer{cfg}
}

// ErrNode is returned when the node's portal is not known.
var ErrNode = errors.New("remote: the node's portal is not known")

// portOf gives each epoch an initiator port of its own: a new session of an epoch reinstates an old one of the same, which
// the node's target ends first (invariant 4), and a straggler of a lower epoch disturbs nobody.
func portOf(e peer.Epoch) iscsi.ISID {
	return iscsi.ISID{0x80, byte(e >> 32), byte(e >> 24), byte(e >> 16), byte(e >> 8), byte(e)}
}

// peerQueue bounds the commands of a session under way. The mirror keeps fewer; more than that end the session.
const peerQueue = 1 << 16

// Open logs in to a node under an epoch and fences it (peer.Dialer). Besides *peer.EpochError it returns the errors of
// initiator.Dial, and those of FENCE. An earlier session of the same epoch with the same
// node is ended by it.
func (d *Dialer) Open(ctx context.Context, node ids.Node, e peer.Epoch) (peer.Session, error) {
	portal, err := d.cfg.Portal(node)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w: %w", node, ErrNode, err)
	}
	leader, other := Secrets(d.cfg.Key)
	timeouts := d.cfg.Timeouts()
	timeouts.Command = timeouts.Recovery
	wish := iscsi.DefaultWish()
	wish.HeaderDigest, wish.DataDigest = iscsi.DigestAlways, iscsi.DigestAlways // invariant 16
	in, err := initiator.Dial(ctx, initiator.Config{
		Portal: portal, Initiator: TargetName(d.cfg.Self), Target: TargetName(node),
		ISID: portOf(e), Own: leader, Peer: other, Vendor: loginKeys(d.cfg.Cluster, e), Wish: wish,
		Timeouts: timeouts, Queue: peerQueue, Log: d.cfg.Log, Dial: d.cfg.Dial,
	})
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node, refusedEpoch(err, e))
	}
	for _, k := range loginKeys(d.cfg.Cluster, e) {
		if v, _ := iscsi.Lookup(in.Keys(), k.Key); v != k.Value {
			in.Close()
			<-in.Done()
			return nil, fmt.Errorf("node %s answered %s=%.40q: %w", node, k.Key, v, initiator.ErrLogin)
		}
	}
	s := newSession(in, e)
	if err := s.start(ctx); err != nil {
		return nil, fmt.Errorf("fencing node %s: %w", node, err)
	}
	return s, nil
}

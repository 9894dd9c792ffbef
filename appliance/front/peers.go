package front

import (
	"errors"
	"math"
	"strings"

	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/replication/remote"
	"pmsapp/target"
)

// Peers is this node's target for the other nodes' leaders: its replicas.
type Peers struct {
	name   string
	server *remote.Server
	auth   iscsi.Auth
}

// NewPeers returns the target of a node. key is the cluster's.
func NewPeers(self ids.Node, key []byte, s *remote.Server) *Peers {
	leader, node := remote.Secrets(key)
	return &Peers{name: remote.TargetName(self), server: s, auth: iscsi.Auth{Initiator: leader, Own: node}}
}

func (p *Peers) is(name string) bool { return strings.EqualFold(name, p.name) }

// open accepts a login to the node's target.
func (p *Peers) open(l target.Login) (target.Opened, error) {
	n, keys, err := p.server.Login(l.Vendor)
	if err != nil {
		var r *remote.Refusal
		if errors.As(err, &r) {
			return target.Opened{}, &target.Refusal{Status: r.Status, Why: r.Why, Keys: r.Keys}
		}
		return target.Opened{}, err
	}
	return target.Opened{Nexus: &peerNexus{n}, Keys: keys, Digests: true, Trusted: true}, nil
}

// peerNexus carries remote's commands.
type peerNexus struct{ nexus *remote.Nexus }

func (p *peerNexus) Accept(t *target.Task) target.Want {
	out, in := p.nexus.Want(t.CDB, t.ExpOut, t.ExpIn)
	return target.Want{Out: out, In: in}
}

func (p *peerNexus) Execute(t *target.Task) {
	r, ok := t.State.(*remote.Task)
	if !ok {
		r = &remote.Task{Done: executed}
		t.State = r
	}
	r.Owner, r.CDB, r.DataOut, r.InLen = t, t.CDB, t.DataOut, int(min(t.ExpIn, math.MaxInt32))
	r.Lent = t.Lent
	p.nexus.Execute(r)
}

// executed ends the task that carries a command.
func executed(r *remote.Task) {
	t := r.Owner.(*target.Task)
	t.Status, t.Sense, t.DataIn, t.Moved = r.Status, r.Sense, r.DataIn, int64(r.Moved)
	t.Done(t)
}

func (p *peerNexus) Cancel(*target.Task) {}

// Manage refuses: between nodes a session ends as a whole, when its commands have finished (invariant 4).
func (p *peerNexus) Manage(target.Management) (target.Response, []any, func(func(target.Response))) {
	return target.FunctionNotSupported, nil, nil
}

func (p *peerNexus) Unit(target.LUN) any { return nil }

func (p *peerNexus) End(error) { p.nexus.End() }

// Provider is all that the target server offers.
type Provider struct {
	Hosts *Hosts
	Peers *Peers // nil on a witness
}

var _ target.Provider = Provider{}

// Credentials implements target.Provider.
func (p Provider) Credentials(l target.Login) (iscsi.Auth, error) {
	if p.Peers != nil && p.Peers.is(l.Target) {
		return p.Peers.auth, nil
	}
	if l.Discovery {
		return iscsi.Auth{}, p.Hosts.admitDiscovery(l) // what it may see is asked in Discover
	}
	return p.Hosts.Credentials(l)
}

// Open implements target.Provider.
func (p Provider) Open(l target.Login) (target.Opened, error) {
	if p.Peers != nil && p.Peers.is(l.Target) {
		return p.Peers.open(l)
	}
	return p.Hosts.Open(l)
}

// Discover implements target.Provider.
func (p Provider) Discover(l target.Login) []target.Discovered { return p.Hosts.Discover(l) }

package cluster

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"encoding/json"

	"github.com/hashicorp/raft"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// entering is what a node tells the leader, again and again until the cluster knows it as it is.
type entering struct {
	Node    catalog.Node
	Former  ids.Node
	Applied uint64 // the index of its newest state
}

// entrance is the leader's answer.
type entrance struct {
	Voter bool // it is one, and the catalog has what it said
}

// caughtUp is how many entries a node may lack when it becomes a voter: it gets them while it is one.
const caughtUp = 64

// enter has the cluster know this node: as a member, with its addresses and pools, and as a voter once it is caught up.
func (c *Cluster) enter() {
	pause := 100 * time.Millisecond
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(pause):
		case <-c.refresh:
		}
		if c.IsLeader() {
			if err := c.dropRemoved(); err != nil {
				c.log.Debug("a node that was removed is still one of Raft's servers", "err", err)
			}
		}
		me := c.me()
		if c.knows(me) && c.Voters()[me.ID] {
			pause = 2 * time.Second
			continue
		}
		pause = 250 * time.Millisecond
		ctx, cancel := context.WithTimeout(c.ctx, 15*time.Second)
		var err error
		if c.IsLeader() {
			_, err = c.admitNode(ctx, me.ID, entering{me, c.id.Former, c.raft.AppliedIndex()})
		} else {
			err = c.enterAt(ctx, entering{me, c.id.Former, c.raft.AppliedIndex()})
		}
		cancel()
		if errors.Is(err, ErrRemoved) {
			c.cfg.Observer.Failed(ErrRemoved)
			return
		}
		if err != nil && c.ctx.Err() == nil {
			c.log.Debug("the cluster does not know this node as it is yet", "err", err)
		}
	}
}

// enterAt asks the leader, or, as long as this node does not know one, any node.
func (c *Cluster) enterAt(ctx context.Context, e entering) error {
	err := c.CallLeader(ctx, "enter", e, nil)
	if !errors.Is(err, ErrNoLeader) {
		return err
	}
	for _, addr := range c.others() {
		conn, derr := c.id.dial(ctx, addr, ids.Node{}, streamCall)
		if derr != nil {
			err = derr
			continue
		}
		if err = ask(ctx, conn, "enter", e, nil); err == nil || errors.Is(err, ErrRemoved) {
			return err
		}
	}
	return err
}

// me is what the catalog should know of this node.
func (c *Cluster) me() catalog.Node {
	n := c.cfg.About()
	n.ID, n.Witness, n.Address, n.Version = c.id.Node, c.id.Witness, c.cfg.Advertise, catalog.Version
	if n.Pools == nil {
		n.Pools = []catalog.Pool{}
	}
	return n
}

// knows tells whether the catalog has n, but for what the state machine fills in.
func (c *Cluster) knows(n catalog.Node) bool {
	have, ok := c.State().Nodes[n.ID]
	if !ok {
		return false
	}
	for _, p := range n.Pools {
		found := false
		for _, q := range have.Pools {
			found = found || p == q
		}
		if !found {
			return false
		}
	}
	have.Group, n.Group, have.Pools, n.Pools = 0, 0, nil, nil
	return reflect.DeepEqual(have, n)
}

func (c *Cluster) handleEnter(ctx context.Context, from ids.Node, body json.RawMessage) (any, error) {
	var e entering
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, fmt.Errorf("%w: the call cannot be read: %w", ErrCall, err)
	}
	if !c.IsLeader() {
		var out entrance
		err := c.CallLeader(ctx, "enter", e, &out)
		return out, err
	}
	return c.admitNode(ctx, from, e)
}

// dropRemoved takes out of Raft's configuration whom the catalog has removed: an identity that its machine gave up (invariant 9), or
// a removal that was interrupted.
func (c *Cluster) dropRemoved() error {
	f := c.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return fmt.Errorf("reading Raft's configuration: %w", err)
	}
	for _, s := range f.Configuration().Servers {
		if node, err := ids.Parse(string(s.ID)); err == nil && c.wasRemoved(ids.Node(node)) {
			if err := c.raft.RemoveServer(s.ID, 0, 5*time.Second).Error(); err != nil {
				return fmt.Errorf("removing a former identity: %w", err)
			}
		}
	}
	return nil
}

// admitNode brings the catalog and Raft's configuration in line with what a node says. The certificate of a node that calls
// by way of another is the other's: the cluster's members trust each other in this.
func (c *Cluster) admitNode(ctx context.Context, _ ids.Node, e entering) (entrance, error) {
	n := e.Node
	if c.wasRemoved(n.ID) {
		return entrance{}, ErrRemoved
	}
	if !c.knows(n) {
		if _, err := c.Propose(ctx, catalog.Command{Body: catalog.PutNode{Node: n, Former: e.Former}}); err != nil {
			return entrance{}, fmt.Errorf("entering %s into the catalog: %w", n.Name, err)
		}
	}
	if err := c.dropRemoved(); err != nil {
		return entrance{}, err
	}
	f := c.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return entrance{}, fmt.Errorf("reading Raft's configuration: %w", err)
	}
	id, addr := raft.ServerID(n.ID.String()), raft.ServerAddress(n.Address)
	var have *raft.Server
	for _, s := range f.Configuration().Servers {
		if s.ID == id {
			have = &s
		}
	}
	var err error
	switch {
	case have == nil:
		err = c.raft.AddNonvoter(id, addr, 0, 5*time.Second).Error()
	case have.Suffrage == raft.Voter && have.Address == addr:
		return entrance{Voter: true}, nil
	case have.Suffrage == raft.Voter || e.Applied+caughtUp >= c.raft.AppliedIndex():
		err = c.raft.AddVoter(id, addr, 0, 5*time.Second).Error()
	case have.Address != addr:
		err = c.raft.AddNonvoter(id, addr, 0, 5*time.Second).Error()
	}
	if err != nil {
		return entrance{}, fmt.Errorf("changing Raft's configuration for %s: %w", n.Name, err)
	}
	return entrance{}, nil
}

package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"pmsapp/internal/ids"
)

// hang is how long the catalog's disk may take for one transaction before this node ends itself (invariant 19): longer than
// an election at the default timeouts, and than any disk that works.
const hang = 5 * time.Second

// watchLeadership tells the observer who leads: Leads only after a barrier, so that everything committed before is applied.
func (c *Cluster) watchLeadership() {
	leading := false
	var retry <-chan time.Time
	for {
		select {
		case <-c.ctx.Done():
			if c.leads.Swap(false) {
				c.cfg.Observer.Follows()
			}
			return
		case leading = <-c.notify:
		case <-retry:
		}
		retry = nil
		if !leading {
			if c.leads.Swap(false) {
				c.cfg.Observer.Follows()
			}
			continue
		}
		if c.leads.Load() {
			continue
		}
		if err := c.raft.Barrier(10 * time.Second).Error(); err != nil {
			c.log.Info("leadership without a quorum", "err", err)
			if c.raft.State() == raft.Leader {
				retry = time.After(100 * time.Millisecond)
			}
			continue
		}
		if c.id.Witness {
			c.passOn()
			if c.raft.State() == raft.Leader {
				retry = time.After(time.Second)
			}
			continue
		}
		c.leads.Store(true)
		c.cfg.Observer.Leads()
	}
}

// passOn gives a witness's leadership to a storage node: it never serves (invariant 19). Raft brings the log up to date.
func (c *Cluster) passOn() {
	opinions, voters, nodes := c.Opinions(), c.Voters(), c.State().Nodes
	// Those that gossip sees first. It may see nobody, where its packets do not pass.
	order := slices.SortedFunc(maps.Keys(nodes), func(a, b ids.Node) int {
		return cmp.Or(-cmp.Compare(rank(opinions[a]), rank(opinions[b])), slices.Compare(a[:], b[:]))
	})
	for _, id := range order {
		n := nodes[id]
		if n.Witness || !voters[id] {
			continue
		}
		ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
		err := c.Transfer(ctx, id)
		cancel()
		if err == nil {
			c.log.Info("the witness passed its leadership on", "to", n.Name)
			return
		}
		c.log.Warn("the witness could not pass its leadership on", "to", n.Name, "err", err)
	}
}

func rank(l Liveness) int { return map[Liveness]int{Alive: 2, Suspect: 1}[l] }

// watchChanges tells the observer about newer states.
func (c *Cluster) watchChanges() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.change:
			if c.wasRemoved(c.Self()) {
				c.cfg.Observer.Failed(ErrRemoved)
			}
			c.rememberPeers()
			c.cfg.Observer.Changed()
		}
	}
}

// rememberPeers keeps the others' addresses outside the catalog: they are needed when it is lost.
func (c *Cluster) rememberPeers() {
	var addrs []string
	for id, n := range c.State().Nodes {
		if id != c.Self() && n.Address != "" {
			addrs = append(addrs, n.Address)
		}
	}
	slices.Sort(addrs)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(addrs) == 0 || slices.Equal(addrs, c.id.Peers) {
		return
	}
	c.id.Peers = addrs
	if err := c.id.save(c.cfg.Dir); err != nil {
		c.log.Error("remembering the other nodes' addresses", "err", err)
	}
}

// watchNodes tells the observer what gossip thinks.
func (c *Cluster) watchNodes() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := map[ids.Node]Liveness{}
	for n := 0; ; n++ {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		if n%20 == 0 {
			c.gossip.meet(c.others())
		}
		now := c.Opinions()
		for id := range last {
			if _, known := now[id]; !known {
				now[id] = Dead
			}
		}
		for id, l := range now {
			if last[id] != l && id != c.Self() {
				c.cfg.Observer.Opinion(id, l)
			}
		}
		last = now
	}
}

// others returns the other nodes' addresses.
func (c *Cluster) others() (addrs []string) {
	for id, n := range c.State().Nodes {
		if id != c.Self() && n.Address != "" {
			addrs = append(addrs, n.Address)
		}
	}
	if len(addrs) == 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, a := range c.id.Peers {
			if a != c.cfg.Advertise {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}

// watchDisk ends a node whose catalog disk hangs: it could go on leading, and nobody else could.
func (c *Cluster) watchDisk() {
	const every = 250 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := time.Now()
	since := last // what was before is no evidence: this process was stopped itself
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		if time.Since(last) > 4*every {
			since = time.Now()
		}
		last = time.Now()
		if d := c.store.hanging(since); d > hang {
			c.cfg.Observer.Failed(fmt.Errorf("%w: for %v", ErrDiskHangs, d.Round(time.Millisecond)))
			return
		}
	}
}

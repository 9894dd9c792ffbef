package appliance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"pmsapp/appliance/vip"
	"pmsapp/internal/ids"
)

// How the node that has the virtual address tells the others of its clients' connections.
const (
	clientsEvery  = 250 * time.Millisecond
	clientsAgain  = 10 * time.Second // to a node that was told already: it may have started anew
	clientsWithin = time.Second      // for a node's answer; and until one that gave none is told again
)

// clients knows which connections there were to the virtual address while another node had it. Only these hints are lost with them: what a
// client hears late without them it hears by its own timers.
type clients struct {
	mu     sync.Mutex
	former []vip.Connection
}

// Former is what vip.Config asks for.
func (c *clients) Former() []vip.Connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.former
}

// handleClients takes what the node that has the address tells.
func (c *clients) handleClients(_ context.Context, _ ids.Node, all []vip.Connection) (struct{}, error) {
	if len(all) > vip.MaxConnections {
		return struct{}{}, fmt.Errorf("%d connections, and at most %d can be told", len(all), vip.MaxConnections)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.former = all
	return struct{}{}, nil
}

// toldClients is what a node was told.
type toldClients struct {
	heard bool
	all   []vip.Connection
	next  time.Time // when to tell it again in any case
}

// tellClients tells the others, as long as ctx lasts, while this node has the address.
func (n *node) tellClients(ctx context.Context) {
	tick := time.NewTicker(clientsEvery)
	defer tick.Stop()
	known := map[ids.Node]toldClients{}
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !n.service.vip.Bound() {
			clear(known)
			continue
		}
		all, err := n.service.vip.Connections()
		if err != nil {
			if !failed {
				n.log.Warn("the connections to the virtual address are not known; should this host lose power, clients may take a minute to find the next leader", "err", err)
			}
			failed = true
			continue
		}
		failed = false
		n.tellAll(ctx, known, all)
	}
}

// tellAll tells those who may lead and do not know.
func (n *node) tellAll(ctx context.Context, known map[ids.Node]toldClients, all []vip.Connection) {
	ctx, cancel := context.WithTimeout(ctx, clientsWithin)
	defer cancel()
	var mu sync.Mutex
	var calls sync.WaitGroup
	now := time.Now()
	var to []ids.Node
	for id, other := range n.cluster.State().Nodes {
		if t := known[id]; id != n.cluster.Self() && !other.Witness && (!now.Before(t.next) || t.heard && !slices.Equal(t.all, all)) {
			to = append(to, id)
		}
	}
	for _, id := range to {
		calls.Go(func() {
			t := toldClients{heard: true, all: all, next: now.Add(clientsAgain)}
			if n.cluster.Call(ctx, id, "clients", all, nil) != nil { // it is away, or of a version that does not know this
				t = toldClients{next: now.Add(clientsWithin)}
			}
			mu.Lock()
			known[id] = t
			mu.Unlock()
		})
	}
	calls.Wait()
}

package mirror

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// mounted is a cluster of which the sessions are as those between nodes: Fenced is what the node said when the session was
// opened, and only Poll asks again.
type mounted struct {
	*fakeCluster
	absent map[ids.Node]bool // the node's pool is not mounted; guarded by fakeCluster.mu
	open   map[*fakeSession]*mountedSession
}

type mountedSession struct {
	*fakeSession
	c     *mounted
	first peer.Fenced
}

func (m *mounted) Session(ctx context.Context, id ids.Node) (peer.Session, error) {
	s, err := m.fakeCluster.Session(ctx, id)
	if err != nil {
		return nil, err
	}
	f := s.(*fakeSession)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open[f] == nil {
		x := &mountedSession{fakeSession: f, c: m}
		if !m.absent[id] {
			x.first.Pools = []peer.FencedPool{{Replicas: []peer.FencedReplica{
				{Spec: peer.Spec{Volume: m.vol.ID, Lineage: m.vol.Lineage}, Seq: f.n.seq}}}}
		}
		m.open[f] = x
	}
	return m.open[f], nil
}

func (s *mountedSession) Fenced() peer.Fenced { return s.first }
func (s *mountedSession) Poll(context.Context) (peer.Fenced, error) {
	s.c.mu.Lock()
	absent := s.c.absent[s.n.id]
	s.c.mu.Unlock()
	if absent {
		return peer.Fenced{}, nil
	}
	return s.fakeSession.Fenced(), nil
}

// TestPoolComesLate: the node of the last member starts again, and its pool's disk is mounted only after the session was
// opened. I/O goes on under that session.
func TestPoolComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &mounted{fakeCluster: newCluster(8<<20, 1, 1), absent: map[ids.Node]bool{}, open: map[*fakeSession]*mountedSession{}}
		m := open(t, c.fakeCluster, func(cfg *Config) { cfg.Sessions = c })
		defer m.Close(nil)
		if err := do(m, block.Write, 0, bytes.Repeat([]byte{1}, 4096)); err != nil {
			t.Fatal(err)
		}
		n := c.nodes[node(1)]
		c.set(1, func(n *fakeNode) { c.absent[n.id] = true })
		n.session.die()
		go func() {
			time.Sleep(5 * time.Second)
			c.set(1, func(n *fakeNode) { c.absent[n.id] = false })
		}()
		begun := time.Now()
		if err := do(m, block.Write, 4096, bytes.Repeat([]byte{2}, 4096)); err != nil {
			t.Fatalf("%v after %v: the pool has been back for a long time", err, time.Since(begun))
		}
	})
}

package mirror

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// fakeCluster is nodes with byte arrays, sessions to them and a catalog, for the tests of the shell.
type fakeCluster struct {
	mu    sync.Mutex
	vol   truth.Volume
	nodes map[ids.Node]*fakeNode
}

type fakeNode struct {
	id      ids.Node
	bytes   []byte
	session *fakeSession
	refuse  bool
	delay   time.Duration // of each answer
	hang    bool          // answers nothing until the session is closed
	epoch   peer.Epoch
	seq     peer.Seq
}

type fakeSession struct {
	c    *fakeCluster
	n    *fakeNode
	mu   sync.Mutex
	dead bool
	done chan struct{}
	open []*peer.Call
}

func node(i int) ids.Node { return ids.Node{byte(i)} }

func newCluster(size int64, members, replicas int) *fakeCluster {
	c := &fakeCluster{nodes: map[ids.Node]*fakeNode{}}
	c.vol = truth.Volume{ID: ids.Volume{9}, Name: "v", Size: size, Region: 1 << 20, Logical: 512, Version: 1}
	for i := 1; i <= replicas; i++ {
		p := truth.Place{Node: node(i), Pool: ids.Pool{byte(i)}}
		c.vol.Replicas = append(c.vol.Replicas, p)
		if i <= members {
			c.vol.InSync = append(c.vol.InSync, p)
		}
		c.nodes[p.Node] = &fakeNode{id: p.Node, bytes: make([]byte, size), epoch: 1}
	}
	return c
}

func (c *fakeCluster) config(t testing.TB) Config {
	p := Params{Volume: c.vol, Epoch: 1, Self: node(1)}
	p.Volume.InSync = slices.Clone(c.vol.InSync)
	for _, m := range c.vol.InSync {
		p.Members = append(p.Members, Member{Node: m.Node})
	}
	return Config{Params: p, Sessions: c, Catalog: c, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func (c *fakeCluster) Session(ctx context.Context, id ids.Node) (peer.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[id]
	switch {
	case n.epoch > 1:
		return nil, &peer.EpochError{Accepted: n.epoch}
	case n.refuse:
		return nil, errors.New("connection refused")
	case n.session != nil && !n.session.isDead():
		return n.session, nil
	}
	n.session = &fakeSession{c: c, n: n, done: make(chan struct{})}
	return n.session, nil
}

func (s *fakeSession) isDead() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.dead }

func (s *fakeSession) Submit(k *peer.Call) {
	s.c.mu.Lock()
	delay, hang := s.n.delay, s.n.hang
	s.c.mu.Unlock()
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		k.Answer = peer.Answer{Err: peer.ErrLost}
		k.Done(k)
		return
	}
	if delay == 0 && !hang {
		s.mu.Unlock()
		s.execute(k)
		k.Done(k)
		return
	}
	s.open = append(s.open, k)
	s.mu.Unlock()
	if !hang {
		time.AfterFunc(delay, func() {
			s.mu.Lock()
			i := slices.Index(s.open, k)
			if i < 0 {
				s.mu.Unlock()
				return
			}
			s.open = slices.Delete(s.open, i, i+1)
			s.mu.Unlock()
			s.execute(k)
			k.Done(k)
		})
	}
}

func (s *fakeSession) execute(k *peer.Call) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	k.Answer = peer.Answer{}
	if s.n.epoch > 1 {
		k.Err = peer.ErrEpoch
		return
	}
	switch k.Kind {
	case peer.Read:
		copy(k.Data, s.n.bytes[k.Off:])
	case peer.Write:
		copy(s.n.bytes[k.Off:], k.Data)
		s.n.seq = max(s.n.seq, k.Seq)
	case peer.Zero:
		clear(s.n.bytes[k.Off : k.Off+k.Len])
		s.n.seq = max(s.n.seq, k.Seq)
	case peer.Extents:
		k.Extents = append(k.Extents, peer.Extent{Off: k.Off, Len: k.Len})
	}
}

func (s *fakeSession) die() {
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		return
	}
	s.dead = true
	open := s.open
	s.open = nil
	s.mu.Unlock()
	close(s.done)
	for _, k := range open {
		k.Answer = peer.Answer{Err: peer.ErrLost}
		k.Done(k)
	}
}

func (s *fakeSession) Fenced() peer.Fenced {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return peer.Fenced{Pools: []peer.FencedPool{{Replicas: []peer.FencedReplica{
		{Spec: peer.Spec{Volume: s.c.vol.ID, Lineage: s.c.vol.Lineage}, Seq: s.n.seq},
	}}}}
}
func (s *fakeSession) Poll(context.Context) (peer.Fenced, error) { return s.Fenced(), nil }
func (s *fakeSession) Done() <-chan struct{}                     { return s.done }
func (s *fakeSession) Err() error                                { return peer.ErrLost }
func (s *fakeSession) Close()                                    { s.die() }

func (c *fakeCluster) View() *truth.View { return &truth.View{} }

func (c *fakeCluster) Propose(ctx context.Context, p truth.Proposal) (truth.Outcome, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set := slices.Clone(c.vol.InSync)
	switch p := p.(type) {
	case truth.RemoveMember:
		if p.Version != c.vol.Version {
			return truth.Outcome{}, &truth.Rejection{Why: truth.WrongVersion, Current: c.vol}
		}
		set = slices.DeleteFunc(set, func(pl truth.Place) bool { return pl.Node == p.Node })
	case truth.AddMember:
		i := slices.IndexFunc(c.vol.Replicas, func(pl truth.Place) bool { return pl.Node == p.Node })
		set = append(set, c.vol.Replicas[i])
	}
	c.vol.InSync = set
	c.vol.Version++
	return truth.Outcome{Version: c.vol.Version, InSync: slices.Clone(set)}, nil
}

// set changes a node.
func (c *fakeCluster) set(i int, f func(*fakeNode)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.nodes[node(i)])
}

// do submits a request and waits for its end.
func do(m *Mirror, op block.Op, off int64, data []byte) error {
	done := make(chan struct{})
	r := &block.Request{Op: op, Off: off, Len: int64(len(data)), Data: data, Done: func(*block.Request) { close(done) }}
	m.Submit(r)
	<-done
	return r.Err
}

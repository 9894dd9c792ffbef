package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"crypto/x509"

	"github.com/hashicorp/raft"

	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
)

// Evidence that this node's catalog disk was lost or reverted (invariant 9). See DESIGN.md.

// evidenceTimeout is how long peers are asked before this node votes.
const evidenceTimeout = 2 * time.Second

// openCatalog opens the store, and gives this machine a new identity if its catalog is not the one that it had.
func (c *Cluster) openCatalog(ctx context.Context) error {
	path := catalogPath(c.cfg.Dir)
	_, err := os.Stat(path)
	lost := errors.Is(err, fs.ErrNotExist) && !c.id.Fresh
	why := "it is missing"
	if !lost {
		if c.store, err = openStore(path); err != nil && !errors.Is(err, ErrCorrupt) {
			return err
		}
		if err == nil {
			why, err = c.doubt(ctx)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return err
		}
		if err != nil {
			why = err.Error()
		}
		lost = why != ""
	}
	if lost {
		return c.renew(ctx, why)
	}
	if c.id.Fresh { // from now on an empty catalog is a loss
		c.id.Fresh = false
		return c.id.save(c.cfg.Dir)
	}
	return nil
}

// doubt looks for evidence against a catalog that can be read; an empty text says that there is none.
func (c *Cluster) doubt(ctx context.Context) (why string, err error) {
	last, err := c.store.LastIndex()
	if err != nil {
		return "", err
	}
	snapshot, err := c.store.sound(c.fsm)
	if err != nil {
		return "", err
	}
	last = max(last, snapshot)
	for _, w := range c.cfg.Written {
		if w.Node == c.id.Node && w.Count > c.store.count() {
			return fmt.Sprintf("it was written %d times when a pool of this node recorded an epoch, and now it says %d times",
				w.Count, c.store.count()), nil
		}
	}
	switch {
	case last == 0 && !c.id.Fresh:
		return "it is empty", nil
	case last == 0:
		return "", nil
	}
	term, err := c.store.GetUint64([]byte("CurrentTerm"))
	if err != nil && !errors.Is(err, errNotFound) {
		return "", err
	}
	state, err := c.store.peers()
	if err != nil {
		return "", err
	}
	known := c.askEvidence(ctx, state)
	switch {
	case known.Term > term:
		return fmt.Sprintf("another node saw it in term %d, and the catalog has %d", known.Term, term), nil
	case known.Index > last && known.Within >= term:
		return fmt.Sprintf("another node saw it acknowledge index %d, and its log ends at %d", known.Index, last), nil
	}
	return "", nil
}

// sound reads all that there is, puts the snapshot into f, and returns its index.
func (s *store) sound(f *fsm) (index uint64, err error) {
	m, state, err := snapshots{s}.load()
	if err != nil {
		return 0, err
	}
	if state != nil {
		decoded, err := catalog.DecodeSnapshot(state)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		f.restored(decoded, int64(len(state)))
	}
	return m.Index, s.each(func(*raft.Log) error { return nil })
}

// each calls f with every entry of the log: it finds damages too.
func (s *store) each(f func(*raft.Log) error) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	m, _, err := snapshots{s}.about()
	if err != nil {
		return err
	}
	snapshot := m.Meta.Index
	if first > snapshot+1 {
		return fmt.Errorf("log entries %d to %d are in no snapshot and missing: %w", snapshot+1, first-1, ErrCorrupt)
	}
	for i := first; i <= last && i > 0; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			if errors.Is(err, raft.ErrLogNotFound) && i <= snapshot {
				continue // what a snapshot from the leader has replaced, between what was there and what came after
			}
			if errors.Is(err, raft.ErrLogNotFound) {
				err = fmt.Errorf("log entry %d is missing: %w", i, ErrCorrupt)
			}
			return err
		}
		if err := f(&l); err != nil {
			return err
		}
	}
	return nil
}

// peers returns the nodes' addresses by the newest configuration on this disk.
func (s *store) peers() (addrs []string, err error) {
	m, _, err := snapshots{s}.about()
	if err != nil {
		return nil, err
	}
	conf := m.Meta.Configuration // empty if there is no snapshot
	err = s.each(func(l *raft.Log) (err error) {
		defer func() {
			if r := recover(); r != nil { // the library's decoder panics
				err = fmt.Errorf("log entry %d: %w: %v", l.Index, ErrCorrupt, r)
			}
		}()
		if l.Type == raft.LogConfiguration {
			conf = raft.DecodeConfiguration(l.Data)
		}
		return nil
	})
	for _, srv := range conf.Servers {
		addrs = append(addrs, string(srv.Address))
	}
	return addrs, err
}

// evidence is what a node has heard from another's Raft identity: the highest term, and the highest index that it had on its disk in
// the newest term in which it named one. What it had in an earlier term may have been cut off rightly since.
type evidence struct{ Term, Index, Within uint64 }

func (e evidence) with(o evidence) evidence {
	e.Term = max(e.Term, o.Term)
	switch {
	case o.Index == 0 || o.Within < e.Within:
	case o.Within > e.Within:
		e.Index, e.Within = o.Index, o.Within
	default:
		e.Index = max(e.Index, o.Index)
	}
	return e
}

// askEvidence asks the peers what they know of this identity.
func (c *Cluster) askEvidence(ctx context.Context, addrs []string) (most evidence) {
	ctx, cancel := context.WithTimeout(ctx, evidenceTimeout)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, addr := range addrs {
		if addr == c.cfg.Advertise {
			continue
		}
		all.Go(func() {
			conn, err := c.id.dial(ctx, addr, ids.Node{}, streamCall)
			if err != nil {
				return // out of reach: invariant 9 asks the reachable ones
			}
			var e evidence
			if err := ask(ctx, conn, "evidence", c.id.Node, &e); err != nil {
				return
			}
			mu.Lock()
			most = most.with(e)
			mu.Unlock()
		})
	}
	all.Wait()
	return most
}

func (c *Cluster) handleEvidence(_ context.Context, _ ids.Node, body json.RawMessage) (any, error) {
	var n ids.Node
	if err := json.Unmarshal(body, &n); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCall, err)
	}
	return c.transport.about(raft.ServerID(n.String())), nil
}

// rejoining asks for a new identity.
type rejoining struct {
	Node   ids.Node // the new one
	Public []byte
}

// renew gives the machine a new Raft identity: the old one never votes again. Its certificate proves that it is a member.
func (c *Cluster) renew(ctx context.Context, why string) error {
	path := catalogPath(c.cfg.Dir)
	c.log.Error("the catalog on this node's disk is not the one that it had; it comes back under a new identity, without a vote",
		"path", path, "why", why, "old", c.id.Node.String())
	addrs := c.id.Peers
	if c.store != nil {
		if more, err := c.store.peers(); err == nil {
			addrs = append(addrs, more...)
		}
		c.store.close()
		c.store = nil
		c.fsm.restored(catalog.Empty(), 0)
	}
	key, err := parseKey(c.id.Key)
	if err != nil {
		return err
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("encoding a key: %w", err)
	}
	req := rejoining{ids.NewNode(), pub}
	ans, err := c.askRejoin(ctx, addrs, req)
	if err != nil {
		return fmt.Errorf("%s: %w: %s; this node votes no more under its old identity, and needs a leader among the others "+
			"to come back: %w", path, ErrCorrupt, why, err)
	}
	next := *c.id
	next.Former = next.Node
	next.Node, next.Cert, next.Peers, next.Fresh = req.Node, ans.Cert, ans.Peers, true
	if _, err := os.Stat(path); err == nil {
		if err := os.Rename(path, fmt.Sprintf("%s.lost-%d", path, time.Now().Unix())); err != nil {
			return fmt.Errorf("putting the lost catalog aside: %w", err)
		}
	}
	if err := next.save(c.cfg.Dir); err != nil {
		return err
	}
	*c.id = next
	if c.store, err = openStore(path); err != nil {
		return err
	}
	c.id.Fresh = false
	return c.id.save(c.cfg.Dir)
}

// askRejoin asks every address for a leader's answer, for a while.
func (c *Cluster) askRejoin(ctx context.Context, addrs []string, req rejoining) (ans joinAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = ErrNoLeader
	for {
		for _, addr := range addrs {
			if addr == c.cfg.Advertise {
				continue
			}
			conn, derr := c.id.dial(ctx, addr, ids.Node{}, streamCall)
			if derr != nil {
				err = derr
				continue
			}
			if err = ask(ctx, conn, "rejoin", req, &ans); err == nil || errors.Is(err, ErrRemoved) {
				return ans, err
			}
		}
		select {
		case <-ctx.Done():
			return ans, err
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (c *Cluster) handleRejoin(ctx context.Context, from ids.Node, body json.RawMessage) (any, error) {
	if !c.IsLeader() {
		var ans joinAnswer
		err := c.CallLeader(ctx, "rejoin", body, &ans)
		return ans, err
	}
	var req rejoining
	if err := json.Unmarshal(body, &req); err != nil || req.Node.IsZero() {
		return nil, fmt.Errorf("%w: the call cannot be read", ErrCall)
	}
	return c.admit(req.Node, req.Public)
}

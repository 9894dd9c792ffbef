package cluster

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/hashicorp/raft"

	"pmsapp/internal/ids"
)

// watchedTransport is Raft's transport, with two things that Raft does not do. It dials servers, not addresses: a machine that is
// back under a new identity at its old address is not asked for the old one's vote, which it would give to anybody. And it
// remembers what other identities have said: the evidence of invariant 9. A node that answered a vote or an append, or sent one,
// had its term, and the entries up to the index that it named, on its disk.
type watchedTransport struct {
	*raft.NetworkTransport
	hopes func(id raft.ServerID, addr raft.ServerAddress, term uint64) bool // see patience.go
	rpcs  chan raft.RPC
	over  chan struct{}
	once  sync.Once
	work  sync.WaitGroup

	mu   sync.Mutex
	seen map[raft.ServerID]evidence // one for each identity of the configuration, which is bounded
}

func watch(t *raft.NetworkTransport, hopes func(raft.ServerID, raft.ServerAddress, uint64) bool) *watchedTransport {
	w := &watchedTransport{NetworkTransport: t, hopes: hopes, rpcs: make(chan raft.RPC), over: make(chan struct{}),
		seen: map[raft.ServerID]evidence{}}
	w.work.Go(w.listen)
	return w
}

// at is the address of a server: of that identity, and of no other at the same place. see parseServer.
func at(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(id) + "@" + addr
}

// parseServer reads what at has made.
func parseServer(a raft.ServerAddress) (n ids.Node, addr string, err error) {
	id, addr, ok := strings.Cut(string(a), "@")
	parsed, err := ids.Parse(id)
	if !ok || err != nil {
		return n, "", fmt.Errorf("%w: %q names no server", ErrCall, a)
	}
	return ids.Node(parsed), addr, nil
}

// listen hands on what comes in, and notes it.
func (t *watchedTransport) listen() {
	in := t.NetworkTransport.Consumer()
	for {
		select {
		case <-t.over:
			return
		case r := <-in:
			t.heard(r.Command)
			select {
			case t.rpcs <- r:
			case <-t.over:
				return
			}
		}
	}
}

// heard notes what a request says of its sender. A pre-vote names a term that its sender does not have yet.
func (t *watchedTransport) heard(request any) {
	switch r := request.(type) {
	case *raft.AppendEntriesRequest:
		last := r.PrevLogEntry
		if n := len(r.Entries); n > 0 {
			last = r.Entries[n-1].Index
		}
		t.note(raft.ServerID(r.ID), r.Term, last)
	case *raft.RequestVoteRequest:
		// Not its last index: of two that stand in one term the winner may rightly lack, or cut off, what the other has.
		t.note(raft.ServerID(r.ID), r.Term, 0)
	}
}

// Consumer is where Raft gets requests.
func (t *watchedTransport) Consumer() <-chan raft.RPC { return t.rpcs }

// SetHeartbeatHandler has heartbeats noted too: they pass by the consumer.
func (t *watchedTransport) SetHeartbeatHandler(f func(raft.RPC)) {
	t.NetworkTransport.SetHeartbeatHandler(func(r raft.RPC) {
		t.heard(r.Command)
		f(r)
	})
}

// Close ends the transport.
func (t *watchedTransport) Close() error {
	t.once.Do(func() { close(t.over) })
	err := t.NetworkTransport.Close()
	t.work.Wait()
	return err
}

func (t *watchedTransport) about(id raft.ServerID) evidence {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen[id]
}

// maxSeen bounds the memory. Identities come and go, but slowly.
const maxSeen = 1024

func (t *watchedTransport) note(id raft.ServerID, term, index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, known := t.seen[id]
	if id == "" || !known && len(t.seen) >= maxSeen {
		return
	}
	t.seen[id] = e.with(evidence{Term: term, Index: index, Within: term})
}

// acknowledged is the index that an append's answer has acknowledged.
func acknowledged(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) uint64 {
	if !resp.Success || len(args.Entries) == 0 {
		return 0
	}
	return args.Entries[len(args.Entries)-1].Index
}

func (t *watchedTransport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := patiently(args, func() error { return t.NetworkTransport.AppendEntries(id, at(id, addr), args, resp) },
		func() bool { return t.hopes(id, addr, args.Term) })
	if err == nil {
		t.note(id, resp.Term, acknowledged(args, resp))
	}
	return err
}

func (t *watchedTransport) RequestVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	err := t.NetworkTransport.RequestVote(id, at(id, addr), args, resp)
	if err == nil {
		t.note(id, resp.Term, 0)
	}
	return err
}

func (t *watchedTransport) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.NetworkTransport.RequestPreVote(id, at(id, addr), args, resp)
}

func (t *watchedTransport) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, at(id, addr), args, resp)
}

func (t *watchedTransport) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := t.NetworkTransport.InstallSnapshot(id, at(id, addr), args, resp, data)
	if err == nil && resp.Success {
		t.note(id, resp.Term, args.LastLogIndex)
	}
	return err
}

func (t *watchedTransport) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, at(id, addr))
	if err != nil {
		return nil, err
	}
	w := &watchedPipeline{AppendPipeline: p, t: t, id: id, out: make(chan raft.AppendFuture), over: make(chan struct{})}
	go w.run()
	return w, nil
}

// watchedPipeline looks at the answers before Raft gets them.
type watchedPipeline struct {
	raft.AppendPipeline
	t    *watchedTransport
	id   raft.ServerID
	out  chan raft.AppendFuture
	once sync.Once
	over chan struct{}
}

func (w *watchedPipeline) run() {
	in := w.AppendPipeline.Consumer()
	for {
		select {
		case <-w.over:
			return
		case f := <-in:
			if f.Error() == nil {
				w.t.note(w.id, f.Response().Term, acknowledged(f.Request(), f.Response()))
			}
			select {
			case w.out <- f:
			case <-w.over:
				return
			}
		}
	}
}

func (w *watchedPipeline) Consumer() <-chan raft.AppendFuture { return w.out }

func (w *watchedPipeline) Close() error {
	w.once.Do(func() { close(w.over) })
	return w.AppendPipeline.Close()
}

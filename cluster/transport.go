package cluster

import (
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// watchedTransport is Raft's transport, which remembers what other identities have said: the evidence of invariant 9. A node
// that answered a vote or an append had its term, and, for an append that succeeded, the entries up to it, on its disk.
type watchedTransport struct {
	*raft.NetworkTransport
	hopes func(id raft.ServerID, term uint64) bool // see patience.go

	mu   sync.Mutex
	seen map[raft.ServerID]evidence // one for each identity of the configuration, which is bounded
}

func watch(t *raft.NetworkTransport, hopes func(raft.ServerID, uint64) bool) *watchedTransport {
	return &watchedTransport{NetworkTransport: t, hopes: hopes, seen: map[raft.ServerID]evidence{}}
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
	if !known && len(t.seen) >= maxSeen {
		return
	}
	t.seen[id] = evidence{max(e.Term, term), max(e.Index, index)}
}

// acknowledged is the index that an append's answer has acknowledged.
func acknowledged(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) uint64 {
	if !resp.Success || len(args.Entries) == 0 {
		return 0
	}
	return args.Entries[len(args.Entries)-1].Index
}

func (t *watchedTransport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := patiently(args, func() error { return t.NetworkTransport.AppendEntries(id, addr, args, resp) },
		func() bool { return t.hopes(id, args.Term) })
	if err == nil {
		t.note(id, resp.Term, acknowledged(args, resp))
	}
	return err
}

func (t *watchedTransport) RequestVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	err := t.NetworkTransport.RequestVote(id, addr, args, resp)
	if err == nil {
		t.note(id, resp.Term, 0)
	}
	return err
}

func (t *watchedTransport) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := t.NetworkTransport.InstallSnapshot(id, addr, args, resp, data)
	if err == nil && resp.Success {
		t.note(id, resp.Term, args.LastLogIndex)
	}
	return err
}

func (t *watchedTransport) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, addr)
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

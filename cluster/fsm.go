package cluster

import (
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"pmsapp/cluster/catalog"
)

// fsm is the catalog as Raft drives it.
type fsm struct {
	state   atomic.Pointer[catalog.State]
	changed func()
	log     *slog.Logger
}

func newFSM(changed func(), log *slog.Logger) *fsm {
	f := &fsm{changed: changed, log: log}
	f.state.Store(catalog.Empty())
	return f
}

// applied is the answer to an entry.
type applied struct {
	result catalog.Result
	err    error
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any {
	next, result, err := catalog.Apply(f.state.Load(), l.Index, l.Data)
	f.state.Store(next)
	if result.Tree == nil { // whoever changes a tree has the result; there may be hundreds a second
		f.changed()
	}
	return applied{result, err}
}

// Snapshot implements raft.FSM. A state never changes: the pointer is the snapshot.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return frozen{f.state.Load()}, nil }

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, catalog.MaxSnapshot+1))
	if err != nil {
		return fmt.Errorf("reading a snapshot: %w", err)
	}
	s, err := catalog.DecodeSnapshot(b)
	if err != nil {
		return err
	}
	f.state.Store(s)
	f.changed()
	return nil
}

type frozen struct{ state *catalog.State }

// Persist implements raft.FSMSnapshot.
func (z frozen) Persist(k raft.SnapshotSink) error {
	b, err := catalog.EncodeSnapshot(z.state)
	if err == nil {
		_, err = k.Write(b)
	}
	if err != nil {
		k.Cancel()
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	return k.Close()
}

// Release implements raft.FSMSnapshot.
func (frozen) Release() {}

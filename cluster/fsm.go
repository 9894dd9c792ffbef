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
	// In bytes: the newest snapshot's size, all that was ever applied, and what of it that snapshot has. What lies between the two is
	// what a node that starts has to apply.
	snapshot, applied, saved atomic.Int64
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
	f.applied.Add(entryCost + int64(len(l.Data)))
	if result.Tree == nil { // whoever changes a tree has the result; there may be hundreds a second
		f.changed()
	}
	return applied{result, err}
}

// Snapshot implements raft.FSM. A state never changes: the pointer is the snapshot.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	return frozen{f, f.state.Load(), f.applied.Load()}, nil
}

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
	f.restored(s, int64(len(b)))
	return nil
}

// restored has the state that a snapshot of so many bytes held. Raft must not be using f, or be waiting for it.
func (f *fsm) restored(s *catalog.State, size int64) {
	f.state.Store(s)
	f.snapshot.Store(size)
	f.saved.Store(f.applied.Load())
	f.changed()
}

type frozen struct {
	fsm     *fsm
	state   *catalog.State
	applied int64 // the fsm's, when it was frozen
}

// Persist implements raft.FSMSnapshot.
func (z frozen) Persist(k raft.SnapshotSink) error {
	n := counter{w: k}
	if err := catalog.WriteSnapshot(&n, z.state); err != nil {
		k.Cancel()
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	if err := k.Close(); err != nil {
		return err
	}
	z.fsm.snapshot.Store(n.bytes)
	z.fsm.saved.Store(max(z.applied, z.fsm.saved.Load())) // a snapshot that came from the leader meanwhile may have more
	return nil
}

// counter counts what is written.
type counter struct {
	w     io.Writer
	bytes int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.bytes += int64(n)
	return n, err
}

// Release implements raft.FSMSnapshot.
func (frozen) Release() {}

package mirror

import (
	"context"
	"log/slog"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// Sessions gives the mirrors of a reign the sessions that they share: one per node.
type Sessions interface {
	// Session returns a live session of the reign's epoch with node, its answer to the fence recorded. If there is none
	// it makes one attempt to open it, shared with all who ask meanwhile. It returns a peer.ErrEpoch if the node has
	// accepted a higher epoch. The session stays the callee's: the mirror never closes it.
	Session(ctx context.Context, node ids.Node) (peer.Session, error)
}

// Budget is shared by the resyncs of a node.
type Budget interface {
	// Wait returns when n more bytes may be copied, or with ctx's error.
	Wait(ctx context.Context, n int64) error
}

// Config is what a Mirror is made of.
type Config struct {
	Params   Params
	Sessions Sessions
	Catalog  truth.Catalog
	Log      *slog.Logger
	Budget   Budget // nil: no common budget
	// Notify is called with each Notice, one at a time; it must not block nor call the Mirror. May be nil.
	Notify func(Notice)
	// Resynced is called at the end of a resync, in the same way. May be nil.
	Resynced func(node ids.Node, err error)
}

// Mirror is one open volume. It is a block.Device.
type Mirror struct {
	core *Core
}

// Open opens the volume; requests may be submitted at once. ctx bounds nothing but the first look-up of the sessions.
func Open(ctx context.Context, cfg Config) (*Mirror, error) {
	core, err := New(cfg.Params)
	if err != nil {
		return nil, err
	}
	return &Mirror{core: core}, nil
}

// Geometry describes the device.
func (m *Mirror) Geometry() block.Geometry { return m.core.Geometry() }

// Submit begins a request; see block.Device.
func (m *Mirror) Submit(r *block.Request) { m.core.Submit(r) }

// StartResync begins to bring the replica of node into the in-sync set; see Core.StartResync. The node is reached through
// Sessions first.
func (m *Mirror) StartResync(ctx context.Context, node ids.Node, empty bool) error { return nil }

// StopResync ends the resync of node, unless its joining is proposed already.
func (m *Mirror) StopResync(node ids.Node) {}

// Drain prepares a hand-over: it returns when nothing is under way and all marks are cleared, or with ctx's error. New
// requests wait; Close ends them with block.ErrEnded.
func (m *Mirror) Drain(ctx context.Context) error { return nil }

// Done is closed when the mirror has ended, by itself (another epoch) or by Close; Err says why then.
func (m *Mirror) Done() <-chan struct{} { return nil }
func (m *Mirror) Err() error            { return nil }

// Close ends the mirror with a cause and waits until every request was answered and nothing of it runs any more. Calls
// under way are waited for: the owner of the sessions closes those that hang.
func (m *Mirror) Close(cause error) {}

// Status describes the mirror.
func (m *Mirror) Status() Status { return m.core.Status() }

var _ block.Device = (*Mirror)(nil)

package reign

import (
	"context"

	"pmsapp/internal/ids"
	"pmsapp/replication/truth"
)

// Reign is the shell around Core: it carries out its effects and tells it what happens. All methods are safe for
// concurrent use.
type Reign struct{}

// New starts a Reign that does not lead. Close ends it.
func New(cfg Config, d Deps) (*Reign, error) { return &Reign{}, nil }

// Lead says that this node is Raft's leader and that a barrier has passed: the catalog's View has everything committed before.
func (r *Reign) Lead() {}

// Follow says that this node is not Raft's leader. It returns at once; Standby is observed for each volume.
func (r *Reign) Follow() {}

// ViewChanged says that the catalog's View is newer.
func (r *Reign) ViewChanged() {}

// Suspect and Alive are gossip's opinion of a node.
func (r *Reign) Suspect(n ids.Node) {}
func (r *Reign) Alive(n ids.Node)   {}

// CreateVolume makes the replicas of a volume and then the volume (invariant 15). Request is set by Reign.
func (r *Reign) CreateVolume(ctx context.Context, req CreateVolume) (truth.Volume, error) {
	return truth.Volume{}, ErrClosed
}

// DeleteVolume drains a served volume, deletes it from the catalog, and then its replicas (invariant 17).
func (r *Reign) DeleteVolume(ctx context.Context, v ids.Volume) error { return ErrClosed }

// HandOver drains all volumes and gives the leadership to a node, or to the best one if to is zero. It returns nil when
// this node leads no more.
func (r *Reign) HandOver(ctx context.Context, to ids.Node) error { return ErrClosed }

// RestartResync has a resync that failed tried again now.
func (r *Reign) RestartResync(ctx context.Context, v ids.Volume, n ids.Node) error { return ErrClosed }

// Status is a snapshot.
func (r *Reign) Status() Status { return Status{} }

// Close ends everything: mirrors (what they hold ends with block.ErrEnded), sessions, goroutines. It returns when nothing
// of it runs any more.
func (r *Reign) Close(cause error) {}

package appliance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"pmsapp/appliance/adapt"
	"pmsapp/cluster"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/reign"
	"pmsapp/replication/remote"
	"pmsapp/replication/replica"
	"pmsapp/replication/truth"
)

// truths is the cluster as package truth wants it.
type truths struct {
	c      *cluster.Cluster
	limits *limits

	mu   sync.Mutex
	of   *catalog.State // which view is the translation of
	view *truth.View
}

// View implements truth.Catalog.
func (t *truths) View() *truth.View {
	s := t.c.State()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of != s {
		t.of, t.view = s, adapt.View(s)
	}
	return t.view
}

// Propose implements truth.Catalog.
func (t *truths) Propose(ctx context.Context, p truth.Proposal) (truth.Outcome, error) {
	b, err := adapt.Body(p)
	if err != nil {
		return truth.Outcome{}, err
	}
	switch x := b.(type) {
	case catalog.AddReplica:
		x.Limits = t.limits.get(x.Volume)
		b = x
	case catalog.ResizeVolume:
		x.Limits = t.limits.get(x.Volume)
		b = x
	}
	r, err := t.c.Propose(ctx, catalog.Command{Body: b})
	if err = t.verdict(err, p); err != nil {
		return truth.Outcome{}, err
	}
	return adapt.Outcome(r), nil
}

// verdict tells rejections from outcomes that are not known. One that Raft did not even take counts as unknown too: who
// proposed it leads no more, and will be told.
func (t *truths) verdict(err error, p truth.Proposal) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cluster.ErrNotLeader), errors.Is(err, cluster.ErrUnknown):
		return fmt.Errorf("%w: %w", truth.ErrUnknown, err)
	}
	return adapt.Rejected(err, p, t.c.State())
}

// reignCluster is the cluster as package reign wants it.
type reignCluster struct {
	*truths
	self   func() reign.Report
	space  func(ctx context.Context) []reign.Space
	report func(ctx context.Context, n ids.Node) (reign.Report, error)
	keep   func() time.Duration // how long deleted volumes stay in the trash
}

// TransferLeadership implements reign.Cluster.
func (r reignCluster) TransferLeadership(ctx context.Context, to ids.Node) error {
	return r.c.Transfer(ctx, to)
}

// Report implements reign.Cluster.
func (r reignCluster) Report(ctx context.Context, n ids.Node) (reign.Report, error) {
	if n == r.c.Self() {
		return r.self(), nil
	}
	return r.report(ctx, n)
}

// Space implements reign.Cluster.
func (r reignCluster) Space(ctx context.Context) []reign.Space { return r.space(ctx) }

// CreateVolume implements reign.Cluster.
func (r reignCluster) CreateVolume(ctx context.Context, e peer.Epoch, v truth.Volume) error {
	_, err := r.c.Propose(ctx, catalog.Command{Body: catalog.CreateVolume{Epoch: uint64(e), Volume: adapt.CatalogVolume(v), Limits: r.limits.get(v.ID)}})
	return r.verdict(err, nil)
}

// DeleteVolume implements reign.Cluster.
func (r reignCluster) DeleteVolume(ctx context.Context, e peer.Epoch, v ids.Volume, version uint64) error {
	_, err := r.c.Propose(ctx, catalog.Command{Body: catalog.DeleteVolume{Epoch: uint64(e), Volume: v, Version: version, Keep: int64(r.keep().Seconds())}})
	return r.verdict(err, nil)
}

// dialer opens sessions: with this node without a message, with others by iSCSI.
type dialer struct {
	self   ids.Node
	local  *replica.Node
	limit  func() time.Duration // recovery_timeout
	remote *remote.Dialer
}

// Open implements peer.Dialer.
func (d dialer) Open(ctx context.Context, n ids.Node, e peer.Epoch) (peer.Session, error) {
	if n == d.self {
		s, err := d.local.Open(ctx, e)
		if err != nil {
			return nil, err
		}
		return replica.Guard(s, d.limit()), nil
	}
	return d.remote.Open(ctx, n, e)
}

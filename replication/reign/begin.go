package reign

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// reportTimeout bounds the question to a node whether it could lead.
const reportTimeout = time.Second

// begin carries out an effect, or starts the goroutine that does. The lock is held.
func (r *Reign) begin(e Effect) {
	switch e := e.(type) {
	case Propose:
		r.wg.Go(func() { r.propose(e) })
	case OpenSession:
		r.openSession(e)
	case CloseSession:
		r.closeSession(e)
	case Poll:
		r.poll(e)
	case OpenMirror:
		r.openMirror(e)
	case DrainMirror:
		r.drainMirror(e)
	case CloseMirror:
		r.closeMirror(e)
	case StartResync:
		r.startResync(e)
	case StopResync:
		r.tellMirror(e.Volume, func(m Mirror) { m.StopResync(e.Node) })
	case AskSpace:
		r.wg.Go(func() { r.step(Spaced{Space: r.d.Cluster.Space(r.ctx)}) })
	case ResizeMirror:
		r.resizeMirror(e.Volume)
	case SetDurability:
		r.setDurability(e)
	case RetireMember:
		r.tellMirror(e.Volume, func(m Mirror) { m.Retire(e.Node, e.Set) })
	case Command:
		r.command(e)
	case ProposeCreate:
		r.wg.Go(func() {
			r.vote(e.Volume.ID, e.Epoch, func(ctx context.Context) error { return r.d.Cluster.CreateVolume(ctx, e.Epoch, e.Volume) })
		})
	case ProposeDelete:
		r.wg.Go(func() {
			r.vote(e.Volume, e.Epoch, func(ctx context.Context) error { return r.d.Cluster.DeleteVolume(ctx, e.Epoch, e.Volume, e.Version) })
		})
	case AskReports:
		for _, n := range e.Nodes {
			r.wg.Go(func() { r.report(n) })
		}
	case TransferLeadership:
		r.wg.Go(func() { r.transfer(e.To) })
	case Reply:
		if done := r.waiting[e.Request]; done != nil {
			delete(r.waiting, e.Request)
			done <- e // it has room for one, and gets one
		}
	case Tell:
		r.notes.add(false, func() { r.d.Observer.Event(e) })
	default:
		panic(fmt.Sprintf("reign: effect %T has no meaning here", e))
	}
}

// outcome has an error be one of those that a proposal ends with: whatever else it is, the outcome is not known.
func outcome(err error) error {
	if err == nil || errors.Is(err, truth.ErrRejected) || errors.Is(err, truth.ErrUnknown) {
		return err
	}
	return fmt.Errorf("%w: %w", truth.ErrUnknown, err)
}

func (r *Reign) propose(e Propose) {
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.CallTimeout)
	defer cancel()
	out, err := r.d.Catalog.Propose(ctx, e.P)
	r.step(Decided{ID: e.ID, Outcome: out, Err: outcome(err), View: r.d.Catalog.View()})
}

func (r *Reign) vote(v ids.Volume, epoch peer.Epoch, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.CallTimeout)
	defer cancel()
	err := f(ctx)
	r.step(VolumeDecided{Volume: v, Epoch: epoch, Err: outcome(err), View: r.d.Catalog.View()})
}

func (r *Reign) report(n ids.Node) {
	ctx, cancel := context.WithTimeout(r.ctx, reportTimeout)
	defer cancel()
	rep, err := r.d.Cluster.Report(ctx, n)
	if err != nil {
		r.log.Debug("no report", "node", n.String(), "error", err)
		rep = Report{} // not electable: so that nobody waits for it
	}
	r.step(Reported{Node: n, Report: rep})
}

func (r *Reign) transfer(to ids.Node) {
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.DrainTimeout)
	defer cancel()
	if err := r.d.Cluster.TransferLeadership(ctx, to); err != nil {
		r.step(TransferFailed{Err: err})
	}
}

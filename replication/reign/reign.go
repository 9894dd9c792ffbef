package reign

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/truth"
)

// Reign is the shell around Core: it carries out its effects and tells it what happens. All methods are safe for
// concurrent use. It owns the sessions with the nodes and the mirrors, and every goroutine that it starts; Close ends them.
//
// One lock guards Core and what belongs to it. Effects are begun under it and never wait: what takes time has a goroutine,
// whose end is the next event. Mirrors, sessions and the observer are never called under it.
type Reign struct {
	cfg    Config
	d      Deps
	log    *slog.Logger
	start  time.Time
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	notes  notes
	wg     sync.WaitGroup

	mu      sync.Mutex // guards what follows
	core    *Core
	closed  bool
	links   map[ids.Node]*link
	mirrors map[ids.Volume]*handle
	waiting map[uint64]chan Reply // admin requests
	request uint64
}

// New starts a Reign that does not lead. Close ends it.
func New(cfg Config, d Deps) (*Reign, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if d.Self.IsZero() || d.Catalog == nil || d.Dialer == nil || d.Cluster == nil || d.Observer == nil || d.Log == nil {
		return nil, fmt.Errorf("%w: a dependency is missing", ErrConfig)
	}
	if d.OpenMirror == nil {
		d.OpenMirror = func(ctx context.Context, c mirror.Config) (Mirror, error) { return mirror.Open(ctx, c) }
	}
	r := &Reign{
		cfg: cfg, d: d, log: d.Log, start: time.Now(), timer: time.NewTimer(time.Hour),
		core: NewCore(cfg, d.Self), links: make(map[ids.Node]*link), mirrors: make(map[ids.Volume]*handle),
		waiting: make(map[uint64]chan Reply), notes: notes{wake: make(chan struct{}, 1)},
	}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	r.wg.Go(r.tick)
	r.wg.Go(func() { r.notes.run(r.ctx) })
	return r, nil
}

// tick tells Core the time when it wants to know.
func (r *Reign) tick() {
	for {
		select {
		case <-r.timer.C:
			r.step(Tick{})
		case <-r.ctx.Done():
			r.timer.Stop()
			return
		}
	}
}

// step tells Core what happened and begins what it wants done.
func (r *Reign) step(ev Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stepLocked(ev)
}

func (r *Reign) stepLocked(ev Event) {
	if r.closed {
		return
	}
	for _, e := range r.core.Step(time.Since(r.start), ev) {
		r.begin(e)
	}
	if at, ok := r.core.Next(); ok {
		r.timer.Reset(max(at-time.Since(r.start), 0))
	}
}

// Lead says that this node is Raft's leader and that a barrier has passed: the catalog's View has everything committed
// before.
func (r *Reign) Lead() { r.step(Leading{View: r.d.Catalog.View()}) }

// Follow says that this node is not Raft's leader. It returns at once; Standby is observed for each volume.
func (r *Reign) Follow() { r.step(Following{}) }

// ViewChanged says that the catalog's View is newer.
func (r *Reign) ViewChanged() { r.step(Changed{View: r.d.Catalog.View()}) }

// Suspect and Alive are gossip's opinion of a node.
func (r *Reign) Suspect(n ids.Node) { r.step(Suspected{Node: n}) }
func (r *Reign) Alive(n ids.Node)   { r.step(Alive{Node: n}) }

// CreateVolume makes the replicas of a volume and then the volume (invariant 15). Request is set by Reign. After an error
// that is not a refusal it may be repeated with the same ids, here or at the new leader.
func (r *Reign) CreateVolume(ctx context.Context, req CreateVolume) (truth.Volume, error) {
	reply, err := r.ask(ctx, func(id uint64) Event { req.Request = id; return req })
	if err != nil {
		return truth.Volume{}, err
	}
	return reply.Volume, nil
}

// DeleteVolume drains a served volume, deletes it from the catalog, and then its replicas (invariant 17).
func (r *Reign) DeleteVolume(ctx context.Context, v ids.Volume) error {
	_, err := r.ask(ctx, func(id uint64) Event { return DeleteVolume{Request: id, Volume: v} })
	return err
}

// HandOver drains all volumes and gives the leadership to a node, or to the best one if to is zero. It returns nil when
// this node leads no more.
func (r *Reign) HandOver(ctx context.Context, to ids.Node) error {
	_, err := r.ask(ctx, func(id uint64) Event { return HandOver{Request: id, To: to} })
	return err
}

// RestartResync has a resync that failed tried again now.
func (r *Reign) RestartResync(ctx context.Context, v ids.Volume, n ids.Node) error {
	_, err := r.ask(ctx, func(id uint64) Event { return RestartResync{Request: id, Volume: v, Node: n} })
	return err
}

// ForceVolume has a volume go on with one replica. Request is set by Reign.
func (r *Reign) ForceVolume(ctx context.Context, req ForceVolume) error {
	_, err := r.ask(ctx, func(id uint64) Event { req.Request = id; return req })
	return err
}

// Candidates describes the replicas of a volume that may be forced; the error says why it may not now.
func (r *Reign) Candidates(v ids.Volume) ([]Candidate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stepLocked(Tick{}) // so that it knows the time
	return r.core.Candidates(v)
}

// AddReplica gives a volume a replica. Request is set by Reign.
func (r *Reign) AddReplica(ctx context.Context, req AddReplica) error {
	_, err := r.ask(ctx, func(id uint64) Event { req.Request = id; return req })
	return err
}

// Tune changes how long a replica is out of reach before it is made anew elsewhere; 0: never.
func (r *Reign) Tune(replaceAfter time.Duration) { r.step(Tuned{ReplaceAfter: replaceAfter}) }

// ResizeVolume makes a volume larger. Request is set by Reign.
func (r *Reign) ResizeVolume(ctx context.Context, v ids.Volume, size int64) error {
	_, err := r.ask(ctx, func(id uint64) Event { return ResizeVolume{Request: id, Volume: v, Size: size} })
	return err
}

// RemoveReplica takes a replica from a volume. Request is set by Reign.
func (r *Reign) RemoveReplica(ctx context.Context, req RemoveReplica) error {
	_, err := r.ask(ctx, func(id uint64) Event { req.Request = id; return req })
	return err
}

// ask makes an admin's request and waits for its Reply. ctx bounds the wait, not what was begun.
func (r *Reign) ask(ctx context.Context, event func(id uint64) Event) (Reply, error) {
	done := make(chan Reply, 1)
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return Reply{}, ErrClosed
	}
	r.request++
	id := r.request
	r.waiting[id] = done
	r.stepLocked(event(id))
	r.mu.Unlock()
	select {
	case reply := <-done:
		return reply, reply.Err
	case <-ctx.Done():
		r.mu.Lock()
		delete(r.waiting, id)
		r.mu.Unlock()
		return Reply{}, context.Cause(ctx)
	}
}

// Status is a snapshot.
func (r *Reign) Status() Status {
	r.mu.Lock()
	st := r.core.Status()
	open := make(map[ids.Volume]Mirror)
	for i := range st.Volumes {
		if h := r.mirrors[st.Volumes[i].Volume]; h != nil && h.m != nil && len(st.Volumes[i].Resyncs) > 0 {
			open[st.Volumes[i].Volume] = h.m
		}
	}
	r.mu.Unlock()
	for i := range st.Volumes {
		m := open[st.Volumes[i].Volume]
		if m == nil {
			continue
		}
		for k, rs := 0, m.Status().Resync; rs != nil && k < len(st.Volumes[i].Resyncs); k++ {
			if x := &st.Volumes[i].Resyncs[k]; x.Node == rs.Node {
				x.Done, x.Total, x.ETASeconds = rs.Done, rs.Total, int64(rs.ETA)
			}
		}
	}
	return st
}

// Close ends everything: mirrors (what they hold ends with block.ErrEnded), sessions, goroutines. It returns when nothing
// of it runs any more.
func (r *Reign) Close(cause error) {
	r.mu.Lock()
	if !r.closed {
		r.stepLocked(Following{})
		r.closed = true
		r.log.Info("reign ends", "cause", cause)
	}
	r.mu.Unlock()
	if cause == nil {
		cause = ErrClosed
	}
	r.cancel(cause)
	r.wg.Wait()
}

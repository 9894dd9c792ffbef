// Package shares has the shares of this node: which are exported, and those that it serves, open. It is what the NFS front
// door asks (nfs.Exports).
package shares

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
	"pmsapp/nfs/share"
)

// ErrNotServed is returned for a share that exists and that this node does not serve: the client finds who does.
var ErrNotServed = errors.New("shares: this node does not serve the share")

// Config is what Shares needs.
type Config struct {
	// Catalog is the catalog to one share under one epoch.
	Catalog func(v ids.Volume, epoch uint64) share.Catalog
	// Exports are those of the newest state, Export is one of them, nil if there is none: the same pointer as long as nothing of it
	// has changed. Nobody changes what they return. Certain tells whether that is all that exist: this node leads, and a majority
	// has said so since it was called (invariant 11).
	Exports func() []*nfs.Export
	Export  func(ids.Volume) *nfs.Export
	Certain func(context.Context) bool
	Hold    func() time.Duration // hold_timeout
	Log     *slog.Logger
}

// Shares has the shares of this node. Its methods are safe for concurrent use and, but for ByShare and Close, do not block.
type Shares struct {
	cfg  Config
	work sync.WaitGroup

	mu      sync.Mutex // guards what follows
	serving map[ids.Volume]*served
	closing map[ids.Volume][]nfs.Rule // instead of those of the catalog, while those are being changed
	leading bool                      // some share is served here, or may be soon
	changed chan struct{}             // closed when any of the above changes
}

// served is a share on its way to be open, open, or on its way to be closed.
type served struct {
	cancel context.CancelCauseFunc
	share  *share.Share  // nil while it is not open
	from   *nfs.Export   // the catalog's, of which
	export *nfs.Export   // is a copy with share
	gone   chan struct{} // closed when nothing of it can reach the device any more
}

// New returns Shares of a node that serves none.
func New(cfg Config) *Shares {
	return &Shares{cfg: cfg, serving: map[ids.Volume]*served{}, closing: map[ids.Volume][]nfs.Rule{}, changed: make(chan struct{})}
}

// change tells those who wait. Called with mu.
func (s *Shares) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Lead says whether this node leads: then a share that is not served may be soon.
func (s *Shares) Lead(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leading = is
	s.change()
}

// Serve opens a share on dev, under the epoch that serves it, as soon as what was served before of it is closed.
func (s *Shares) Serve(v ids.Volume, epoch uint64, dev block.Device) {
	ctx, cancel := context.WithCancelCause(context.Background())
	x := &served{cancel: cancel, gone: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.serving[v]
	if before != nil {
		before.cancel(ErrNotServed)
	}
	s.serving[v] = x
	s.work.Go(func() {
		defer close(x.gone)
		if before != nil {
			<-before.gone
		}
		s.keepOpen(ctx, x, v, epoch, dev)
	})
}

// reopen is how long a share that ended, or could not be opened, stays closed.
const reopen = 200 * time.Millisecond

// keepOpen keeps a share open until ctx ends. A share ends by itself if it does not know what became of a command.
func (s *Shares) keepOpen(ctx context.Context, x *served, v ids.Volume, epoch uint64, dev block.Device) {
	for ctx.Err() == nil {
		sh, err := share.Open(ctx, share.Config{ID: v, Device: dev, Catalog: s.cfg.Catalog(v, epoch), Now: time.Now, Log: s.cfg.Log})
		if err == nil {
			s.set(x, sh)
			select {
			case <-ctx.Done():
			case <-sh.Done():
			}
			s.set(x, nil)
			sh.Close(fmt.Errorf("%w: %w", block.ErrEnded, ErrNotServed))
		} else if ctx.Err() == nil {
			s.cfg.Log.Warn("a share could not be opened yet", "volume", v.String(), "epoch", epoch, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reopen):
		}
	}
}

func (s *Shares) set(x *served, sh *share.Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.share, x.from, x.export = sh, nil, nil
	s.change()
}

// Standby says that this node does not serve a share any more. Calls under way get no answer.
func (s *Shares) Standby(v ids.Volume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.serving[v]; x != nil {
		x.cancel(ErrNotServed)
		x.share = nil
		delete(s.serving, v)
		s.change()
	}
}

// Close ends all shares, and waits for that. Their devices must answer.
func (s *Shares) Close() {
	s.mu.Lock()
	for v, x := range s.serving {
		x.cancel(ErrNotServed)
		delete(s.serving, v)
	}
	s.leading = false
	s.change()
	s.mu.Unlock()
	s.work.Wait()
}

// Open tells whether a share is.
func (s *Shares) Open(v ids.Volume) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.serving[v]
	return x != nil && x.share != nil
}

// Restrict has these rules hold for a share until undo is called: before others are committed, so that what they forbid ends. With none nobody is
// told that he may not use it, for that is not decided: calls, those that are held too, end as on a node that does not serve it.
func (s *Shares) Restrict(v ids.Volume, rules []nfs.Rule) (undo func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing[v] = rules
	s.change()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.closing, v)
	}
}

// All implements nfs.Exports.
func (s *Shares) All() []*nfs.Export {
	all := slices.Clone(s.cfg.Exports())
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range all {
		all[i] = s.opened(e)
	}
	slices.SortFunc(all, func(a, b *nfs.Export) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// opened returns an export of the catalog with its share, if that is open, and the rules that hold now. Called with mu. It is asked at
// each call of a client, so what it returned is kept.
func (s *Shares) opened(e *nfs.Export) *nfs.Export {
	x := s.serving[e.ID]
	rules, restricted := s.closing[e.ID]
	open := x != nil && x.share != nil
	switch {
	case !open && !restricted:
		return e
	case open && !restricted && x.from == e:
		return x.export
	}
	with := *e
	if restricted {
		with.Rules = rules
	}
	if open {
		with.Share = x.share
	}
	if open && !restricted {
		x.from, x.export = e, &with
	}
	return &with
}

// look returns an export, with its share if that is open; nil if there is none. closes says that it is about to be none. changed is closed when that
// may have changed.
func (s *Shares) look(v ids.Volume) (e *nfs.Export, leading, closes bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e = s.cfg.Export(v); e != nil {
		e = s.opened(e)
	}
	rules, restricted := s.closing[v]
	return e, s.leading, restricted && len(rules) == 0, s.changed
}

// ByShare implements nfs.Exports.
func (s *Shares) ByShare(ctx context.Context, v ids.Volume) (*nfs.Export, error) {
	var held <-chan time.Time
	for {
		e, leading, closes, changed := s.look(v)
		switch {
		case e == nil && s.cfg.Certain(ctx):
			if s.cfg.Export(v) == nil {
				return nil, nfs3.ErrStale
			}
			continue
		case e == nil, closes, e.Share == nil && !leading:
			return nil, ErrNotServed
		case e.Share != nil:
			return e, nil
		}
		if held == nil {
			held = time.After(s.cfg.Hold())
		}
		select {
		case <-changed:
		case <-held:
			return nil, block.ErrHeld
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

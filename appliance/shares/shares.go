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
	// Exports are those of the newest state; Certain tells whether that is all that exist: this node leads, and a majority has
	// said so since it was called (invariant 11).
	Exports func() []*nfs.Export
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
	x.share = sh
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

// open returns a share that is open, and a channel that is closed when that may have changed.
func (s *Shares) open(v ids.Volume) (sh nfs.Share, leading bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.serving[v]; x != nil && x.share != nil {
		sh = x.share
	}
	return sh, s.leading, s.changed
}

// Open tells whether a share is.
func (s *Shares) Open(v ids.Volume) bool {
	sh, _, _ := s.open(v)
	return sh != nil
}

// Restrict has these rules hold for a share until undo is called: before others are committed, so that what they forbid ends.
func (s *Shares) Restrict(v ids.Volume, rules []nfs.Rule) (undo func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing[v] = rules
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.closing, v)
	}
}

// exports are the catalog's, but for those that are being changed.
func (s *Shares) exports() []*nfs.Export {
	all := s.cfg.Exports()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range all {
		if rules, is := s.closing[e.ID]; is {
			e.Rules = rules
		}
	}
	return all
}

// All implements nfs.Exports.
func (s *Shares) All() []*nfs.Export {
	all := s.exports()
	for _, e := range all {
		e.Share, _, _ = s.open(e.ID)
	}
	slices.SortFunc(all, func(a, b *nfs.Export) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// ByShare implements nfs.Exports.
func (s *Shares) ByShare(ctx context.Context, v ids.Volume) (*nfs.Export, error) {
	held := time.NewTimer(s.cfg.Hold())
	defer held.Stop()
	for {
		sh, leading, changed := s.open(v)
		e := find(s.exports(), v)
		switch {
		case e == nil && s.cfg.Certain(ctx):
			if find(s.cfg.Exports(), v) == nil {
				return nil, nfs3.ErrStale
			}
			continue
		case e == nil, sh == nil && !leading:
			return nil, ErrNotServed
		case sh != nil:
			e.Share = sh
			return e, nil
		}
		select {
		case <-changed:
		case <-held.C:
			return nil, block.ErrHeld
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func find(all []*nfs.Export, v ids.Volume) *nfs.Export {
	for _, e := range all {
		if e.ID == v {
			return e
		}
	}
	return nil
}

package share

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// ErrClosed is the cause of a share's end when Close was called. It is a block.ErrEnded.
var ErrClosed = fmt.Errorf("share: it is no longer served here: %w", block.ErrEnded)

// Catalog is the cluster's catalog, to one share under one epoch.
type Catalog interface {
	// Tree is the newest tree that was applied on this node; nil if the share was deleted.
	Tree() *filetree.Tree
	// Propose has a batch applied under the epoch (invariants 2, 17) and returns its results when Tree has it. With an error
	// it is not known to have been applied, and the share must end. ctx bounds the wait.
	Propose(ctx context.Context, b filetree.Batch) ([]filetree.Result, error)
}

// Config is what a Share is made of.
type Config struct {
	ID      ids.Volume
	Device  block.Device
	Catalog Catalog
	Now     func() time.Time
	Log     *slog.Logger
}

// Share is an open share. It implements nfs.Share. It has goroutines of its own, from Open to Close.
type Share struct {
	cfg   Config
	log   *slog.Logger
	block int64 // the device's logical block
	// As the device was at the opening: it is opened anew when one of them changes.
	volatile bool   // what is not flushed may be lost
	losses   uint64 // how often that may have happened

	ctx    context.Context // ends with the share; its cause is an ErrEnded
	cancel context.CancelCauseFunc
	work   sync.WaitGroup

	proposals chan *proposal
	ahead     pool
	pins      pins
	clean     chan struct{} // has room for one: there is something to zero or to free
	cleaned   progress

	times clock
	files table
}

var _ nfs.Share = (*Share)(nil)

// Open takes a share over: all space that a former leader had ahead is to be zeroed, and the times of files that were being
// written are later than any that was shown. It returns when that is committed. The device must be open already.
func Open(ctx context.Context, cfg Config) (*Share, error) {
	t := cfg.Catalog.Tree()
	if t == nil {
		return nil, fmt.Errorf("opening a share: %w", nfs3.ErrStale)
	}
	g := cfg.Device.Geometry()
	if filetree.Block%g.Logical != 0 {
		return nil, fmt.Errorf("opening a share: blocks of %d bytes", g.Logical)
	}
	s := &Share{cfg: cfg, log: cfg.Log.With("share", cfg.ID.String()), block: int64(g.Logical), volatile: g.Volatile, losses: g.Losses, proposals: make(chan *proposal, maxQueued),
		clean: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.times.now = cfg.Now
	s.times.last = t.Clock()
	s.pins.init()
	s.cleaned.init()
	s.files.init()
	s.ahead.refill = make(turn, 1)
	s.ahead.target = min(max(t.Size()/64&^(filetree.Block-1), minAhead), maxAhead)
	for range proposers {
		s.work.Go(s.propose)
	}
	if _, err := s.change(ctx, filetree.Op{Kind: filetree.Open}); err != nil {
		s.Close(nil)
		return nil, fmt.Errorf("opening a share: %w", err)
	}
	s.work.Go(s.cleanUp)
	s.work.Go(s.keepTimes)
	s.look()
	return s, nil
}

// Close ends the share with a cause, and returns when nothing of it can reach the device any more: calls under way end with an
// ErrEnded. The device must answer what was submitted. Only then may the share be opened again under the same epoch.
func (s *Share) Close(cause error) {
	if cause == nil {
		cause = ErrClosed
	}
	s.end(cause)
	s.work.Wait()
	s.pins.empty() // look-ups that begin now submit nothing
}

// end makes the share useless: what it believes may no longer be so.
func (s *Share) end(cause error) {
	if !errors.Is(cause, block.ErrEnded) {
		cause = fmt.Errorf("%w: %w", block.ErrEnded, cause)
	}
	s.cancel(cause)
}

// Done is closed when the share has ended, by itself or by Close.
func (s *Share) Done() <-chan struct{} { return s.ctx.Done() }

// look wakes whoever zeroes.
func (s *Share) look() {
	select {
	case s.clean <- struct{}{}:
	default:
	}
}

// tree is the newest one.
func (s *Share) tree() (*filetree.Tree, error) {
	if t := s.cfg.Catalog.Tree(); t != nil {
		return t, nil
	}
	return nil, nfs3.ErrStale
}

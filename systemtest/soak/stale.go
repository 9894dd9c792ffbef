package soak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"pmsapp/replication/initiator"
)

// watcher is a host that stays with one node's portal and reads there, whatever happens: a leader that was stopped and goes
// on must not answer with what is no longer so (invariant 11).
type watcher struct {
	rec     *record
	answers atomic.Int64
	cancel  context.CancelFunc
	work    sync.WaitGroup
	failed  atomic.Value // error
}

func watchPortal(ctx context.Context, rec *record, portal, target string, lun int) *watcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{rec: rec, cancel: cancel}
	w.work.Go(func() {
		for ctx.Err() == nil {
			w.session(ctx, portal, target, lun)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return w
}

// session logs in and reads until the session dies. Timeouts are off: it waits for a stopped node.
func (w *watcher) session(ctx context.Context, portal, target string, lun int) {
	s, err := initiator.Dial(ctx, initiator.Config{Portal: portal, Initiator: "iqn.2026-11.app.pmsapp:watcher", Target: target,
		Timeouts: initiator.Timeouts{Login: 5 * time.Second, Logout: time.Second}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return
	}
	defer func() { s.Close(); <-s.Done() }()
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	// Several at once: some are with the node when it stops, and are answered when it goes on.
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			random := rand.New(rand.NewPCG(w.rec.seed, uint64(2000+i)))
			for ctx.Err() == nil && s.Err() == nil {
				err := w.rec.readBlocks(ctx, raw{s, lun}, random.IntN(len(w.rec.blocks)), 1)
				switch {
				case err == nil:
					w.answers.Add(1)
				case errors.Is(err, errNoAnswer):
					return
				default:
					w.failed.CompareAndSwap(nil, fmt.Errorf("the portal %s: %w", portal, err))
					return
				}
			}
		})
	}
	work.Wait()
}

func (w *watcher) stop() error {
	w.cancel()
	w.work.Wait()
	err, _ := w.failed.Load().(error)
	return err
}

// errNoAnswer is returned when there was no answer with data, which is always right.
var errNoAnswer = errors.New("no data")

// raw reads by one session, without repeating anything.
type raw struct {
	s   *initiator.Session
	lun int
}

func (r raw) ReadAt(_ context.Context, p []byte, off int64) error {
	ended := make(chan struct{})
	lba, n := off/512, len(p)/512
	c := &initiator.Command{LUN: uint64(r.lun) << 48, DataIn: p, Done: func(*initiator.Command) { close(ended) },
		CDB: []byte{0x88, 0, byte(lba >> 56), byte(lba >> 48), byte(lba >> 40), byte(lba >> 32), byte(lba >> 24), byte(lba >> 16),
			byte(lba >> 8), byte(lba), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 0, 0}}
	r.s.Submit(c)
	<-ended
	if c.Err != nil || c.Status != initiator.StatusGood || c.Received != len(p) {
		return fmt.Errorf("%w: %v, status %#x", errNoAnswer, c.Err, c.Status)
	}
	return nil
}

package soak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"pmsapp/replication/initiator"
)

const (
	askEvery = 20 * time.Millisecond
	mostOpen = 256 // reads that wait for the portal at once
)

// watcher is a host that stays with one node's portal and reads there, whatever happens: a leader that was stopped and goes
// on must not answer with what is no longer so (invariant 11).
//
// An answer to a read that was under way at the stop shows nothing, since it may be as old as the read. What shows something are
// reads that are sent to the stopped process, of blocks that the next leader has acknowledged meanwhile: they lie in the socket
// when the process goes on. Nothing else is sent to it, so that they are the first that it meets.
type watcher struct {
	rec     *record
	answers atomic.Int64 // with data
	stops   atomic.Bool  // the node is about to be stopped, or is: only telling reads are sent
	after   atomic.Int64 // reads are telling once more writes than that have ended; 0: not yet
	telling atomic.Int64 // how many were sent
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
			case <-time.After(askEvery):
			}
		}
	})
	return w
}

// stopped is called when the node has stood still for so long that every write that it answered has ended: those that end from now
// on are the next leader's.
func (w *watcher) stopped() { w.after.Store(int64(w.rec.count())) }

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
	var work sync.WaitGroup
	defer work.Wait()
	open := make(chan struct{}, mostOpen)
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.Done():
			return
		case <-ctx.Done():
			s.Close()
			return
		}
		after := w.after.Load()
		tells := after > 0 && int64(w.rec.count()) > after
		if w.stops.Load() && !tells {
			continue
		}
		select {
		case open <- struct{}{}:
		default:
			continue
		}
		if tells {
			w.telling.Add(1)
		}
		n := w.rec.newest()
		work.Go(func() {
			defer func() { <-open }()
			switch err := w.rec.readBlocks(ctx, raw{s, lun}, n, 1); {
			case err == nil:
				w.answers.Add(1)
			case !errors.Is(err, errNoAnswer):
				w.failed.CompareAndSwap(nil, fmt.Errorf("the portal %s: %w", portal, err))
			}
		})
	}
}

// reads waits until the portal has answered with data: only then is a later silence one of the node's.
func (w *watcher) reads(ctx context.Context) error {
	limit := time.After(stuck)
	for w.answers.Load() == 0 {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-limit:
			return errors.New("the leader's own portal answers no read")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
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

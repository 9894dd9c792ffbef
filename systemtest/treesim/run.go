package treesim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"pmsapp/internal/filetree"
	"pmsapp/nfs"
)

// Result is what a run has shown.
type Result struct {
	Err   error
	Stats map[string]int
}

// How many clients there are, and how many calls each makes.
const (
	clients = 5
	calls   = 60
)

// Run runs a seed within a bubble of t's.
func Run(t *testing.T, seed uint64, brk Break) (out Result) {
	var c *cluster
	synctest.Test(t, func(t *testing.T) {
		c = &cluster{isDir: map[uint64]bool{}, bytes: map[uint64][]*dataOp{}, looks: map[uint64][]look{}, dirs: []nfs.Ref{{Ino: filetree.Root, Gen: 7}}}
		c.w = newWorld(brk, seed, c.fail)
		random := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }
		ctx, cancel := context.WithCancel(t.Context())
		c.work.Go(func() { c.reigns(ctx, random(1)) })
		done := make(chan struct{}, clients)
		for i := range clients {
			go func() {
				(&client{c: c, id: i + 1, r: random(uint64(i) + 2)}).work(context.Background(), calls)
				done <- struct{}{}
			}()
		}
		for range clients {
			<-done
		}
		cancel()
		c.work.Wait()
		c.finish(context.Background(), random(99))
		c.work.Wait()
	})
	out.Stats = c.w.stats
	out.Stats["calls about names"] += len(c.names)
	if out.Err = c.err; out.Err == nil {
		out.Err = c.check(out.Stats)
	}
	if out.Err != nil {
		out.Err = fmt.Errorf("seed %d: %w", seed, out.Err)
	}
	return out
}

// check judges what was seen.
func (c *cluster) check(stats map[string]int) error {
	err := errTooLong
	if c.skipped == 0 {
		err = checkNames(c.names, c.isDir)
	}
	for ino, all := range c.bytes {
		stats["calls about bytes"] += len(all)
		if err == nil || errors.Is(err, errTooLong) {
			if e := checkBytes(ino, all); e != nil {
				err = e
			}
		}
	}
	if errors.Is(err, errTooLong) {
		stats["runs that were not judged"]++
		err = nil
	}
	if err == nil {
		err = c.checkTimes()
	}
	return err
}

// checkTimes: what a client has seen of a file never goes back, neither its times nor, at one time, its size; and a file that was
// never cut is at no later time shorter.
func (c *cluster) checkTimes() error {
	for ino, all := range c.looks {
		if c.isDir[ino] || ino == filetree.Root {
			continue
		}
		byReturn := slices.SortedFunc(slices.Values(all), func(a, b look) int { return cmp.Compare(a.ret, b.ret) })
		slices.SortFunc(all, func(a, b look) int { return cmp.Compare(a.call, b.call) })
		var latest look
		i := 0
		for _, l := range all {
			for ; i < len(byReturn) && byReturn[i].ret < l.call; i++ {
				if o := byReturn[i]; o.ctime > latest.ctime || o.ctime == latest.ctime && o.size > latest.size {
					latest = o
				}
			}
			if l.ctime < latest.ctime || l.mtime < latest.mtime || l.ctime == latest.ctime && l.size < latest.size {
				return fmt.Errorf("file %d goes back: %+v after %+v", ino, l, latest)
			}
		}
		if err := laterAfter(ino, all, c.bytes[ino]); err != nil {
			return err
		}
		if slices.ContainsFunc(c.bytes[ino], func(o *dataOp) bool { return o.kind == opCut }) {
			continue
		}
		slices.SortFunc(all, func(a, b look) int { return cmp.Or(cmp.Compare(a.ctime, b.ctime), cmp.Compare(a.size, b.size)) })
		for i := 1; i < len(all); i++ {
			if all[i].size < all[i-1].size {
				return fmt.Errorf("file %d was never cut, and is shorter at a later time: %+v, %+v", ino, all[i-1], all[i])
			}
		}
	}
	return nil
}

// laterAfter: a file that was changed has a later time than was seen before.
func laterAfter(ino uint64, looks []look, changes []*dataOp) error {
	for _, o := range changes {
		if o.kind == opRead || o.maybe {
			continue
		}
		var before look
		for _, l := range looks {
			if l.ret < o.call && l.ctime > before.ctime {
				before = l
			}
		}
		for _, l := range looks {
			if l.call > o.ret && l.ctime <= before.ctime {
				return fmt.Errorf("file %d has no later time after %v: %+v, then %+v", ino, o, before, l)
			}
		}
	}
	return nil
}

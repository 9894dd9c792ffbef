package treesim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
	"pmsapp/nfs/share"
)

// cluster has the share that is served, those of former leaders that do not know it yet, and what its clients have seen.
type cluster struct {
	w     *world
	clock atomic.Int64 // of events
	work  sync.WaitGroup

	mu      sync.Mutex // guards what follows
	serving *share.Share
	former  []*share.Share
	err     error
	values  uint32
	dirs    []nfs.Ref
	isDir   map[uint64]bool
	files   []nfs.Ref
	names   []*nameOp
	bytes   map[uint64][]*dataOp
	looks   map[uint64][]look
	skipped int
}

// look is what was seen of a file.
type look struct {
	call, ret    int64
	ctime, mtime int64
	size         uint64
}

func (c *cluster) now() int64 { return c.clock.Add(1) }

func (c *cluster) fail(format string, a ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = fmt.Errorf(format, a...)
	}
}

// pick is the share that a client reaches: the one that is served, or sometimes that of a former leader.
func (c *cluster) pick(r *rand.Rand) *share.Share {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.former); n > 0 && r.IntN(3) == 0 {
		return c.former[r.IntN(n)]
	}
	return c.serving
}

func (c *cluster) value() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values++
	return c.values
}

// skip says that the answers about names cannot be judged.
func (c *cluster) skip() {
	c.mu.Lock()
	c.skipped++
	c.mu.Unlock()
}

// dir is a directory that somebody has made, perhaps gone by now; file a file, none at first.
func (c *cluster) dir(r *rand.Rand) nfs.Ref {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.IntN(2) == 0 {
		return c.dirs[0]
	}
	return c.dirs[len(c.dirs)-1-r.IntN(min(3, len(c.dirs)))]
}

func (c *cluster) file(r *rand.Rand) (nfs.Ref, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.files) == 0 {
		return nfs.Ref{}, false
	}
	return c.files[len(c.files)-1-r.IntN(min(5, len(c.files)))], false
}

func (c *cluster) found(f nfs.Ref, dir bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if dir {
		c.dirs = append(c.dirs, f)
		c.isDir[f.Ino] = true
		return
	}
	for _, o := range c.files {
		if o == f {
			return
		}
	}
	c.files = append(c.files, f)
}

func (c *cluster) name(o *nameOp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names = append(c.names, o)
}

func (c *cluster) data(ino uint64, o *dataOp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes[ino] = append(c.bytes[ino], o)
}

// settled notes what a call about a file's bytes tells beyond them: whether the file is there, and how.
func (c *cluster) settled(f nfs.Ref, a *nfs3.Attr, b call) {
	switch {
	case b.unknown:
	case b.status == nfs3.ErrStale, b.status == nfs3.OK && b.tries == 1:
		c.name(&nameOp{kind: opStat, ino: f.Ino, call: b.begin, ret: b.end, status: b.status})
	}
	if a != nil && !b.unknown {
		c.seen(f.Ino, a, b)
	}
}

func (c *cluster) seen(ino uint64, a *nfs3.Attr, b call) {
	if a == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ns := func(t nfs3.Time) int64 { return int64(t.Seconds)*1e9 + int64(t.Nseconds) }
	c.looks[ino] = append(c.looks[ino], look{b.begin, b.end, ns(a.Ctime), ns(a.Mtime), a.Filesize})
}

// open opens the share of a leader, again if need be, until ctx ends or the leader is dead.
func (c *cluster) open(ctx context.Context, n *node, skew time.Duration) *share.Share {
	for ctx.Err() == nil {
		s, err := share.Open(ctx, share.Config{ID: ids.Volume{1}, Device: n, Catalog: n, Now: func() time.Time { return time.Now().Add(skew) }, Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			return s
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// reigns has leaders lead until ctx ends, one after the other.
func (c *cluster) reigns(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		life := time.Duration(r.Int64N(int64(80 * time.Millisecond)))
		if r.IntN(4) == 0 {
			life = time.Duration(r.Int64N(int64(30 * time.Second)))
		}
		lctx, cancel := context.WithTimeout(ctx, life)
		c.reign(lctx, c.w.begin(), time.Duration(r.IntN(120)-60)*time.Second, r)
		cancel()
		time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
	}
}

// reign is one leader's, until ctx ends.
func (c *cluster) reign(ctx context.Context, n *node, skew time.Duration, r *rand.Rand) {
	var s *share.Share
	defer func() {
		c.w.kill(n)
		c.mu.Lock()
		c.serving = nil
		late := s != nil && r.IntN(2) == 0
		if late { // it has not heard yet
			c.former = append(c.former, s)
		}
		c.mu.Unlock()
		if s == nil {
			return
		}
		wait := time.Duration(0)
		if late {
			wait = time.Duration(r.IntN([]int{60, 60, 60, 2000}[r.IntN(4)])) * time.Millisecond
		}
		c.work.Go(func() {
			time.Sleep(wait)
			c.mu.Lock()
			for i, o := range c.former {
				if o == s {
					c.former = append(c.former[:i:i], c.former[i+1:]...)
					break
				}
			}
			c.mu.Unlock()
			s.Close(nil)
		})
	}()
	for {
		if s = c.open(ctx, n, skew); s == nil {
			return
		}
		c.mu.Lock()
		c.serving = s
		c.mu.Unlock()
		haunted := time.AfterFunc(time.Duration(r.IntN(60))*time.Millisecond, c.w.haunt)
		select {
		case <-ctx.Done():
			haunted.Stop()
			return
		case <-s.Done(): // it does not know what became of a command
			haunted.Stop()
		}
		c.mu.Lock()
		c.serving = nil
		c.mu.Unlock()
		s.Close(nil)
		s = nil
	}
}

// finish looks at all that is left, under a last leader, and takes it away.
func (c *cluster) finish(ctx context.Context, r *rand.Rand) {
	n := c.w.begin()
	k := &client{c: c, id: 200, r: rand.New(rand.NewPCG(r.Uint64(), 1)), gave: giveUps}
	end, cancel := context.WithCancel(ctx)
	var last sync.WaitGroup
	last.Go(func() { c.reign(end, n, 0, r) }) // r is its own from here on
	defer last.Wait()
	defer cancel()
	c.mu.Lock()
	dirs, files := c.dirs, c.files
	c.mu.Unlock()
	for _, d := range dirs {
		k.listDir(ctx, d)
	}
	for _, f := range files {
		k.readAt(ctx, f, 0, maxSize)
	}
	time.Sleep(15 * time.Second)
	c.account()
	for _, f := range files {
		k.readAt(ctx, f, 0, maxSize)
	}
	c.empty(ctx, k)
	time.Sleep(15 * time.Second)
	c.account()
	t := n.Tree()
	free, ahead, freed := t.Space()
	if t.Files() != 1 || free+ahead != t.Size() || freed != 0 {
		c.fail("after all files were removed %d are there; %d bytes are free, %d ahead, %d to be zeroed of %d", t.Files(), free, ahead, freed, t.Size())
	}
}

// empty removes all files, directories from within.
func (c *cluster) empty(ctx context.Context, k *client) {
	for range 100 {
		left := 0
		for _, d := range c.dirs {
			var got []nfs.Entry
			k.do(false, func(s *share.Share, _ nfs.Caller) error {
				r, err := s.Readdir(ctx, d, 0, nfs3.Verifier{}, 1000)
				got = r.Entries
				return err
			})
			for _, e := range got {
				left++
				k.do(false, func(s *share.Share, who nfs.Caller) (err error) {
					if e.Node.Attr.Type == nfs3.Directory {
						_, err = s.Rmdir(ctx, who, nfs.Name{Dir: d, Name: e.Name})
					} else {
						_, err = s.Remove(ctx, who, nfs.Name{Dir: d, Name: e.Name})
					}
					return err
				})
			}
		}
		if left == 0 {
			return
		}
	}
	c.fail("the share does not become empty")
}

// account holds the space: every byte of the volume is in one place, and what is free reads as zeros.
func (c *cluster) account() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	t := c.w.tree
	if err := t.Check(); err != nil {
		c.fail("%v", err)
		return
	}
	if _, _, freed := t.Space(); freed != 0 || len(t.Orphans(1)) > 0 {
		c.fail("%d bytes are still to be zeroed after a rest", freed)
	}
	for _, s := range t.Free(0, 1<<20) {
		if !bytes.Equal(c.w.disk[s.Vol:s.Vol+s.Len], make([]byte, s.Len)) {
			c.fail("free space at %d does not read as zeros", s.Vol)
			return
		}
	}
}

func reloaded(t *filetree.Tree, fail func(string, ...any)) *filetree.Tree {
	var b bytes.Buffer
	if err := t.Save(&b); err != nil {
		fail("%v", err)
		return t
	}
	u, err := filetree.Load(b.Bytes())
	if err != nil {
		fail("%v", err)
		return t
	}
	return u
}

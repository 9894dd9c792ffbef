package share

import (
	"sync"
	"time"

	"pmsapp/internal/filetree"
)

// clock gives the times of a share: each later than all before, here and under every former leader, whatever the clock of the
// machine does. Times up to a ceiling that is committed may be shown although the tree does not have them.
type clock struct {
	now func() time.Time

	mu   sync.Mutex // guards what follows
	last int64      // ns
	ceil int64      // committed
}

// lead is how far ahead of now the ceiling is committed.
const lead = 10 * time.Second

// next returns a new time, in ns since 1970.
func (c *clock) next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.now().UnixNano(), c.last+1)
	return c.last
}

// seen says that the tree has shown a time.
func (c *clock) seen(t int64) {
	c.mu.Lock()
	c.last = max(c.last, t)
	c.mu.Unlock()
}

// show returns a new time that is below the ceiling; ok is false if a higher one has to be committed first.
func (c *clock) show() (t int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t = max(c.now().UnixNano(), c.last+1)
	if t >= c.ceil {
		return 0, false
	}
	c.last = t
	return t, true
}

// ceiling is the one to commit with what is proposed now.
func (c *clock) ceiling() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.now().UnixNano(), c.last) + int64(lead)
}

func (c *clock) committed(ceil int64) {
	c.mu.Lock()
	c.ceil = max(c.ceil, ceil)
	c.mu.Unlock()
}

// low tells whether the ceiling should be raised before a write has to wait for it.
func (c *clock) low() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now().UnixNano() > c.ceil-int64(lead)/2
}

// quiet is how long a file must not have been written to before its times are committed and its mark goes.
const quiet = 5 * time.Second

// keepTimes commits the times of files that are not written to any more, and raises the ceiling for those that are. It also looks
// whether the volume has become larger.
func (s *Share) keepTimes() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		if t := s.cfg.Catalog.Tree(); t != nil && s.cfg.Device.Geometry().Size&^(filetree.Block-1) > t.Size() {
			if _, err := s.change(s.ctx, filetree.Op{Kind: filetree.Resize, Size: s.cfg.Device.Geometry().Size}); err != nil && s.ctx.Err() != nil {
				return
			}
		}
		settle, active := s.files.old(s.cfg.Now().Add(-quiet).UnixNano())
		for _, ino := range settle {
			if s.settle(ino) != nil {
				break // the share ends
			}
		}
		if active && s.times.low() {
			if _, err := s.change(s.ctx); err != nil {
				return
			}
		}
	}
}

// settle commits the times of a file, and gives the space behind its end back.
func (s *Share) settle(ino uint64) error {
	f := s.files.get(ino)
	defer s.files.put(f)
	r := f.gate.enter(0, filetree.MaxFile, true)
	defer f.gate.leave(r)
	t, err := s.tree()
	if err != nil {
		return err
	}
	var ops []filetree.Op
	if o, marked := f.settleOp(); marked {
		ops = append(ops, o)
	}
	if n, ok := t.Inode(ino); ok && n.Nlink > 0 && t.MappedEnd(ino) > roundUp(n.Size) {
		ops = append(ops, filetree.Op{Kind: filetree.Cut, Ino: ino, Aux: uint64(n.Size), Size: 1024})
	}
	f.rest()
	if len(ops) == 0 {
		return nil
	}
	// A file that went meanwhile refuses; nothing is lost by that.
	if _, err := s.change(s.ctx, ops...); err != nil && s.ctx.Err() != nil {
		return err
	}
	f.settled()
	return nil
}

func roundUp(n int64) int64 { return (n + filetree.Block - 1) &^ (filetree.Block - 1) }

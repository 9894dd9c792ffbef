package poolfs

import "fmt"

// log is where the changes go.
type log struct {
	pending []byte // ops that no run has taken

	running bool
	begun   uint64 // runs that have begun
	ended   uint64
	failed  uint64 // the newest run that failed, and why
	err     error

	// Used by who carries out a run.
	area    int
	number  uint64 // the highest of an attempt
	attempt attempt
	batch   uint32 // of the next batch
	at      int    // sector where it goes
	renew   bool   // what the area holds is not known, or is not to be written behind: a checkpoint in the other one comes next
}

// fits tells whether a batch can be written behind the others.
func (g *log) fits(l Layout, payload int) bool {
	n := sectorsFor(payload)
	return n <= maxBatch && g.at+n <= l.sectors() && g.batch < givenUp-1
}

// sync makes durable what was done before it was called. Runs are one at a time, and one serves all who came before it began.
func (fs *FS) sync() error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.syncLocked()
}

// syncLocked is called with mu, which it gives up meanwhile.
func (fs *FS) syncLocked() error {
	want := fs.log.begun + 1
	for fs.log.ended < want {
		if fs.log.running {
			fs.turned.Wait()
		} else {
			fs.run()
		}
	}
	if fs.log.failed >= want {
		return fs.log.err
	}
	return nil
}

// run writes what has changed and flushes. Called with mu, which it gives up meanwhile.
func (fs *FS) run() {
	g := &fs.log
	g.running = true
	g.begun++
	ops, files := g.pending, fs.dirty
	g.pending, fs.dirty = nil, map[*File]struct{}{}
	fs.space.running, fs.space.freed = fs.space.freed, nil
	var all []byte
	if g.renew = g.renew || len(ops) > 0 && !g.fits(fs.l, len(ops)); g.renew {
		all = fs.st.checkpoint() // with all of ops in it
	}
	fs.mu.Unlock()
	var err error
	if g.renew {
		err = fs.checkpoint(all)
	} else {
		err = fs.append(ops)
	}
	fs.mu.Lock()
	g.running, g.ended = false, g.begun
	freed := fs.space.running
	fs.space.running = nil
	if err == nil {
		fs.space.forget(freed)
	} else {
		// What the log has is not known: from here on another tells all. What the files had is not known either.
		g.renew, g.failed, g.err = true, g.begun, err
		fs.failures.Add(1)
		fs.space.freed = append(freed, fs.space.freed...)
		for f := range files {
			f.lost = true
		}
		for f := range fs.dirty {
			f.lost = true
		}
	}
	fs.maintain()
	fs.turned.Broadcast()
}

// append writes a batch behind the others, and flushes.
func (fs *FS) append(ops []byte) error {
	g := &fs.log
	if len(ops) > 0 {
		b := putSectors(g.attempt, g.batch, ops)
		if err := write(fs.dev, b, fs.l.area(g.area)+int64(g.at)*sectorSize); err != nil {
			return fmt.Errorf("writing the log: %w", err)
		}
		g.batch++
		g.at += len(b) / sectorSize
	}
	return fs.dev.Flush()
}

// checkpoint writes all that is known to the other area, and gives this one up: nothing is written behind the new checkpoint before
// the old one cannot be taken for the newest any more, whatever becomes of the new one.
func (fs *FS) checkpoint(all []byte) error {
	g := &fs.log
	g.number++
	a, to := attempt{g.number, fs.opt.nonce()}, 1-g.area
	b := putSectors(a, 0, all)
	if err := write(fs.dev, b, fs.l.area(to)); err != nil {
		return fmt.Errorf("writing the log anew: %w", err)
	}
	if err := fs.dev.Flush(); err != nil {
		return err
	}
	// It counts from here on, also if the next step fails: then it is this area that stays as it is, and the other that is written anew.
	old := g.area
	g.area = to
	if err := write(fs.dev, putSectors(a, givenUp, nil), fs.l.area(old)); err != nil {
		return fmt.Errorf("giving up an area of the log: %w", err)
	}
	if err := fs.dev.Flush(); err != nil {
		return err
	}
	g.attempt, g.batch, g.at, g.renew = a, 1, len(b)/sectorSize, false
	return nil
}

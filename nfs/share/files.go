package share

import (
	"sync"

	"pmsapp/internal/filetree"
)

// maxIdle bounds the files that are remembered although nobody uses them and nothing is to be done for them, maxQuiet those for which something is:
// of more, what they have behind their ends stays theirs until they are changed again. Marked ones have a bound of their own.
const (
	maxIdle  = 4096
	maxQuiet = 1 << 16
)

// table has what this leader knows of files beyond the tree.
type table struct {
	mu    sync.Mutex // guards what follows
	files map[uint64]*file
	idle  int // those without users
}

func (t *table) init() { t.files = map[uint64]*file{} }

// file is what this leader knows of a file beyond the tree.
type file struct {
	ino  uint64
	gate gate

	users int // guarded by table.mu

	mu sync.Mutex // guards what follows
	// marked says that the tree has the file marked: then its times may be those here, if they are later.
	marked bool
	time   int64 // of the last write that the tree does not have, in ns
	last   int64 // when it was used last, ns: by any call that changed it
	// clean says that what the file's extents have behind its end reads as zeros, or is being written.
	clean bool
	// pending are extents that are being written to and that the tree does not have yet.
	pending []*pending

	marking turn // whose is who proposes a mark
}

// pending is an extent under way into the tree.
type pending struct {
	filetree.Span
	done chan struct{} // closed when the tree has it, or err says why it does not
	err  error
}

// get returns what is known of a file; put must follow.
func (t *table) get(ino uint64) *file {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[ino]
	if f == nil {
		f = &file{ino: ino, marking: make(turn, 1)}
		t.files[ino] = f
		t.idle++
	}
	if f.users == 0 {
		t.idle--
	}
	f.users++
	return f
}

func (t *table) put(f *file) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.users--; f.users > 0 {
		return
	}
	t.idle++
	if t.idle > maxIdle && f.forgettable(t.idle > maxQuiet) {
		delete(t.files, f.ino)
		t.idle--
	}
}

// peek returns what is known of a file, nil if nothing.
func (t *table) peek(ino uint64) *file {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.files[ino]
}

// old returns the files that were last used before a time, and whether any was used since.
func (t *table) old(before int64) (inos []uint64, active bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for ino, f := range t.files {
		f.mu.Lock()
		switch {
		case f.last == 0:
		case f.users == 0 && f.last < before:
			inos = append(inos, ino)
		case f.marked:
			active = true
		}
		f.mu.Unlock()
	}
	return inos, active
}

// forgettable tells whether nothing is to be remembered of the file but clean; forced, nor what is to be done for it.
func (f *file) forgettable(forced bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.marked && (f.last == 0 || forced)
}

func (f *file) isMarked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.marked
}

// shown is the latest time that was shown beside the tree, which may have it by now; 0 if there is none.
func (f *file) shown() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.time
}

// used notes that the file was changed.
func (f *file) used(now int64) {
	f.mu.Lock()
	f.last = max(f.last, now)
	f.mu.Unlock()
}

// rest notes that nothing is to be done for the file until it is changed again.
func (f *file) rest() {
	f.mu.Lock()
	f.last = 0
	f.mu.Unlock()
}

// settleOp is what commits the file's times, if they are not.
func (f *file) settleOp() (filetree.Op, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return filetree.Op{Kind: filetree.Settle, Ino: f.ino, Set: filetree.Set{Mtime: f.time, Ctime: f.time}}, f.marked
}

// settled says that the tree has the times, or that the file is gone.
func (f *file) settled() {
	f.mu.Lock()
	f.marked = false
	f.mu.Unlock()
}

// wrote notes a time that was shown.
func (f *file) wrote(t int64) {
	f.mu.Lock()
	f.time = max(f.time, t)
	f.mu.Unlock()
}

// setClean says whether what is behind the end reads as zeros.
func (f *file) setClean(is bool) {
	f.mu.Lock()
	f.clean = is
	f.mu.Unlock()
}

// finish takes extents out of those that are pending, with the outcome.
func (f *file) finish(mine []*pending, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range mine {
		for i, q := range f.pending {
			if p == q {
				f.pending = append(f.pending[:i], f.pending[i+1:]...)
				break
			}
		}
		p.err = err
		close(p.done)
	}
}

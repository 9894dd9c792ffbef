// Package memshare is a share in memory, for tests: the simplest thing that keeps the contract of nfs.Share. Nothing of
// it is durable and nothing fails over, but writes can be lost and calls held or failed on purpose.
package memshare

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/rangelock"
	"pmsapp/nfs"
)

const (
	pageSize = 64 << 10
	unit     = 512 // of used
	inodes   = 1 << 20
)

// Share is a file tree in memory.
type Share struct {
	mu       sync.Mutex
	before   func(ctx context.Context, method string) error
	size     uint64 // bytes of all files' pages
	used     uint64
	next     uint64
	all      map[uint64]*inode
	done     map[nfs.Caller]outcome
	order    []nfs.Caller // of done, the oldest first
	verifier uint64
	last     time.Time
	count    map[string]int
}

type inode struct {
	attr    nfs3.Attr
	gen     uint32
	pages   map[uint64][]byte // regular files: what is not a hole
	stable  map[uint64][]byte // the pages as they were before the unstable writes to them
	text    string            // symbolic links
	entries map[string]*entry // directories
	parent  uint64
	cookie  uint64 // the next entry's
	made    *nfs3.Verifier
	locks   rangelock.Table
}

type entry struct {
	name   string
	cookie uint64
	ino    uint64
}

// outcome is the recorded answer of a call that changed something.
type outcome struct {
	result any
	err    error
}

// New returns an empty share of size bytes.
func New(size uint64) *Share {
	s := &Share{size: size, next: 2, all: map[uint64]*inode{}, done: map[nfs.Caller]outcome{}, verifier: 1, count: map[string]int{}}
	root := s.make(nfs3.Directory, nfs3.SetAttr{})
	root.attr.FileMode, root.attr.Nlink, root.parent = 0o777, 2, root.attr.Fileid
	return s
}

// Before has f called at the begin of every method but Peek, PeekName and Root, with its name. Its error is the method's.
func (s *Share) Before(f func(ctx context.Context, method string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// Calls returns how often a method was called.
func (s *Share) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[method]
}

// Lose forgets all unstable writes, as a power cut does, and changes the write verifier.
func (s *Share) Lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.all {
		for i, p := range n.stable {
			if p == nil {
				delete(n.pages, i)
			} else {
				n.pages[i] = p
			}
		}
		n.stable = nil
	}
	s.verifier++
}

func (s *Share) begin(ctx context.Context, method string) error {
	s.mu.Lock()
	s.count[method]++
	before := s.before
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx, method); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// now never stands still, so that each change has a ctime of its own.
func (s *Share) now() nfs3.Time {
	t := time.Now()
	if !t.After(s.last) {
		t = s.last.Add(1)
	}
	s.last = t
	return nfs3.TimeOf(t)
}

func (s *Share) make(t nfs3.FileType, a nfs3.SetAttr) *inode {
	now := s.now()
	n := &inode{gen: uint32(s.next) * 7, cookie: 3}
	n.attr = nfs3.Attr{Type: t, Nlink: 1, Fileid: s.next, Atime: now, Mtime: now, Ctime: now}
	switch t {
	case nfs3.Directory:
		n.entries = map[string]*entry{}
		n.attr.Nlink = 2
	case nfs3.Regular:
		n.pages = map[uint64][]byte{}
	}
	s.next++
	s.all[n.attr.Fileid] = n
	s.apply(n, a)
	return n
}

func (s *Share) get(r nfs.Ref) (*inode, error) {
	n := s.all[r.Ino]
	if n == nil || n.gen != r.Gen {
		return nil, nfs3.ErrStale
	}
	return n, nil
}

func (s *Share) dir(r nfs.Ref) (*inode, error) {
	n, err := s.get(r)
	if err == nil && n.entries == nil {
		err = nfs3.ErrNotDir
	}
	return n, err
}

func (n *inode) ref() nfs.Ref   { return nfs.Ref{Ino: n.attr.Fileid, Gen: n.gen} }
func (n *inode) node() nfs.Node { return nfs.Node{Ref: n.ref(), Attr: *n.after()} }

func (n *inode) after() *nfs3.Attr {
	a := n.attr
	switch {
	case n.pages != nil:
		a.Used = uint64(len(n.pages)) * pageSize
	case n.entries != nil:
		a.Filesize = uint64(len(n.entries)) * 32
		a.Used = unit
	default:
		a.Filesize = uint64(len(n.text))
	}
	return &a
}

func (n *inode) before() *nfs3.PreOp {
	p := nfs3.PreOpOf(*n.after())
	return &p
}

// once answers a call that was answered before with that answer.
func once[T any](s *Share, ctx context.Context, method string, c nfs.Caller, do func() (T, error)) (T, error) {
	var none T
	if err := s.begin(ctx, method); err != nil {
		return none, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, found := s.done[c]; found {
		r, ok := o.result.(T)
		if !ok {
			return none, fmt.Errorf("memshare: %s: call %x was another method's", method, c.XID)
		}
		return r, o.err
	}
	r, err := do()
	if errors.Is(err, nfs.ErrMoved) { // nothing was done, and it comes again
		return r, err
	}
	s.done[c] = outcome{r, err}
	if s.order = append(s.order, c); len(s.order) > 4096 {
		delete(s.done, s.order[0])
		s.order = s.order[1:]
	}
	return r, err
}

func (s *Share) verf() (v nfs3.Verifier) {
	binary.BigEndian.PutUint64(v[:], s.verifier)
	return v
}

func (s *Share) Peek(r nfs.Ref) (nfs.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.get(r)
	if err != nil {
		return nfs.Node{}, err
	}
	return n.node(), nil
}

func (s *Share) PeekName(dir nfs.Ref, name string) (nfs.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.child(dir, name)
	if err != nil {
		return nfs.Node{}, err
	}
	return n.node(), nil
}

// child finds a name. Called with mu.
func (s *Share) child(dir nfs.Ref, name string) (*inode, error) {
	d, err := s.dir(dir)
	if err != nil {
		return nil, err
	}
	if name == ".." {
		return s.all[d.parent], nil
	}
	e := d.entries[name]
	if e == nil {
		return nil, nfs3.ErrNoEnt
	}
	return s.all[e.ino], nil
}

func (s *Share) Confirm(ctx context.Context) error { return s.begin(ctx, "Confirm") }

func (s *Share) Root() nfs.Ref { return nfs.Ref{Ino: 2, Gen: 14} }

package filetree

import (
	"net/netip"

	"pmsapp/internal/rangelock"
)

// A lock in a snapshot takes metaLock and its owner.
const metaLock = 32

// LockOp is the op, of kind Lock or Unlock, for a range of a file.
func LockOp(k Kind, ino uint64, l rangelock.Lock) Op {
	return Op{Kind: k, Ino: ino, Guarded: l.Exclusive, Guard: int64(l.State), Aux: l.Off, Size: int64(l.Len), Name: putOwner(l.Owner)}
}

// ReleaseOp is the op that takes the locks of a host away that it had before the start with this number; all if that is 0.
func ReleaseOp(host rangelock.Owner, state uint32) Op {
	return Op{Kind: Release, Guard: int64(state), Name: putOwner(rangelock.Owner{Addr: host.Addr, Host: host.Host})}
}

// putOwner is an owner as a string: address, host and handle as strings, the process between the last two.
func putOwner(o rangelock.Owner) string {
	b := putString(putString(nil, string(o.Addr.AsSlice())), o.Host)
	return string(putString(putInt(b, int64(o.PID)), o.Handle))
}

func (s *scanner) owner() (o rangelock.Owner) {
	addr, ok := netip.AddrFromSlice([]byte(s.string(16)))
	if !ok {
		s.fail()
	}
	o = rangelock.Owner{Addr: addr, Host: s.string(4096)}
	pid := s.int()
	if o.PID = int32(pid); int64(o.PID) != pid {
		s.fail()
	}
	o.Handle = s.string(4096)
	return o
}

// lockOf reads the lock of an op.
func lockOf(o *Op) (rangelock.Lock, bool) {
	s := &scanner{b: []byte(o.Name)}
	l := rangelock.Lock{Owner: s.owner(), Off: o.Aux, Len: uint64(o.Size), Exclusive: o.Guarded, State: uint32(o.Guard)}
	return l, s.err == nil && len(s.b) == 0 && l.Valid() && o.Guard == int64(l.State)
}

// lockable returns the locks of an op's file as a copy, and the op's lock.
func (t *Tree) lockable(o *Op) (*rangelock.Table, rangelock.Lock, Status) {
	l, ok := lockOf(o)
	n, s := t.live(o.Ino)
	switch {
	case s != OK:
		return nil, l, s
	case !ok || n.Type != Regular:
		return nil, l, Inval
	}
	return t.table(o.Ino).Clone(), l, OK
}

// table is a file's locks, which never change.
func (t *Tree) table(ino uint64) *rangelock.Table {
	if have, ok := t.locks.get(number(ino)); ok {
		return have
	}
	return &rangelock.Table{}
}

func (t *Tree) lock(o *Op, r *Result) {
	locks, l, s := t.lockable(o)
	if s != OK {
		r.Status = s
		return
	}
	if _, held := locks.Conflict(l); held {
		r.Status = Held
	} else if !locks.Set(l) {
		r.Status = NoSpace
	} else {
		t.setLocks(o.Ino, locks)
	}
}

func (t *Tree) unlock(o *Op, r *Result) {
	locks, l, s := t.lockable(o)
	if s == OK && !locks.Clear(l) {
		s = NoSpace
	}
	if r.Status = s; s == OK {
		t.setLocks(o.Ino, locks)
	}
}

func (t *Tree) release(o *Op, r *Result) {
	l, ok := lockOf(o)
	if !ok {
		r.Status = Inval
		return
	}
	var all []uint64
	for ino := range t.locks.from(0) {
		all = append(all, uint64(ino))
	}
	for _, ino := range all {
		if locks, some := t.without(ino, l.Owner, l.State); some {
			t.setLocks(ino, locks)
		}
	}
}

// without returns the locks of a file without those that a host had before a start, and whether it has any.
func (t *Tree) without(ino uint64, host rangelock.Owner, state uint32) (*rangelock.Table, bool) {
	locks := t.table(ino).Clone()
	locks.Release(host, state)
	return locks, locks.Len() < t.table(ino).Len()
}

// HasLocks tells whether a host has a lock of before a start; any if state is 0.
func (t *Tree) HasLocks(host rangelock.Owner, state uint32) bool {
	for ino := range t.locks.from(0) {
		if _, some := t.without(uint64(ino), host, state); some {
			return true
		}
	}
	return false
}

// setLocks gives a file these locks, which must not change any more.
func (t *Tree) setLocks(ino uint64, locks *rangelock.Table) {
	t.meta += metaLocks(locks) - metaLocks(t.table(ino))
	if locks.Len() == 0 {
		t.locks.delete(t.by, number(ino))
	} else {
		t.locks.set(t.by, number(ino), locks)
	}
}

func metaLocks(locks *rangelock.Table) (n int64) {
	for _, l := range locks.All() {
		n += metaLock + int64(len(putOwner(l.Owner)))
	}
	if n > 0 {
		n += metaLock
	}
	return n
}

// Locked returns a lock of a file that is in the way of another.
func (t *Tree) Locked(ino uint64, l rangelock.Lock) (rangelock.Lock, bool) {
	return t.table(ino).Conflict(l)
}

// HoldsLock tells whether the owner of l has a lock of any of its bytes in a file.
func (t *Tree) HoldsLock(ino uint64, l rangelock.Lock) bool { return t.table(ino).Holds(l) }

// saveLocks writes the locks of all files: how many files, and for each its number, how many locks, and these.
func (t *Tree) saveLocks(s *saver) {
	s.uints(uint64(t.locks.n))
	for ino, locks := range t.locks.from(0) {
		all := locks.All()
		s.uints(uint64(ino), uint64(len(all)))
		for _, l := range all {
			exclusive := uint64(0)
			if l.Exclusive {
				exclusive = 1
			}
			s.uints(l.Off, l.Len, exclusive, uint64(l.State))
			s.string(putOwner(l.Owner))
		}
	}
}

// loadLocks reads what saveLocks wrote; states tells whether it wrote those.
func (t *Tree) loadLocks(s *scanner, states bool) {
	s.each(func() {
		ino := s.uint(1<<63 - 1)
		locks := &rangelock.Table{}
		for range s.uint(rangelock.Max) {
			l := rangelock.Lock{Off: s.uint(1<<64 - 1), Len: s.uint(1<<64 - 1), Exclusive: s.uint(1) == 1}
			if states {
				l.State = uint32(s.uint(1<<32 - 1))
			}
			o := &scanner{b: []byte(s.string(2 * 4096))}
			l.Owner = o.owner()
			if o.err != nil || len(o.b) != 0 || !l.Valid() || !locks.Set(l) {
				s.fail()
			}
			if s.err != nil {
				return
			}
		}
		if locks.Len() == 0 {
			s.fail()
			return
		}
		t.setLocks(ino, locks)
	})
}

// checkLocks tells whether only files that have a name are locked.
func (t *Tree) checkLocks() error {
	for ino, locks := range t.locks.from(0) {
		if n, s := t.live(uint64(ino)); s != OK || n.Type != Regular || locks.Len() == 0 {
			return bad("%d locks of %d, which is no file", locks.Len(), ino)
		}
	}
	return nil
}

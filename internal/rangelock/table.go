// Package rangelock has the byte-range locks of one file, with POSIX's rules (fcntl F_SETLK): an owner's locks never
// conflict with each other, a new one replaces what it covers of his older ones, and neighbours of one kind become one.
// It is pure: the same calls give the same table, so it can be part of a replicated state machine.
package rangelock

import (
	"math"
	"net/netip"
	"slices"
)

// Owner is who holds a lock: a process of a client, as NLM names it.
type Owner struct {
	Addr   netip.Addr // the client's address, without port
	Host   string     // the name that the client gives itself
	PID    int32
	Handle string // the client's own mark of the owner
}

// Lock is a range of bytes. Len 0 means to the end of all files; Off+Len is at most 1<<64.
type Lock struct {
	Owner     Owner
	Off, Len  uint64
	Exclusive bool
	// State is NSM's number of the client's start in which it was taken, 0 if that is not known. It is no part of what locks are to each other.
	State uint32
}

// Max is how many locks a file may have.
const Max = 1024

// Table has the locks of a file. The zero Table has none. They are sorted by Off, then as they came.
type Table struct{ locks []span }

// span is a lock from first to last byte: a length of 1<<64 would not fit.
type span struct {
	owner       Owner
	first, last uint64
	exclusive   bool
	state       uint32
}

func (l Lock) span() (s span, ok bool) {
	s = span{l.Owner, l.Off, l.Off + l.Len - 1, l.Exclusive, l.State}
	if l.Len == 0 {
		s.last = math.MaxUint64
	}
	return s, s.last >= s.first
}

func (s span) lock() Lock {
	l := Lock{Owner: s.owner, Off: s.first, Exclusive: s.exclusive, State: s.state}
	if s.last != math.MaxUint64 {
		l.Len = s.last - s.first + 1
	}
	return l
}

func (s span) overlaps(o span) bool { return s.first <= o.last && o.first <= s.last }

// Valid tells whether a range is one.
func (l Lock) Valid() bool {
	_, ok := l.span()
	return ok
}

// Conflict returns a lock that keeps l from being granted.
func (t *Table) Conflict(l Lock) (Lock, bool) {
	s, _ := l.span()
	for _, o := range t.locks {
		if o.owner != s.owner && (o.exclusive || s.exclusive) && s.overlaps(o) {
			return o.lock(), true
		}
	}
	return Lock{}, false
}

// Holds tells whether the owner of l has a lock of any of its bytes.
func (t *Table) Holds(l Lock) bool {
	s, ok := l.span()
	return ok && slices.ContainsFunc(t.locks, func(o span) bool { return o.owner == l.Owner && o.overlaps(s) })
}

// Set grants a valid lock without Conflict. False: there are too many, and nothing has changed.
func (t *Table) Set(l Lock) bool {
	s, _ := l.span()
	locks := cut(t.locks, s)
	if slices.ContainsFunc(locks, s.joins) { // neighbours become a part of it
		kept := make([]span, 0, len(locks))
		for _, o := range locks {
			if s.joins(o) {
				s.first, s.last = min(s.first, o.first), max(s.last, o.last)
			} else {
				kept = append(kept, o)
			}
		}
		locks = kept
	}
	if len(locks) >= Max {
		return false
	}
	t.locks = insert(locks, s)
	return true
}

// joins tells whether o is of the same owner, kind and state, and ends where s begins, or begins where s ends.
func (s span) joins(o span) bool {
	return o.exclusive == s.exclusive && o.state == s.state && (o.last+1 == s.first && s.first != 0 || s.last+1 == o.first && o.first != 0) && o.owner == s.owner
}

// insert puts a span behind those that begin where it does.
func insert(locks []span, s span) []span {
	at := slices.IndexFunc(locks, func(o span) bool { return o.first > s.first })
	if at < 0 {
		at = len(locks)
	}
	return slices.Insert(locks, at, s)
}

// Clear takes a valid range away from what its owner holds; Exclusive does not matter. False: what is left would be too
// many, and nothing has changed.
func (t *Table) Clear(l Lock) bool {
	s, _ := l.span()
	locks := cut(t.locks, s)
	if len(locks) > Max {
		return false
	}
	t.locks = locks
	return true
}

// cut returns locks without what the owner of s has in its range: locks itself if that is nothing, else a copy.
func cut(locks []span, s span) []span {
	mine := func(o span) bool { return o.overlaps(s) && o.owner == s.owner }
	if !slices.ContainsFunc(locks, mine) {
		return locks
	}
	kept := make([]span, 0, len(locks)+1)
	var behind []span
	for _, o := range locks {
		if !mine(o) {
			kept = append(kept, o)
			continue
		}
		if o.first < s.first {
			left := o
			left.last = s.first - 1
			kept = append(kept, left)
		}
		if o.last > s.last {
			o.first = s.last + 1
			behind = append(behind, o)
		}
	}
	for _, o := range behind {
		kept = insert(kept, o)
	}
	return kept
}

// Release takes away the locks of a client (Addr and Host count) that was started anew: state is the new start's number, and what was taken
// in it stays. State 0: all.
func (t *Table) Release(client Owner, state uint32) {
	t.locks = slices.DeleteFunc(slices.Clone(t.locks), func(o span) bool {
		return o.owner.Addr == client.Addr && o.owner.Host == client.Host && (state == 0 || o.state != state)
	})
}

// Clone returns a table that changes by itself.
func (t *Table) Clone() *Table { return &Table{slices.Clone(t.locks)} }

// Len is how many locks there are.
func (t *Table) Len() int { return len(t.locks) }

// All returns the locks; setting them in this order makes the same table.
func (t *Table) All() []Lock {
	all := make([]Lock, len(t.locks))
	for i, s := range t.locks {
		all[i] = s.lock()
	}
	return all
}

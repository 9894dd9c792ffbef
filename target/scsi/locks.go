package scsi

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"pmsapp/internal/outcome"
)

// outcomeLife is how long outcomes of earlier epochs are looked at, and how long those of this epoch are kept whose receipt
// nobody has acknowledged: longer than any host tries a command again.
const outcomeLife = 2 * time.Minute

// locks orders the COMPARE AND WRITEs of a unit under an epoch, and knows what is remembered of them (invariant 18).
type locks struct {
	keeper Keeper
	expiry *time.Timer

	mu      sync.Mutex // guards what follows; held while nothing outside is called
	over    bool
	under   []*lock           // under way, or waiting for an earlier one that they overlap; oldest first
	earlier []outcome.Outcome // of earlier epochs, each told at most once under this one
	open    []opened          // recorded under this epoch, and told to nobody for certain; oldest first
	noting  bool              // a change of what is recorded is under way
	add     []*lock           // to be recorded next
	drop    []outcome.Outcome // to be forgotten next
	told    []func(error)     // to be called when drop is done
}

// opened is an outcome that its host may not know.
type opened struct {
	outcome.Outcome
	since time.Time
	by    *hearer
}

func newLocks(k Keeper) *locks {
	l := &locks{keeper: k, earlier: k.Outcomes()}
	if len(l.earlier) > 0 {
		l.expiry = time.AfterFunc(outcomeLife, l.expire)
	}
	return l
}

// close ends what the locks do by themselves.
func (l *locks) close() {
	if l == nil {
		return
	}
	if l.expiry != nil {
		l.expiry.Stop()
	}
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
}

// lives tells whether the unit is still served under these locks.
func (l *locks) lives() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.over
}

// expire forgets what no host can ask for any more.
func (l *locks) expire() {
	l.mu.Lock()
	if !l.over {
		l.drop = append(l.drop, l.earlier...)
		l.earlier = nil
	}
	l.mu.Unlock()
	l.note()
}

// enter lets k begin, now or when the earlier ones that it overlaps have ended.
func (l *locks) enter(k *lock) {
	l.mu.Lock()
	free := !slices.ContainsFunc(l.under, func(o *lock) bool { return o.out.Overlaps(k.out) })
	l.under = append(l.under, k)
	l.mu.Unlock()
	if free {
		k.read()
	}
}

// leave lets those begin that waited for k.
func (l *locks) leave(k *lock) {
	l.mu.Lock()
	i := slices.Index(l.under, k)
	l.under = slices.Delete(l.under, i, i+1)
	var free []*lock
	for j := i; j < len(l.under); j++ {
		w := l.under[j]
		// It waited for k; k was not the only one if another earlier one overlaps it.
		if w.out.Overlaps(k.out) && !slices.ContainsFunc(l.under[:j], func(o *lock) bool { return o.out.Overlaps(w.out) }) {
			free = append(free, w)
		}
	}
	l.mu.Unlock()
	for _, w := range free {
		w.read()
	}
}

// recall tells whether just this command was recorded before, and its host has not heard of it: under an earlier epoch, or under this one by a
// command that was aborted, held, or whose session has ended. It does so once.
func (l *locks) recall(k *lock) bool {
	l.mu.Lock()
	if i := slices.Index(l.earlier, k.out); i >= 0 {
		l.earlier = slices.Delete(l.earlier, i, i+1)
		l.open = append(l.open, opened{k.out, time.Now(), k.hearer})
		l.mu.Unlock()
		return true
	}
	i := slices.IndexFunc(l.open, func(x opened) bool { return x.Outcome == k.out && time.Since(x.since) < outcomeLife })
	if i < 0 {
		l.mu.Unlock()
		return false
	}
	by := l.open[i].by
	l.mu.Unlock()
	if !by.lost() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i = slices.IndexFunc(l.open, func(x opened) bool { return x.by == by })
	if i < 0 {
		return false
	}
	l.open = append(slices.Delete(l.open, i, i+1), opened{k.out, time.Now(), k.hearer})
	return true
}

// record has k recorded; k.recorded is called when it is.
func (l *locks) record(k *lock) {
	l.mu.Lock()
	l.add = append(l.add, k)
	overlaps := func(o outcome.Outcome) bool { return o.Overlaps(k.out) }
	l.earlier = slices.DeleteFunc(l.earlier, overlaps) // what is recorded now takes their place
	l.open = slices.DeleteFunc(l.open, func(o opened) bool { return overlaps(o.Outcome) })
	l.open = append(l.open, opened{k.out, time.Now(), k.hearer})
	l.open = l.open[max(0, len(l.open)-outcome.Max):] // the catalog keeps no more either
	for len(l.open) > 0 && time.Since(l.open[0].since) > outcomeLife {
		l.drop = append(l.drop, l.open[0].Outcome)
		l.open = l.open[1:]
	}
	l.mu.Unlock()
	l.note()
}

// forget has o forgotten: its host knows. done, if there is one, is called when it is.
func (l *locks) forget(o outcome.Outcome, done func(error)) {
	l.mu.Lock()
	i := slices.IndexFunc(l.open, func(x opened) bool { return x.Outcome == o })
	if i < 0 && done == nil { // another command has taken its place
		l.mu.Unlock()
		return
	}
	if i >= 0 {
		l.open = slices.Delete(l.open, i, i+1)
	}
	l.drop = append(l.drop, o)
	if done != nil {
		l.told = append(l.told, done)
	}
	l.mu.Unlock()
	l.note()
}

// note has done what is to be recorded and forgotten, all that there is at once, if nobody is at it.
func (l *locks) note() {
	l.mu.Lock()
	if l.noting || l.over && len(l.add) == 0 && len(l.told) == 0 || len(l.add) == 0 && len(l.drop) == 0 {
		l.mu.Unlock()
		return
	}
	l.noting = true
	n := min(len(l.add), outcome.Max)
	add := l.add[:n:n]
	l.add = l.add[n:]
	drop, told := l.drop[:min(len(l.drop), outcome.Max)], l.told
	if l.drop = l.drop[len(drop):]; len(l.drop) > 0 {
		told = nil // not all of what they wait for may be in this one
	} else {
		l.told = nil
	}
	l.mu.Unlock()
	list := make([]outcome.Outcome, len(add))
	for i, k := range add {
		list[i] = k.out
	}
	l.keeper.Note(list, drop, l.lives, func(err error) {
		l.mu.Lock()
		l.noting = false
		l.mu.Unlock()
		for _, k := range add {
			k.recorded(err)
		}
		for _, f := range told {
			f(err)
		}
		l.note()
	})
}

// differs is the first byte in which two differ, or -1.
func differs(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

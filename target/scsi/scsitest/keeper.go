// Package scsitest has what tests of device servers need.
package scsitest

import (
	"sync"

	"pmsapp/internal/outcome"
	"pmsapp/internal/reserve"
	"pmsapp/target/scsi"
)

// Keeper keeps reservations in memory. The zero Keeper has none. With Hold, changes wait in Held instead of being committed.
type Keeper struct {
	TargetPorts []uint16

	mu    sync.Mutex
	state reserve.State
	index uint64
	Hold  bool
	Held  []Change

	Epoch uint64 // under which outcomes are recorded
	Kept  []outcome.Kept
	// NoteHold has notes wait in Notes, each a function that commits it or, with an error, does not.
	NoteHold bool
	Notes    []func(error)
}

// Change is a proposal that waits.
type Change struct {
	Seq  uint64
	C    reserve.Command
	Done func(error)
}

// Reservations implements scsi.Keeper.
func (k *Keeper) Reservations() (reserve.State, uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state, k.index
}

// Ports implements scsi.Keeper.
func (k *Keeper) Ports() []uint16 { return k.TargetPorts }

// Change implements scsi.Keeper.
func (k *Keeper) Change(seq uint64, c reserve.Command, done func(error)) {
	k.mu.Lock()
	if k.Hold {
		k.Held = append(k.Held, Change{seq, c, done})
		k.mu.Unlock()
		return
	}
	k.mu.Unlock()
	done(k.Commit(seq, c))
}

// Waiting is how many changes wait.
func (k *Keeper) Waiting() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.Held)
}

// Release commits the changes that wait, and holds none any more.
func (k *Keeper) Release() {
	k.mu.Lock()
	held := k.Held
	k.Hold, k.Held = false, nil
	k.mu.Unlock()
	for _, c := range held {
		c.Done(k.Commit(c.Seq, c.C))
	}
}

// Commit does a change.
func (k *Keeper) Commit(seq uint64, c reserve.Command) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.index++
	if k.state.Seq != seq {
		return scsi.ErrJudged
	}
	k.state, _ = reserve.Apply(k.state, c)
	return nil
}

// Outcomes implements scsi.Keeper.
func (k *Keeper) Outcomes() (out []outcome.Outcome) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, o := range k.Kept {
		if o.Epoch < k.Epoch {
			out = append(out, o.Outcome)
		}
	}
	return out
}

// Note implements scsi.Keeper.
func (k *Keeper) Note(add, drop []outcome.Outcome, _ func() bool, done func(error)) {
	commit := func(err error) {
		if err == nil {
			k.mu.Lock()
			k.Kept = outcome.Change(k.Kept, k.Epoch, add, drop)
			k.mu.Unlock()
		}
		done(err)
	}
	k.mu.Lock()
	if k.NoteHold {
		k.Notes = append(k.Notes, commit)
		k.mu.Unlock()
		return
	}
	k.mu.Unlock()
	commit(nil)
}

var _ scsi.Keeper = (*Keeper)(nil)

package scsi

import (
	"errors"
	"sync"
	"sync/atomic"

	"pmsapp/internal/block"
	"pmsapp/internal/outcome"
	"pmsapp/internal/reserve"
)

// ErrJudged is returned by Keeper.Change when the reservations are others than those that the change was judged by.
var ErrJudged = errors.New("scsi: the reservations have changed")

// Keeper keeps the reservations of a unit under the epoch that it is served under (invariant 17). Its methods are safe for
// concurrent use and must not block.
type Keeper interface {
	// Reservations returns the newest that are committed, and their place in the order of all states.
	Reservations() (s reserve.State, index uint64)
	// Ports are all target ports at which the unit is.
	Ports() []uint16
	// Change has c committed, if the reservations are still those numbered seq. done is called once, perhaps before Change has
	// returned: with nil when Reservations shows c, with ErrJudged, or with another error if it is not known what has become
	// of c and never will be here: then nothing else is decided under this epoch.
	Change(seq uint64, c reserve.Command, done func(error))
	// Outcomes returns those of COMPARE AND WRITEs that were recorded under earlier epochs (invariant 18).
	Outcomes() []outcome.Outcome
	// Note has outcomes recorded, in place of what overlaps them, and others forgotten; at most outcome.Max of either. done is
	// called once, perhaps before Note has returned: with nil when it is committed, or with an error if it is not known what
	// has become of it and never will be here. It is not proposed again once again says no: notes of whoever comes after must
	// not be overtaken.
	Note(add, drop []outcome.Outcome, again func() bool, done func(error))
}

// gate is what is reserved, as commands on their way see it. It never changes.
type gate struct {
	cur  *reserve.State
	next *reserve.State         // what it may be soon, or already is; nil: no change is under way
	shut map[reserve.Nexus]bool // those whose commands PREEMPT AND ABORT aborts: none is begun meanwhile
}

// verdict is what becomes of a command.
type verdict uint8

const (
	passes verdict = iota
	conflicts
	waits // allowed by one of two states between which nobody knows yet: BUSY
)

func (g *gate) judge(n reserve.Nexus, c reserve.Class) verdict {
	now := g.cur.Allows(n, c)
	switch {
	case g.next != nil && (g.next.Allows(n, c) != now || g.shut[n]):
		return waits
	case now:
		return passes
	}
	return conflicts
}

// counts are of commands, by class.
type counts [reserve.Write + 1]atomic.Int64

// flight counts the commands of a session at a unit that have passed the gate and not ended.
type flight struct {
	nexus     reserve.Nexus
	attention *attentions
	under     counts     // commands to the unit
	afar      counts     // copies that commands to other units make here
	stop      func() int // stops the commands to the unit that the nexus has seen (target.Login.Stop); nil: nobody can
	reset     func() int // stops all commands to the unit, as stop
	noticed   uint64     // guarded by arbiter.mu: the change of the newest notice that was made a unit attention
	gone      bool       // guarded by arbiter.mu: the session is over
	cut       *change    // guarded by arbiter.mu: the change for which the commands to the unit were stopped
	copies    copies     // that the unit was asked for
}

// clear tells whether no command is under way that s forbids.
func (f *flight) clear(s *reserve.State) bool { return f.none(&f.under, s) && f.none(&f.afar, s) }

// idle tells whether no command is under way at all.
func (f *flight) idle() bool { return f.none(&f.under, nil) && f.none(&f.afar, nil) }

func (f *flight) none(n *counts, s *reserve.State) bool {
	for c := range n {
		if n[c].Load() > 0 && (s == nil || !s.Allows(f.nexus, reserve.Class(c))) {
			return false
		}
	}
	return true
}

// maxChanges bounds the commands about reservations that wait at a unit.
const maxChanges = 1024

// arbiter decides about the reservations of a unit: one command after the other. DESIGN.md argues why that is right.
type arbiter struct {
	gate atomic.Pointer[gate]

	mu       sync.Mutex // guards what follows; held while the keeper is looked up, never while anything else outside is called
	dev      block.Device
	keeper   Keeper // nil: nothing can be decided here
	lost     bool   // what has become of a change is unknown under this keeper
	index    uint64 // of the state in gate
	queue    []*change
	busy     *change
	stepping bool
	flights  map[*flight]struct{}
}

func newArbiter() *arbiter {
	a := &arbiter{flights: make(map[*flight]struct{})}
	a.gate.Store(&gate{cur: &reserve.State{}})
	return a
}

// enter counts a command in, if it may pass. The count is visible before the gate is looked at, and whoever closes the gate
// looks at the counts afterwards: one of the two sees the other.
func (a *arbiter) enter(f *flight, n *counts, c reserve.Class) verdict {
	n[c].Add(1)
	g := a.gate.Load()
	if g.cur.Seq == 0 && g.next == nil { // nothing was ever reserved
		return passes
	}
	v := g.judge(f.nexus, c)
	if v != passes {
		a.leave(n, c)
	}
	return v
}

// leave counts a command out.
func (a *arbiter) leave(n *counts, c reserve.Class) {
	if n[c].Add(-1) == 0 && a.gate.Load().next != nil {
		a.drained()
	}
}

// serve begins the reign of a keeper. Before it returns every command is judged by what is committed.
func (a *arbiter) serve(dev block.Device, k Keeper) {
	a.mu.Lock()
	old := a.endAll()
	a.dev, a.keeper, a.lost = dev, k, false
	var told []reserve.Command
	if k != nil {
		s, index := k.Reservations()
		a.install(&s, index, true)
		told = a.delivered(&s)
	}
	a.mu.Unlock()
	for _, ch := range old {
		ch.end(Answer{}, block.ErrEnded)
	}
	for _, c := range told {
		a.ask(&change{cmd: c})
	}
}

// standby ends the reign: what was not decided never will be here.
func (a *arbiter) standby() {
	a.mu.Lock()
	old := a.endAll()
	a.dev, a.keeper, a.lost = nil, nil, false
	a.mu.Unlock()
	for _, ch := range old {
		ch.end(Answer{}, block.ErrEnded)
	}
}

// waits tells whether there is a device and nobody to decide about reservations: the unit is on its way.
func (a *arbiter) waits() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dev != nil && a.keeper == nil
}

// endAll takes all changes away. The gate stays between the two states of one that is under way, until serve says which it is.
// Called with mu.
func (a *arbiter) endAll() []*change {
	old := a.queue
	if a.busy != nil {
		old = append([]*change{a.busy}, old...)
		a.busy.over = true
	}
	a.queue, a.busy = nil, nil
	return old
}

// observe takes over what is committed, where it is newer.
func (a *arbiter) observe(s *reserve.State, index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.install(s, index, false)
}

// install makes s what is reserved, unless something newer is. decided says that no change is under way any more; otherwise one
// stays so until its keeper has said that it is not. There is no moment in between: a command that looked at the gate then would
// be judged by what was before the change, after what the change forbids has drained. Called with mu.
func (a *arbiter) install(s *reserve.State, index uint64, decided bool) {
	g := *a.gate.Load()
	newer := index >= a.index
	if newer {
		a.index, g.cur = index, s
	}
	if decided {
		g.next, g.shut = nil, nil
	}
	a.gate.Store(&g)
	if newer && len(s.Notices) > 0 {
		for f := range a.flights {
			a.notice(f, s)
		}
	}
}

// notice makes notices unit attentions. Called with mu.
func (a *arbiter) notice(f *flight, s *reserve.State) {
	newest := f.noticed
	for _, n := range s.Notices {
		if n.Nexus == f.nexus && n.Seq > f.noticed {
			f.attention.add(n.Code)
			newest = max(newest, n.Seq)
		}
	}
	f.noticed = newest
}

// delivered lists the notices of which the sessions of this node were told already. Called with mu.
func (a *arbiter) delivered(s *reserve.State) (all []reserve.Command) {
	for _, n := range s.Notices {
		for f := range a.flights {
			if f.nexus == n.Nexus && f.noticed >= n.Seq && !f.attention.has(n.Code) {
				all = append(all, reserve.Command{Nexus: n.Nexus, Action: reserve.Told, Code: n.Code, Through: n.Seq})
			}
		}
	}
	return all
}

// join begins the flight of a session.
func (a *arbiter) join(f *flight) {
	f.attention.taken = func(code uint16) { a.told(f, code) }
	a.mu.Lock()
	defer a.mu.Unlock()
	for o := range a.flights {
		if o.gone && o.idle() {
			delete(a.flights, o)
		}
	}
	a.flights[f] = struct{}{}
	a.notice(f, a.gate.Load().cur)
}

// reserves tells whether a nexus holds the reservation of a RESERVE command, or has one on its way that was begun.
func (a *arbiter) reserves(n reserve.Nexus) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	begun := a.busy != nil && a.busy.cmd.Action == reserve.ReserveUnit && a.busy.cmd.Nexus == n
	return !n.IsZero() && (begun || a.gate.Load().cur.Exclusive == n)
}

// forget is what a reset does besides: nothing is told of copies that were begun before it.
func (a *arbiter) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for f := range a.flights {
		f.copies.forget()
	}
}

// part ends a session's part. What it has under way is counted until it ends.
func (a *arbiter) part(f *flight) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f.gone = true
	if f.idle() {
		delete(a.flights, f)
	}
}

// left tells whether the session of a flight is over.
func (a *arbiter) left(f *flight) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return f.gone
}

// told has the state know that a nexus was told of a notice.
func (a *arbiter) told(f *flight, code uint16) {
	if code != reserve.ReservationsPreempted && code != reserve.ReservationsReleased && code != reserve.RegistrationsPreempted {
		return
	}
	a.mu.Lock()
	through, serves := f.noticed, a.keeper != nil
	a.mu.Unlock()
	if serves { // elsewhere the unit attention may come once more after a failover, which does no harm
		a.ask(&change{cmd: reserve.Command{Nexus: f.nexus, Action: reserve.Told, Code: code, Through: through}})
	}
}

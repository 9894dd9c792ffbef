package scsi

import (
	"sync/atomic"

	"pmsapp/internal/reserve"
	"pmsapp/target"
)

// Manage implements target.Nexus.
func (x *Nexus) Manage(m target.Management) (r target.Response, units []any, then func(func(target.Response))) {
	if m.Function == target.ClearACA {
		return target.FunctionNotSupported, nil, nil // NACA is refused, so there never is an ACA
	}
	if x.giveUp() {
		// Another node is at a command about reservations that this one cannot call back (invariant 4).
		return target.FunctionRejected, nil, nil
	}
	switch m.Function {
	case target.TargetWarmReset, target.TargetColdReset:
		x.mu.RLock()
		var all []*LU
		for _, u := range x.units {
			all = append(all, u.lu)
		}
		x.mu.RUnlock()
		return x.reset(all)
	}
	u, ok := x.unit(m.LUN)
	if !ok {
		return target.LUNDoesNotExist, nil, nil
	}
	switch m.Function {
	case target.LogicalUnitReset:
		return x.reset([]*LU{u.lu})
	case target.AbortTask, target.AbortTaskSet, target.ClearTaskSet:
		// Each nexus has a task set of its own (control mode page, TST): there is nothing of others to clear.
		return target.FunctionComplete, nil, nil
	}
	return target.FunctionNotSupported, nil, nil
}

// reset resets units for the nexus. The connection layer stops what its node's sessions have under way. Where a unit stands by, the node
// that serves it does the same there before it is answered; where nobody serves, or it is not known what has become of the
// question, the reset is refused.
func (x *Nexus) reset(all []*LU) (r target.Response, units []any, then func(func(target.Response))) {
	for _, lu := range all {
		if lu.asking.Load() > 0 { // as above, by another session
			return target.FunctionRejected, nil, nil
		}
	}
	var rest []*LU
	for _, lu := range all {
		lu.reset(ascBusReset)
		units = append(units, lu)
		switch {
		case lu.Serving() && !lu.arbiter.gate.Load().cur.Exclusive.IsZero(), !lu.Serving() && lu.around.Elsewhere != nil:
			rest = append(rest, lu)
		}
	}
	if len(rest) == 0 {
		return target.FunctionComplete, units, nil
	}
	return target.FunctionComplete, units, func(done func(target.Response)) { x.resetRest(rest, done) }
}

// resetRest does what of a reset takes a while: the reservation of a RESERVE command is released, and what is served elsewhere is reset there.
func (x *Nexus) resetRest(rest []*LU, done func(target.Response)) {
	var left, failed atomic.Int32
	left.Store(int32(len(rest)))
	ended := func(a Answer, err error) {
		if err != nil || a.Status != 0 {
			failed.Add(1)
		}
		switch {
		case left.Add(-1) > 0:
		case failed.Load() > 0:
			done(target.FunctionRejected)
		default:
			done(target.FunctionComplete)
		}
	}
	for _, lu := range rest {
		q := Question{Volume: lu.id, Nexus: x.nexus, Action: reserve.Reset}
		if lu.Serving() {
			lu.arbiter.ask(&change{cmd: reserve.Command{Nexus: q.Nexus, Action: q.Action}, done: ended})
			continue
		}
		id := x.asks(question{lu: lu}) // it may come to nothing, or be done twice: nothing waits for it
		x.asking(id, lu.around.Elsewhere(q, func(a Answer, _ bool, err error) {
			x.asked(id)
			ended(a, err)
		}))
	}
}

// reset establishes the unit attentions of a reset, and takes out what nobody has begun about reservations (invariant 4).
func (lu *LU) reset(asc uint16) {
	lu.swp.Store(false)
	lu.arbiter.forget()
	lu.arbiter.clear()
	lu.mu.Lock()
	lu.attend(nil, asc)
	lu.mu.Unlock()
}

// answerReset resets the unit for another node's host. It is answered when every member's node has confirmed that no newer epoch is there,
// so by who serves, and when nothing that came before can reach the medium but by what keeps its range. It takes locks of
// sessions.
func (lu *LU) answerReset(ch *change) {
	if !lu.Serving() {
		ch.end(refusal(standby()), nil)
		return
	}
	lu.reset(ascBusReset)
	lu.arbiter.stopAll()
	lu.arbiter.ask(ch)
}

// clear takes the changes out that somebody waits for and nobody has begun, but for resets, and answers them BUSY.
func (a *arbiter) clear() {
	a.mu.Lock()
	out := a.take(func(ch *change) bool { return ch.done != nil && ch.cmd.Action != reserve.Reset })
	a.mu.Unlock()
	for _, ch := range out {
		ch.end(busy(), nil)
	}
}

// stopAll stops the commands of all sessions to the unit. Called without a lock.
func (a *arbiter) stopAll() {
	a.mu.Lock()
	var all []func() int
	for f := range a.flights {
		if f.reset != nil && !f.gone {
			all = append(all, f.reset)
		}
	}
	a.mu.Unlock()
	for _, stop := range all {
		stop()
	}
}

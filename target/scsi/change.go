package scsi

import (
	"errors"
	"slices"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"pmsapp/internal/block"
	"pmsapp/internal/reserve"
)

// Answer is what a command about reservations is answered.
type Answer struct {
	Status byte
	Key    byte   // sense key, for CHECK CONDITION
	ASC    uint16 // additional sense code and qualifier
	Data   []byte `json:",omitempty"`
}

func answerOf(o reserve.Outcome) Answer {
	switch {
	case o.Conflict:
		return Answer{Status: api.SAM_STAT_RESERVATION_CONFLICT}
	case o.ASC != 0:
		return refusal(illegal(gotgt.SCSISubError(o.ASC)))
	}
	return Answer{}
}

func refusal(s sense) Answer {
	return Answer{Status: api.SAM_STAT_CHECK_CONDITION, Key: s.key, ASC: s.asc}
}

func busy() Answer { return Answer{Status: api.SAM_STAT_BUSY} }

// Busy is the answer of a node that could not have the command answered in time.
func Busy() Answer { return busy() }

// NotReady tells whether the answer is that the unit cannot be reached there.
func (a Answer) NotReady() bool {
	return a.Status == api.SAM_STAT_CHECK_CONDITION && a.Key == gotgt.NOT_READY
}

// change is a command about reservations on its way through an arbiter: confirmed, judged, drained, committed.
type change struct {
	cmd  reserve.Command
	read []byte // the CDB of PERSISTENT RESERVE IN, or:
	cdb  []byte // that of PERSISTENT RESERVE OUT,
	list []byte // and its parameter list
	by   any    // who asks, for purge
	done func(Answer, error)

	// Guarded by arbiter.mu.
	next   *reserve.State // what it makes of the reservations
	drains bool           // waits for commands under way
	over   bool
	tries  int
}

func (ch *change) end(a Answer, err error) {
	if ch.done != nil {
		ch.done(a, err)
	}
}

// maxTries bounds how often a change is judged anew.
const maxTries = 8

// ask puts a change into the queue.
func (a *arbiter) ask(ch *change) {
	a.mu.Lock()
	full := len(a.queue) >= maxChanges
	if !full {
		a.queue = append(a.queue, ch)
	}
	a.mu.Unlock()
	if full {
		ch.end(busy(), nil)
		return
	}
	a.step()
}

// step begins the changes that wait, one after the other.
func (a *arbiter) step() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stepping {
		return // whoever does will look again
	}
	a.stepping = true
	for a.busy == nil && len(a.queue) > 0 {
		ch := a.queue[0]
		a.queue = a.queue[1:]
		a.busy = ch
		dev := a.dev
		a.mu.Unlock()
		if dev == nil {
			a.end(ch, refusal(standby()), nil)
		} else {
			// A read of nothing is answered when every member's node has confirmed that no newer epoch is there (invariant
			// 11), and held where that cannot be had. So no answer is given by one who serves no more.
			dev.Submit(&block.Request{Op: block.Read, Done: func(r *block.Request) { a.confirmed(ch, r.Err) }})
		}
		a.mu.Lock()
	}
	a.stepping = false
}

// end answers a change, and goes on with the next.
func (a *arbiter) end(ch *change, ans Answer, err error) {
	a.mu.Lock()
	if ch.over {
		a.mu.Unlock()
		return
	}
	ch.over = true
	a.busy = nil
	a.mu.Unlock()
	ch.end(ans, err)
	a.step()
}

// confirmed goes on with a change when this node is known to serve.
func (a *arbiter) confirmed(ch *change, err error) {
	switch {
	case errors.Is(err, block.ErrHeld):
		a.end(ch, busy(), nil)
		if ch.done == nil { // nobody else would ask again for what a lost nexus held to be released
			a.ask(&change{cmd: ch.cmd})
		}
	case err != nil:
		a.end(ch, Answer{}, err)
	default:
		a.judge(ch)
	}
}

// judge finds out what a change does. If it changes nothing it is answered; otherwise what it forbids is closed out, and what
// is under way of that is waited for.
func (a *arbiter) judge(ch *change) {
	a.mu.Lock()
	if ch.over {
		a.mu.Unlock()
		return
	}
	k := a.keeper
	if k == nil || a.lost {
		lost := a.lost
		a.mu.Unlock()
		if lost {
			a.end(ch, Answer{}, block.ErrEnded)
		} else {
			a.end(ch, busy(), nil) // a device that answers, and nobody to decide: on its way
		}
		return
	}
	cur := a.gate.Load().cur
	ans, next, err := ch.apply(cur, k)
	if err != nil || next == nil {
		a.mu.Unlock()
		a.end(ch, ans, err)
		return
	}
	g := &gate{cur: cur, next: next}
	ch.next, ch.drains = next, ch.cmd.Action != reserve.PreemptAndAbort
	if !ch.drains {
		g.shut = map[reserve.Nexus]bool{}
		for _, r := range cur.Registered {
			if next.Key(r.Nexus) == 0 && r.Nexus != ch.cmd.Nexus {
				g.shut[r.Nexus] = true
			}
		}
	}
	drains := ch.drains
	a.gate.Store(g)
	a.mu.Unlock()
	if drains {
		a.drained()
		return
	}
	// Stopping takes the locks of other sessions, and this may be within a command of one of them. The goroutine ends by itself;
	// a unit has at most one, as it has one change under way.
	go a.abort(ch, g.shut)
}

// abort stops what the preempted have under way, with what they have asked about reservations, and goes on with the change.
func (a *arbiter) abort(ch *change, shut map[reserve.Nexus]bool) {
	var all []*flight
	a.mu.Lock()
	for f := range a.flights {
		if shut[f.nexus] && f.stop != nil {
			all = append(all, f)
		}
	}
	a.mu.Unlock()
	for _, f := range all {
		if f.stop() > 0 {
			f.attention.add(ascCleared) // TAS=0: they are not answered
		}
	}
	a.mu.Lock()
	for _, f := range all {
		f.cut = ch
	}
	queued := a.take(func(o *change) bool { return shut[o.cmd.Nexus] && o.done != nil })
	ch.drains = !ch.over
	a.mu.Unlock()
	for _, o := range queued {
		o.end(busy(), nil)
	}
	a.drained()
}

// apply returns the answer, and the reservations after the change; nil if there is none.
func (ch *change) apply(cur *reserve.State, k Keeper) (Answer, *reserve.State, error) {
	var e *reserve.Error
	if ch.read != nil {
		if !cur.Exclusive.IsZero() {
			return Answer{Status: api.SAM_STAT_RESERVATION_CONFLICT}, nil, nil // SPC-2 5.5.1
		}
		data, err := cur.In(ch.read)
		if errors.As(err, &e) {
			return refusal(illegal(gotgt.SCSISubError(e.ASC))), nil, nil
		}
		return Answer{Data: data}, nil, err
	}
	if ch.cdb != nil {
		cmd, err := reserve.ParseOut(ch.cmd.Nexus, k.Ports(), ch.cdb, ch.list)
		if errors.As(err, &e) {
			return refusal(illegal(gotgt.SCSISubError(e.ASC))), nil, nil
		}
		ch.cmd = cmd
	}
	next, o := reserve.Apply(*cur, ch.cmd)
	if next.Seq == cur.Seq {
		return answerOf(o), nil, nil
	}
	return answerOf(o), &next, nil
}

// drained proposes the change that waits for commands under way, if there are none left.
func (a *arbiter) drained() {
	a.mu.Lock()
	ch := a.busy
	if ch == nil || !ch.drains {
		a.mu.Unlock()
		return
	}
	g := a.gate.Load()
	for f := range a.flights {
		done := f.clear(ch.next)
		if f.cut == ch { // what was stopped keeps its range (invariant 4): nothing waits for its end
			done = f.none(&f.afar, ch.next)
		} else if g.shut[f.nexus] {
			done = f.idle()
		}
		if !done {
			a.mu.Unlock()
			return
		}
	}
	ch.drains = false
	k := a.keeper
	a.mu.Unlock()
	k.Change(g.cur.Seq, ch.cmd, func(err error) { a.decided(ch, k, err) })
}

// decided ends a change whose outcome is known, or never will be.
func (a *arbiter) decided(ch *change, k Keeper, err error) {
	a.mu.Lock()
	if ch.over {
		a.mu.Unlock()
		return
	}
	switch {
	case err == nil || errors.Is(err, ErrJudged):
		s, index := k.Reservations()
		a.install(&s, index, true)
		ch.tries++
	default:
		a.lost = true // and the gate stays as it is: between the two
	}
	again := errors.Is(err, ErrJudged) && ch.tries < maxTries
	a.mu.Unlock()
	switch {
	case err == nil:
		a.end(ch, Answer{}, nil)
	case again:
		a.judge(ch)
	case errors.Is(err, ErrJudged):
		a.end(ch, busy(), nil)
	default:
		a.end(ch, Answer{}, block.ErrEnded)
	}
}

// purge ends the changes of somebody that were not begun, as BUSY: they never will be.
func (a *arbiter) purge(by any) {
	a.mu.Lock()
	out := a.take(func(ch *change) bool { return ch.by == by })
	a.mu.Unlock()
	for _, ch := range out {
		ch.end(busy(), nil)
	}
}

// take takes changes that were not begun out of the queue. Called with mu.
func (a *arbiter) take(match func(*change) bool) (out []*change) {
	a.queue = slices.DeleteFunc(a.queue, func(ch *change) bool {
		if match(ch) {
			out = append(out, ch)
			return true
		}
		return false
	})
	return out
}

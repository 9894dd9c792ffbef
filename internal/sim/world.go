package sim

import (
	"container/heap"
	"fmt"
	"time"
)

// World is virtual time and what is to happen in it. One goroutine at a time.
type World struct {
	Rand  *Rand
	Trace *Trace

	now    time.Duration
	queue  events
	order  uint64
	events int
	failed error

	// Limit ends a run that goes on without end, after so many events; 0 means none.
	Limit int
}

// NewWorld returns the world of a seed, at time 0. trace is how many of the last events are kept for a report.
func NewWorld(seed uint64, trace int) *World {
	w := &World{Rand: NewRand(seed)}
	w.Trace = newTrace(w, trace)
	return w
}

// Now is the virtual time.
func (w *World) Now() time.Duration { return w.now }

// Events is how many events have run.
func (w *World) Events() int { return w.events }

// Fail ends the run with err; the first one counts.
func (w *World) Fail(err error) {
	if w.failed == nil && err != nil {
		w.failed = err
		w.Trace.Add("world", "FAILED: %v", err)
	}
}

// Failed is what Fail was told first.
func (w *World) Failed() error { return w.failed }

// Timer is an event to come.
type Timer struct {
	at    time.Duration
	order uint64
	fn    func()
	proc  *Proc         // nil: the world's own
	local time.Duration // proc's clock must have reached it; 0 where the clock does not matter
	timer bool          // it was set by proc itself, and not for at once
}

// Stop makes a timer never fire. It may be called at any time, on nil too.
func (t *Timer) Stop() {
	if t != nil {
		t.fn = nil
	}
}

// After runs fn d from now, outside any process.
func (w *World) After(d time.Duration, fn func()) *Timer {
	return w.push(&Timer{at: w.now + max(d, 0), fn: fn})
}

func (w *World) push(t *Timer) *Timer {
	w.order++
	t.order = w.order
	heap.Push(&w.queue, t)
	return t
}

// Step runs the next event. It is false when there is none, or the run has failed.
func (w *World) Step() bool {
	for w.failed == nil && len(w.queue) > 0 {
		t := heap.Pop(&w.queue).(*Timer)
		if t.fn == nil {
			continue
		}
		w.now = max(w.now, t.at)
		if t.proc != nil && !t.proc.due(t) {
			continue
		}
		fn := t.fn
		t.fn = nil
		w.events++
		if w.Limit != 0 && w.events > w.Limit {
			w.Fail(fmt.Errorf("sim: more than %d events by %v", w.Limit, w.now))
			return false
		}
		fn()
		return true
	}
	return false
}

// RunUntil runs events until stop is true (asked after each), nothing is left, or the time end is reached. It tells
// whether stop was true.
func (w *World) RunUntil(end time.Duration, stop func() bool) bool {
	for !stop() {
		if w.failed != nil || len(w.queue) == 0 || w.queue[0].at > end {
			w.now = max(w.now, end)
			return false
		}
		w.Step()
	}
	return true
}

type events []*Timer

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].order < q[j].order
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(*Timer)) }
func (q *events) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return t
}

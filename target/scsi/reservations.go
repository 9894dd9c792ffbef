package scsi

import (
	"encoding/binary"
	"errors"

	"github.com/gostor/gotgt/pkg/api"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/reserve"
	"pmsapp/target"
)

// Operation codes of the commands about reservations.
const (
	opReserve6             = 0x16
	opRelease6             = 0x17
	opReserve10            = 0x56
	opRelease10            = 0x57
	opPersistentReserveIn  = 0x5e
	opPersistentReserveOut = 0x5f
)

func reserves(op byte) bool {
	switch op {
	case opReserve6, opRelease6, opReserve10, opRelease10, opPersistentReserveIn, opPersistentReserveOut:
		return true
	}
	return false
}

// Question is a command about reservations, or one that asks what the unit is like, as one node asks another that serves the unit.
type Question struct {
	Volume ids.Volume
	Nexus  reserve.Nexus
	Action reserve.Action `json:",omitzero"` // without a CDB: reserve.LoseNexus or reserve.Reset
	CDB    []byte         `json:",omitempty"`
	List   []byte         `json:",omitempty"`
}

// Elsewhere reaches the node that serves a unit. done is called once: with the answer, or with an error when there is none; then
// asked tells whether the question may have had an effect. end gives the question up.
type Elsewhere func(q Question, done func(a Answer, asked bool, err error)) (end func())

// change is the question as the arbiter of the node that serves takes it. It is an error if it makes no sense.
func (q *Question) change() (*change, error) {
	ch := &change{cmd: reserve.Command{Nexus: q.Nexus, Action: q.Action}}
	if len(q.CDB) == 0 {
		if q.Action != reserve.LoseNexus && q.Action != reserve.Reset {
			return nil, errors.New("scsi: a question without a command")
		}
		return ch, nil
	}
	if len(q.CDB) < 6 || len(q.CDB) > target.MaxCDB || q.CDB[0]>>5 != 0 && len(q.CDB) < 10 || len(q.List) > reserve.MaxParameters ||
		len(q.Nexus.Initiator) > reserve.MaxName || !reserves(q.CDB[0]) {
		return nil, errors.New("scsi: a question about something else than reservations")
	}
	switch q.CDB[0] {
	case opPersistentReserveIn:
		ch.read = q.CDB
	case opPersistentReserveOut:
		ch.cdb, ch.list = q.CDB, q.List
	case opReserve6, opReserve10:
		ch.cmd.Action = reserve.ReserveUnit
	default:
		ch.cmd.Action = reserve.ReleaseUnit
	}
	return ch, nil
}

// Ask answers another node's question. done is called once, perhaps before Ask has returned; with an error the asker's host
// is to be dropped (invariant 8). end gives up what was not begun. It must not be called within a method of a nexus: a reset takes
// locks of sessions.
func (lu *LU) Ask(q Question, done func(Answer, error)) (end func(), err error) {
	if q.Describes() {
		lu.answerDescribing(q, done)
		return func() {}, nil
	}
	ch, err := q.change()
	if err != nil {
		return nil, err
	}
	ch.by, ch.done = ch, done
	if len(q.CDB) == 0 && q.Action == reserve.Reset {
		lu.answerReset(ch)
	} else {
		lu.arbiter.ask(ch)
	}
	return func() { lu.arbiter.purge(ch) }, nil
}

// Reserved takes over what is committed about the unit's reservations; index orders what comes. Where the unit is served it is
// the keeper's word that counts, and the same.
func (lu *LU) Reserved(s reserve.State, index uint64) { lu.arbiter.observe(&s, index) }

// question is the one that a task asks.
func (c *io) question(n reserve.Nexus) Question {
	return Question{Volume: c.unit.lu.id, Nexus: n, CDB: c.task.CDB, List: c.task.DataOut}
}

// reserveLength is how many bytes of parameter list a command about reservations has.
func reserveLength(cdb []byte) int64 {
	if cdb[0] != opPersistentReserveOut {
		return 0
	}
	return int64(binary.BigEndian.Uint32(cdb[5:]))
}

// legacyFault tells what RESERVE and RELEASE are refused for: third parties and extents, which SPC-3 has dropped.
func legacyFault(cdb []byte) bool {
	switch cdb[0] {
	case opReserve6, opRelease6, opReserve10, opRelease10:
		return cdb[1]&0x1f != 0
	}
	return false
}

// reservation executes a command about reservations, where the unit is served.
func (x *Nexus) reservation(c *io) {
	t, lu := c.task, c.unit.lu
	t.Moved = reserveLength(t.CDB)
	if legacyFault(t.CDB) || !supported(t.CDB) { // as anywhere: nobody need be asked
		check(t, invalidField())
		t.Done(t)
		return
	}
	if c.st.dev == nil {
		x.elsewhere(c)
		return
	}
	q := c.question(c.unit.flight.nexus)
	ch, err := q.change()
	if err != nil {
		check(t, invalidField())
		t.Done(t)
		return
	}
	ch.by = x
	ch.done = func(a Answer, err error) { c.answered(a, err) }
	lu.arbiter.ask(ch)
}

// answered ends a task about reservations, or one that describes.
func (c *io) answered(a Answer, err error) {
	t := c.task
	switch {
	case err != nil:
		fail(t, err, false)
	case a.Status == api.SAM_STAT_CHECK_CONDITION:
		check(t, sense{key: a.Key, asc: a.ASC})
	default:
		t.Status = a.Status
		switch {
		case a.Status != api.SAM_STAT_GOOD:
		case describes(t.CDB):
			t.DataIn = c.described(a.Data)
		case t.CDB[0] == opPersistentReserveIn:
			t.DataIn = a.Data[:min(len(a.Data), int(binary.BigEndian.Uint16(t.CDB[7:])))]
			t.Moved = int64(len(t.DataIn))
		}
	}
	t.Done(t)
}

// elsewhere has the node that serves the unit answer.
func (x *Nexus) elsewhere(c *io) {
	lu, t := c.unit.lu, c.task
	if lu.around.Elsewhere == nil {
		check(t, lu.notReady(x.port))
		t.Done(t)
		return
	}
	q := c.question(c.unit.flight.nexus)
	q.CDB, q.List = append([]byte(nil), q.CDB...), append([]byte(nil), q.List...)
	// The question is given up when the session ends, or aborts: what comes then goes nowhere.
	changes := !q.Describes()
	if changes && lu.lostNow(x.nexus, 0) > 0 {
		// What the session before had reserved is being released, or may still be granted: what is asked now must not be overtaken by that.
		t.Status = api.SAM_STAT_BUSY
		t.Done(t)
		return
	}
	id := x.asks(question{lu: lu, changes: changes, reserves: t.CDB[0] == opReserve6 || t.CDB[0] == opReserve10})
	if changes {
		lu.asking.Add(1)
	}
	end := lu.around.Elsewhere(q, func(a Answer, asked bool, err error) {
		out := x.asked(id)
		if changes {
			lu.asking.Add(-1)
		}
		if out.lost {
			if err == nil && a.Status == api.SAM_STAT_GOOD || err != nil && asked {
				lu.unreserveElsewhere(x.nexus)
			}
			lu.lostNow(x.nexus, -1)
		}
		switch {
		case err != nil && asked && !describes(q.CDB):
			c.answered(a, block.ErrEnded) // nobody knows what has become of it: whoever brought it is dropped
		case err != nil:
			c.answered(refusal(transition()), nil)
		default:
			c.answered(a, nil)
		}
	})
	x.asking(id, end)
}

// giveUp ends what the session has asked about reservations and nobody has begun. It tells whether other nodes may still be
// at something; what describes the unit does nothing to it.
func (x *Nexus) giveUp() (out bool) {
	x.mu.RLock()
	units := make([]unit, 0, len(x.units))
	for _, u := range x.units {
		units = append(units, u)
	}
	x.mu.RUnlock()
	for _, u := range units {
		u.lu.arbiter.purge(x)
	}
	x.out.Lock()
	defer x.out.Unlock()
	for _, q := range x.questions {
		out = out || q.changes
	}
	return out
}

// resetter stops what stopper does and, besides, commands that have not been shown to the nexus yet.
func (x *Nexus) resetter(f *flight, n uint16) func() int {
	if x.login.Stop == nil {
		return nil
	}
	return func() int {
		return x.login.Stop(func(t *target.Task) bool {
			at, ok := t.LUN.Number()
			if !ok || at != n {
				return false
			}
			u, there := x.unit(t.LUN)
			return there && u.flight == f
		})
	}
}

// stopper returns what stops the commands of the session that came in by f, at a LUN. Those that it has not seen yet it leaves
// to the gate.
func (x *Nexus) stopper(f *flight, n uint16) func() int {
	if x.login.Stop == nil {
		return nil
	}
	return func() int {
		return x.login.Stop(func(t *target.Task) bool {
			c, seen := t.State.(*io)
			at, ok := t.LUN.Number()
			return seen && ok && at == n && c.known && c.unit.flight == f
		})
	}
}

// enters counts a command in that touches the medium, or answers it if a reservation forbids it.
func (c *io) enters() bool {
	class := reserve.ClassOf(c.task.CDB)
	if class == reserve.Free {
		return true
	}
	t := c.task
	switch c.unit.lu.arbiter.enter(c.unit.flight, &c.unit.flight.under, class) {
	case passes:
		c.class = class
		return true
	case waits:
		t.Status = api.SAM_STAT_BUSY
		t.Done(t)
	case conflicts:
		// It depends on the reservations, so it is given only by who serves (invariant 11).
		c.st.dev.Submit(&block.Request{Op: block.Read, Done: func(r *block.Request) {
			t.Status = api.SAM_STAT_RESERVATION_CONFLICT
			if r.Err != nil {
				fail(t, r.Err, false)
			}
			t.Done(t)
		}})
	}
	return false
}

// passage is a command that is counted in at a unit.
type passage struct {
	unit  unit
	class reserve.Class
	in    *counts
}

// also counts a command in at another unit than its own, until it ends; false: what is reserved there forbids it, or may.
func (c *io) also(u unit, class reserve.Class) bool {
	for _, p := range c.others {
		if p.unit == u && p.class == class {
			return true
		}
	}
	in := &u.flight.afar
	if u == c.unit {
		in = &u.flight.under
	}
	if u.lu.arbiter.enter(u.flight, in, class) != passes {
		return false
	}
	c.others = append(c.others, passage{u, class, in})
	return true
}

// leaves counts a command out, whatever has become of it.
func (c *io) leaves() {
	if c.class != reserve.Free {
		class := c.class
		c.class = reserve.Free
		c.unit.lu.arbiter.leave(&c.unit.flight.under, class)
	}
	for _, p := range c.others {
		p.unit.lu.arbiter.leave(p.in, p.class)
	}
	c.others = c.others[:0]
}

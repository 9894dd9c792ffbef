package scsi

import (
	"encoding/binary"
	"errors"

	"pmsapp/internal/block"
	"pmsapp/target"
)

// describes tells whether a command asks what the unit is like: its size, its cache, its write protection. A host asks that once, when
// it finds a path, and believes it for as long as it has the path; so a port that stands by answers it too, with the words of the
// node that serves.
func describes(cdb []byte) bool {
	switch cdb[0] {
	case opReadCapacity10, opModeSense6, opModeSense10:
		return true
	case opServiceActionIn:
		return cdb[1]&0x1f == saReadCapacity16
	}
	return false
}

// Describes tells whether the question has a command that describes; a CDB has 16 bytes or more.
func (q *Question) Describes() bool {
	return len(q.CDB) >= 16 && len(q.CDB) <= target.MaxCDB && describes(q.CDB)
}

// describe describes the unit where it is served, when every member's node has confirmed that no newer epoch is there: the size is
// among what no one may say who serves no more (invariant 11). Where the unit only holds what comes, nobody can confirm; its size is
// the catalog's then.
func (x *Nexus) describe(c *io) {
	t := c.task
	if c.unit.lu.arbiter.waits() {
		x.primary(c)
		t.Done(t)
		return
	}
	c.st.dev.Submit(&block.Request{Op: block.Read, Done: func(r *block.Request) {
		if r.Err != nil {
			fail(t, r.Err, false)
		} else {
			x.primary(c)
		}
		t.Done(t)
	}})
}

// answerDescribing answers another node's question that describes the unit. The answer is given when every member's node has confirmed that
// no newer epoch is there (invariant 11), as for questions about reservations.
func (lu *LU) answerDescribing(q Question, done func(Answer, error)) {
	st := lu.state.Load()
	if st.dev == nil {
		done(refusal(standby()), nil)
		return
	}
	if lu.arbiter.waits() {
		done(lu.describing(st, q), nil)
		return
	}
	st.dev.Submit(&block.Request{Op: block.Read, Done: func(r *block.Request) {
		switch {
		case errors.Is(r.Err, block.ErrHeld):
			done(busy(), nil)
		case r.Err != nil:
			done(Answer{}, r.Err)
		default:
			done(lu.describing(st, q), nil)
		}
	}})
}

// describing carries the command out as a nexus of this node's would.
func (lu *LU) describing(st *state, q Question) Answer {
	t := &target.Task{CDB: q.CDB}
	x := &Nexus{target: &Target{}, port: q.Nexus.Port}
	x.primary(&io{task: t, known: true, unit: unit{lu: lu}, st: st})
	a := Answer{Status: t.Status, Data: append([]byte(nil), t.DataIn...)}
	block.Put(t.DataIn)
	if len(t.Sense) >= 14 {
		a.Key, a.ASC = t.Sense[2]&0xf, binary.BigEndian.Uint16(t.Sense[12:])
	}
	return a
}

// described is what the host is answered: what the LUN map forbids this nexus is known here and not there.
func (c *io) described(data []byte) []byte {
	data = data[:min(len(data), maxAnswer)]
	at := 0 // of the device-specific parameter (SPC-4 7.5.5)
	switch c.task.CDB[0] {
	case opModeSense6:
		at = 2
	case opModeSense10:
		at = 3
	}
	if at > 0 && at < len(data) && c.unit.readOnly {
		data[at] |= modeWriteProtected
	}
	return data
}

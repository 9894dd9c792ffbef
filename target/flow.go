package target

import (
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/iscsi"
)

// minQueue is the smallest command window that a session can be given.
const minQueue = 4

// stage is how far a task has come.
type stage uint8

const (
	early      stage = iota // commands before it are missing; the nexus has not seen it
	collecting              // accepted; waits for data, or for memory
	executing               // the nexus has it
	ended                   // waits to be sent
)

// flow is the connection layer's part of a Task. session.mu guards it, but for the buffers while the reader fills them.
type flow struct {
	sess      *session
	cmdSN     uint32
	order     uint64 // grows with each task of the session
	immediate bool
	begun     int64 // Server.clock when it came
	stage     stage
	// stopped says that the task was aborted: it is not in the table of tasks any more, it is never executed if it was
	// not yet, and never answered.
	stopped bool
	// pushing says that unsolicited Data-Out PDUs are still to come.
	pushing bool
	// admitted says that DataOut has its full size; before, unsolicited data goes to firstBurst.
	admitted   bool
	firstBurst []byte
	// full says that there was no memory for data that came unasked: it was thrown away, and so will the task be.
	full         bool
	small, large int64 // bytes taken from the budget

	got     int64  // bytes received, in order, those beyond Accepted.Out included
	asked   int64  // bytes received or asked for by R2Ts
	r2ts    uint32 // R2Ts sent
	filled  uint32 // R2Ts whose data came
	from    int64  // offset at which solicited data begins
	dataSN  uint32 // of the next PDU of the current sequence
	seqLeft int64  // bytes that are missing in the sequence of the oldest R2T

	gotThen int64     // got when the watchman looked
	seen    time.Time // when that was new
}

// begin makes a recycled or new task one that has just arrived.
func (t *Task) begin(s *session, h *iscsi.BHS, cdb []byte, bidi uint32) {
	t.LUN = LUN(h[8:16])
	t.CDB, t.Tag = cdb, h.ITT()
	t.Attr = Attribute(h.Flags() & iscsi.AttrMask)
	t.Read, t.Write = h.Has(iscsi.FlagRead), h.Has(iscsi.FlagWrite)
	t.ExpIn, t.ExpOut = 0, 0
	switch {
	case t.Read && t.Write:
		t.ExpOut, t.ExpIn = int64(h.EDTL()), int64(bidi)
	case t.Write:
		t.ExpOut = int64(h.EDTL())
	case t.Read:
		t.ExpIn = int64(h.EDTL())
	}
	t.Accepted, t.Moved, t.Status, t.Sense, t.Drop = Want{}, 0, 0, nil, nil
	t.Stop, t.Delivered, t.Lent = nil, nil, nil
	t.flow = flow{sess: s, cmdSN: h.CmdSN(), immediate: h.Immediate(), begun: s.srv.clock.Load(),
		pushing: t.Write && !h.Final() && !s.params.InitialR2T}
}

// missing tells how much of the data that the nexus wants has not come.
func (t *Task) missing() int64 { return t.Accepted.Out - t.got }

// room returns the buffer into which the next bytes of data go; it may be empty.
func (t *Task) room() []byte {
	b := t.DataOut
	if !t.admitted {
		b = t.firstBurst
	}
	return b[min(t.got, int64(len(b))):]
}

// admit gives the task its memory and moves what has come already.
func (t *Task) admit() {
	t.admitted = true
	t.DataOut = block.Get(int(t.Accepted.Out))
	copy(t.DataOut, t.firstBurst[:min(t.got, int64(len(t.firstBurst)))])
	block.Put(t.firstBurst)
	t.firstBurst = nil
}

// free gives the buffers back.
func (t *Task) free() {
	block.Put(t.firstBurst)
	block.Put(t.DataOut)
	block.Put(t.DataIn)
	t.firstBurst, t.DataOut, t.DataIn = nil, nil, nil
}

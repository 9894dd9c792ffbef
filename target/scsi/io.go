package scsi

import (
	"bytes"
	"errors"
	"sync/atomic"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"pmsapp/internal/block"
	"pmsapp/internal/reserve"
	"pmsapp/target"
)

// io is what a task is for the nexus: Task.State. It is reused with the task, and with it the request.
type io struct {
	task  *target.Task
	known bool // there is a unit behind the LUN
	unit  unit
	st    *state // of the moment at which the command arrived: it is executed on that or never (invariant 8)
	kind  kind
	class reserve.Class // under which it is counted in its unit's flight

	others []passage // where else it is counted in

	lba, n uint64 // blocks
	buf    []byte // what VERIFY has read, the pattern of WRITE SAME, what an update read
	medium bool   // what is read has to be on the medium (SBC-4, FUA and verify operations): a flush follows the read
	differ uint32 // of COMPARE AND WRITE: the first byte that differs
	req    block.Request
	more   []block.Request // of commands that take several; kept for reuse
	left   atomic.Int32    // requests that have not ended
}

func (x *Nexus) io(t *target.Task) *io {
	if c, ok := t.State.(*io); ok {
		return c
	}
	c := &io{task: t}
	c.req.Done = c.ended
	t.State = c
	// Whatever ends the task counts it out.
	done := t.Done
	t.Done = func(t *target.Task) { c.leaves(); done(t) }
	return c
}

// Accept implements target.Nexus.
func (x *Nexus) Accept(t *target.Task) target.Want {
	c := x.io(t)
	c.kind, c.st, c.class = 0, nil, reserve.Free
	if c.unit, c.known = x.unit(t.LUN); !c.known {
		return target.Want{}
	}
	c.st = c.unit.lu.state.Load()
	if reserves(t.CDB[0]) {
		return target.Want{Out: min(reserveLength(t.CDB), reserve.MaxParameters, t.ExpOut), In: maxAnswer}
	}
	if c.kind = kindOf(t.CDB); c.kind == 0 {
		return target.Want{In: maxAnswer, Out: min(parameters(t.CDB), maxAnswer, t.ExpOut)}
	}
	if c.st.dev == nil {
		return target.Want{}
	}
	c.lba, c.n = extent(t.CDB)
	return wants(c.kind, t, c.n, c.st)
}

// Cancel implements target.Nexus.
func (x *Nexus) Cancel(*target.Task) {}

// Execute implements target.Nexus.
func (x *Nexus) Execute(t *target.Task) {
	c := t.State.(*io)
	if s, bad := c.refused(); bad {
		check(t, s)
		t.Done(t)
		return
	}
	if reserves(t.CDB[0]) && c.known {
		x.reservation(c)
		return
	}
	if c.known && c.st.dev == nil && describes(t.CDB) {
		x.elsewhere(c)
		return
	}
	if c.known && c.st.dev != nil && !c.enters() {
		return
	}
	if c.known && c.st.dev != nil && describes(t.CDB) {
		x.describe(c)
		return
	}
	if c.kind == 0 {
		x.primary(c)
		t.Done(t)
		return
	}
	if c.st.dev == nil {
		check(t, c.unit.lu.notReady(x.port))
		t.Done(t)
		return
	}
	s, err := sense{}, false
	switch c.kind {
	case kRead:
		s, err = c.read()
	case kWrite:
		s, err = c.write()
	case kWriteVerify, kVerify:
		s, err = c.verify()
	case kWriteSame:
		s, err = c.writeSame()
	case kUnmap:
		s, err = c.unmap()
	case kSync:
		s, err = c.sync()
	case kPrefetch:
		s, err = c.prefetch()
	case kOr:
		s, err = c.or()
	case kCompareWrite:
		s, err = c.compareWrite(x.nexus.Initiator)
	case kStatus:
		s, err = c.lbaStatus()
	case kCopy:
		s, err = x.extendedCopy(c)
	}
	if err {
		check(t, s)
		t.Done(t)
	}
}

// refused finds what makes any command fail: what SAM-5 and SPC-4 ask for before the command is looked at.
func (c *io) refused() (sense, bool) {
	t := c.task
	switch {
	case !c.known:
		if op := t.CDB[0]; op == opInquiry || op == opRequestSense || op == opReportLUNs {
			return sense{}, false
		}
		return illegal(gotgt.ASC_LUN_NOT_SUPPORTED), true
	case t.Attr >= target.ACA:
		return sense{key: gotgt.ILLEGAL_REQUEST, asc: ascInvalidMessage}, true
	case t.Read && t.Write:
		return illegal(ascInfoUnit), true
	}
	if c.unit.attention.any.Load() {
		switch t.CDB[0] {
		case opInquiry, opRequestSense, opReportLUNs:
		default:
			if s, ok := c.unit.attention.take(); ok {
				return s, true
			}
		}
	}
	if control(t.CDB)&controlNACA != 0 {
		return invalidField(), true
	}
	if c.kind.changes() && c.kind != kCopy { // a copy says which unit it writes
		if s, fixed := c.unit.writeProtected(); fixed {
			return s, true
		}
	}
	return sense{}, false
}

// inRange checks LBA and length of a command that must not exceed the longest transfer.
func (c *io) inRange() (sense, bool) {
	if c.lba >= c.st.count || c.n > c.st.count-c.lba {
		return illegal(gotgt.ASC_LBA_OUT_OF_RANGE), true
	}
	if c.n > c.st.max {
		return invalidField(), true
	}
	return sense{}, false
}

func (c *io) protected() bool { return c.task.CDB[0]>>5 != 0 && c.task.CDB[1]&protection != 0 }

func (c *io) good() {
	c.task.Status = api.SAM_STAT_GOOD
	c.task.Done(c.task)
}

// submit sends the one request of a command.
func (c *io) submit(op block.Op, lba, n uint64, data []byte, fua bool) {
	c.left.Store(1)
	c.req.Op, c.req.Off, c.req.Len = op, int64(lba<<c.st.shift), int64(n<<c.st.shift)
	c.req.Data, c.req.FUA, c.req.Err, c.req.Lent = data, fua, nil, c.task.Lent
	c.req.MayRetain = c.kind == kWrite
	c.st.dev.Submit(&c.req)
}

// ended is the Done of all requests of the command.
func (c *io) ended(*block.Request) {
	switch {
	case c.left.Add(-1) > 0:
	case c.medium && c.req.Err == nil: // what was read was written before: this flush covers it
		c.medium = false
		c.left.Store(1)
		c.req.Op, c.req.Data, c.req.Lent = block.Flush, nil, nil
		c.st.dev.Submit(&c.req)
	default:
		c.medium = false
		c.finish()
	}
}

// finish makes the answer out of what has become of the requests.
func (c *io) finish() {
	t := c.task
	err, wrote := c.req.Err, c.kind.changes() || c.req.Op == block.Flush // what a flush could not make durable was written
	for i := range c.more {
		if err == nil {
			err = c.more[i].Err
			wrote = c.more[i].Op != block.Read
		}
		c.more[i].Data = nil
	}
	c.more = c.more[:0]
	c.req.Data, c.req.Lent, c.req.MayRetain = nil, nil, false
	if c.req.Retained {
		t.DataOut, c.req.Retained = nil, false
	}
	switch {
	case errors.Is(err, errMiscompare):
		t.Status = api.SAM_STAT_CHECK_CONDITION
		t.Sense = miscompare().fixed(t.SenseBuf[:], c.differ, true)
	case err != nil:
		t.Moved = 0
		fail(t, err, wrote)
	case c.kind == kVerify || c.kind == kWriteVerify:
		c.compare()
	case c.kind == kStatus:
		c.extents()
	default:
		t.Status = api.SAM_STAT_GOOD
	}
	block.Put(c.buf)
	c.buf = nil
	t.Done(t)
}

func (c *io) read() (sense, bool) {
	if c.protected() {
		return invalidField(), true
	}
	if s, bad := c.inRange(); bad {
		return s, true
	}
	t := c.task
	t.Moved = int64(c.n << c.st.shift)
	// What the initiator does not expect need not be read.
	bs := int64(1) << c.st.shift
	n := min(c.n, uint64((t.ExpIn+bs-1)>>c.st.shift))
	if n == 0 {
		c.good()
		return sense{}, false
	}
	t.DataIn = block.Get(int(n << c.st.shift))
	c.medium = c.st.geo.Volatile && t.CDB[0] != opRead6 && t.CDB[1]&bitFUA != 0
	c.submit(block.Read, c.lba, n, t.DataIn, false)
	return sense{}, false
}

// arrived is how many whole blocks of the data that the command should have came. Fewer came if the initiator expected
// to send fewer: what came is written, and the residual count tells of the rest.
func (c *io) arrived() uint64 { return min(c.n, uint64(len(c.task.DataOut))>>c.st.shift) }

func (c *io) write() (sense, bool) {
	if c.protected() {
		return invalidField(), true
	}
	if s, bad := c.inRange(); bad {
		return s, true
	}
	t := c.task
	t.Moved = int64(c.n << c.st.shift)
	n := c.arrived()
	if n == 0 {
		c.good()
		return sense{}, false
	}
	fua := t.CDB[0] != opWrite6 && t.CDB[1]&bitFUA != 0
	c.submit(block.Write, c.lba, n, t.DataOut[:n<<c.st.shift], fua)
	return sense{}, false
}

// verify does VERIFY and WRITE AND VERIFY. The read comes after the write by the device's order.
func (c *io) verify() (sense, bool) {
	t := c.task
	how := byteCheck(t.CDB)
	if c.protected() || how == 2 || how == 3 && c.kind == kWriteVerify {
		return invalidField(), true
	}
	if s, bad := c.inRange(); bad {
		return s, true
	}
	t.Moved = int64(dataOut(c.kind, t.CDB, c.n, c.st))
	if c.n > 0 && how == 3 && len(t.DataOut) < 1<<c.st.shift {
		return invalidField(), true
	}
	n := c.n
	if c.kind == kWriteVerify || how == 1 {
		n = c.arrived()
	}
	if n == 0 {
		c.good()
		return sense{}, false
	}
	c.buf = block.Get(int(n << c.st.shift))
	if c.kind == kVerify {
		c.medium = c.st.geo.Volatile
		c.submit(block.Read, c.lba, n, c.buf, false)
		return sense{}, false
	}
	c.reserve(1)
	w, r := &c.req, &c.more[0]
	off, size := int64(c.lba<<c.st.shift), int64(n<<c.st.shift)
	w.Op, w.Off, w.Len, w.Data, w.FUA, w.Err = block.Write, off, size, t.DataOut[:size], true, nil
	r.Op, r.Off, r.Len, r.Data, r.FUA, r.Err = block.Read, off, size, c.buf, false, nil
	c.left.Store(2)
	dev := c.st.dev // Done may have given c back when the second Submit returns
	dev.Submit(w)
	dev.Submit(r)
	return sense{}, false
}

// reserve makes room for n further requests.
func (c *io) reserve(n int) {
	if cap(c.more) < n {
		c.more = make([]block.Request, n)
		for i := range c.more {
			c.more[i].Done = c.ended
		}
	}
	c.more = c.more[:n]
}

// compare looks at what was read beside what was sent (BYTCHK).
func (c *io) compare() {
	t := c.task
	t.Status = api.SAM_STAT_GOOD
	want := t.DataOut
	switch byteCheck(t.CDB) {
	case 0:
		return
	case 1:
		want = want[:len(c.buf)]
	case 3:
		want = want[:1<<c.st.shift]
	}
	for off := 0; off < len(c.buf); off += len(want) {
		part := c.buf[off : off+len(want)]
		if bytes.Equal(part, want) {
			continue
		}
		for i := range part {
			if part[i] != want[i] {
				off += i
				break
			}
		}
		t.Status = api.SAM_STAT_CHECK_CONDITION
		t.Sense = miscompare().fixed(t.SenseBuf[:], uint32(off), true)
		return
	}
}

func (c *io) sync() (sense, bool) {
	if c.lba >= c.st.count || c.n > c.st.count-c.lba {
		return illegal(gotgt.ASC_LBA_OUT_OF_RANGE), true
	}
	n := c.n
	if n == 0 {
		n = c.st.count - c.lba
	}
	c.submit(block.Flush, c.lba, n, nil, false)
	return sense{}, false
}

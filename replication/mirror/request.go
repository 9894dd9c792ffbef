package mirror

import (
	"time"

	"pmsapp/internal/block"
	"pmsapp/replication/peer"
)

// request is one block.Request under way. It stays until every part of it is over, which may be after its completion.
type request struct {
	r        *block.Request // nil once it was completed
	op       block.Op
	off, len int64
	data     []byte
	span     span
	arrival  uint64
	deadline time.Duration
	state    reqState
	locked   bool  // span is in the tree
	fua      bool  // a write that is durable when it is answered, whatever the volume's durability
	storing  bool  // an update that was read and modified: what it does from now on is a write
	retained bool  // a disk that hangs still has its data
	expired  bool  // ends with ErrHeld as soon as its calls have come back
	issued   int64 // bytes of it for which parts were made
	unacked  int   // parts that are not done for the client
	parts    partList
	err      error
	own      mask // slots whose own answers confirm it (11)

	wnext      *request // in the list of a slot whose confirmation it waits for
	prev, next *request
}

type reqState uint8

const (
	late     reqState = iota + 1 // came during a drain
	queued                       // waits for its range
	running                      // parts are under way
	settling                     // done but for confirmations
	over                         // completed; parts may still be unanswered by a joiner
)

const (
	readOp   = block.Read
	zeroOp   = block.Zero
	writeOp  = block.Write
	updateOp = block.Update
	mapOp    = block.Map
)

// reads says that the parts that q makes now change nothing. It never changes while there are parts.
func (q *request) reads() bool {
	return q.op == readOp || q.op == mapOp || q.op == updateOp && !q.storing
}

// maxParts bounds the parts of a request that are under way together.
const maxParts = 4

// Submit begins a request.
func (c *Core) Submit(r *block.Request) {
	if c.ended {
		r.Err = block.ErrEnded
		c.emit(Effect{Kind: Complete, Request: r})
		return
	}
	c.askedAt = c.now
	c.enter(r)
	c.run()
}

// enter makes a request of the client's, or the mirror's own.
func (c *Core) enter(r *block.Request) {
	q := c.free.requests
	if q == nil {
		q = new(request)
	} else {
		c.free.requests = q.next
	}
	c.arrival++
	*q = request{
		r: r, op: r.Op, off: r.Off, len: r.Len, data: r.Data,
		arrival: c.arrival, deadline: c.now + c.t.Hold, state: late, fua: r.FUA,
	}
	c.reqs.push(q)
	if !c.draining || r == &c.cache.own {
		c.live++
		c.admit(q)
	}
}

func (c *Core) admit(q *request) {
	q.state = queued
	switch q.op {
	case readOp, writeOp, updateOp:
		if q.len != int64(len(q.data)) {
			q.err = block.ErrRange
		}
	case zeroOp, mapOp:
	case block.Flush:
		c.admitFlush(q)
		return
	default:
		q.err = block.ErrRange
	}
	v := &c.p.Volume
	if mod := int64(v.Logical) - 1; q.off < 0 || q.len < 0 || (q.off|q.len)&mod != 0 || q.off > v.Size-q.len {
		q.err = block.ErrRange
	}
	if q.err != nil || q.len == 0 {
		q.issued = q.len
		q.state = running
		c.advance(q)
		return
	}
	phys := int64(c.p.Physical)
	q.span = span{
		lo: q.off &^ (phys - 1), hi: (q.off + q.len + phys - 1) &^ (phys - 1),
		alone: q.op != readOp && q.op != mapOp, order: q.arrival, req: q,
	}
	q.locked = true
	c.order.enter(&q.span)
	if q.span.blockers == 0 {
		c.ready.push(&q.span)
	}
}

// begin runs a request whose range is free.
func (c *Core) begin(q *request) {
	q.state = running
	if c.ended {
		c.endRequest(q, block.ErrEnded)
		return
	}
	if q.reads() {
		c.wantConfirms(q)
	}
	c.advance(q)
}

// store lets an update that was read go on as a write, or says that there is nothing to write. Its range stays locked.
func (c *Core) store(q *request) bool {
	if q.op != updateOp || q.storing || q.parts.n > 0 || q.err != nil || q.expired || c.ended {
		return false
	}
	if q.err = q.r.Modify(q.r); q.err != nil {
		return false
	}
	q.storing, q.issued = true, 0
	q.deadline = c.now + c.t.Hold // it makes progress: it is not held
	c.reqs.remove(q)
	c.reqs.push(q)
	return true
}

// more says whether further parts are to be made.
func (q *request) more() bool { return q.issued < q.len && q.err == nil && !q.expired }

// advance goes on with a running request: makes further parts, lets go of the range, settles, ends.
func (c *Core) advance(q *request) {
	for q.more() && q.parts.n < maxParts && !c.ended {
		c.issue(q)
	}
	if q.state == running && q.unacked == 0 && !q.more() && c.store(q) {
		c.advance(q)
		return
	}
	if q.state == running && q.unacked == 0 && (!q.more() || c.ended) {
		if c.ended && q.issued < q.len {
			q.err = block.ErrEnded
		}
		q.state = settling
		c.settle(q)
		return // it comes back here if it completes
	}
	if q.parts.n == 0 && q.state != running {
		c.unlock(q)
	}
	if q.parts.n == 0 && q.state == over {
		c.reqs.remove(q)
		c.live--
		*q = request{next: c.free.requests}
		c.free.requests = q
	}
}

func (c *Core) unlock(q *request) {
	if q.locked {
		q.locked = false
		c.order.leave(&q.span, &c.ready)
	}
}

// issue makes the next part: up to the next multiple of the longest command.
func (c *Core) issue(q *request) {
	limit := c.t.MaxIO
	switch q.op {
	case zeroOp:
		limit = c.t.MaxZero
	case mapOp:
		limit = c.p.Volume.Size
	}
	off := q.off + q.issued
	n := min(q.len-q.issued, limit-off%limit)
	p := c.newPart(q, off, n)
	if q.data != nil {
		p.data = q.data[q.issued : q.issued+n]
	}
	q.issued += n
	if !c.tryPart(p) {
		c.park(p)
	}
}

// settle completes a request whose parts are done, when it is confirmed (11).
func (c *Core) settle(q *request) {
	switch {
	case c.ended:
		q.err = block.ErrEnded
	case q.expired:
		q.err = block.ErrHeld
	case !c.confirmed(q):
		if q.parts.n == 0 {
			c.unlock(q) // what it read or wrote is fixed
		}
		return
	}
	c.complete(q)
	c.advance(q)
}

func (c *Core) complete(q *request) {
	if q.r == &c.cache.own {
		c.ownFlushed(q.err)
	} else {
		q.r.Err, q.r.Retained = q.err, q.retained
		c.emit(Effect{Kind: Complete, Request: q.r, Took: c.now - (q.deadline - c.t.Hold)})
	}
	q.r, q.data, q.state = nil, nil, over
}

// endRequest ends a request with ErrHeld or ErrEnded: at once, or when its calls have come back, for their data is the
// client's.
func (c *Core) endRequest(q *request, err error) {
	switch q.state {
	case late:
		c.live++ // advance takes it away
		q.err = err
		c.complete(q)
	case queued:
		if q.span.queued {
			q.expired = true // it ends when it begins
			if err == block.ErrEnded {
				return
			}
			return
		}
		q.err = err
		c.complete(q)
	case settling:
		c.forgetWaiter(q)
		q.err = err
		c.complete(q)
	case running:
		q.expired = true
		for p := q.parts.head; p != nil; {
			next := p.next
			switch {
			case p.parked:
				c.failPart(p, err)
			case !q.reads():
				c.evalWrite(p)
			}
			if q.r == nil {
				return // ended; q may be in use for another
			}
			p = next
		}
		if q.parts.n > 0 {
			return
		}
	case over:
		// A joiner's answers are still out.
	}
	c.advance(q)
}

// requestList is a list in the order of arrival.
type requestList struct {
	head, tail *request
	n          int
}

func (l *requestList) push(q *request) {
	q.prev, q.next = l.tail, nil
	if l.tail == nil {
		l.head = q
	} else {
		l.tail.next = q
	}
	l.tail = q
	l.n++
}

func (l *requestList) remove(q *request) {
	if q.prev == nil {
		l.head = q.next
	} else {
		q.prev.next = q.next
	}
	if q.next == nil {
		l.tail = q.prev
	} else {
		q.next.prev = q.prev
	}
	q.prev, q.next = nil, nil
	l.n--
}

// found gives the client what a member says that holds data.
func (q *request) found(extents []peer.Extent) {
	for _, x := range extents {
		q.r.Extents = append(q.r.Extents, block.Extent{Off: x.Off, Len: x.Len})
	}
}

package reign

import (
	"fmt"
	"slices"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/truth"
)

// stamped is a Report and when it came.
type stamped struct {
	Report
	at time.Duration
}

// handing is a hand-over under way: choose whom, drain all mirrors, transfer. It ends with this reign: either the
// leadership is gone, or a new reign begins, since a drained mirror does not go on.
type handing struct {
	request uint64 // 0: a yield
	to      ids.Node
	asked   time.Duration // when the nodes were asked; what came before does not count
	until   time.Duration
	chosen  bool
	waiting int // mirrors that are not drained
	sent    bool
}

// reportWait is how long reports are waited for when somebody waits for the hand-over.
const reportWait = 200 * time.Millisecond

// yielding remembers, over reigns, how to yield with back-off (invariant 19).
type yielding struct {
	out   bool // some volumes are out of reach
	since time.Duration
	asked time.Duration
	ask   pace
	hand  pace
}

// witness is what an elected witness remembers.
type witness struct {
	asking bool
	asked  time.Duration
	sent   ids.Node
	until  time.Duration
	failed []ids.Node
}

func (c *Core) reported(ev Reported) {
	c.reports[ev.Node] = stamped{Report: ev.Report, at: c.now}
	if c.r != nil {
		c.r.reachDue = true
	}
}

// others is all storage nodes but this one.
func (c *Core) others() []ids.Node {
	var out []ids.Node
	for i := range c.view.Nodes {
		if n := &c.view.Nodes[i]; !n.Witness && n.ID != c.self {
			out = append(out, n.ID)
		}
	}
	return out
}

// electable is the report of a storage node that said so since then.
func (c *Core) electable(n ids.Node, since time.Duration) (Report, bool) {
	s, ok := c.reports[n]
	return s.Report, ok && s.at >= since && s.Electable
}

// silent tells whether a node that was asked has not answered.
func (c *Core) silent(ns []ids.Node, since time.Duration) bool {
	return slices.ContainsFunc(ns, func(n ids.Node) bool {
		s, ok := c.reports[n]
		return !ok || s.at < since
	})
}

func (c *Core) ask(ns []ids.Node) {
	for _, n := range ns {
		delete(c.reports, n)
	}
	if len(ns) > 0 {
		c.emit(AskReports{Nodes: ns})
	}
}

// reach counts the volumes of which a node that reaches these nodes reaches an in-sync member.
func (c *Core) reach(reaches func(ids.Node) bool) int {
	count := 0
	for i := range c.view.Volumes {
		v := &c.view.Volumes[i]
		if !v.Foreign && slices.ContainsFunc(v.InSync, func(p truth.Place) bool { return reaches(p.Node) }) {
			count++
		}
	}
	return count
}

func (c *Core) reachOf(r Report) int {
	return c.reach(func(n ids.Node) bool { return slices.Contains(r.Reaches, n) })
}

// best is the electable node that reaches most, of equals the one with the longest log. More than least are needed.
func (c *Core) best(since time.Duration, least int) (to ids.Node, found bool) {
	var log uint64
	for _, n := range c.others() {
		r, ok := c.electable(n, since)
		if !ok || c.isDrained(n) {
			continue
		}
		if k := c.reachOf(r); k > least || (found && k == least && r.LastIndex > log) {
			to, found, least, log = n, true, k, r.LastIndex
		}
	}
	return to, found
}

// askHandOver begins a planned hand-over.
func (c *Core) askHandOver(ev HandOver) {
	reply := Reply{Request: ev.Request}
	ask := c.others()
	switch {
	case c.r == nil || !c.r.applied:
		reply.Err = ErrNotLeading
	case c.r.handing != nil || len(c.r.making) > 0 || len(c.r.deleting) > 0:
		reply.Err = ErrBusy
	case !ev.To.IsZero() && !slices.Contains(ask, ev.To):
		reply.Err = fmt.Errorf("%w: %s is not another storage node", ErrInvalid, ev.To)
	case len(ask) == 0:
		reply.Err = ErrNoTarget
	default:
		if !ev.To.IsZero() {
			ask = []ids.Node{ev.To}
		}
		c.r.handing = &handing{request: ev.Request, to: ev.To, asked: c.now, until: c.now + reportWait}
		c.ask(ask)
		return
	}
	c.emit(reply)
}

// driveHanding chooses a node once it can, and ends what takes too long.
func (c *Core) driveHanding(h *handing) {
	if h.chosen {
		if c.now < h.until {
			c.at(h.until)
			return
		}
		c.giveUp(h, ErrTimeout)
		return
	}
	asked := c.others()
	if !h.to.IsZero() {
		asked = []ids.Node{h.to}
	}
	if c.silent(asked, h.asked) && c.now < h.until {
		c.at(h.until)
		return
	}
	to, ok := h.to, false
	if to.IsZero() {
		to, ok = c.best(h.asked, -1)
	} else {
		_, ok = c.electable(to, h.asked)
	}
	if !ok { // nothing was drained: everything goes on
		c.r.handing = nil
		c.touch()
		c.emit(Reply{Request: h.request, Err: ErrNoTarget})
		return
	}
	h.to = to
	c.drainAll(h)
}

// drainAll drains every mirror that does not hold its I/O for want of a member: that one could not be drained, and closing
// it, as all are in the end, is no loss: what it holds was not answered.
func (c *Core) drainAll(h *handing) {
	h.chosen, h.until = true, c.now+c.cfg.DrainTimeout
	c.tell(HandingOver, ids.Volume{}, h.to, "handing over to node "+c.nodeName(h.to))
	for _, v := range c.r.list {
		switch {
		case v.stage == opening:
			h.waiting++
		case v.stage == open && v.holds == "":
			h.waiting++
			c.drainFor(h, v)
		}
	}
	c.at(h.until)
	c.transfer(h)
}

// drainFor begins the drain of a mirror. One that was still opening is counted already.
func (c *Core) drainFor(h *handing, v *vol) {
	if h.chosen {
		v.stage, v.state, v.reason = draining, Draining, "the leadership is handed over"
		c.emit(DrainMirror{Volume: v.id})
	}
}

func (c *Core) drainedFor(h *handing, v *vol, err error) {
	if err != nil {
		c.giveUp(h, fmt.Errorf("%w: volume %s: %w", ErrTimeout, v.id, err))
		return
	}
	v.stage = drained
	h.waiting--
	c.transfer(h)
}

func (c *Core) transfer(h *handing) {
	if h.waiting == 0 && !h.sent {
		h.sent, h.until = true, c.now+c.cfg.DrainTimeout
		c.emit(TransferLeadership{To: h.to})
	}
}

// giveUp ends a hand-over without success.
func (c *Core) giveUp(h *handing, err error) {
	c.r.handing = nil
	if h.request != 0 {
		c.emit(Reply{Request: h.request, Err: err})
	}
	c.endReign(fmt.Sprintf("the hand-over to node %s was given up: %v", c.nodeName(h.to), err))
}

func (c *Core) transferFailed(ev TransferFailed) {
	if c.r != nil && c.r.handing != nil && c.r.handing.sent {
		c.giveUp(c.r.handing, fmt.Errorf("transfer the leadership: %w", ev.Err))
		return
	}
	if w := &c.witness; !w.sent.IsZero() {
		w.failed = append(w.failed, w.sent)
		w.sent, w.until = ids.Node{}, c.now+c.cfg.RetryMin
	}
}

// driveYield hands over to a node that reaches in-sync members of strictly more volumes (invariant 19). Both counts are of
// nodes that are connected, so that two leaders that see the same would never yield to each other in turn.
func (c *Core) driveYield() {
	r, y := c.r, &c.yield
	if r.handing != nil {
		return
	}
	if settled := r.began + c.cfg.Grace; c.now < settled {
		c.at(settled)
		return
	}
	due := y.since + c.cfg.YieldAfter
	if !r.reachDue && (!y.out || c.now < max(due, y.ask.next)) {
		if y.out {
			c.at(max(due, y.ask.next))
		}
		return
	}
	r.reachDue = false
	mine := c.reach(func(n ids.Node) bool { return r.nodes[n] != nil && r.nodes[n].up })
	all := c.reach(func(ids.Node) bool { return true })
	if mine == all {
		*y = yielding{hand: y.hand}
		if c.now >= r.began+c.cfg.YieldMax {
			y.hand = pace{}
		}
		return
	}
	if !y.out {
		y.out, y.since = true, c.now
		due = y.since + c.cfg.YieldAfter
	}
	if c.now < due {
		c.at(due)
		return
	}
	if c.now >= y.ask.next {
		y.asked = c.now
		y.ask.later(c.now, c.cfg.YieldAfter, c.cfg.YieldMax)
		c.ask(c.others())
	}
	c.at(y.ask.next)
	if to, ok := c.best(y.asked, mine); ok && c.now >= y.hand.next && len(r.making) == 0 && len(r.deleting) == 0 {
		y.hand.later(c.now, c.cfg.YieldMin, c.cfg.YieldMax)
		c.tell(Yielding, ids.Volume{}, to, fmt.Sprintf(
			"node %s reaches in-sync members of more volumes than the %d that are reached here", c.nodeName(to), mine))
		r.handing = &handing{to: to}
		c.drainAll(r.handing)
	}
}

// driveWitness gives the leadership to the storage node with the longest log, which the transfer brings up to date first. A
// witness takes no epoch (invariant 19).
func (c *Core) driveWitness() {
	w := &c.witness
	if c.now < w.until {
		if !w.asking || c.silent(c.others(), w.asked) {
			c.at(w.until)
			return
		}
	}
	if !w.asking {
		*w = witness{asking: true, asked: c.now, until: c.now + reportWait, failed: w.failed}
		c.ask(c.others())
		c.at(w.until)
		return
	}
	w.asking = false
	var to ids.Node
	var log uint64
	for _, n := range c.others() {
		r, ok := c.electable(n, w.asked)
		if ok && !slices.Contains(w.failed, n) && (to.IsZero() || r.LastIndex > log) {
			to, log = n, r.LastIndex
		}
	}
	w.until = c.now + c.cfg.RetryMax
	c.at(w.until)
	if to.IsZero() {
		w.failed = nil
		return
	}
	w.sent, w.until = to, c.now+c.cfg.DrainTimeout
	c.tell(HandingOver, ids.Volume{}, to, "this witness hands over to node "+c.nodeName(to))
	c.emit(TransferLeadership{To: to})
}

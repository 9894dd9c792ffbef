package sim

import (
	"maps"
	"slices"
	"time"

	simworld "pmsapp/internal/sim"
)

// client models an initiator: several commands in flight to one portal, the next portal when that one is dead, does not
// answer or is NOT READY. It never gives an answer up for lost but by ending its session.
type client struct {
	c    *Cluster
	id   int // index; its host in the network is after the nodes'
	host int
	proc *simworld.Proc

	portal  int
	end     *simworld.End
	ready   bool
	out     map[uint32]*op
	timers  map[uint32]*simworld.Timer
	login   *simworld.Timer
	depth   int
	stopped bool
	wait    *simworld.Timer
	done    int // answers
}

func newClient(c *Cluster, id int) *client {
	cl := &client{c: c, id: id, host: len(c.nodes) + id, portal: c.w.Rand.Intn(len(c.nodes)), depth: 1 + c.w.Rand.Intn(3)}
	cl.proc = c.w.Proc("client")
	cl.out, cl.timers = map[uint32]*op{}, map[uint32]*simworld.Timer{}
	cl.proc.After(c.w.Rand.Between(0, 100*time.Millisecond), cl.connect)
	for range cl.depth {
		cl.proc.After(c.w.Rand.Between(0, 200*time.Millisecond), cl.slot)
	}
	return cl
}

func (cl *client) connect() {
	n := cl.c.nodes[cl.portal]
	if !n.listening() || !cl.c.net.Open(cl.host, n.host) || !cl.c.net.Open(n.host, cl.host) {
		cl.next()
		return
	}
	mine, theirs := cl.c.net.Connect(cl.host, cl.proc, n.host, n.proc)
	n.fe.accept(theirs)
	cl.end = mine
	mine.Recv = func(m any) { cl.recv(mine, m) }
	mine.Closed = func() {
		if cl.end == mine {
			cl.drop()
		}
	}
	mine.Send(msgLogin{cl.id})
	cl.login = cl.proc.After(time.Second, func() {
		if cl.end == mine && !cl.ready {
			cl.drop()
		}
	})
}

// next tries the next portal, or sometimes the same one.
func (cl *client) next() {
	if cl.c.w.Rand.Chance(0.8) {
		cl.portal = (cl.portal + 1) % len(cl.c.nodes)
	}
	cl.wait.Stop()
	cl.wait = cl.proc.After(cl.c.w.Rand.Between(10*time.Millisecond, 150*time.Millisecond), cl.connect)
}

// drop ends the session; its commands have no answer and never will.
func (cl *client) drop() {
	end := cl.end
	cl.end, cl.ready = nil, false
	cl.login.Stop()
	if end != nil {
		if cl.c.w.Rand.Chance(0.5) {
			end.Reset()
		} else {
			end.Close()
		}
	}
	for _, id := range slices.Sorted(maps.Keys(cl.out)) {
		cl.forget(id)
	}
	cl.next()
}

func (cl *client) forget(id uint32) {
	cl.timers[id].Stop()
	delete(cl.out, id)
	delete(cl.timers, id)
	cl.proc.After(cl.c.w.Rand.Between(0, cl.c.plan.think), cl.slot)
}

// slot issues the next command of one of the client's slots.
func (cl *client) slot() {
	if cl.stopped {
		return
	}
	if !cl.ready {
		cl.proc.After(20*time.Millisecond, cl.slot)
		return
	}
	cl.issue(cl.c.plan.next(cl))
}

func (cl *client) issue(o *op) {
	h := &cl.c.hist
	o.client, o.call, o.at = cl.id, h.tick(), cl.c.w.Now()
	h.ops = append(h.ops, o)
	cl.out[o.id] = o
	cl.end.Send(msgCmd{o})
	cl.timers[o.id] = cl.proc.After(cl.c.w.Rand.Between(4*time.Second, 8*time.Second), func() {
		if cl.ready && cl.c.w.Rand.Chance(0.3) {
			cl.end.Send(msgAbort{o.id}) // and if that is not answered either, the session ends
			cl.timers[o.id] = cl.proc.After(time.Second, cl.drop)
			return
		}
		cl.drop()
	})
}

func (cl *client) recv(end *simworld.End, m any) {
	if cl.end != end {
		return
	}
	switch m := m.(type) {
	case msgLoggedIn:
		cl.ready = true
		cl.login.Stop()
	case msgAborted:
		if cl.out[m.id] != nil {
			cl.forget(m.id)
		}
	case msgDone:
		if o := cl.out[m.id]; o != nil {
			cl.answer(o, m)
		}
	}
}

func (cl *client) answer(o *op, m msgDone) {
	switch m.status {
	case good:
		if o.kind == opRead || o.kind == opSwap {
			o.got = make([]uint32, o.n)
			for i := range o.n {
				v, err := readBlock(m.data[i*blockSize:(i+1)*blockSize], o.block+i)
				if err != nil {
					cl.c.fail("%v read: %v", o, err)
					return
				}
				o.got[i] = v
			}
		}
		o.ret = cl.c.hist.tick()
		cl.done++
	case notReady:
		cl.drop()
		return
	case noSpace, medium:
		if !cl.c.plan.mayFail(m.status) {
			cl.c.fail("%v was answered with %v, and nothing gave cause", o, m.status)
			return
		}
	}
	cl.c.trace(cl.host, "%v: %v", o, m.status)
	cl.forget(o.id)
}

// quiet tells whether nothing is in flight.
func (cl *client) quiet() bool { return len(cl.out) == 0 }

package sim

import (
	"slices"
	"time"
)

// Net is a network between hosts, numbered from 0. Each direction between two hosts may be cut by itself.
type Net struct {
	w       *World
	hosts   []bool // up: the host's kernel answers
	cut     [][]bool
	stalled []*pipe
	ends    []*End // of connections that may be up

	// Latency of one message: Usual mostly, up to Tail with probability TailChance.
	Usual, Tail time.Duration
	TailChance  float64
	// Loss and Double are the chances of a datagram to be lost, or to arrive twice.
	Loss, Double float64
}

// NewNet returns a network of n hosts that are up and see each other.
func NewNet(w *World, n int) *Net {
	net := &Net{w: w, hosts: make([]bool, n), Usual: 200 * time.Microsecond, Tail: 20 * time.Millisecond, TailChance: 0.02}
	for i := range n {
		net.hosts[i] = true
		net.cut = append(net.cut, make([]bool, n))
	}
	return net
}

// SetHost says whether a host's kernel runs.
func (n *Net) SetHost(h int, up bool) { n.hosts[h] = up }

// Cut stops what goes from a to b. What is under way in a Conn waits, as unacknowledged TCP segments do.
func (n *Net) Cut(a, b int) {
	if a != b {
		n.cut[a][b] = true
	}
}

// Heal lets everything through again.
func (n *Net) Heal() {
	for a := range n.cut {
		clear(n.cut[a])
	}
	n.Unstall()
}

// HealPath lets through what goes from a to b.
func (n *Net) HealPath(a, b int) {
	n.cut[a][b] = false
	n.Unstall()
}

// Open tells whether a message from a reaches b now.
func (n *Net) Open(a, b int) bool { return n.hosts[a] && n.hosts[b] && !n.cut[a][b] }

// Unstall lets connections go on whose direction is open again.
func (n *Net) Unstall() {
	old := n.stalled
	n.stalled = nil
	for _, p := range old {
		p.stalled = false
		p.pump()
	}
}

// Delay draws the latency of one message.
func (n *Net) Delay() time.Duration { return n.w.Rand.Long(n.Usual, n.Tail, n.TailChance) }

// Datagram runs fn in proc at host `to`, if it arrives: it may be lost, late, or arrive twice.
func (n *Net) Datagram(from, to int, proc *Proc, fn func()) {
	if !n.Open(from, to) || n.w.Rand.Chance(n.Loss) {
		return
	}
	times := 1
	if n.w.Rand.Chance(n.Double) {
		times = 2
	}
	for range times {
		proc.Deliver(n.Delay(), func() {
			if !n.cut[from][to] {
				fn()
			}
		})
	}
}

// Conn is a connection: ordered and reliable while it lasts, each direction by itself. It ends at each of its two ends
// separately, and an end that is cut off does not learn of the other's.
type Conn struct {
	net  *Net
	ends [2]*End
}

// End is one end of a Conn.
type End struct {
	conn *Conn
	side int
	host int
	proc *Proc
	out  *pipe
	over bool
	// Recv is called with each message, Closed once when the other end was closed or died, unless this end was closed.
	Recv   func(msg any)
	Closed func()
}

// Connect makes a connection between two processes; the caller has modelled its handshake.
func (n *Net) Connect(a int, pa *Proc, b int, pb *Proc) (*End, *End) {
	c := &Conn{net: n}
	c.ends[0] = &End{conn: c, side: 0, host: a, proc: pa}
	c.ends[1] = &End{conn: c, side: 1, host: b, proc: pb}
	for i, e := range c.ends {
		e.out = &pipe{net: n, from: e, to: c.ends[1-i]}
	}
	if len(n.ends) > 256 {
		n.ends = slices.DeleteFunc(n.ends, func(e *End) bool { return e.over })
	}
	n.ends = append(n.ends, c.ends[:]...)
	return c.ends[0], c.ends[1]
}

// Send sends a message to the other end. It is lost if either end is closed.
func (e *End) Send(msg any) {
	if !e.over {
		e.out.put(message{msg: msg})
	}
}

// Close closes this end: nothing is received any more. What was sent still arrives, as long as the path is open, and then
// the other end learns of it.
func (e *End) Close() {
	if !e.over {
		e.over = true
		e.out.put(message{fin: true})
	}
}

// Reset closes this end at once, and what was sent and has not arrived may be lost, from some message on.
func (e *End) Reset() {
	if e.over {
		return
	}
	e.over = true
	q := e.out.queue
	e.out.queue = q[:e.conn.net.w.Rand.Intn(len(q)+1)]
	e.out.put(message{fin: true})
}

// Vanish is the end's host dying: nothing is said to the other end. What was sent and is on its way may still arrive.
func (e *End) Vanish() { e.over = true }

// Over tells whether this end was closed here.
func (e *End) Over() bool { return e.over }

type message struct {
	msg any
	fin bool
	at  time.Duration // when it arrives if the path is open
}

// pipe is one direction of a Conn.
type pipe struct {
	net      *Net
	from, to *End
	queue    []message
	last     time.Duration
	running  bool
	stalled  bool
}

func (p *pipe) put(m message) {
	m.at = max(p.net.w.now+p.net.Delay(), p.last)
	p.last = m.at
	p.queue = append(p.queue, m)
	p.pump()
}

// pump sees to it that the first message of the queue arrives when it is due and the path is open.
func (p *pipe) pump() {
	if p.running || p.stalled || len(p.queue) == 0 {
		return
	}
	p.running = true
	p.net.w.After(p.queue[0].at-p.net.w.now, p.arrive)
}

func (p *pipe) arrive() {
	p.running = false
	if len(p.queue) == 0 {
		return
	}
	if p.net.cut[p.from.host][p.to.host] {
		p.stalled = true
		p.net.stalled = append(p.net.stalled, p)
		return
	}
	m := p.queue[0]
	p.queue = p.queue[1:]
	p.pump()
	if !p.net.hosts[p.to.host] || p.to.over {
		return
	}
	// The kernel has it; the process sees it when it runs.
	p.to.proc.Deliver(0, func() {
		switch {
		case p.to.over:
		case m.fin:
			p.to.over = true
			if p.to.Closed != nil {
				p.to.Closed()
			}
		case p.to.Recv != nil:
			p.to.Recv(m.msg)
		}
	})
}

// Died ends every connection of a process. If only the process died its kernel tells the other ends; if the machine did,
// nobody does.
func (n *Net) Died(p *Proc, machine bool) {
	live := n.ends[:0]
	for _, e := range n.ends {
		switch {
		case e.over:
			continue
		case e.proc != p:
			live = append(live, e)
		case machine:
			e.Vanish()
		default:
			e.Reset()
		}
	}
	clear(n.ends[len(live):])
	n.ends = live
}

// Break breaks a connection that is up, chosen at random, at both ends: each learns of it in its own time.
func (n *Net) Break() bool {
	for range 8 {
		if len(n.ends) == 0 {
			return false
		}
		e := n.ends[n.w.Rand.Intn(len(n.ends))]
		o := e.conn.ends[1-e.side]
		if e.over || o.over {
			continue
		}
		for _, x := range []*End{e, o} {
			x.proc.Deliver(n.w.Rand.Long(time.Millisecond, time.Second, 0.3), x.broken)
		}
		return true
	}
	return false
}

func (e *End) broken() {
	if !e.over {
		e.Reset()
		if e.Closed != nil {
			e.Closed()
		}
	}
}

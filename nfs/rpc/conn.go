package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"pmsapp/internal/sunrpc"
)

// ErrShutdown is the cause of the end of calls and connections when the server is shut down.
var ErrShutdown = errors.New("rpc: the server is shut down")

// errGone is the cause when the client has closed its connection.
var errGone = errors.New("rpc: closed by the client")

// callCost is what a call takes beside its record: its goroutine, its places in tables, and a short reply.
const callCost = 4096

// maxIdle bounds the goroutines, of all connections, that wait for a call.
const maxIdle = 256

// conn is a connection. The goroutine of run reads; each call has one to itself, that had others before if it can be; whoever has
// a reply to send when nobody is sending sends all that there are.
type conn struct {
	srv    *Server
	net    net.Conn
	client netip.AddrPort
	ctx    context.Context
	end    context.CancelCauseFunc
	slots  chan struct{} // one for each call under way, until its reply is sent
	jobs   chan job      // from the reader to a goroutine that waits for a call
	calls  sync.WaitGroup
	known  bool // the reader's
	number uint64
	elders atomic.Int32 // connections of this client that were accepted before and are open; changed with the server's mu

	mu      sync.Mutex
	queue   []*answer
	sending bool
}

// job is a call that was read, and the bytes of incoming memory that it holds.
type job struct {
	rec  sunrpc.Record
	held int64
}

// answer is a reply to be sent, and what it holds until then.
type answer struct {
	r        Reply
	incoming int64
}

// run serves the connection until it ends, and returns why.
func (c *conn) run() error {
	err := c.read()
	close(c.jobs)
	if errors.Is(err, errDraining) {
		c.calls.Wait() // their replies are sent, or the server's patience ends
		err = ErrShutdown
	}
	c.end(err)
	c.net.Close()
	c.calls.Wait()
	return context.Cause(c.ctx)
}

var errDraining = errors.New("rpc: no more calls are read")

// read begins calls until it cannot.
func (c *conn) read() error {
	l := c.srv.cfg.Limits
	records := sunrpc.NewRecordReader(c.net, l.Record)
	for {
		if err := c.patience(l.Idle); err != nil {
			return err
		}
		n, err := records.Begin()
		if err != nil {
			return c.why(err)
		}
		if n > unknownRecord && !c.isKnown() {
			return fmt.Errorf("%w: %d bytes from an unknown client", sunrpc.ErrRecord, n)
		}
		select {
		case c.slots <- struct{}{}:
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
		held := int64(n + callCost)
		if err := c.srv.incoming.take(c.ctx, c, held); err != nil {
			return err
		}
		if err := c.patience(l.Stall); err != nil {
			return err
		}
		rec, err := records.Rest(c.srv.cfg.Place, func(n int) bool {
			ok := c.isKnown() && c.srv.incoming.try(c, int64(n))
			if ok {
				held += int64(n)
			}
			return ok
		})
		if err == nil && hungUp(c.net) {
			rec.Free()
			err = errGone // see DESIGN.md, "Retries"
		}
		if err != nil {
			c.srv.incoming.give(c, held)
			return c.why(err)
		}
		select {
		case c.jobs <- job{rec, held}:
		default:
			c.calls.Go(func() { c.work(job{rec, held}) })
		}
	}
}

// work serves a call, and then others as long as there are some and not too many wait for one: a new goroutine would have to
// grow its stack for each.
func (c *conn) work(j job) {
	for more := true; more; c.srv.idle.Add(-1) {
		c.call(j)
		if c.srv.idle.Add(1) > maxIdle {
			more = false
			continue
		}
		j, more = <-c.jobs
	}
}

// isKnown tells whether the client may send long calls. Once it may, it may: what each call may do is decided by its program.
func (c *conn) isKnown() bool {
	c.known = c.known || c.srv.cfg.Known == nil || c.srv.cfg.Known(c.client.Addr())
	return c.known
}

// patience sets how long the next read may take, unless the server is going down.
func (c *conn) patience(d time.Duration) error {
	if err := c.net.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	// Shutdown sets draining first and the deadline then: one of the two is seen here.
	if c.srv.draining.Load() {
		return errDraining
	}
	return nil
}

// why tells the ends of reading apart.
func (c *conn) why(err error) error {
	switch {
	case c.srv.draining.Load():
		return errDraining
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case errors.Is(err, io.EOF):
		return errGone
	}
	return err
}

// call serves one call and sends its reply. It owns a slot and what the job holds.
func (c *conn) call(j job) {
	a, ok := c.srv.answers.Get().(*answer)
	if !ok {
		a = &answer{}
		a.r.B = make([]byte, 0, 512)
	}
	a.incoming, a.r.out = j.held, c
	a.r.B = a.r.B[:sunrpc.MarkLen]
	err := c.srv.serve(c.ctx, j.rec.Decoder(), &Call{Client: c.client, Server: addrPort(c.net.LocalAddr()), Conn: c.number, Elder: c.elders.Load() > 0}, &a.r, false)
	j.rec.Free()
	if err != nil {
		c.done(a)
		c.end(err)
		c.net.Close()
		return
	}
	c.send(a)
}

// done gives back what an answer holds.
func (c *conn) done(a *answer) {
	a.r.free()
	c.srv.incoming.give(c, a.incoming)
	c.srv.outgoing.give(c, a.r.reserve)
	if b := a.r.B; cap(b) <= callCost {
		*a = answer{}
		a.r.B = b[:0]
		c.srv.answers.Put(a)
	}
	<-c.slots
}

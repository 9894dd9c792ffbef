package sunrpc

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"pmsapp/internal/xdr"
)

// ErrClosed is returned by calls of a Client that is closed.
var ErrClosed = errors.New("rpc: the client is closed")

// ClientConfig is what a Client is made of.
type ClientConfig struct {
	Dial    func(context.Context) (net.Conn, error)
	Cred    Cred
	Machine string        // the host's name in AUTH_SYS
	Limit   int           // bytes of a reply; 2 MiB if 0
	Timeout time.Duration // a server that leaves a call unanswered for so long is dialled again; 10 s if 0
	Retry   time.Duration // between attempts to dial; 100 ms if 0
}

// Client calls a server over one connection, many calls at once. It does not give up: when the connection is lost it dials
// again and sends what is unanswered again, with the same XIDs, until a call's context ends.
type Client struct {
	cfg  ClientConfig
	ctx  context.Context
	end  context.CancelCauseFunc
	done chan struct{}

	mu      sync.Mutex
	conn    net.Conn // nil while there is none
	xid     uint32
	seq     uint64
	pending map[uint32]*pending

	write sync.Mutex // one record at a time
}

type pending struct {
	seq   uint64
	send  net.Buffers // record mark, head, data
	reply chan []byte
}

// NewClient starts a client; it dials at once, and Close ends it.
func NewClient(cfg ClientConfig) *Client {
	cfg.Limit = cmp.Or(cfg.Limit, 2<<20)
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.Retry = cmp.Or(cfg.Retry, 100*time.Millisecond)
	c := &Client{cfg: cfg, done: make(chan struct{}), xid: rand.Uint32(), pending: map[uint32]*pending{}}
	c.ctx, c.end = context.WithCancelCause(context.Background())
	go c.run()
	return c
}

// Close ends the client; calls under way end with ErrClosed.
func (c *Client) Close() {
	c.end(ErrClosed)
	c.mu.Lock()
	if c.conn != nil {
		c.conn.Close()
	}
	c.mu.Unlock()
	<-c.done
}

// Call calls a procedure and returns a decoder of its results. args writes the arguments; data, if any, ends them as it is,
// with its padding. Errors: AcceptStat, AuthStat, ErrMessage, ErrClosed, the context's cause.
func (c *Client) Call(ctx context.Context, prog, vers, proc uint32, args func(*xdr.Encoder), data []byte) (*xdr.Decoder, error) {
	c.mu.Lock()
	c.xid++
	xid := c.xid
	c.mu.Unlock()
	return c.CallAs(ctx, Header{XID: xid, Prog: prog, Vers: vers, Proc: proc, Cred: c.cfg.Cred}, args, data)
}

// CallAs is Call with a header of the caller's choice, for retries of a call and for other users. No call with the same XID
// may be under way.
func (c *Client) CallAs(ctx context.Context, h Header, args func(*xdr.Encoder), data []byte) (*xdr.Decoder, error) {
	var e xdr.Encoder
	e.Skip(MarkLen)
	WriteCall(&e, h, c.cfg.Machine)
	if args != nil {
		args(&e)
	}
	pad := make([]byte, xdr.Pad(len(data)))
	binary.BigEndian.PutUint32(e.B, Mark(e.Len()-MarkLen+len(data)+len(pad)))
	p := &pending{send: net.Buffers{e.B, data, pad}, reply: make(chan []byte, 1)}
	c.mu.Lock()
	if c.pending[h.XID] != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: XID %d is in use", ErrMessage, h.XID)
	}
	c.seq++
	p.seq = c.seq
	c.pending[h.XID] = p
	conn := c.conn
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, h.XID)
		c.mu.Unlock()
	}()
	if conn != nil {
		c.send(conn, p)
	}
	return c.await(ctx, p)
}

func (c *Client) await(ctx context.Context, p *pending) (*xdr.Decoder, error) {
	timer := time.NewTicker(c.cfg.Timeout)
	defer timer.Stop()
	for {
		select {
		case b := <-p.reply:
			d := xdr.NewDecoder(b, nil)
			_, err := ReadReply(d)
			return d, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-c.ctx.Done():
			return nil, ErrClosed
		case <-timer.C:
			c.Reconnect()
		}
	}
}

// Reconnect drops the connection, as if it had been lost.
func (c *Client) Reconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close()
	}
}

// send writes one record. A connection on which that fails is closed, and its reader finds out.
func (c *Client) send(conn net.Conn, p *pending) {
	c.write.Lock()
	defer c.write.Unlock()
	bufs := slices.Clone(p.send)
	err := conn.SetWriteDeadline(time.Now().Add(c.cfg.Timeout))
	if err == nil {
		_, err = bufs.WriteTo(conn)
	}
	if err != nil {
		conn.Close()
	}
}

// run dials, sends what waits, and reads replies, again and again.
func (c *Client) run() {
	defer close(c.done)
	for c.ctx.Err() == nil {
		dialing, cancel := context.WithTimeout(c.ctx, c.cfg.Timeout)
		conn, err := c.cfg.Dial(dialing)
		cancel()
		if err == nil {
			c.use(conn)
		}
		select {
		case <-time.After(c.cfg.Retry):
		case <-c.ctx.Done():
		}
	}
}

// use serves one connection until it is lost.
func (c *Client) use(conn net.Conn) {
	c.mu.Lock()
	again := make([]*pending, 0, len(c.pending))
	for _, p := range c.pending {
		again = append(again, p)
	}
	c.conn = conn
	c.mu.Unlock()
	slices.SortFunc(again, func(a, b *pending) int { return cmp.Compare(a.seq, b.seq) })
	var sender sync.WaitGroup
	sender.Go(func() {
		for _, p := range again {
			c.send(conn, p)
		}
	})
	if c.ctx.Err() == nil { // else Close did not see the connection
		c.read(conn)
	}
	c.mu.Lock()
	c.conn = nil
	c.mu.Unlock()
	conn.Close()
	sender.Wait()
}

func (c *Client) read(conn net.Conn) {
	r := NewRecordReader(conn, c.cfg.Limit)
	for {
		if _, err := r.Begin(); err != nil {
			return
		}
		rec, err := r.Rest(func([]byte) int { return 0 }, func(int) bool { return true })
		if err != nil || len(rec.Head) < 4 {
			return
		}
		b := slices.Clone(rec.Head)
		rec.Free()
		c.mu.Lock()
		p := c.pending[binary.BigEndian.Uint32(b)]
		c.mu.Unlock()
		if p != nil {
			select {
			case p.reply <- b:
			default: // answered twice
			}
		}
	}
}

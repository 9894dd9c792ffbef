package rpc

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
)

// batch bounds what one system call sends, so that a client which takes a batch within Limits.Stall is fast enough.
const batch = 2 << 20

// send queues a reply. If nobody is sending, the caller does, until the queue is empty.
func (c *conn) send(a *answer) {
	binary.BigEndian.PutUint32(a.r.B, sunrpc.Mark(len(a.r.B)-sunrpc.MarkLen+len(a.r.data)+xdr.Pad(len(a.r.data))))
	c.mu.Lock()
	c.queue = append(c.queue, a)
	if c.sending {
		c.mu.Unlock()
		return
	}
	c.sending = true
	for len(c.queue) > 0 {
		n, size := 0, 0
		for n < len(c.queue) && (n == 0 || size < batch) {
			size += len(c.queue[n].r.B) + len(c.queue[n].r.data)
			n++
		}
		now := c.queue[:n:n]
		c.queue = c.queue[n:]
		c.mu.Unlock()
		c.write(now)
		c.mu.Lock()
	}
	c.queue, c.sending = nil, false
	c.mu.Unlock()
}

// write sends replies, or ends the connection.
func (c *conn) write(all []*answer) {
	var pad [3]byte
	bufs := make(net.Buffers, 0, 3*len(all))
	for _, a := range all {
		bufs = append(bufs, a.r.B)
		if n := len(a.r.data); n > 0 {
			bufs = append(bufs, a.r.data, pad[:xdr.Pad(n)])
		}
	}
	err := context.Cause(c.ctx)
	if err == nil {
		if err = c.net.SetWriteDeadline(time.Now().Add(c.srv.cfg.Stall)); err == nil {
			_, err = bufs.WriteTo(c.net)
		}
	}
	if err != nil {
		c.end(fmt.Errorf("sending replies: %w", err))
		c.net.Close()
	}
	for _, a := range all {
		c.done(a)
	}
}

package target

import (
	"errors"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/iscsi"
)

const (
	// farewellTime bounds how long a session's end waits for an initiator that takes nothing any more.
	farewellTime = 100 * time.Millisecond
	// returnAfter is the Time2Wait of a farewell, in seconds: an initiator that came at once would find the address on its way,
	// and wait for longer (open-iscsi 3 s) before it tries again. Without a farewell it waits for what was agreed, 2 s mostly.
	returnAfter = 1
)

// parts tells whether an initiator whose session ends for a cause is told that it does: where it has done nothing, and is to come again.
func parts(cause error) bool {
	return errors.Is(cause, ErrMoved) || errors.Is(cause, ErrShutdown) || errors.Is(cause, block.ErrEnded)
}

// drop begins the end of the session. The owner does the rest. Nothing is answered after it.
func (s *session) drop(cause error) {
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return
	}
	s.cause = cause
	s.bye = s.running && parts(cause)
	bye := s.bye
	s.closed = s.closed || bye
	close(s.dead)
	s.mu.Unlock()
	s.supersede(s.inline.Load())
	if !bye {
		s.conn.Close()
		return
	}
	// The reader stops, as if the connection was closed; the writer has a moment.
	s.conn.SetReadDeadline(time.Unix(1, 0))
	s.conn.SetWriteDeadline(time.Now().Add(farewellTime))
}

// farewell tells the initiator that the target drops the connection (RFC 7143 11.9.1, event 2), and closes it.
func (o *sender) farewell() {
	s := o.s
	s.mu.Lock()
	bye := s.bye
	o.exp, o.max = s.window.exp, s.window.max
	s.mu.Unlock()
	if !bye {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.left) > 0 && o.goOn() != nil {
		s.conn.Close() // half a PDU may be out
		return
	}
	h := &o.head
	h.Init(iscsi.OpAsync, iscsi.FlagFinal)
	h.SetITT(iscsi.NoTag)
	h.SetAsyncEvent(iscsi.AsyncDropConnection, 0)
	h.SetAsyncParam(1, s.cid)
	h.SetAsyncParam(2, returnAfter)
	if err := o.put(h, nil, true); err == nil {
		o.w.Flush()
	}
	s.conn.Close()
}

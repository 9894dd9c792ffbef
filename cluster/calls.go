package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"pmsapp/internal/ids"
)

// maxMessage bounds a call and its answer, in bytes.
const maxMessage = 64 << 20

// callTimeout bounds a call whose context has no end.
const callTimeout = 2 * time.Minute

// message is a call or its answer: a length (4 bytes, big endian) and JSON.
type message struct {
	Method string          `json:"method,omitempty"`
	Error  string          `json:"error,omitempty"`
	Code   string          `json:"code,omitempty"` // of an error that the caller tells apart
	Body   json.RawMessage `json:"body,omitempty"`
}

// Handler answers calls of one method. from is the node that called.
type Handler func(ctx context.Context, from ids.Node, body json.RawMessage) (any, error)

// codes are the errors that keep their identity on the way.
func codes() map[string]error {
	return map[string]error{"not-leader": ErrNotLeader, "no-leader": ErrNoLeader, "unknown": ErrUnknown, "token": ErrToken,
		"removed": ErrRemoved}
}

func writeMessage(w io.Writer, m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding a call: %w", err)
	}
	if len(b) > maxMessage {
		return fmt.Errorf("%w: a message of %d bytes", ErrCall, len(b))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

func readMessage(r io.Reader, limit uint32) (m message, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return m, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > limit {
		return m, fmt.Errorf("%w: a message of %d bytes", ErrCall, n)
	}
	// Memory grows with what arrives, not with what was announced.
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return m, err
	}
	if len(b) != int(n) {
		return m, io.ErrUnexpectedEOF
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrCall, err)
	}
	return m, nil
}

// answer serves one call of a stream.
func answer(ctx context.Context, c net.Conn, from ids.Node, limit uint32, find func(string) Handler) {
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(handshakeTimeout))
	m, err := readMessage(c, limit)
	if err != nil {
		return
	}
	c.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// The caller has nothing more to say: what comes, or the end, means that nobody waits for the answer.
	go func() {
		var b [1]byte
		c.Read(b[:])
		cancel()
	}()
	var out message
	if h := find(m.Method); h == nil {
		out.Error = fmt.Sprintf("the call %.40q is not known here", m.Method)
	} else if v, err := h(ctx, from, m.Body); err != nil {
		out.Error = err.Error()
		for code, e := range codes() {
			if errors.Is(err, e) {
				out.Code = code
			}
		}
	} else if out.Body, err = json.Marshal(v); err != nil {
		out.Error = err.Error()
	}
	c.SetWriteDeadline(time.Now().Add(handshakeTimeout))
	_ = writeMessage(c, out) // the caller learns of it by the end of the stream
}

// ask makes one call on a stream.
func ask(ctx context.Context, c net.Conn, method string, in, out any) error {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if _, ok := ctx.Deadline(); !ok {
		c.SetDeadline(time.Now().Add(callTimeout))
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encoding a call: %w", err)
	}
	if err := writeMessage(c, message{Method: method, Body: body}); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCall, method, err)
	}
	m, err := readMessage(c, maxMessage)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCall, method, err)
	}
	if m.Error != "" {
		if e, ok := codes()[m.Code]; ok {
			return &remoteError{m.Error, e}
		}
		return &remoteError{m.Error, ErrCall}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(m.Body, out); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCall, method, err)
	}
	return nil
}

// remoteError is an error that another node answered.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

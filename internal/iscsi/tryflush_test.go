package iscsi

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"
)

// connected returns both ends of a TCP connection.
func connected(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// TestTryFlush: what TryFlush could not send is sent by Flush, in order and once, also when the deadline had passed.
func TestTryFlush(t *testing.T) {
	a, b := connected(t)
	raw, err := a.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	w, r := NewWriter(a), NewReader(b)
	w.SetDigests(true, true)
	r.SetDigests(true, true)
	r.SetMaxData(1 << 20)
	data := make([]byte, 200<<10)
	for i := range data {
		data[i] = byte(i>>7 + i)
	}
	const pdus = 200
	partly := 0
	got := make(chan error, 1)
	begin := make(chan struct{})
	go func() {
		<-begin
		buf := make([]byte, len(data))
		for i := range pdus {
			h, err := r.Next()
			if err == nil {
				err = r.ReadData(buf[:h.DataLen()])
			}
			if err != nil || h.ITT() != uint32(i) || !bytes.Equal(buf[:h.DataLen()], data[:h.DataLen()]) {
				got <- errors.Join(err, errors.New("not what was sent"))
				return
			}
		}
		got <- nil
	}()
	for i := range pdus {
		var h BHS
		h.Init(OpNopIn, FlagFinal)
		h.SetITT(uint32(i))
		if err := w.Write(&h, nil, data[:1+i*1000]); err != nil {
			t.Fatal(err)
		}
		if i == 10 {
			a.SetWriteDeadline(time.Unix(1, 0))
		}
		done, err := w.TryFlush(raw)
		if err != nil || done && i == 10 || done != (w.Buffered() == 0) && done {
			t.Fatalf("%d: %v, %v", i, done, err)
		}
		a.SetWriteDeadline(time.Time{})
		if done {
			continue
		}
		partly++
		if partly == 2 { // the other end has taken nothing until now
			close(begin)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if partly < 2 {
		t.Fatalf("everything was sent at once, but %d", partly)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// TestTryFlushEnds: an error of the connection is told, and stays.
func TestTryFlushEnds(t *testing.T) {
	a, b := connected(t)
	raw, err := a.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	w := NewWriter(a)
	b.SetLinger(0)
	b.Close()
	if _, err := a.Read(make([]byte, 1)); err == nil { // until the reset is there
		t.Fatal("nobody has sent anything")
	}
	var h BHS
	h.Init(OpNopIn, FlagFinal)
	if err = w.Write(&h, nil, nil); err == nil {
		_, err = w.TryFlush(raw)
	}
	if err == nil {
		t.Fatal("nobody is there, and it goes on")
	}
	if w.Flush() == nil {
		t.Error("Flush goes on after it")
	}
}

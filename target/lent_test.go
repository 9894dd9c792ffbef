package target_test

import (
	"bytes"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

// diskJob is what a nexus would have a worker do: it ends the task, after it hung if it is to.
type diskJob struct {
	t    *target.Task
	hang chan struct{} // nil: it does not
	in   chan struct{} // told when it hangs
}

func (j *diskJob) Run() {
	if j.hang != nil {
		j.in <- struct{}{}
		<-j.hang
	}
	j.t.Done(j.t)
}

// lendNexus offers each task to the reader.
type lendNexus struct {
	*fakeNexus
	lent  atomic.Int64
	hangs chan *diskJob // the next job that is taken is this one
}

func (x *lendNexus) Execute(t *target.Task) {
	if t.CDB[0] == fakeWrite {
		t.Moved = int64(length(t.CDB))
	}
	j := &diskJob{t: t}
	if t.Lent != nil {
		select {
		case h := <-x.hangs:
			h.t, j = t, h
		default:
		}
	}
	if t.Lent.Offer(j) {
		x.lent.Add(1)
		return
	}
	go j.Run()
}

// lendProvider makes lendNexus.
type lendProvider struct {
	*fakeProvider
	x *lendNexus
}

func (p *lendProvider) Open(l target.Login) (target.Opened, error) {
	o, err := p.fakeProvider.Open(l)
	if err != nil {
		return o, err
	}
	p.x = &lendNexus{fakeNexus: o.Nexus.(*fakeNexus), hangs: make(chan *diskJob, 1)}
	o.Nexus = p.x
	return o, nil
}

func lendingServer(t *testing.T) (*target.Server, *lendNexus, *client) {
	p := &lendProvider{fakeProvider: &fakeProvider{}}
	s, addr := serve(t, p.fakeProvider, func(c *target.Config) { c.Provider = p })
	c := login(t, addr)
	return s, p.x, c
}

// oneByOne sends writes, each after the answer to the one before. The client's ExpStatSN acknowledges it.
func oneByOne(c *client, n int) {
	c.t.Helper()
	for range n {
		if a := c.write(make([]byte, 512)); a.Status() != 0 {
			c.t.Fatal(a.Status())
		}
	}
}

// hang has the next task that the reader is lent to hang, until the func that it returns is called.
func hang(c *client, x *lendNexus) (let func()) {
	c.t.Helper()
	j := &diskJob{hang: make(chan struct{}), in: make(chan struct{}, 1)}
	x.hangs <- j
	c.send(writeCommand(512, true), make([]byte, 512))
	select {
	case <-j.in:
	case <-time.After(patience):
		c.t.Fatal("the reader is never lent")
	}
	return func() { close(j.hang) }
}

// TestLentReader: commands that come one by one are carried out by the reader, and those of an initiator that sends on are not.
func TestLentReader(t *testing.T) {
	_, x, c := lendingServer(t)
	oneByOne(c, 100)
	if n := x.lent.Load(); n < 80 {
		t.Errorf("the reader was lent to %d of 100", n)
	}
	was := x.lent.Load()
	for range 50 {
		for range 4 {
			c.send(writeCommand(512, true), make([]byte, 512))
		}
		for range 4 {
			if a := c.expect(iscsi.OpSCSIResponse); a.Status() != 0 {
				t.Fatal(a.Status())
			}
		}
	}
	if n := x.lent.Load() - was; n > 2 { // the first, before it is seen that others follow it
		t.Errorf("the reader was lent to %d of 200 that came together", n)
	}
}

// TestLentReaderHangs: while the disk hangs to which the reader is lent, another reader answers, and carries commands out.
func TestLentReaderHangs(t *testing.T) {
	_, x, c := lendingServer(t)
	oneByOne(c, 40)
	let := hang(c, x)
	began := time.Now()
	c.ping()
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("a ping took %v", d)
	}
	c.send(writeCommand(512, true), make([]byte, 512)) // the second reader's
	c.expect(iscsi.OpSCSIResponse)
	let()
	c.expect(iscsi.OpSCSIResponse) // the one that hung
	oneByOne(c, 200)
	let = hang(c, x) // and once more, of the second reader
	c.ping()
	let()
	c.expect(iscsi.OpSCSIResponse)
	oneByOne(c, 40)
}

// TestLentReaderEnds: a session ends although the disk hangs to which its reader is lent, and a new login of its port is let in. What the
// disk answers later goes nowhere.
func TestLentReaderEnds(t *testing.T) {
	s, x, c := lendingServer(t)
	oneByOne(c, 40)
	let := hang(c, x)
	defer let()
	again := login(t, c.conn.RemoteAddr())
	again.ping()
	if !errors.Is(x.cause, target.ErrReinstated) {
		t.Error(x.cause)
	}
	if n := len(s.Sessions()); n != 1 {
		t.Errorf("%d sessions", n)
	}
	c.closed()
}

// TestLentReaderAnswers: what the reader sends itself is what the writer would have sent.
func TestLentReaderAnswers(t *testing.T) {
	_, addr := serve(t, &fakeProvider{})
	c := login(t, addr)
	for i := range 60 {
		n := []int{512, 4096, 60 << 10, 300 << 10}[i%4]
		data, last := c.read(n)
		want := make([]byte, n)
		for k := range want {
			want[k] = pattern(k)
		}
		if !bytes.Equal(data, want) || last.Status() != 0 {
			t.Fatalf("read %d of %d bytes: %d, status %d", i, n, len(data), last.Status())
		}
	}
}

// TestLentReaderSlowInitiator: an initiator that takes nothing for a while gets everything in the end, whoever began to send it.
func TestLentReaderSlowInitiator(t *testing.T) {
	_, addr := serve(t, &fakeProvider{})
	c := login(t, addr)
	oneByOne(c, 40)
	c.conn.(*net.TCPConn).SetReadBuffer(128 << 10)
	const n = 40
	for range n {
		c.send(readCommand(64<<10), nil)
	}
	<-time.After(200 * time.Millisecond) // what is sent fills the connection meanwhile
	for range n {
		for {
			if a := c.expect(iscsi.OpDataIn); a.Has(iscsi.FlagStatus) {
				break
			}
		}
	}
}

// TestLentReaderLeaves: what the reader has begun to send gives its memory back when the session ends before the writer goes on with it.
func TestLentReaderLeaves(t *testing.T) {
	srv, addr := serve(t, &fakeProvider{})
	small, large := srv.Free()
	c := login(t, addr)
	oneByOne(c, 4)
	if n := srv.LeaveHalfSent(64 << 10); n != 1 {
		t.Fatal(n, "sessions")
	}
	if err := srv.DropSessions(t.Context(), func(target.SessionInfo) bool { return true }, errors.New("the host is gone")); err != nil {
		t.Fatal(err)
	}
	if s, l := srv.Free(); s != small || l != large {
		t.Errorf("%d and %d bytes were not given back", small-s, large-l)
	}
}

package replica

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/replication/peer"
)

// slow is a session that answers when it is told to.
type slow struct {
	mu    sync.Mutex
	calls []*peer.Call
	done  chan struct{}
	err   error
}

func (s *slow) Submit(c *peer.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
}

// answer ends the call that is in place i.
func (s *slow) answer(i int, err error) {
	s.mu.Lock()
	c := s.calls[i]
	s.mu.Unlock()
	c.Err = err
	if c.Kind == peer.Read {
		for j := range c.Data {
			c.Data[j] = byte(i + 1)
		}
	}
	c.Done(c)
}

func (s *slow) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = peer.ErrLost
		close(s.done)
	}
}
func (s *slow) Fenced() peer.Fenced                       { return peer.Fenced{Highest: 7} }
func (s *slow) Poll(context.Context) (peer.Fenced, error) { return peer.Fenced{}, nil }
func (s *slow) Done() <-chan struct{}                     { return s.done }
func (s *slow) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// submit begins a call and returns it with a channel that gets its end.
func submit(s peer.Session, k peer.Kind, data []byte) (*peer.Call, chan error) {
	ended := make(chan error, 1)
	c := &peer.Call{Command: peer.Command{Kind: k, Data: data, Len: int64(len(data))}, Done: func(c *peer.Call) { ended <- c.Err }}
	s.Submit(c)
	return c, ended
}

// TestGuardGivesUp: a write and a read hang while others are answered. The session dies after the limit, both end as lost,
// and what the disk does with them later reaches neither the caller's read buffer, nor takes anything from his write buffer.
func TestGuardGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &slow{done: make(chan struct{})}
		g := Guard(inner, 3*time.Second)
		out, in := bytes.Repeat([]byte{9}, 5000), make([]byte, 4096)
		_, wrote := submit(g, peer.Write, out)
		_, read := submit(g, peer.Read, in)
		_, made := submit(g, peer.Create, nil)
		for i := range 20 {
			c, ended := submit(g, peer.Read, make([]byte, 512))
			inner.answer(3+i, nil)
			if err := <-ended; err != nil || c.Data[511] != byte(3+i+1) {
				t.Fatalf("read %d: %v, %d", i, err, c.Data[511])
			}
			time.Sleep(100 * time.Millisecond)
		}
		if g.Err() != nil {
			t.Fatal("it died early:", g.Err())
		}
		began := time.Now()
		<-g.Done()
		if took := time.Since(began); took > 1500*time.Millisecond || !errors.Is(g.Err(), ErrHangs) || !errors.Is(g.Err(), peer.ErrLost) {
			t.Fatalf("after %v: %v", took, g.Err())
		}
		for _, ended := range []chan error{wrote, read, made} {
			if err := <-ended; !errors.Is(err, peer.ErrLost) {
				t.Fatal(err)
			}
		}
		if inner.Err() == nil {
			t.Error("the session below goes on")
		}
		clear(out) // the caller uses them anew
		clear(in)
		if w := inner.calls[0].Data; !bytes.Equal(w, bytes.Repeat([]byte{9}, 5000)) {
			t.Error("the disk gets what was put into the caller's buffer afterwards")
		}
		for i := range 3 {
			inner.answer(i, nil)
		}
		if !bytes.Equal(in, make([]byte, 4096)) {
			t.Error("a late answer has reached the caller's buffer")
		}
		if _, ended := submit(g, peer.Confirm, nil); !errors.Is(<-ended, peer.ErrLost) {
			t.Error("it still confirms")
		}
		if _, ended := submit(g, peer.Read, in); !errors.Is(<-ended, peer.ErrLost) {
			t.Error("it still reads")
		}
		synctest.Wait()
	})
}

// A command that makes or frees files may take its time.
func TestGuardIsPatientWithFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &slow{done: make(chan struct{})}
		g := Guard(inner, 3*time.Second)
		_, ended := submit(g, peer.Delete, nil)
		time.Sleep(time.Minute)
		if g.Err() != nil {
			t.Fatal(g.Err())
		}
		inner.answer(0, nil)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		g.Close()
		<-g.Done()
		time.Sleep(time.Second) // the watch ends
	})
}

// A session that a higher epoch has ended is one of that epoch's error, and calls of it that hang end all the same.
func TestGuardOfAnEndedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &slow{done: make(chan struct{})}
		g := Guard(inner, 3*time.Second)
		_, ended := submit(g, peer.Write, make([]byte, 512))
		inner.mu.Lock()
		inner.err = &peer.EpochError{Accepted: 8}
		close(inner.done)
		inner.mu.Unlock()
		<-g.Done()
		if !errors.Is(g.Err(), peer.ErrEpoch) {
			t.Fatal(g.Err())
		}
		if err := <-ended; !errors.Is(err, peer.ErrEpoch) {
			t.Fatal(err)
		}
		inner.answer(0, nil)
		time.Sleep(time.Second) // the watch ends
	})
}

// TestGuardRetains: data that the caller can do without are not copied; given up, the disk keeps them, and the caller is told.
func TestGuardRetains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &slow{done: make(chan struct{})}
		g := Guard(inner, 3*time.Second)
		lend := func() (*peer.Call, chan error) {
			ended := make(chan error, 1)
			c := &peer.Call{Command: peer.Command{Kind: peer.Write, Data: make([]byte, 4096), Len: 4096, MayRetain: true}}
			c.Done = func(c *peer.Call) { ended <- c.Err }
			g.Submit(c)
			return c, ended
		}
		done, ended := lend()
		inner.answer(0, nil)
		if err := <-ended; err != nil || done.Retained {
			t.Fatal(err, done.Retained)
		}
		hung, ended := lend()
		if &inner.calls[1].Data[0] != &hung.Data[0] {
			t.Error("they are copied")
		}
		own, ended2 := submit(g, peer.Write, make([]byte, 4096))
		if err := <-ended; !errors.Is(err, peer.ErrLost) || !hung.Retained {
			t.Error(err, hung.Retained)
		}
		if err := <-ended2; !errors.Is(err, peer.ErrLost) || own.Retained {
			t.Error(err, own.Retained)
		}
		inner.answer(1, nil)
		inner.answer(2, nil)
		synctest.Wait()
	})
}

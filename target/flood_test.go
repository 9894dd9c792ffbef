package target_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

// login PDUs of somebody who lies about how far he is.
func loginPDU(flags byte, tsih uint16, data []byte) []byte {
	var b bytes.Buffer
	w := iscsi.NewWriter(&b)
	var h iscsi.BHS
	h.Init(iscsi.OpLoginReq, flags)
	h.SetImmediate()
	h.SetISID(iscsi.ISID{0x80, 9})
	h.SetTSIH(tsih)
	h.SetITT(7)
	h.SetCmdSN(1)
	w.Write(&h, nil, data)
	w.Flush()
	return b.Bytes()
}

// strangers are connections that never get as far as a session.
func strangers() map[string]func(c net.Conn, i int) {
	endless := func(flags byte, pad int) func(net.Conn, int) {
		return func(c net.Conn, _ int) {
			for range 300 {
				key := append([]byte("X-app.pmsapp.a="), bytes.Repeat([]byte{'b'}, pad)...)
				if _, err := c.Write(loginPDU(flags, 0, append(append([]byte("InitiatorName=iqn.x:y\x00"), key...), 0))); err != nil {
					return
				}
			}
		}
	}
	return map[string]func(c net.Conn, i int){
		"nothing": func(net.Conn, int) {},
		"noise": func(c net.Conn, i int) {
			b := make([]byte, 4096)
			rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(b)
			c.Write(b)
		},
		"keys of megabytes":      endless(0x40, 8000), // C: to be continued
		"a login without an end": endless(0x04, 100),  // operational, never to the next stage
		"a stage too far":        func(c net.Conn, _ int) { c.Write(loginPDU(0x87|3, 0, []byte("InitiatorName=iqn.x:y\x00"))) },
		"made-up TSIH": func(c net.Conn, i int) {
			c.Write(loginPDU(0x87, uint16(i+1000), []byte("InitiatorName=iqn.x:y\x00SessionType=Normal\x00TargetName="+testTarget+"\x00")))
		},
		"commands at once": func(c net.Conn, _ int) {
			var b bytes.Buffer
			w := iscsi.NewWriter(&b)
			w.Write(readCommand(512), nil, nil)
			w.Flush()
			c.Write(b.Bytes())
		},
	}
}

// TestFlood: 1,000 connections of strangers (10,000 with FLOOD=10000), a hundred at a time, while one host works. It is not disturbed, whoever is beyond the bound is
// turned away, and goroutines and memory come back to where they were.
func TestFlood(t *testing.T) {
	const atOnce, bound = 100, 64
	all := 1000
	if n, err := strconv.Atoi(os.Getenv("FLOOD")); err == nil {
		all = n
	}
	p := &fakeProvider{}
	s, addr := serve(t, p, func(c *target.Config) {
		c.Connections = bound
		c.Tunables.LoginTimeout = 50 * time.Millisecond
	})
	victim := login(t, addr, isid(1))
	victim.read(9000)
	goroutines, heap := runtime.NumGoroutine(), heapInUse()
	slots, large := s.Free()
	stop := make(chan struct{})
	var work, flood sync.WaitGroup
	reads := 0
	work.Go(func() {
		want := bytesOf(9000)
		for {
			select {
			case <-stop:
				return
			default:
			}
			victim.conn.SetDeadline(time.Now().Add(patience))
			if got, a := victim.read(9000); a.Status() != 0 || !bytes.Equal(got, want) {
				t.Error("the host has read something else")
				return
			}
			reads++
		}
	})
	var kinds []func(net.Conn, int)
	for _, f := range strangers() {
		kinds = append(kinds, f)
	}
	next := make(chan int)
	for range atOnce {
		flood.Go(func() {
			for i := range next {
				c, err := net.Dial("tcp", addr.String())
				if err != nil {
					t.Error(err)
					continue
				}
				c.SetDeadline(time.Now().Add(time.Minute))
				kinds[i%len(kinds)](c, i)
				_, err = io.Copy(io.Discard, c) // until the target ends it
				var late net.Error
				if errors.As(err, &late) && late.Timeout() {
					t.Errorf("connection %d, of kind %d, is still open", i, i%len(kinds))
				}
				c.Close()
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	flood.Wait()
	close(stop)
	work.Wait()
	if reads == 0 {
		t.Error("the host could do nothing")
	}
	for begin := time.Now(); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
		if time.Since(begin) > patience {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
	victim.ping() // what was sent before is done with
	if a, b := s.Free(); a != slots || b != large {
		t.Errorf("memory is missing: %d and %d bytes", slots-a, large-b)
	}
	if now := heapInUse(); now > heap+4<<20 {
		t.Errorf("%d KiB in use, %d KiB before", now>>10, heap>>10)
	}
	if n := len(s.Sessions()); n != 1 {
		t.Errorf("%d sessions", n)
	}
	victim.ping()
}

// TestPings: an initiator that asks for its own data back and takes none of it makes the target hold little of it, in order or out of it; in a
// session for discovery, which anybody may have, less.
func TestPings(t *testing.T) {
	_, addr := serve(t, &fakeProvider{})
	for name, c := range map[string]struct {
		out       bool // CmdSNs before it are missing
		discovery bool
		size      int
		bound     uint64
	}{
		"a host's": {false, false, 256 << 10, 2 << 20}, "a stranger's": {false, true, 8 << 10, 256 << 10},
		"a host's, out of order": {true, false, 16 << 10, 256 << 10}, "a stranger's, out of order": {true, true, 8 << 10, 256 << 10},
	} {
		cl := login(t, addr, func(l *iscsi.InitiatorLoginConfig) {
			if l.Wish.MaxRecv = 512; c.discovery {
				l.Discovery, l.Target = true, ""
			}
			if !c.discovery {
				l.Wish.MaxRecv = c.size
			}
		})
		if c.discovery && cl.params.MaxSend > 8<<10 {
			t.Errorf("%s: %d bytes in a PDU", name, cl.params.MaxSend)
		}
		data := make([]byte, c.size)
		heap := heapInUse()
		cl.conn.SetWriteDeadline(time.Now().Add(time.Second))
		for i := range uint32(127) {
			var h iscsi.BHS
			h.Init(iscsi.OpNopOut, iscsi.FlagFinal)
			h.SetITT(i)
			h.SetTTT(iscsi.NoTag)
			h.SetExpStatSN(cl.statSN)
			if h.SetCmdSN(cl.cmdSN + i); c.out {
				h.SetCmdSN(cl.cmdSN + 1 + i)
			}
			if cl.w.Write(&h, nil, data) != nil || cl.w.Flush() != nil {
				break // it takes no more, or has ended the session
			}
		}
		// The target may still be at it: what it lets go of meanwhile is counted until the next collection.
		now := heapInUse()
		for range 50 {
			if now <= heap+c.bound {
				break
			}
			<-time.After(20 * time.Millisecond)
			now = heapInUse()
		}
		if now > heap+c.bound {
			t.Errorf("%s: %d KiB", name, (now-heap)>>10)
		}
		cl.conn.Close()
	}
}

// heapInUse is what is in use after all garbage is collected, pools included.
func heapInUse() uint64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

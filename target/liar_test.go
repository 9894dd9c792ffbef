package target_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"pmsapp/internal/iscsi"
	"pmsapp/internal/iscsi/iscsitest"
	"pmsapp/target"
)

// lie is what a connection says after it has logged in. Whatever becomes of it, nobody else must notice.
type lie func(c *client)

func (c *client) raw(b []byte) { c.conn.Write(b) }

// lies are those that are told on purpose; TestLiars adds random ones.
func lies() map[string]lie {
	all := map[string]lie{
		"data segment of 16 MiB": func(c *client) {
			h := writeCommand(512, true)
			h[5], h[6], h[7] = 0xff, 0xff, 0xff
			c.raw(h[:])
			c.raw(make([]byte, 1<<20))
		},
		"AHS that does not add up": func(c *client) {
			h := readCommand(512)
			h[4] = 255
			c.raw(h[:])
			c.raw(bytes.Repeat([]byte{0xff}, 255*4))
		},
		"CDB over 260 bytes": func(c *client) {
			h := readCommand(512)
			h[4] = 70
			ahs := make([]byte, 280)
			binary.BigEndian.PutUint16(ahs, 277)
			ahs[2] = 1
			c.raw(h[:])
			c.raw(ahs)
		},
		"4 GiB": func(c *client) { c.send(command(fakeWrite, iscsi.FlagWrite|iscsi.FlagFinal, -1, -1), nil); c.recv() },
		"read of 4 GiB": func(c *client) {
			c.send(command(0xc3, iscsi.FlagRead|iscsi.FlagFinal, 0, -1), nil)
			c.recv()
		},
		"more immediate data than the command": func(c *client) { c.send(writeCommand(512, true), make([]byte, 1024)) },
		"data with a read":                     func(c *client) { c.send(readCommand(512), make([]byte, 512)) },
		"unsolicited data beyond the command": func(c *client) {
			h := writeCommand(1024, false)
			c.send(h, make([]byte, 512))
			c.dataOut(h.ITT(), iscsi.NoTag, 0, 512, make([]byte, 4096), true)
		},
		"unsolicited data that was not announced": func(c *client) {
			h := writeCommand(1<<20, true)
			c.send(h, make([]byte, 512))
			c.dataOut(h.ITT(), iscsi.NoTag, 0, 512, make([]byte, 512), true)
		},
		"data at another offset": func(c *client) {
			h := writeCommand(1<<20, false)
			c.send(h, nil)
			c.dataOut(h.ITT(), iscsi.NoTag, 0, 1<<19, make([]byte, 512), true)
		},
		"another transfer tag": func(c *client) {
			h := writeCommand(1<<20, true)
			c.send(h, nil)
			c.dataOut(h.ITT(), 77, 0, 0, make([]byte, 512), true)
		},
		"data for nobody": func(c *client) { c.dataOut(4711, 0, 0, 0, make([]byte, 4096), true) },
		"a tag twice": func(c *client) {
			for range 2 {
				h := writeCommand(8192, false)
				h.SetITT(5)
				c.send(h, make([]byte, 512))
			}
		},
		"the reserved tag": func(c *client) {
			h := readCommand(512)
			h.SetITT(iscsi.NoTag)
			c.send(h, nil)
		},
		"too many immediate commands": func(c *client) {
			for range 100 {
				h := writeCommand(8192, false)
				h.SetImmediate()
				c.send(h, nil)
			}
		},
		"CmdSN anywhere": func(c *client) {
			for sn := uint32(1); sn != 0; sn <<= 1 {
				h := writeCommand(8192, false)
				h.SetCmdSN(sn)
				c.send(h, make([]byte, 512))
			}
		},
		"early commands for ever": func(c *client) {
			for i := range uint32(300) {
				h := writeCommand(8192, false)
				h.SetCmdSN(c.cmdSN + 1 + i)
				h.SetITT(i + 1)
				c.send(h, make([]byte, 8192))
			}
		},
		"megabytes of text": func(c *client) {
			for range 64 {
				var h iscsi.BHS
				h.Init(iscsi.OpTextReq, iscsi.FlagContinue)
				h.SetImmediate()
				h.SetITT(3)
				h.SetTTT(iscsi.NoTag)
				c.send(&h, bytes.Repeat([]byte("X-a=b\x00"), 2000))
			}
		},
		"text that is none": func(c *client) {
			var h iscsi.BHS
			h.Init(iscsi.OpTextReq, iscsi.FlagFinal)
			h.SetTTT(iscsi.NoTag)
			c.send(&h, bytes.Repeat([]byte{0xff}, 999))
		},
		"a login in full feature phase": func(c *client) {
			var h iscsi.BHS
			h.Init(iscsi.OpLoginReq, 0x87)
			c.send(&h, []byte("InitiatorName=x\x00"))
		},
		"pings without reading": func(c *client) {
			c.conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
			var h iscsi.BHS
			h.Init(iscsi.OpNopOut, iscsi.FlagFinal)
			h.SetImmediate()
			h.SetTTT(iscsi.NoTag)
			h.SetITT(1)
			h[5], h[6] = 1, 0 // 64 KiB
			for range 2000 {
				if _, err := c.conn.Write(append(h[:], make([]byte, 65536)...)); err != nil {
					return
				}
			}
		},
		"an early ping with much data": func(c *client) {
			var h iscsi.BHS
			h.Init(iscsi.OpNopOut, iscsi.FlagFinal)
			h.SetTTT(iscsi.NoTag)
			h.SetCmdSN(c.cmdSN + 3)
			c.send(&h, make([]byte, 100000))
		},
		"nothing at all":  func(c *client) {},
		"half a header":   func(c *client) { c.raw(make([]byte, 20)) },
		"R2T left alone":  func(c *client) { c.send(writeCommand(1<<20, true), nil); c.recv() },
		"tasks that hang": func(c *client) { h := readCommand(4096); h[33] = fakeHold; c.send(h, nil); c.ping() },
	}
	all["unknown opcodes"] = func(c *client) {
		for op := range 64 {
			var h iscsi.BHS
			h.Init(iscsi.Opcode(op), iscsi.FlagFinal)
			h.SetImmediate()
			h.SetITT(uint32(op + 1))
			c.w.Write(&h, nil, make([]byte, op))
		}
		c.w.Flush()
	}
	all["task management for anything"] = func(c *client) {
		for f := range 128 {
			var h iscsi.BHS
			h.Init(iscsi.OpTaskReq, byte(f)|iscsi.FlagFinal)
			h.SetImmediate()
			h.SetITT(uint32(f + 1))
			h.SetLUN(rand.Uint64()) // not the other session's
			c.w.Write(&h, nil, nil)
		}
		c.w.Flush()
	}
	return all
}

// TestLiars: whatever one connection says, another session's I/O goes on, and nothing is left of the liar.
func TestLiars(t *testing.T) {
	p := &fakeProvider{}
	s, addr := serve(t, p, func(c *target.Config) { c.Tunables.LoginTimeout = time.Second })
	slots, large := s.Free()
	victim := login(t, addr, isid(1))
	victim.read(9000)
	goroutines, heap := runtime.NumGoroutine(), heapInUse()
	var took []time.Duration
	stop := make(chan struct{})
	var work sync.WaitGroup
	work.Add(1)
	go func() {
		defer work.Done()
		want := bytesOf(9000)
		for {
			select {
			case <-stop:
				return
			default:
			}
			victim.conn.SetDeadline(time.Now().Add(patience))
			begin := time.Now()
			if a := victim.write(want); a.Status() != 0 {
				t.Error("the victim's write failed")
			}
			if got, a := victim.read(9000); a.Status() != 0 || !bytes.Equal(got, want) {
				t.Error("the victim has read something else")
			}
			took = append(took, time.Since(begin))
		}
	}()
	end := func(c *client, x *fakeNexus) {
		c.conn.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c.conn)
		c.conn.Close()
		x.release()
	}
	for name, tell := range lies() {
		for _, digests := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				c := login(t, addr, isid(2), func(c *iscsi.InitiatorLoginConfig) {
					if digests {
						c.Wish.HeaderDigest, c.Wish.DataDigest = iscsi.DigestAlways, iscsi.DigestAlways
					}
				})
				c.t = quiet{t}
				x := p.last()
				done := make(chan struct{})
				go func() { // Fatal ends this goroutine only
					defer close(done)
					tell(c)
				}()
				<-done
				end(c, x)
			})
		}
	}
	t.Run("random", func(t *testing.T) {
		for seed := range uint64(300) {
			c := login(t, addr, isid(2), func(c *iscsi.InitiatorLoginConfig) {
				if seed%2 == 1 {
					c.Wish.HeaderDigest, c.Wish.DataDigest = iscsi.DigestAlways, iscsi.DigestAlways
				}
			})
			x := p.last()
			c.raw(randomPDUs(rand.New(rand.NewPCG(seed, 1)), c.cmdSN, seed%2 == 1))
			end(c, x)
		}
	})
	t.Run("cut anywhere", func(t *testing.T) {
		var b bytes.Buffer
		w := iscsi.NewWriter(&b)
		h := writeCommand(600, false)
		h.SetITT(1)
		h.SetCmdSN(100)
		w.Write(h, nil, make([]byte, 100))
		var d iscsi.BHS
		d.Init(iscsi.OpDataOut, iscsi.FlagFinal)
		d.SetITT(1)
		d.SetTTT(iscsi.NoTag)
		d.SetOffset(100)
		w.Write(&d, nil, make([]byte, 500))
		w.Flush()
		for n := 0; n < b.Len(); n += 7 {
			c := login(t, addr, isid(2))
			c.raw(b.Bytes()[:n])
			end(c, p.last())
		}
	})
	close(stop)
	work.Wait()
	if len(took) == 0 {
		t.Fatal("the victim did nothing")
	}
	// Liars cost processor time, which others have less of then: a fraction of what any host allows a command, by far.
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	t.Logf("%d times a write and a read of the victim: median %v, p99 %v, at most %v", len(took), took[len(took)/2], p99, took[len(took)-1])
	if p99 > patience/10 {
		t.Errorf("p99 %v", p99)
	}
	for begin := time.Now(); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
		if time.Since(begin) > patience {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
	p.mu.Lock()
	first := p.nexus[0]
	first.mu.Lock()
	first.written, first.executed = nil, nil
	first.mu.Unlock()
	p.nexus = []*fakeNexus{first} // the others hold what was theirs
	p.mu.Unlock()
	if now := heapInUse(); now > heap+8<<20 {
		t.Errorf("%d KiB in use, %d KiB before", now>>10, heap>>10)
	}
	s.DropSessions(context.Background(), func(target.SessionInfo) bool { return true }, target.ErrShutdown)
	for range 1000 {
		if a, b := s.Free(); a == slots && b == large {
			return
		}
		p.mu.Lock()
		all := p.nexus
		p.mu.Unlock()
		for _, x := range all {
			x.release()
		}
	}
	a, b := s.Free()
	t.Errorf("memory is missing: %d and %d bytes", slots-a, large-b)
}

// quiet is a test whose client may meet errors.
type quiet struct{ testing.TB }

func (quiet) Errorf(string, ...any) {}
func (quiet) Error(...any)          {}
func (q quiet) Fatal(...any)        { runtime.Goexit() }
func (q quiet) Fatalf(string, ...any) {
	runtime.Goexit()
}
func (quiet) Helper() {}

// randomPDUs is a stream of PDUs that are almost right.
func randomPDUs(r *rand.Rand, sn uint32, digests bool) []byte {
	var b bytes.Buffer
	w := iscsi.NewWriter(&b)
	w.SetDigests(digests, digests)
	ops := []iscsi.Opcode{iscsi.OpSCSICommand, iscsi.OpSCSICommand, iscsi.OpDataOut, iscsi.OpDataOut, iscsi.OpNopOut,
		iscsi.OpTextReq, iscsi.OpTaskReq, iscsi.OpLogoutReq, iscsi.OpSNACK, iscsi.OpLoginReq}
	for range r.IntN(60) {
		var h iscsi.BHS
		h.Init(ops[min(r.IntN(len(ops)), r.IntN(len(ops)))], byte(r.IntN(256)))
		h[9] = 2 // another LUN than the victim's: resets are not what is tested
		if h.Opcode() == iscsi.OpTaskReq {
			h.SetFlags(iscsi.FlagFinal | byte(r.IntN(5)))
		}
		h.SetITT(uint32(r.IntN(4)))
		h.SetTTT([]uint32{0, 1, iscsi.NoTag, r.Uint32()}[r.IntN(4)])
		h.SetCmdSN(sn + uint32(r.IntN(8)))
		if r.IntN(3) > 0 {
			h.SetImmediate()
		}
		switch h.Opcode() {
		case iscsi.OpSCSICommand:
			h.SetEDTL(uint32(r.IntN(10000)))
			h[32] = []byte{fakeRead, fakeWrite}[r.IntN(2)]
			binary.BigEndian.PutUint32(h[34:], uint32(r.IntN(10000)))
		case iscsi.OpDataOut:
			h.SetDataSN(uint32(r.IntN(3)))
			h.SetOffset(uint32(r.IntN(3) * 512))
		}
		w.Write(&h, nil, make([]byte, r.IntN(3)*512))
	}
	w.Flush()
	out := b.Bytes()
	for range r.IntN(4) {
		if len(out) > 0 {
			out[r.IntN(len(out))] ^= byte(1 << r.IntN(8))
		}
	}
	return out
}

// FuzzConnection feeds a connection, before or after a login, with anything.
func FuzzConnection(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed%2 == 0, randomPDUs(rand.New(rand.NewPCG(seed, 2)), 100, false))
	}
	for _, s := range iscsitest.Sessions() {
		f.Add(false, s)
	}
	var b bytes.Buffer
	w := iscsi.NewWriter(&b)
	l, err := iscsi.NewInitiatorLogin(loginConfig())
	if err != nil {
		f.Fatal(err)
	}
	first := l.First()
	w.Write(&first.BHS, nil, first.Data)
	w.Flush()
	f.Add(false, b.Bytes())
	f.Add(false, append(b.Bytes(), b.Bytes()...))
	f.Fuzz(func(t *testing.T, loggedIn bool, stream []byte) {
		p := &fakeProvider{}
		s, err := target.New(target.Config{Provider: p, Tunables: target.Tunables{LoginTimeout: time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			s.ServeConn(theirs)
		}()
		if loggedIn {
			c := &client{t: t, conn: ours, r: iscsi.NewReader(ours), w: iscsi.NewWriter(ours), cmdSN: 100}
			if err := c.tryLogin(loginConfig(), 0); err != nil {
				t.Fatal(err)
			}
		}
		go io.Copy(io.Discard, ours)
		ours.Write(stream)
		ours.Close()
		<-served
		for _, x := range p.nexus {
			x.release()
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
	})
}

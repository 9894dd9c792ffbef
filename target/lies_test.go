package target_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

// outcome describes the next PDU, or that the connection has ended.
func (c *client) outcome() string {
	a, err := c.recv()
	if err != nil {
		return "closed"
	}
	switch a.Opcode() {
	case iscsi.OpReject:
		return fmt.Sprintf("reject %02x", a.Response())
	case iscsi.OpSCSIResponse:
		if len(a.data) >= 16 {
			return fmt.Sprintf("status %02x, %x/%04x", a.Status(), a.data[4]&0xf, binary.BigEndian.Uint16(a.data[14:]))
		}
		return fmt.Sprintf("status %02x, residual %d", a.Status(), a.Residual())
	case iscsi.OpNopIn:
		return "pong"
	case iscsi.OpLogoutResp, iscsi.OpTaskResp:
		return fmt.Sprintf("%s %d", a.Opcode(), a.Response())
	}
	return a.Opcode().String()
}

// asked begins a write of 64 KiB and takes its first R2T: 4 KiB, as MaxBurstLength is.
func (c *client) asked() answer {
	c.send(writeCommand(64<<10, true), nil)
	return c.expect(iscsi.OpR2T)
}

// withAHS sends a read with additional header segments.
func (c *client) withAHS(ahs ...byte) {
	h := readCommand(512)
	c.itt++
	h.SetITT(c.itt)
	h.SetCmdSN(c.cmdSN)
	c.cmdSN++
	c.w.Write(h, ahs, nil)
	c.w.Flush()
}

const brokenTask = "status 02, b/0c0d" // ABORTED COMMAND, NOT ENOUGH UNSOLICITED DATA: RFC 7143 11.4.7.2

// TestLies: each lie after login, and just what comes of it. Nothing that was told wrongly reaches the nexus. Where the session goes on, it
// works.
func TestLies(t *testing.T) {
	burst := func(c *client, r2t answer, ttt, sn uint32, off int) {
		c.dataOut(r2t.ITT(), ttt, sn, off, make([]byte, 4096), true)
	}
	for _, l := range []struct {
		name string
		tell func(c *client)
		want []string // PDUs, in their order; "closed" last
	}{
		{"a DataSN that is skipped", func(c *client) { r := c.asked(); burst(c, r, r.TTT(), 1, 0) }, []string{brokenTask}},
		{"a DataSN twice", func(c *client) {
			r := c.asked()
			c.dataOut(r.ITT(), r.TTT(), 0, 0, make([]byte, 512), false)
			c.dataOut(r.ITT(), r.TTT(), 0, 512, make([]byte, 512), false)
		}, []string{brokenTask}},
		{"an offset beyond the R2T's", func(c *client) { r := c.asked(); burst(c, r, r.TTT(), 0, 4096) }, []string{brokenTask}},
		{"an offset beyond the command", func(c *client) { r := c.asked(); burst(c, r, r.TTT(), 0, 1<<30) }, []string{brokenTask}},
		{"more than the R2T asks for", func(c *client) {
			r := c.asked()
			c.dataOut(r.ITT(), r.TTT(), 0, 0, make([]byte, 8192), true)
		}, []string{brokenTask}},
		{"an end before the R2T's", func(c *client) {
			r := c.asked()
			c.dataOut(r.ITT(), r.TTT(), 0, 0, make([]byte, 512), true)
		}, []string{brokenTask}},
		{"a transfer tag that was used up", func(c *client) {
			r := c.asked()
			burst(c, r, r.TTT(), 0, 0)
			c.expect(iscsi.OpR2T)
			burst(c, r, r.TTT(), 0, 4096)
		}, []string{brokenTask}},
		{"a transfer tag that was not given", func(c *client) { r := c.asked(); burst(c, r, r.TTT()+1, 0, 0) }, []string{brokenTask}},
		{"unsolicited data where an R2T was sent", func(c *client) { r := c.asked(); burst(c, r, iscsi.NoTag, 0, 0) }, []string{brokenTask}},
		{"data of a read", func(c *client) {
			h := readCommand(512)
			h[33] = fakeHold
			c.send(h, nil)
			c.dataOut(h.ITT(), 0, 0, 0, make([]byte, 512), true)
			c.ping()
		}, nil},
		{"data after the task was answered", func(c *client) {
			r := c.asked()
			burst(c, r, r.TTT(), 5, 0)
			c.expect(iscsi.OpSCSIResponse)
			burst(c, r, r.TTT(), 0, 0)
		}, nil},
		{"a tag that is in use", func(c *client) {
			h := readCommand(512)
			h[33] = fakeHold
			c.send(h, nil)
			again := readCommand(512)
			again.SetITT(h.ITT())
			c.send(again, nil)
		}, []string{"reject 04"}},
		{"a tag that is in use, for a ping", func(c *client) {
			h := readCommand(512)
			h[33] = fakeHold
			c.send(h, nil)
			var n iscsi.BHS
			n.Init(iscsi.OpNopOut, iscsi.FlagFinal)
			n.SetTTT(iscsi.NoTag)
			n.SetITT(h.ITT())
			c.send(&n, nil)
		}, []string{"pong"}},
		{"an early command before the window", func(c *client) {
			h := readCommand(512)
			h.SetCmdSN(c.cmdSN - 1)
			c.send(h, nil)
			h = readCommand(512)
			h.SetCmdSN(c.max + 1)
			c.send(h, nil)
		}, nil},
		{"nothing expected, and data to read", func(c *client) { h := readCommand(512); h.SetEDTL(0); c.send(h, nil) },
			[]string{"status 00, residual 512"}},
		{"nothing expected, and data to write", func(c *client) { h := writeCommand(512, true); h.SetEDTL(0); c.send(h, nil) },
			[]string{"status 00, residual 512"}},
		{"nothing expected, and data that comes", func(c *client) { h := writeCommand(512, true); h.SetEDTL(0); c.send(h, make([]byte, 512)) },
			[]string{"closed"}},
		{"data without the W flag", func(c *client) {
			h := writeCommand(512, true)
			h.SetFlags(iscsi.FlagFinal)
			c.send(h, make([]byte, 512))
		},
			[]string{"closed"}},
		{"a SNACK of each kind", func(c *client) {
			for kind := range byte(4) {
				var h iscsi.BHS
				h.Init(iscsi.OpSNACK, iscsi.FlagFinal|kind)
				h.SetITT(9)
				c.send(&h, nil)
			}
		}, []string{"reject 05", "reject 05", "reject 05", "reject 05"}},
		{"what only targets say", func(c *client) {
			for _, op := range []iscsi.Opcode{iscsi.OpR2T, iscsi.OpDataIn, iscsi.OpReject, iscsi.OpAsync} {
				var h iscsi.BHS
				h.Init(op, iscsi.FlagFinal)
				h.SetImmediate()
				c.send(&h, make([]byte, 8))
			}
		}, []string{"reject 05", "reject 05", "reject 05", "reject 05"}},
		{"an AHS of a kind that there is not", func(c *client) { c.withAHS(0, 5, 63, 0, 1, 2, 3, 4) }, []string{"Data-In"}},
		{"an AHS that is longer than all of them", func(c *client) { c.withAHS(0xff, 0xff, 1, 0) }, []string{"closed"}},
		{"an AHS of no length", func(c *client) { c.withAHS(0, 0, 1, 0) }, []string{"closed"}},
		{"a logout in the middle of a write", func(c *client) {
			r := c.asked()
			c.dataOut(r.ITT(), r.TTT(), 0, 0, make([]byte, 512), false)
			var h iscsi.BHS
			h.Init(iscsi.OpLogoutReq, iscsi.FlagFinal)
			h.SetImmediate()
			c.send(&h, nil)
			c.dataOut(r.ITT(), r.TTT(), 1, 512, make([]byte, 3584), true)
		}, []string{"Logout Response 0", "closed"}},
		{"a logout of another connection", func(c *client) {
			var h iscsi.BHS
			h.Init(iscsi.OpLogoutReq, iscsi.FlagFinal|iscsi.LogoutConnection)
			h.SetImmediate()
			h.SetCID(77)
			c.send(&h, nil)
		}, []string{"Logout Response 1"}},
		{"a logout for recovery", func(c *client) {
			var h iscsi.BHS
			h.Init(iscsi.OpLogoutReq, iscsi.FlagFinal|iscsi.LogoutRecovery)
			h.SetImmediate()
			c.send(&h, nil)
		}, []string{"Logout Response 2"}},
		{"an abort of a task that there is not", func(c *client) {
			var h iscsi.BHS
			h.Init(iscsi.OpTaskReq, byte(target.AbortTask)|iscsi.FlagFinal)
			h.SetImmediate()
			h[9] = 1
			h.SetRefTag(4711)
			h.SetRefCmdSN(c.cmdSN - 1)
			c.send(&h, nil)
		}, []string{"Task Management Response 1"}},
		{"text that goes on where none was begun", func(c *client) {
			var h iscsi.BHS
			h.Init(iscsi.OpTextReq, iscsi.FlagFinal)
			h.SetTTT(7)
			c.send(&h, nil)
		}, []string{"reject 04"}},
		{"a header cut by the end", func(c *client) { c.raw(make([]byte, 47)); c.conn.Close() }, []string{"closed"}},
	} {
		t.Run(l.name, func(t *testing.T) {
			p := &fakeProvider{}
			_, addr := serve(t, p, func(c *target.Config) { c.MaxBurst, c.FirstBurst, c.MaxR2T = 4096, 4096, 1 })
			c := login(t, addr, func(c *iscsi.InitiatorLoginConfig) { c.Wish.InitialR2T = true })
			x := p.last()
			defer x.release()
			l.tell(c)
			open := true
			for _, want := range l.want {
				if got := c.outcome(); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				open = want != "closed"
			}
			if !open {
				return
			}
			c.ping()
			want := bytes.Repeat([]byte{7}, 9000)
			if a := c.write(want); a.Status() != 0 {
				t.Errorf("a write afterwards: %02x", a.Status())
			}
			x.mu.Lock()
			defer x.mu.Unlock()
			for _, w := range x.written {
				if len(w) > 0 && !bytes.Equal(w, want) {
					t.Errorf("%d bytes have reached the nexus", len(w))
				}
			}
		})
	}
}

// TestLyingDigests: a wrong header digest, and a wrong data digest, end the session; what they were of is not executed.
func TestLyingDigests(t *testing.T) {
	for name, at := range map[string]int{"header": iscsi.BHSLen, "data": iscsi.BHSLen + 4 + 512} {
		t.Run(name, func(t *testing.T) {
			p := &fakeProvider{}
			_, addr := serve(t, p)
			c := login(t, addr, func(c *iscsi.InitiatorLoginConfig) {
				c.Wish.HeaderDigest, c.Wish.DataDigest = iscsi.DigestAlways, iscsi.DigestAlways
			})
			var b bytes.Buffer
			w := iscsi.NewWriter(&b)
			w.SetDigests(true, true)
			h := writeCommand(512, true)
			h.SetITT(1)
			h.SetCmdSN(c.cmdSN)
			w.Write(h, nil, make([]byte, 512))
			w.Flush()
			b.Bytes()[at] ^= 1
			c.raw(b.Bytes())
			c.closed()
			if n, _, _ := p.last().count(); n > 0 {
				t.Error("it was executed")
			}
		})
	}
}

// TestDataForAnotherUnit: data go to the task that their tag names, whatever unit they say they are for.
func TestDataForAnotherUnit(t *testing.T) {
	p := &fakeProvider{}
	_, addr := serve(t, p)
	c := login(t, addr)
	h := writeCommand(1<<20, true)
	c.send(h, nil)
	a := c.expect(iscsi.OpR2T)
	for from := 0; ; {
		to := from + int(a.Desired())
		for sn := uint32(0); from < to; sn++ {
			n := min(to-from, c.params.MaxSend)
			var d iscsi.BHS
			d.Init(iscsi.OpDataOut, 0)
			if from+n == to {
				d.SetFlags(iscsi.FlagFinal)
			}
			d[9] = 2
			d.SetITT(h.ITT())
			d.SetTTT(a.TTT())
			d.SetDataSN(sn)
			d.SetOffset(uint32(from))
			c.send(&d, bytes.Repeat([]byte{3}, n))
			from += n
		}
		var err error
		if a, err = c.recv(); err != nil {
			t.Fatal(err)
		}
		if a.Opcode() == iscsi.OpSCSIResponse {
			break
		}
	}
	x := p.last()
	if len(x.written) != 1 || !bytes.Equal(x.written[0], bytes.Repeat([]byte{3}, 1<<20)) {
		t.Error("not what was sent")
	}
}

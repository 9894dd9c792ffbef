package target_test

import (
	"bytes"
	"testing"

	"pmsapp/internal/iscsi"
	"pmsapp/target"
)

func bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = pattern(i)
	}
	return b
}

// TestTransfers moves data of many sizes under every kind of agreement.
func TestTransfers(t *testing.T) {
	for name, change := range map[string]func(*iscsi.Wish){
		"default":      func(*iscsi.Wish) {},
		"digests":      func(w *iscsi.Wish) { w.HeaderDigest, w.DataDigest = iscsi.DigestAlways, iscsi.DigestAlways },
		"no immediate": func(w *iscsi.Wish) { w.ImmediateData = false },
		"R2T only":     func(w *iscsi.Wish) { w.ImmediateData, w.InitialR2T = false, true },
		"InitialR2T":   func(w *iscsi.Wish) { w.InitialR2T = true },
		"tiny":         func(w *iscsi.Wish) { w.MaxRecv, w.MaxBurst, w.FirstBurst, w.MaxR2T = 512, 1024, 512, 2 },
		"one R2T":      func(w *iscsi.Wish) { w.MaxR2T, w.MaxBurst, w.FirstBurst = 1, 8192, 4096 },
	} {
		t.Run(name, func(t *testing.T) {
			p := &fakeProvider{}
			_, addr := serve(t, p, func(c *target.Config) { c.MaxRecv = 16 << 10 })
			c := login(t, addr, func(c *iscsi.InitiatorLoginConfig) { change(&c.Wish) })
			x := p.last()
			for i, n := range []int{512, 1, 511, 513, 4096, 8192, 65536, 65537, 300001, 1 << 20, 3<<20 + 5} {
				want := bytesOf(n)
				if a := c.write(want); a.Opcode() != iscsi.OpSCSIResponse || a.Status() != 0 || a.Residual() != 0 {
					t.Fatalf("write of %d: %s, status %d, residual %d", n, a.Opcode(), a.Status(), a.Residual())
				}
				x.mu.Lock()
				taken := x.written[i]
				x.mu.Unlock()
				if !bytes.Equal(taken, want) {
					t.Fatalf("write of %d: the nexus got something else", n)
				}
				got, a := c.read(n)
				if !bytes.Equal(got, want) || a.Status() != 0 || a.Flags()&0x1e != 0 {
					t.Fatalf("read of %d: %d bytes, status %d, flags %x", n, len(got), a.Status(), a.Flags())
				}
			}
		})
	}
}

func TestResiduals(t *testing.T) {
	_, addr := serve(t, &fakeProvider{})
	c := login(t, addr)
	for _, v := range []struct {
		length, edtl, flag, count int
	}{{1000, 1000, 0, 0}, {1000, 400, iscsi.FlagOverflow, 600}, {400, 1000, iscsi.FlagUnderflow, 600}, {1000, 0, iscsi.FlagOverflow, 1000}} {
		c.send(command(fakeRead, iscsi.FlagFinal|iscsi.FlagRead, v.length, v.edtl), nil)
		a, err := c.recv()
		if err != nil {
			t.Fatal(err)
		}
		if int(a.Flags()&6) != v.flag || int(a.Residual()) != v.count || len(a.data) != min(v.length, v.edtl) {
			t.Errorf("read %+v: flags %x, residual %d, %d bytes", v, a.Flags(), a.Residual(), len(a.data))
		}
		c.send(command(fakeWrite, iscsi.FlagFinal|iscsi.FlagWrite, v.length, v.edtl), make([]byte, v.edtl))
		a = c.expect(iscsi.OpSCSIResponse)
		if int(a.Flags()&6) != v.flag || int(a.Residual()) != v.count {
			t.Errorf("write %+v: flags %x, residual %d", v, a.Flags(), a.Residual())
		}
	}
}

// TestOrderOfCommands: commands that come before their turn wait for it, with their data; others are ignored.
func TestOrderOfCommands(t *testing.T) {
	p := &fakeProvider{}
	_, addr := serve(t, p)
	c := login(t, addr)
	x := p.last()
	send := func(sn, itt uint32, b byte) {
		h := writeCommand(1024, false)
		h.SetCmdSN(sn)
		h.SetITT(itt)
		c.send(h, bytes.Repeat([]byte{b}, 512))
		c.dataOut(itt, iscsi.NoTag, 0, 512, bytes.Repeat([]byte{b}, 512), true)
	}
	send(102, 3, 3)
	send(101, 2, 2)
	send(102, 9, 9)      // again: ignored
	send(99, 8, 8)       // before the window
	send(100+1000, 7, 7) // behind it
	send(c.max+1, 6, 6)  // just behind it
	var h iscsi.BHS      // a ping out of order
	h.Init(iscsi.OpNopOut, iscsi.FlagFinal)
	h.SetTTT(iscsi.NoTag)
	h.SetCmdSN(103)
	h.SetITT(4)
	c.send(&h, []byte("late"))
	c.ping()
	if n, _, _ := x.count(); n != 0 {
		t.Fatalf("%d commands were executed before their turn", n)
	}
	now := writeCommand(1024, true)
	now.SetCmdSN(100)
	now.SetITT(1)
	c.send(now, bytes.Repeat([]byte{1}, 1024))
	for i := range 3 {
		if a := c.expect(iscsi.OpSCSIResponse); int(a.ITT()) != i+1 {
			t.Errorf("answer to %d, want %d", a.ITT(), i+1)
		}
	}
	if a := c.expect(iscsi.OpNopIn); string(a.data) != "late" {
		t.Errorf("%q", a.data)
	}
	for i, b := range x.written {
		if !bytes.Equal(b, bytes.Repeat([]byte{byte(i + 1)}, 1024)) {
			t.Errorf("command %d wrote %x...", i+1, b[:4])
		}
	}
	c.cmdSN = 104
	c.ping()
	if c.expCmd != 104 {
		t.Errorf("ExpCmdSN %d", c.expCmd)
	}
}

// TestWindow: an initiator that fills the window with commands that do not end cannot send more, and can again later.
func TestWindow(t *testing.T) {
	p := &fakeProvider{}
	_, addr := serve(t, p, func(c *target.Config) { c.Queue = 4 })
	c := login(t, addr)
	x := p.last()
	hold := func() {
		h := readCommand(512)
		h[33] = fakeHold
		c.send(h, nil)
	}
	for range 4 {
		hold()
	}
	c.ping()
	if c.max != c.expCmd-1 {
		t.Errorf("window from %d to %d, want it closed", c.expCmd, c.max)
	}
	hold() // ignored
	c.ping()
	c.cmdSN--
	if n, _, _ := x.count(); n != 4 {
		t.Errorf("%d executed", n)
	}
	// Stopped commands keep their places until they end; then the initiator is told.
	var h iscsi.BHS
	h.Init(iscsi.OpTaskReq, iscsi.FlagFinal|byte(target.AbortTaskSet))
	h.SetImmediate()
	h[9] = 1 // LUN 1
	c.send(&h, nil)
	if a := c.expect(iscsi.OpTaskResp); a.Response() != 0 || a.MaxCmdSN() != c.expCmd-1 {
		t.Errorf("response %d, MaxCmdSN %d", a.Response(), a.MaxCmdSN())
	}
	x.release()
	a := c.expect(iscsi.OpNopIn)
	if a.ITT() != iscsi.NoTag || a.TTT() != iscsi.NoTag || a.MaxCmdSN() == a.ExpCmdSN()-1 {
		t.Errorf("NOP-In %x %x, window from %d to %d", a.ITT(), a.TTT(), a.ExpCmdSN(), a.MaxCmdSN())
	}
	for range 20 {
		if _, a := c.read(512); a.Status() != 0 {
			t.Error("status ", a.Status())
		}
	}
}

// TestMemory: many large commands share little memory, and all end.
func TestMemory(t *testing.T) {
	p := &fakeProvider{}
	_, addr := serve(t, p, func(c *target.Config) {
		c.MaxData, c.Memory, c.FirstBurst, c.Queue = 1<<20, 4<<20, 16<<10, 32
	})
	c := login(t, addr)
	const n, size = 12, 1 << 20
	data := bytesOf(size)
	var first uint32
	for i := range n {
		h := writeCommand(size, false)
		now := min(c.params.FirstBurst/2, c.params.MaxSend)
		c.send(h, data[:now])
		if i == 0 {
			first = h.ITT()
		}
		c.dataOut(h.ITT(), iscsi.NoTag, 0, now, data[now:c.params.FirstBurst], true)
	}
	seen := map[uint32]bool{}
	for len(seen) < n {
		a, err := c.recv()
		if err != nil {
			t.Fatal(err)
		}
		if a.Opcode() == iscsi.OpR2T {
			c.burst(a.ITT(), a.TTT(), data, int(a.Offset()), int(a.Offset()+a.Desired()))
			continue
		}
		if a.Status() != 0 || seen[a.ITT()] || a.ITT() < first {
			t.Fatalf("answer %s to %d with status %d", a.Opcode(), a.ITT(), a.Status())
		}
		seen[a.ITT()] = true
	}
	for _, b := range p.last().written {
		if !bytes.Equal(b, data) {
			t.Fatal("data differs")
		}
	}
}

// TestTaskSetFull: a write whose data comes unasked when there is no memory is refused; a read waits.
func TestTaskSetFull(t *testing.T) {
	p := &fakeProvider{}
	s, addr := serve(t, p, func(c *target.Config) { c.MaxData, c.Memory, c.FirstBurst = 1<<20, 4<<20, 256<<10 })
	small, _ := s.Free()
	c := login(t, addr)
	const size = 256 << 10
	data := bytesOf(size)
	var tags []uint32
	for range small / size {
		h := writeCommand(size, false)
		c.send(h, data[:512])
		tags = append(tags, h.ITT())
	}
	full := writeCommand(size, false)
	c.send(full, data[:512])
	if a := c.expect(iscsi.OpSCSIResponse); a.ITT() != full.ITT() || a.Status() != 0x28 {
		t.Errorf("answer to %d with status %x", a.ITT(), a.Status())
	}
	c.dataOut(full.ITT(), iscsi.NoTag, 0, 512, data[512:1024], true)
	late := readCommand(4096)
	c.send(late, nil)
	c.ping()
	finish := func(tag uint32) {
		c.burst(tag, iscsi.NoTag, data, 512, size)
		if a := c.expect(iscsi.OpSCSIResponse); a.ITT() != tag || a.Status() != 0 {
			t.Errorf("answer to %d with status %x, want %d", a.ITT(), a.Status(), tag)
		}
	}
	finish(tags[0])
	if a := c.expect(iscsi.OpDataIn); a.ITT() != late.ITT() {
		t.Errorf("answer to %d", a.ITT())
	}
	for _, tag := range tags[1:] {
		finish(tag)
	}
	if a := c.write(data); a.Status() != 0 {
		t.Errorf("status %x", a.Status())
	}
	if got, _ := s.Free(); got != small {
		c.ping()
		if got, _ = s.Free(); got != small {
			t.Errorf("%d bytes are missing", small-got)
		}
	}
	if _, n, _ := p.last().count(); n != 1 {
		t.Errorf("%d canceled", n)
	}
}

// TestOrdered: an ORDERED task is executed after all earlier and before all later ones.
func TestOrdered(t *testing.T) {
	p := &fakeProvider{}
	_, addr := serve(t, p)
	c := login(t, addr)
	x := p.last()
	first := readCommand(512)
	first[33] = fakeHold
	c.send(first, nil)
	ordered := readCommand(512)
	ordered.SetFlags(ordered.Flags()&^iscsi.AttrMask | iscsi.AttrOrdered)
	c.send(ordered, nil)
	later := readCommand(512)
	c.send(later, nil)
	head := readCommand(512)
	head.SetFlags(head.Flags()&^iscsi.AttrMask | iscsi.AttrHead)
	c.send(head, nil)
	if a := c.expect(iscsi.OpDataIn); a.ITT() != head.ITT() {
		t.Errorf("first answer to %d, want the HEAD OF QUEUE task's", a.ITT())
	}
	// Data for a complete task that waits for its turn fails it; it is not executed either.
	wrong := writeCommand(512, true)
	c.send(wrong, make([]byte, 512))
	c.dataOut(wrong.ITT(), 0, 0, 0, make([]byte, 512), true)
	if a := c.expect(iscsi.OpSCSIResponse); a.ITT() != wrong.ITT() || a.Status() != 2 {
		t.Errorf("answer to %d, status %x", a.ITT(), a.Status())
	}
	c.ping()
	x.release()
	for _, want := range []*iscsi.BHS{first, ordered, later} {
		if a := c.expect(iscsi.OpDataIn); a.ITT() != want.ITT() {
			t.Errorf("answer to %d, want %d", a.ITT(), want.ITT())
		}
	}
}

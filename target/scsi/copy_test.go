package scsi_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pmsapp/internal/block"
	"pmsapp/internal/block/blocktest"
	"pmsapp/internal/ids"
	"pmsapp/internal/reserve"
	"pmsapp/target"
	"pmsapp/target/scsi"
	"pmsapp/target/scsi/scsitest"
)

// segment is what a test copies: n blocks from one target's LBA to another's.
type segment struct {
	from, to uint16
	n        uint16
	src, dst uint64
}

// designator is the unit's NAA designator in a CSCD descriptor.
func (r *rig) designator() []byte {
	r.t.Helper()
	b := r.good(r.do(cdb(0x12, 1, 0x83, 1, 0), nil, 256))[4:]
	d := make([]byte, 32)
	d[0] = 0xe4
	copy(d[4:], b[:4+int(b[3])])
	return d
}

// beside is the same host at a LUN 2 over another device. Of fixed LUNs the host may only read.
func (r *rig) beside(dev *blocktest.Memory, fixed map[uint16]bool) *rig {
	r.t.Helper()
	o := *r
	o.dev, o.lu, o.lun, o.keeper = dev, scsi.NewLU(ids.NewVolume()), target.FlatLUN(2), &scsitest.Keeper{TargetPorts: []uint16{3}}
	if err := o.lu.Serve(dev, o.keeper); err != nil {
		r.t.Fatal(err)
	}
	if err := r.target.SetMap(map[uint16]*scsi.LU{1: r.lu, 2: o.lu}, fixed); err != nil {
		r.t.Fatal(err)
	}
	if fixed[1] { // it is another unit now
		r.attention(0x2900)
	}
	r.attention(0x3f0e)
	o.attention(0x2900)
	o.attention(0x3f0e)
	return &o
}

// copyList is a parameter list of EXTENDED COPY(LID1).
func copyList(id byte, targets [][]byte, segments ...segment) []byte {
	b := make([]byte, 16)
	b[0] = id
	binary.BigEndian.PutUint16(b[2:], uint16(32*len(targets)))
	binary.BigEndian.PutUint32(b[8:], uint32(28*len(segments)))
	for _, t := range targets {
		b = append(b, t...)
	}
	for _, s := range segments {
		d := make([]byte, 28)
		d[0], d[3] = 2, 24
		binary.BigEndian.PutUint16(d[4:], s.from)
		binary.BigEndian.PutUint16(d[6:], s.to)
		binary.BigEndian.PutUint16(d[10:], s.n)
		binary.BigEndian.PutUint64(d[12:], s.src)
		binary.BigEndian.PutUint64(d[20:], s.dst)
		b = append(b, d...)
	}
	return b
}

// xcopy is EXTENDED COPY with a service action.
func xcopy(sa byte, list []byte) []byte {
	c := cdb(0x83, sa)
	binary.BigEndian.PutUint32(c[10:], uint32(len(list)))
	return c
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>9) + byte(i)*3
	}
	return b
}

func (r *rig) write(lba uint64, data []byte) {
	r.t.Helper()
	for len(data) > 0 {
		n := min(len(data), 1<<20)
		r.good(r.do(rw16(0x8a, 0, lba, uint32(n/512)), data[:n], 0))
		lba, data = lba+uint64(n/512), data[n:]
	}
}

func TestExtendedCopy(t *testing.T) {
	r := newRig(t)
	me := [][]byte{r.designator()}
	data := pattern(3000 * 512)
	r.write(10, data)
	list := copyList(1, me, segment{0, 0, 3000, 10, 4000}, segment{0, 0, 2, 4000, 8000})
	r.good(r.do(xcopy(0, list), list, 0))
	if !bytes.Equal(r.dev.Bytes(4000*512, int64(len(data))), data) || !bytes.Equal(r.dev.Bytes(8000*512, 1024), data[:1024]) {
		t.Error("something else was copied")
	}
	if !bytes.Equal(r.dev.Bytes(10*512, int64(len(data))), data) || r.dev.Bytes(7000*512, 1)[0] != 0 || r.dev.Bytes(3999*512, 1)[0] != 0 {
		t.Error("a copy has written outside its range")
	}
	// What it has done is told once.
	b := r.good(r.do(cdb(0x84, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64), nil, 64))
	if len(b) != 12 || b[4] != 1 || binary.BigEndian.Uint16(b[5:]) != 2 || b[7] != 0 || binary.BigEndian.Uint32(b[8:]) != 3002*512 {
		t.Errorf("copy status %x", b)
	}
	r.sense(r.do(cdb(0x84, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64), nil, 64), illegalRequest, 0x2400)
	// Zeros are unmapped.
	list = copyList(2, me, segment{0, 0, 16, 7600, 4000})
	r.good(r.do(xcopy(0, list), list, 0))
	if b := r.good(r.do(rw16(0x9e, 0x12, 4000, 24), nil, 24)); b[20] != 1 {
		t.Errorf("zeros were written, not unmapped: %x", b)
	}
}

// TestOverlappingCopy: a range is copied as it was, whichever way it overlaps itself.
func TestOverlappingCopy(t *testing.T) {
	for _, c := range []segment{{0, 0, 5000, 0, 100}, {0, 0, 5000, 100, 0}, {0, 0, 5000, 2000, 0}, {0, 0, 5000, 0, 3000}, {0, 0, 9, 3, 3}} {
		r := newRig(t)
		data := pattern(devSize / 2)
		r.write(0, append(data, data...))
		all := r.dev.Bytes(0, devSize)
		list := copyList(1, [][]byte{r.designator()}, c)
		r.good(r.do(xcopy(0, list), list, 0))
		copy(all[c.dst*512:], bytes.Clone(all[c.src*512:(c.src+uint64(c.n))*512]))
		if !bytes.Equal(r.dev.Bytes(0, devSize), all) {
			t.Errorf("%+v copies something else", c)
		}
	}
}

// TestCopyBetweenUnits copies from one unit to another, of another block size.
func TestCopyBetweenUnits(t *testing.T) {
	r := newRig(t)
	dev := blocktest.NewMemory(devSize, 4096)
	other := r.beside(dev, nil)
	second, keeper := other.lu, other.keeper
	both := [][]byte{r.designator(), other.designator()}
	data := pattern(64 << 10)
	r.write(16, data)
	list := copyList(1, both, segment{0, 1, 128, 16, 3})
	r.good(r.do(xcopy(0, list), list, 0))
	if !bytes.Equal(dev.Bytes(3*4096, 64<<10), data) {
		t.Error("something else was copied")
	}
	list = copyList(1, both, segment{0, 1, 127, 16, 3}) // not whole blocks of the destination
	r.sense(r.do(xcopy(0, list), list, 0), 0xa, 0x260a)
	binary.BigEndian.PutUint32(both[1][28:], 512)
	list = copyList(1, both, segment{0, 1, 128, 16, 3}) // a wrong idea of its blocks
	r.sense(r.do(xcopy(0, list), list, 0), illegalRequest, 0x2600)
	binary.BigEndian.PutUint32(both[1][28:], 4096)
	// Another host reserves the destination: the copy counts as its writing.
	host := reserve.Nexus{Initiator: "iqn.h,i,0x000000000000", Port: 3}
	for i, c := range []reserve.Command{{Nexus: host, ServiceKey: 1}, {Nexus: host, Action: reserve.Reserve, Key: 1, Type: 1}} {
		if err := keeper.Commit(uint64(i), c); err != nil {
			t.Fatal(err)
		}
	}
	second.Reserved(keeper.Reservations())
	list = copyList(1, both, segment{0, 1, 128, 16, 3})
	r.sense(r.do(xcopy(0, list), list, 0), 0xa, 0x0d01)
	second.Standby()
	r.sense(r.do(xcopy(0, list), list, 0), 2, 0x040b)
}

// TestCopyOfOthers: what a host is not mapped is neither source nor destination of its copies, though the target serves it to others.
func TestCopyOfOthers(t *testing.T) {
	r := newRig(t)
	r.write(0, pattern(4096))
	theirs := *r
	theirs.dev, theirs.lu = blocktest.NewMemory(devSize, 512), scsi.NewLU(ids.NewVolume())
	if err := theirs.lu.Serve(theirs.dev, &scsitest.Keeper{TargetPorts: []uint16{3}}); err != nil {
		t.Fatal(err)
	}
	theirs.target = scsi.NewTarget("iqn.2026-11.app.pmsapp:test", 3)
	if err := theirs.target.SetLUNs(map[uint16]*scsi.LU{1: theirs.lu, 2: r.lu}); err != nil {
		t.Fatal(err)
	}
	them := theirs.host("them")
	both := [][]byte{r.designator(), them.designator()}
	writes := theirs.dev.Writes() + r.dev.Writes()
	for _, s := range []segment{{0, 1, 8, 0, 100}, {1, 0, 8, 0, 100}, {1, 1, 8, 0, 100}} {
		list := copyList(1, both, s)
		r.sense(r.do(xcopy(0, list), list, 0), 0xa, 0x0d02)
	}
	if n := theirs.dev.Writes() + r.dev.Writes(); n != writes {
		t.Errorf("%d writes", n-writes)
	}
	list := copyList(1, both, segment{0, 1, 8, 0, 100})
	them.good(them.do(xcopy(0, list), list, 0)) // who is mapped both may
}

// TestCopyReadOnly: a unit that the host may not write is a source, whichever unit is asked, and no destination.
func TestCopyReadOnly(t *testing.T) {
	r := newRig(t)
	data := pattern(4096)
	r.write(0, data)
	dev := blocktest.NewMemory(devSize, 512)
	other := r.beside(dev, map[uint16]bool{1: true})
	both := [][]byte{r.designator(), other.designator()}
	for i, h := range []*rig{r, other} {
		at := uint64(100 * (i + 1))
		list := copyList(1, both, segment{0, 1, 8, 0, at})
		h.good(h.do(xcopy(0, list), list, 0))
		if !bytes.Equal(dev.Bytes(int64(at)*512, 4096), data) {
			t.Error("something else was copied")
		}
		list = copyList(1, both, segment{1, 0, 8, at, 500})
		h.sense(h.do(xcopy(0, list), list, 0), 7, 0x2700)
	}
	if r.dev.Bytes(500*512, 1)[0] != 0 || r.dev.Bytes(501*512, 1)[0] != 0 {
		t.Error("a unit was written that the host may only read")
	}
}

func TestCopyLID4(t *testing.T) {
	r := newRig(t)
	data := pattern(8 * 512)
	r.write(0, data)
	one := copyList(0, [][]byte{r.designator()}, segment{0, 0, 8, 0, 100})
	list := append(make([]byte, 48), one[16:]...)
	list[0], list[3], list[16] = 1, 0x20, 0xff
	binary.BigEndian.PutUint32(list[20:], 0xabcd0001)
	binary.BigEndian.PutUint16(list[42:], 32)
	binary.BigEndian.PutUint16(list[44:], 28)
	r.good(r.do(xcopy(1, list), list, 0))
	if !bytes.Equal(r.dev.Bytes(100*512, int64(len(data))), data) {
		t.Error("something else was copied")
	}
	b := r.good(r.do(cdb(0x84, 5, 0xab, 0xcd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 64), nil, 64))
	if len(b) != 32 || b[4] != 1 || b[5] != 1 || binary.BigEndian.Uint32(b[8:]) != 0xfffffffe || binary.BigEndian.Uint64(b[16:]) != 4096 || b[25] != 1 {
		t.Errorf("copy status %x", b)
	}
	// One under way says so; one that was aborted has been terminated, and one that failed has its sense data (SPC-4 6.24).
	status := func(state, completion, sense byte, segments uint16) {
		t.Helper()
		b := r.good(r.do(cdb(0x84, 5, 0xab, 0xcd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 96), nil, 96))
		if b[5] != state || b[12] != completion || b[14] != sense || len(b) != 32+int(b[13]) || b[13]%4 != 0 ||
			int(binary.BigEndian.Uint32(b)) != len(b)-4 || binary.BigEndian.Uint16(b[24:]) != segments {
			t.Errorf("copy status %x", b)
		}
		if sense > 0 && (b[32] != 0x70 || b[34]&0xf != 0xa) {
			t.Errorf("sense data %x", b[32:])
		}
	}
	r.dev.Hold()
	w, ended := r.start(xcopy(1, list), list, 0)
	status(0x11, 0, 0, 1)
	w.Stop()
	r.dev.Release()
	<-ended
	status(0x60, 0x40, 0, 1)
	r.dev.Fail(func(q *block.Request) error { return block.ErrMedium })
	r.sense(r.do(xcopy(1, list), list, 0), 0xa, 0x0d01)
	status(2, 2, 37, 1)
}

// TestCopiesOfUnits: a list identifier is the unit's (its copy manager's), not the host's.
func TestCopiesOfUnits(t *testing.T) {
	r := newRig(t)
	r.write(0, pattern(4096))
	other := r.beside(blocktest.NewMemory(devSize, 512), nil)
	mine, its := copyList(1, [][]byte{r.designator()}, segment{0, 0, 8, 0, 100}), copyList(1, [][]byte{other.designator()}, segment{0, 0, 4, 0, 100})
	r.dev.Hold()
	_, ended := r.start(xcopy(0, mine), mine, 0)
	other.good(other.do(xcopy(0, its), its, 0))
	r.dev.Release()
	<-ended
	ask := cdb(0x84, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64)
	if b := other.good(other.do(ask, nil, 64)); binary.BigEndian.Uint32(b[8:]) != 4*512 {
		t.Errorf("copy status %x", b)
	}
	if b := r.good(r.do(ask, nil, 64)); binary.BigEndian.Uint32(b[8:]) != 8*512 {
		t.Errorf("copy status %x", b)
	}
	// A reset forgets them.
	r.good(r.do(xcopy(0, mine), mine, 0))
	if a, _, _ := r.nexus.Manage(target.Management{Function: target.LogicalUnitReset, LUN: r.lun}); a != target.FunctionComplete {
		t.Fatal(a)
	}
	r.attention(0x2903)
	r.sense(r.do(ask, nil, 64), illegalRequest, 0x2400)
}

// TestCopySense: sense data of a copy that fails names the segment, what is left of it, and what the unit said (SPC-4 5.17.7.4).
func TestCopySense(t *testing.T) {
	r := newRig(t)
	r.write(0, pattern(3<<20))
	me := [][]byte{r.designator()}
	fail := func(op block.Op, after int) {
		n := 0
		r.dev.Fail(func(q *block.Request) error {
			if q.Op == op {
				if n++; n > after {
					return block.ErrMedium
				}
			}
			return nil
		})
	}
	for _, c := range []struct {
		name   string
		op     block.Op
		after  int
		list   []byte
		info   int // -1: not valid
		number uint16
		inner  []byte // at which of the two bytes that point to it, its key
	}{
		{"first read", block.Read, 0, copyList(1, me, segment{0, 0, 0, 0, 0}, segment{0, 0, 3000, 0, 4000}), -1, 1, []byte{8, 3}},
		{"second read", block.Read, 1, copyList(1, me, segment{0, 0, 3000, 0, 4000}), 3000 - 2048, 0, []byte{8, 3}},
		{"second write", block.Write, 1, copyList(1, me, segment{0, 0, 3000, 0, 4000}), 3000 - 2048, 0, []byte{9, 3}},
		{"backwards", block.Write, 1, copyList(1, me, segment{0, 0, 3000, 0, 100}), 3000, 0, []byte{9, 3}},
	} {
		fail(c.op, c.after)
		w := r.do(xcopy(0, c.list), c.list, 0)
		r.sense(w, 0xa, 0x0d01)
		valid, info := w.Sense[0]&0x80 != 0, int(binary.BigEndian.Uint32(w.Sense[3:]))
		if valid != (c.info >= 0) || valid && info != c.info || binary.BigEndian.Uint16(w.Sense[10:]) != c.number || len(w.Sense) != 8+int(w.Sense[7]) {
			t.Errorf("%s: sense %x", c.name, w.Sense)
		}
		at := int(w.Sense[c.inner[0]])
		if at == 0 || w.Sense[17-c.inner[0]] != 0 || w.Sense[at] != 2 || w.Sense[at+3] != c.inner[1] {
			t.Errorf("%s: sense %x", c.name, w.Sense)
		}
	}
	r.dev.Fail(nil)
	list := copyList(1, me, segment{0, 0, 8, 0, 100}, segment{0, 0, 8, 0, devSize/512 - 7})
	if w := r.do(xcopy(0, list), list, 0); binary.BigEndian.Uint16(w.Sense[10:]) != 1 {
		t.Errorf("sense %x", w.Sense)
	}
	// A unit that no segment needs need not be there.
	unknown := bytes.Clone(me[0])
	unknown[15] ^= 1
	list = copyList(1, [][]byte{unknown, me[0]}, segment{1, 1, 8, 0, 100})
	r.good(r.do(xcopy(0, list), list, 0))
}

func TestCopyRefuses(t *testing.T) {
	r := newRig(t)
	me := [][]byte{r.designator()}
	unknown := bytes.Clone(me[0])
	unknown[15] ^= 1
	tooMany := make([][]byte, 17)
	for i := range tooMany {
		tooMany[i] = me[0]
	}
	with := func(at int, v byte) []byte {
		b := copyList(1, me, segment{0, 0, 8, 0, 100})
		b[at] = v
		return b
	}
	writes := r.dev.Writes()
	for _, c := range []struct {
		name string
		list []byte
		key  byte
		asc  uint16
	}{
		{"short", copyList(1, me, segment{0, 0, 8, 0, 100})[:16+32+27], illegalRequest, 0x1a00},
		{"head", make([]byte, 15), illegalRequest, 0x1a00},
		{"inline data", with(15, 1), illegalRequest, 0x260b},
		{"list id usage", with(1, 0x08), illegalRequest, 0x2600},
		{"list id with usage 11b", with(1, 0x18), illegalRequest, 0x2600},
		{"target type", with(16, 0xe0), illegalRequest, 0x2607},
		{"device type", with(17, 0x01), illegalRequest, 0x2600},
		{"segment type", with(48, 0x03), illegalRequest, 0x2609},
		{"segment length", with(51, 20), illegalRequest, 0x2600},
		{"targets", copyList(1, tooMany, segment{0, 0, 8, 0, 100}), illegalRequest, 0x2606},
		{"segments", copyList(1, me, make([]segment, 65)...), illegalRequest, 0x2608},
		{"unknown unit", copyList(1, [][]byte{unknown}, segment{0, 0, 8, 0, 100}), 0xa, 0x0d02},
		{"target index", copyList(1, me, segment{0, 1, 8, 0, 100}), 0xa, 0x0d02},
		{"end of the destination", copyList(1, me, segment{0, 0, 8, 0, 100}, segment{0, 0, 8, 0, devSize/512 - 7}), 0xa, 0},
		{"end of the source", copyList(1, me, segment{0, 0, 8, 1 << 63, 0}), 0xa, 0},
	} {
		w := r.do(xcopy(0, c.list), c.list, 0)
		if w.Status != 2 || w.Sense[2] != c.key || binary.BigEndian.Uint16(w.Sense[12:]) != c.asc {
			t.Errorf("%s: status %x, sense %x", c.name, w.Status, w.Sense)
		}
	}
	huge := make([]byte, 70000)
	r.sense(r.do(xcopy(0, huge), huge, 0), illegalRequest, 0x1a00)
	list := copyList(1, me, segment{0, 0, 8, 0, 100})
	r.sense(r.do(xcopy(0, list), list[:50], 0), illegalRequest, 0x1a00)
	r.sense(r.do(xcopy(2, list), list, 0), illegalRequest, 0x2000)
	r.good(r.do(xcopy(0, nil), nil, 0))
	if r.dev.Writes() != writes {
		t.Error("a command that was refused has written")
	}
	b := r.good(r.do(cdb(0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64), nil, 64))
	if len(b) != 46 || binary.BigEndian.Uint16(b[8:]) != 16 || binary.BigEndian.Uint16(b[10:]) != 64 {
		t.Errorf("operating parameters %x", b)
	}
	b = r.good(r.do(cdb(0x12, 1, 0x8f, 1, 0), nil, 256))
	for d := b[4:]; len(d) > 0; d = d[4+binary.BigEndian.Uint16(d[2:]):] {
		if n := binary.BigEndian.Uint16(d[2:]); n%4 != 0 || int(n) > len(d)-4 {
			t.Fatalf("VPD page 8Fh %x", b)
		}
	}
	if b := r.good(r.do(cdb(0x12, 0, 0, 0, 96), nil, 96)); b[5]&8 == 0 {
		t.Error("INQUIRY does not say 3PC")
	}
}

// TestCopyLists: a list of every length, and lengths that lie, come to something sensible, and nothing is copied that was not said whole.
func TestCopyLists(t *testing.T) {
	r := newRig(t)
	me := [][]byte{r.designator()}
	r.write(0, pattern(4096))
	one := copyList(1, me, segment{0, 0, 8, 0, 100}, segment{0, 0, 8, 0, 200})
	four := append(make([]byte, 48), one[16:]...)
	four[0], four[3], four[16], four[43], four[45] = 1, 0x20, 0xff, 32, 56
	writes := r.dev.Writes()
	for sa, list := range [][]byte{one, four} {
		for n := 1; n < len(list); n++ {
			r.sense(r.do(xcopy(byte(sa), list[:n]), list[:n], 0), illegalRequest, 0x1a00)
		}
		for at := range 48 - 32*(1-sa) { // every byte of the head, as large as can be
			lies := bytes.Clone(list)
			lies[at] = 0xff
			if w := r.do(xcopy(byte(sa), lies), lies, 0); w.Status == 2 && w.Sense[2] != illegalRequest || w.Status != 2 && w.Status != 0 {
				t.Errorf("byte %d: status %x, sense %x", at, w.Status, w.Sense)
			} else if w.Status == 0 {
				writes += 2
			}
		}
	}
	for _, s := range []segment{{0, 0, 0xffff, 0, 0}, {0, 0, 1, 1<<64 - 1, 0}, {0, 0, 1, 0, 1<<64 - 1}, {0, 0, 0xffff, 1<<64 - 0xffff, 1}, {0xf800, 0, 1, 0, 0}, {0, 0xffff, 1, 0, 0}} {
		list := copyList(1, me, segment{0, 0, 8, 0, 300}, s)
		if w := r.do(xcopy(0, list), list, 0); w.Status != 2 || w.Sense[2] != 0xa || w.Sense[11] != 1 {
			t.Errorf("%+v: status %x, sense %x", s, w.Status, w.Sense)
		}
	}
	if n := r.dev.Writes(); n != writes {
		t.Errorf("%d writes, want %d", n, writes)
	}
	long := append(bytes.Clone(one), make([]byte, 64<<10-len(one))...) // what follows the descriptors is nothing to us
	r.good(r.do(xcopy(0, long), long, 0))
}

// TestStoppedCopy: a copy that is aborted writes nothing from then on (invariant 4), and ends nevertheless.
func TestStoppedCopy(t *testing.T) {
	r := newRig(t)
	me := [][]byte{r.designator()}
	r.write(0, pattern(4096))
	list := copyList(1, me, segment{0, 0, 8, 0, 100})
	r.dev.Hold()
	w, ended := r.start(xcopy(0, list), list, 0) // its read is held
	if w.Stop == nil || r.dev.Held() != 1 {
		t.Fatalf("%d requests are held", r.dev.Held())
	}
	again, over := r.start(xcopy(0, list), list, 0)
	<-over
	r.sense(again, illegalRequest, 0x0016) // the list identifier is in use
	status := r.good(r.do(cdb(0x84, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64), nil, 64))
	if status[4] != 0 || binary.BigEndian.Uint16(status[5:]) != 1 {
		t.Errorf("copy status %x of one under way", status)
	}
	writes := r.dev.Writes()
	w.Stop()
	r.dev.Release()
	<-ended
	if r.dev.Writes() != writes || r.dev.Bytes(51200, 1)[0] != 0 {
		t.Error("a copy that was stopped has written")
	}
	status = r.good(r.do(cdb(0x84, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64), nil, 64))
	if status[4] != 2 {
		t.Errorf("copy status %x of one that failed", status)
	}
}

// TestCopyErrors: errors of a device are the copy's, and the epoch's end drops the session.
func TestCopyErrors(t *testing.T) {
	r := newRig(t)
	me := [][]byte{r.designator()}
	r.write(0, pattern(4096))
	list := copyList(1, me, segment{0, 0, 8, 0, 100})
	r.dev.Fail(func(q *block.Request) error {
		if q.Op == block.Write {
			return block.ErrNoSpace
		}
		return nil
	})
	r.sense(r.do(xcopy(0, list), list, 0), 7, 0x2707)
	// Held before anything was written it is BUSY; later it has been aborted.
	long := copyList(2, me, segment{0, 0, 5000, 0, 100})
	for n, status := range []byte{8, 2} {
		writes := 0
		r.dev.Fail(func(q *block.Request) error {
			if q.Op != block.Read {
				if writes++; writes > n {
					return block.ErrHeld
				}
			}
			return nil
		})
		if w := r.do(xcopy(0, long), long, 0); w.Status != status || status == 2 && w.Sense[2] != 0xa {
			t.Errorf("held at write %d: status %x, sense %x", n+1, w.Status, w.Sense)
		}
	}
	r.dev.Fail(nil)
	r.dev.Close()
	if w := r.do(xcopy(0, list), list, 0); w.Drop == nil {
		t.Errorf("status %x: the session is not dropped", w.Status)
	}
}

// FuzzExtendedCopy: any parameter list ends with something sensible, and no copy goes beyond the unit.
func FuzzExtendedCopy(f *testing.F) {
	d := make([]byte, 32)
	copy(d, []byte{0xe4, 0, 0, 0, 1, 3, 0, 8, 0x30, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77})
	f.Add(copyList(1, [][]byte{d}, segment{0, 0, 8, 0, 100}), false)
	f.Add(copyList(1, [][]byte{d, d}, segment{0, 1, 200, 100, 0}, segment{1, 0, 8, 0, 1 << 40}), false)
	f.Add(append([]byte{1, 0, 0, 32, 15: 0, 16: 0xff, 43: 32, 45: 28, 47: 0}, copyList(1, [][]byte{d}, segment{0, 0, 8, 0, 9})[16:]...), true)
	f.Fuzz(func(t *testing.T, list []byte, lid4 bool) {
		r := newRigOf(t, 128<<10)
		r.write(0, pattern(4096))
		sa := byte(0)
		if lid4 {
			sa = 1
		}
		w := r.do(xcopy(sa, list), list, 0)
		if w.Drop != nil || w.Status != 0 && (w.Status != 2 || len(w.Sense) != 18) {
			t.Errorf("status %x, sense %x, drop %v", w.Status, w.Sense, w.Drop)
		}
	})
}

package scsi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"pmsapp/internal/block"
	"pmsapp/internal/block/blocktest"
	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/internal/iscsi/iscsitest"
	"pmsapp/target"
	"pmsapp/target/scsi"
)

const illegalRequest = 5

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

func TestReadWrite(t *testing.T) {
	r := newRig(t)
	data := make([]byte, 8192)
	for i := range data {
		data[i] = byte(i*7 + i>>8)
	}
	r.good(r.do(rw10(0x2a, 0, 100, 16), data, 0))
	for _, c := range [][]byte{rw10(0x28, 0, 100, 16), rw16(0x88, 0, 100, 16), cdb(0xa8, 0, 0, 0, 0, 100, 0, 0, 0, 16), cdb(0x08, 0, 0, 100, 16)} {
		if got := r.good(r.do(c, nil, 8192)); !bytes.Equal(got, data) {
			t.Errorf("CDB %x reads something else", c)
		}
	}
	r.good(r.do(cdb(0x0a, 0, 0, 0, 0), fill(256*512, 3), 0)) // WRITE(6) of 0 blocks is one of 256
	if !bytes.Equal(r.dev.Bytes(0, 256*512), fill(256*512, 3)) {
		t.Error("WRITE(6) of 256 blocks")
	}
	end := uint64(devSize / 512)
	for _, c := range [][]byte{rw16(0x88, 0, end, 1), rw16(0x8a, 0, end-1, 2), rw16(0x88, 0, 1<<63, 1), rw16(0x8a, 0, ^uint64(0), 1), rw16(0x8f, 0, end, 0)} {
		r.sense(r.do(c, fill(1024, 1), 0), illegalRequest, 0x2100)
	}
	for _, c := range [][]byte{rw10(0x28, 0x20, 0, 1), rw10(0x2a, 0xe0, 0, 1), rw10(0x2f, 0x04, 0, 1), rw16(0x88, 0, 0, 1<<20)} {
		want := uint16(0x2400)
		if binary.BigEndian.Uint32(c[10:]) == 1<<20 {
			want = 0x2100
		}
		r.sense(r.do(c, nil, 0), illegalRequest, want)
	}
	large := newRigOf(t, 16<<20) // more than the longest transfer
	for _, op := range []byte{0x88, 0x8a, 0x8b, 0x8e, 0x8f} {
		large.sense(large.do(rw16(op, 0, 0, 8<<11+1), fill(512, 1), 0), illegalRequest, 0x2400)
	}
	large.good(large.do(rw16(0x8a, 0, 0, 8<<11), fill(8<<20, 1), 0))
	c := rw10(0x28, 0, 0, 1)
	c[9] = 0x04 // NACA
	r.sense(r.do(c, nil, 512), illegalRequest, 0x2400)
}

// TestExpectedLength: what the initiator expects bounds what moves; the CDB does too.
func TestExpectedLength(t *testing.T) {
	r := newRig(t)
	w := r.do(rw10(0x2a, 0, 0, 2), fill(512+100, 9), 0)
	r.good(w)
	if w.Moved != 1024 || !bytes.Equal(r.dev.Bytes(0, 1024), append(fill(512, 9), fill(512, 0)...)) {
		t.Errorf("moved %d; a part of a block was written, or none", w.Moved)
	}
	w = r.do(rw10(0x2a, 0, 0, 1), fill(4096, 8), 0)
	r.good(w)
	if w.Moved != 512 || !bytes.Equal(r.dev.Bytes(512, 512), fill(512, 0)) {
		t.Errorf("moved %d; more was written than the CDB says", w.Moved)
	}
	w = r.do(rw10(0x28, 0, 0, 4), nil, 700)
	if r.good(w); w.Moved != 2048 || len(w.DataIn) != 1024 {
		t.Errorf("moved %d, %d bytes", w.Moved, len(w.DataIn))
	}
	w = r.do(rw10(0x28, 0, 0, 4), nil, 0)
	if r.good(w); w.Moved != 2048 || len(w.DataIn) != 0 {
		t.Errorf("moved %d, %d bytes", w.Moved, len(w.DataIn))
	}
	for _, c := range [][]byte{cdb(0x12, 0, 0, 0, 255), cdb(0x1a, 0, 0x3f, 0, 255), rw16(0x9e, 0x10, 0, 32), cdb(0x25), cdb(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64), cdb(0x42, 0, 0, 0, 0, 0, 0, 0, 24)} {
		r.do(c, nil, 0) // without data, or a buffer for it
		r.do(c, fill(64, 1), 0)
	}
}

func TestVerify(t *testing.T) {
	r := newRig(t)
	r.good(r.do(rw10(0x2a, 0, 8, 4), fill(2048, 5), 0))
	r.good(r.do(rw10(0x2f, 0, 8, 4), nil, 0))
	r.good(r.do(rw10(0x2f, 2, 8, 4), fill(2048, 5), 0))
	r.good(r.do(rw10(0x2f, 6, 8, 4), fill(512, 5), 0))
	wrong := fill(2048, 5)
	wrong[1500] = 6
	w := r.do(rw10(0x2f, 2, 8, 4), wrong, 0)
	r.sense(w, 0xe, 0x1d00)
	if w.Sense[0] != 0xf0 || binary.BigEndian.Uint32(w.Sense[3:]) != 1500 {
		t.Errorf("sense %x", w.Sense)
	}
	w = r.do(rw10(0x2f, 6, 7, 2), fill(512, 5), 0)
	r.sense(w, 0xe, 0x1d00)
	r.good(r.do(rw10(0x2e, 2, 20, 2), fill(1024, 7), 0))
	if !bytes.Equal(r.dev.Bytes(20*512, 1024), fill(1024, 7)) {
		t.Error("WRITE AND VERIFY has not written")
	}
}

func TestWriteSame(t *testing.T) {
	r := newRig(t)
	block1 := bytes.Repeat([]byte("pms."), 128)
	r.good(r.do(rw16(0x93, 0, 3, 3000), block1, 0))
	if got := r.dev.Bytes(3*512, 3000*512); !bytes.Equal(got, bytes.Repeat(block1, 3000)) {
		t.Error("WRITE SAME has written something else")
	}
	if got := r.dev.Bytes(0, 3*512); !bytes.Equal(got, make([]byte, 3*512)) {
		t.Error("WRITE SAME has written before its range")
	}
	r.good(r.do(rw10(0x41, 0x08, 10, 5), make([]byte, 512), 0)) // UNMAP
	r.good(r.do(rw16(0x93, 0x01, 20, 5), nil, 0))               // NDOB
	r.good(r.do(rw16(0x93, 0x08, 30, 1), block1, 0))            // UNMAP of what is not zeros
	for _, lba := range []int64{10, 20} {
		if !bytes.Equal(r.dev.Bytes(lba*512, 5*512), make([]byte, 5*512)) {
			t.Errorf("LBA %d is not zeros", lba)
		}
	}
	if !bytes.Equal(r.dev.Bytes(30*512, 512), block1) {
		t.Error("data that is not zeros was not written")
	}
	for _, c := range [][]byte{rw16(0x93, 0, 0, 0), rw16(0x93, 0x10, 0, 1), rw16(0x93, 0x20, 0, 1), rw16(0x93, 0, 0, 1<<20)} {
		r.sense(r.do(c, block1, 0), illegalRequest, 0x2400)
	}
	r.sense(r.do(rw16(0x93, 0, 0, 1), block1[:100], 0), illegalRequest, 0x2400)
	r.sense(r.do(rw16(0x93, 0, devSize/512, 1), block1, 0), illegalRequest, 0x2100)
}

func unmapList(d ...uint64) []byte {
	b := make([]byte, 8)
	for i := 0; i < len(d); i += 2 {
		b = binary.BigEndian.AppendUint64(b, d[i])
		b = binary.BigEndian.AppendUint64(b, d[i+1]<<32)
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-8))
	return b
}

func TestUnmap(t *testing.T) {
	r := newRig(t)
	r.good(r.do(rw10(0x2a, 0, 0, 64), fill(64*512, 1), 0))
	do := func(list []byte, flags byte) *target.Task {
		c := cdb(0x42, flags)
		binary.BigEndian.PutUint16(c[7:], uint16(len(list)))
		return r.do(c, list, 0)
	}
	r.good(do(unmapList(2, 3, 10, 0, 20, 1), 0))
	want := fill(64*512, 1)
	clear(want[2*512 : 5*512])
	clear(want[20*512 : 21*512])
	if !bytes.Equal(r.dev.Bytes(0, 64*512), want) {
		t.Error("UNMAP has zeroed something else")
	}
	writes := r.dev.Writes()
	r.good(do(nil, 0))
	r.good(do(unmapList(), 0))
	r.sense(do(unmapList(0, 1), 1), illegalRequest, 0x2400)
	r.sense(do(unmapList(0, 1)[:7], 0), illegalRequest, 0x1a00)
	r.sense(do(unmapList(0, 1, devSize/512, 1), 0), illegalRequest, 0x2100)
	r.sense(do(unmapList(1<<63, 1<<31), 0), illegalRequest, 0x2100)
	many := make([]uint64, 2*257)
	for i := range many {
		many[i] = 1
	}
	r.sense(do(unmapList(many...), 0), illegalRequest, 0x2600)
	if r.dev.Writes() != writes {
		t.Error("a command that was refused has zeroed something")
	}
}

// TestNotImplemented: what is not implemented says so, and nothing else.
func TestNotImplemented(t *testing.T) {
	r := newRig(t)
	done := map[byte]bool{}
	for _, op := range []byte{0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x16, 0x17, 0x1a, 0x1b, 0x1d, 0x25, 0x28, 0x2a, 0x2e, 0x2f, 0x34, 0x35, 0x37,
		0x41, 0x42, 0x4d, 0x55, 0x56, 0x57, 0x5a, 0x5e, 0x5f, 0x83, 0x84, 0x88, 0x89, 0x8a, 0x8b, 0x8e, 0x8f, 0x90, 0x91, 0x93, 0x9e,
		0xa0, 0xa3, 0xa8, 0xaa, 0xae, 0xaf, 0xb7} {
		done[op] = true
	}
	for op := range 256 {
		c := cdb(byte(op))
		w := r.do(c, fill(4096, 1), 0)
		unknown := w.Status == 2 && w.Sense[2] == illegalRequest && binary.BigEndian.Uint16(w.Sense[12:]) == 0x2000
		if sa := op == 0x9e || op == 0xa3; unknown == done[byte(op)] && !sa {
			t.Errorf("operation %02xh: status %x, sense %x", op, w.Status, w.Sense)
		}
	}
	listed := map[byte]bool{}
	for w := r.good(r.do(cdb(0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 16), nil, 4096))[4:]; len(w) > 0; w = w[8:] {
		listed[w[0]] = true
	}
	if !maps.Equal(listed, done) {
		t.Errorf("REPORT SUPPORTED OPERATION CODES lists %v, want %v", listed, done)
	}
}

func TestErrors(t *testing.T) {
	r := newRig(t)
	read, write := rw10(0x28, 0, 0, 1), rw10(0x2a, 0, 0, 1)
	for _, v := range []struct {
		err error
		cdb []byte
		key byte
		asc uint16
	}{
		{block.ErrNoSpace, write, 7, 0x2707}, {block.ErrMedium, write, 3, 0x0c00}, {block.ErrMedium, read, 3, 0x1100},
		{block.ErrRange, read, 5, 0x2100}, {errors.New("other"), read, 4, 0x4400},
		{block.ErrMedium, rw10(0x2f, 0, 0, 1), 3, 0x1100}, {block.ErrNoSpace, rw10(0x2e, 0, 0, 1), 7, 0x2707},
	} {
		r.dev.Fail(func(q *block.Request) error { return fmt.Errorf("a volume: %w", v.err) })
		if v.cdb[0] == 0x28 {
			r.sense(r.do(v.cdb, nil, 512), v.key, v.asc)
		} else {
			r.sense(r.do(v.cdb, fill(512, 1), 0), v.key, v.asc)
		}
	}
	r.dev.Fail(func(*block.Request) error { return block.ErrHeld })
	if w := r.do(read, nil, 512); w.Status != 8 || len(w.Sense) != 0 || w.DataIn != nil {
		t.Errorf("status %x, sense %x, %d bytes", w.Status, w.Sense, len(w.DataIn))
	}
	r.dev.Fail(func(*block.Request) error { return block.ErrEnded })
	if w := r.do(read, nil, 512); !errors.Is(w.Drop, block.ErrEnded) {
		t.Errorf("drop %v", w.Drop)
	}
	// WRITE AND VERIFY whose write fails and whose read does not; the device says which.
	r.dev.Fail(func(q *block.Request) error {
		if q.Op == block.Write {
			return block.ErrMedium
		}
		return nil
	})
	r.sense(r.do(rw10(0x2e, 2, 0, 1), fill(512, 1), 0), 3, 0x0c00)
}

func TestFlags(t *testing.T) {
	r := newRig(t)
	var got []block.Request
	r.dev.Fail(func(q *block.Request) error { got = append(got, *q); return nil })
	r.good(r.do(rw10(0x2a, 0x08, 0, 1), fill(512, 1), 0))
	r.good(r.do(rw10(0x2a, 0, 0, 1), fill(512, 1), 0))
	r.good(r.do(rw10(0x35, 0, 5, 0), nil, 0))
	if len(got) != 3 || !got[0].FUA || got[1].FUA || got[2].Op != block.Flush || got[2].Off != 5*512 || got[2].Len != devSize-5*512 {
		t.Errorf("%+v", got)
	}
}

// TestStandby: an LU without a device is there, and NOT READY. What began on a device ends on it.
func TestStandby(t *testing.T) {
	r := newRig(t)
	r.dev.Hold()
	held, ended := r.start(rw10(0x2a, 0, 0, 1), fill(512, 1), 0)
	r.lu.Standby()
	for _, c := range [][]byte{cdb(0x00), rw10(0x28, 0, 0, 1), rw10(0x2a, 0, 0, 1), cdb(0x25), rw16(0x9e, 0x10, 0, 32), cdb(0x1a, 0, 8, 0, 64)} {
		r.sense(r.do(c, nil, 512), 2, 0x040b)
	}
	if b := r.good(r.do(cdb(0x12, 0, 0, 0, 96), nil, 96)); string(b[8:16]) != "PMSAPP  " || b[0] != 0 {
		t.Errorf("INQUIRY %x", b)
	}
	r.good(r.do(cdb(0x12, 1, 0x83, 1, 0), nil, 256))
	if b := r.good(r.do(cdb(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64), nil, 64)); binary.BigEndian.Uint32(b) != 16 {
		t.Errorf("REPORT LUNS %x", b)
	}
	if b := r.good(r.do(cdb(0x03, 0, 0, 0, 18), nil, 18)); b[2] != 2 || b[12] != 4 || b[13] != 0x0b {
		t.Errorf("REQUEST SENSE %x", b)
	}
	r.dev.Release()
	<-ended
	r.good(held)
	if err := r.lu.Serve(blocktest.NewMemory(2*devSize, 512), r.keeper); err != nil {
		t.Fatal(err)
	}
	r.attention(0x2a09)
	r.good(r.do(cdb(0x00), nil, 0))
	if b := r.good(r.do(cdb(0x25), nil, 8)); binary.BigEndian.Uint32(b) != 2*devSize/512-1 {
		t.Errorf("READ CAPACITY %x", b)
	}
}

func TestAttentions(t *testing.T) {
	r := newRig(t)
	other := *r
	other.nexus = r.target.Nexus(target.Login{})
	r.good(other.do(cdb(0x12, 0, 0, 0, 96), nil, 96)) // INQUIRY leaves it pending
	if b := other.good(other.do(cdb(0x03, 0, 0, 0, 18), nil, 18)); b[2] != 6 || b[12] != 0x29 {
		t.Errorf("REQUEST SENSE %x", b)
	}
	other.good(other.do(cdb(0x00), nil, 0))
	if resp, units, _ := r.nexus.Manage(target.Management{Function: target.LogicalUnitReset, LUN: r.lun}); resp != 0 || len(units) != 1 || units[0] != other.nexus.Unit(r.lun) {
		t.Error(resp, units)
	}
	other.attention(0x2903)
	r.attention(0x2903)
	r.lu.InquiryChanged()
	other.attention(0x3f03)
	r.attention(0x3f03)
	if err := r.target.SetLUNs(map[uint16]*scsi.LU{1: r.lu, 300: scsi.NewLU(ids.NewVolume())}); err != nil {
		t.Fatal(err)
	}
	r.attention(0x3f0e)
	b := r.good(r.do(cdb(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64), nil, 64))
	if want := "00000018" + "00000000" + "0000000000000000" + "0001000000000000" + "412c000000000000"; fmt.Sprintf("%x", b) != want {
		t.Errorf("REPORT LUNS %x, want %s", b, want)
	}
	r.nexus.End(nil)
	other.nexus.End(nil)
}

func TestNoUnit(t *testing.T) {
	r := newRig(t)
	r.lun = target.FlatLUN(0)
	if b := r.good(r.do(cdb(0x12, 0, 0, 0, 96), nil, 96)); b[0] != 0x7f {
		t.Errorf("INQUIRY %x", b)
	}
	r.good(r.do(cdb(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64), nil, 64))
	if b := r.good(r.do(cdb(0x03, 0, 0, 0, 18), nil, 18)); b[2] != 5 || b[12] != 0x25 {
		t.Errorf("REQUEST SENSE %x", b)
	}
	r.sense(r.do(cdb(0x00), nil, 0), illegalRequest, 0x2500)
	r.sense(r.do(rw10(0x2a, 0, 0, 1), fill(512, 1), 0), illegalRequest, 0x2500)
	if resp, _, _ := r.nexus.Manage(target.Management{Function: target.LogicalUnitReset, LUN: r.lun}); resp != target.LUNDoesNotExist {
		t.Error(resp)
	}
}

// TestIdentity holds what hosts remember a disk by: it must never change.
func TestIdentity(t *testing.T) {
	r := newRig(t)
	vpd := func(page byte) []byte { return r.good(r.do(cdb(0x12, 1, page, 1, 0), nil, 256))[4:] }
	if s := string(vpd(0x80)); s != "00112233445566778899aabbccddeeff" {
		t.Errorf("serial number %q", s)
	}
	var got []string
	for d := vpd(0x83); len(d) > 0; {
		n := int(d[3])
		got = append(got, fmt.Sprintf("%x %q", d[:2], strings.TrimRight(string(d[4:4+n]), "\x00")))
		d = d[4+n:]
	}
	want := []string{
		`0103 "0\x11\"3DUfw"`,
		`0201 "PMSAPP  VDISK 00112233445566778899aabbccddeeff"`,
		`5194 "\x00\x00\x00\x03"`,
		`5195 "\x00\x00\x00\x03"`,
		`5398 "iqn.2026-11.app.pmsapp:test,t,0x0003"`,
		`53a8 "iqn.2026-11.app.pmsapp:test"`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("designators\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if b := r.good(r.do(cdb(0x12, 0, 0, 0, 96), nil, 96)); string(b[8:36]) != "PMSAPP  VDISK           0001" {
		t.Errorf("INQUIRY %q", b[8:36])
	}
	if b := r.good(r.do(cdb(0x1a, 0, 8, 0, 64), nil, 64)); b[12] != 8 || b[14]&4 != 0 {
		t.Errorf("the caching page says WCE: %x", b)
	}
}

// TestConcurrent: many commands of many nexuses on two LUs at once, for the race detector.
func TestConcurrent(t *testing.T) {
	r := newRig(t)
	second := scsi.NewLU(ids.NewVolume())
	if err := second.Serve(blocktest.NewMemory(devSize, 4096), nil); err != nil {
		t.Fatal(err)
	}
	if err := r.target.SetLUNs(map[uint16]*scsi.LU{1: r.lu, 2: second}); err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	for i := range 16 {
		work.Add(1)
		go func() {
			defer work.Done()
			q := *r
			q.nexus, q.lun = r.target.Nexus(target.Login{}), target.FlatLUN(uint16(1+i%2))
			defer q.nexus.End(nil)
			for j := range 100 {
				q.do(rw16(0x8a, 0, uint64(j), 1), fill(4096, 1), 0)
				q.do(rw16(0x88, 0, uint64(j), 1), nil, 4096)
				q.do(cdb(0x12, 0, 0, 0, 96), nil, 96)
				q.do(cdb(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64), nil, 64)
				q.do(cdb(0x00), nil, 0)
				q.do(cdb(0x1a, 0, 0x3f, 0, 255), nil, 255)
				if i == 0 && j%10 == 0 {
					second.Standby()
					second.Serve(blocktest.NewMemory(devSize, 4096), nil)
				}
				if i == 1 {
					r.target.SetLUNs(map[uint16]*scsi.LU{1: r.lu, 2: second, uint16(3 + j%2): second})
				}
			}
		}()
	}
	work.Wait()
}

// TestAllocations: a READ and a WRITE allocate nothing once their task has been used.
func TestAllocations(t *testing.T) {
	r := newRig(t)
	task := &target.Task{LUN: r.lun, Attr: target.Simple, Done: func(*target.Task) {}}
	read, write, out := rw10(0x28, 0, 0, 8), rw10(0x2a, 0, 0, 8), fill(4096, 1)
	run := func(c, data []byte, in int64) {
		task.CDB, task.DataOut, task.ExpIn, task.ExpOut = c, data, in, int64(len(data))
		r.nexus.Accept(task)
		r.nexus.Execute(task)
		block.Put(task.DataIn)
		task.DataIn = nil
	}
	if n := testing.AllocsPerRun(100, func() { run(read, nil, 4096); run(write, out, 0) }); n > 0 {
		t.Errorf("%.1f allocations", n)
	}
}

// FuzzCommand executes any CDB with any lengths: it ends once, says something sensible, and changes no byte that its LBA
// and length do not name.
func FuzzCommand(f *testing.F) {
	for op := range 256 {
		f.Add(cdb(byte(op), 0, 0, 0, 0, 8, 0, 0, 8, 0, 0, 0, 0, 8), uint16(4096), uint16(0))
		f.Add(cdb(byte(op), 0, 0, 0, 0, 8, 0, 0, 8, 0, 0, 0, 0, 8), uint16(0), uint16(4096))
		f.Add(cdb(byte(op), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), uint16(255), uint16(0))
	}
	for _, s := range iscsitest.Sessions() {
		for _, p := range iscsitest.PDUs(s) {
			if p.Opcode() == iscsi.OpSCSICommand && p.Has(iscsi.FlagWrite) {
				f.Add(p.CDB, uint16(0), uint16(p.EDTL()))
			} else if p.Opcode() == iscsi.OpSCSICommand {
				f.Add(p.CDB, uint16(p.EDTL()), uint16(0))
			}
		}
	}
	f.Add(cdb(0x42, 0, 0, 0, 0, 0, 0, 0, 24), uint16(0), uint16(24))
	f.Add(cdb(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), uint16(32), uint16(0))
	f.Add(cdb(0xa3, 0x0c, 0x82, 0x9e, 0, 0x10, 0, 0, 1, 0), uint16(255), uint16(0))
	f.Fuzz(func(t *testing.T, c []byte, in, out uint16) {
		if len(c) < 16 {
			c = append(c, make([]byte, 16)...)[:16]
		}
		c = c[:min(len(c), target.MaxCDB)]
		const size = 128 << 10
		r := newRigOf(t, size)
		data := fill(int(out), 0xff)
		if in > 0 {
			data = nil
		}
		w := r.do(c, data, int64(in))
		switch w.Status {
		case 0:
			if len(w.Sense) != 0 {
				t.Errorf("GOOD with sense %x", w.Sense)
			}
		case 2:
			if len(w.Sense) != 18 || w.Sense[2]&0xf == 0 || w.DataIn != nil {
				t.Errorf("sense %x with %d bytes", w.Sense, len(w.DataIn))
			}
		case 0x18:
			if c[0] != 0x5f {
				t.Error("RESERVATION CONFLICT, and nothing is reserved")
			}
		default:
			t.Errorf("status %x", w.Status)
		}
		if w.Drop != nil {
			t.Error(w.Drop)
		}
		var lba, n uint64
		switch c[0] {
		case 0x0a:
			lba, n = uint64(c[1]&0x1f)<<16|uint64(c[2])<<8|uint64(c[3]), uint64(c[4])
			if n == 0 {
				n = 256
			}
		case 0x2a, 0x2e, 0x41:
			lba, n = uint64(binary.BigEndian.Uint32(c[2:])), uint64(binary.BigEndian.Uint16(c[7:]))
		case 0xaa, 0xae:
			lba, n = uint64(binary.BigEndian.Uint32(c[2:])), uint64(binary.BigEndian.Uint32(c[6:]))
		case 0x89:
			lba, n = binary.BigEndian.Uint64(c[2:]), uint64(c[13])
		case 0x8a, 0x8b, 0x8e, 0x93:
			lba, n = binary.BigEndian.Uint64(c[2:]), uint64(binary.BigEndian.Uint32(c[10:]))
		}
		lo, hi := min(lba*512, size), min((lba+n)*512, size)
		if lba >= size/512 || n > size/512 {
			lo, hi = 0, 0
		}
		all := r.dev.Bytes(0, size)
		if len(bytes.Trim(all[:lo], "\x00")) > 0 || len(bytes.Trim(all[hi:], "\x00")) > 0 {
			t.Errorf("CDB %x changed bytes outside %d to %d", c, lo, hi)
		}
	})
}

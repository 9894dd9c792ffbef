package scsi_test

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"pmsapp/internal/block"
	"pmsapp/internal/block/blocktest"
	"pmsapp/internal/ids"
	"pmsapp/target"
	"pmsapp/target/scsi"
	"pmsapp/target/scsi/scsitest"
)

const devSize = 4 << 20

// rig is a LUN 1 over a device in memory, and a nexus to it whose first unit attention was taken.
type rig struct {
	t      testing.TB
	dev    *blocktest.Memory
	lu     *scsi.LU
	target *scsi.Target
	nexus  *scsi.Nexus
	lun    target.LUN
	keeper *scsitest.Keeper
}

func newRig(t testing.TB) *rig { return newRigOf(t, devSize) }

func newRigOf(t testing.TB, size int64) *rig {
	t.Helper()
	id, err := ids.Parse("00112233445566778899aabbccddeeff")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dev: blocktest.NewMemory(size, 512), lu: scsi.NewLU(ids.Volume(id)), lun: target.FlatLUN(1),
		keeper: &scsitest.Keeper{TargetPorts: []uint16{3, 4}}}
	r.target = scsi.NewTarget("iqn.2026-11.app.pmsapp:test", 3)
	if err := r.lu.Serve(r.dev, r.keeper); err != nil {
		t.Fatal(err)
	}
	if err := r.target.SetLUNs(map[uint16]*scsi.LU{1: r.lu}); err != nil {
		t.Fatal(err)
	}
	r.nexus = r.target.Nexus(target.Login{})
	r.attention(0x2900)
	return r
}

// attention expects a unit attention.
func (r *rig) attention(asc uint16) {
	r.t.Helper()
	r.sense(r.do(cdb(0x00), nil, 0), 6, asc)
}

// cdb is a CDB of 16 bytes.
func cdb(b ...byte) []byte {
	c := make([]byte, 16)
	copy(c, b)
	return c
}

// rw10 is a 10-byte command with an LBA and a length.
func rw10(op, flags byte, lba uint32, n uint16) []byte {
	c := cdb(op, flags)
	binary.BigEndian.PutUint32(c[2:], lba)
	binary.BigEndian.PutUint16(c[7:], n)
	return c
}

// rw16 is a 16-byte one.
func rw16(op, flags byte, lba uint64, n uint32) []byte {
	c := cdb(op, flags)
	binary.BigEndian.PutUint64(c[2:], lba)
	binary.BigEndian.PutUint32(c[10:], n)
	return c
}

// start hands a task to the nexus as the connection layer does. ended is closed at its end.
func (r *rig) start(c, out []byte, in int64) (t *target.Task, ended chan struct{}) {
	r.t.Helper()
	ended = make(chan struct{})
	t = &target.Task{LUN: r.lun, CDB: c, Attr: target.Simple, Read: in > 0, Write: len(out) > 0, ExpIn: in, ExpOut: int64(len(out))}
	t.Done = func(*target.Task) { close(ended) } // panics when it is called twice
	w := r.nexus.Accept(t)
	if w.Out > t.ExpOut || w.Out < 0 || w.In < 0 || w.In > 16<<20 {
		r.t.Fatalf("CDB %x wants %+v", c, w)
	}
	t.Accepted = w
	t.DataOut = block.Get(int(w.Out))
	copy(t.DataOut, out)
	r.nexus.Execute(t)
	return t, ended
}

// manage carries a task management function out, but for the tasks, and returns the response: 254 as long as there is none.
func (r *rig) manage(f target.Function) (response *atomic.Uint32) {
	r.t.Helper()
	response = new(atomic.Uint32)
	a, _, then := r.nexus.Manage(target.Management{Function: f, LUN: r.lun})
	if response.Store(uint32(a)); then != nil {
		response.Store(254)
		then(func(a target.Response) {
			if old := response.Swap(uint32(a)); old != 254 {
				r.t.Errorf("two answers: %d, %d", old, a)
			}
		})
	}
	return response
}

// do executes a command whose device does not hold it.
func (r *rig) do(c, out []byte, in int64) *target.Task {
	r.t.Helper()
	t, ended := r.start(c, out, in)
	select {
	case <-ended:
	default:
		r.t.Fatalf("CDB %x has not ended", c)
	}
	return t
}

func (r *rig) good(t *target.Task) []byte {
	r.t.Helper()
	if t.Status != 0 {
		r.t.Fatalf("CDB %x: status %02xh, sense %x", t.CDB, t.Status, t.Sense)
	}
	return t.DataIn
}

func (r *rig) sense(t *target.Task, key byte, asc uint16) {
	r.t.Helper()
	if t.Status != 2 || len(t.Sense) < 14 {
		r.t.Fatalf("CDB %x: status %02xh, sense %x, want CHECK CONDITION", t.CDB, t.Status, t.Sense)
	}
	if k, a := t.Sense[2]&0xf, binary.BigEndian.Uint16(t.Sense[12:]); k != key || a != asc {
		r.t.Errorf("CDB %x: sense %x/%04x, want %x/%04x", t.CDB, k, a, key, asc)
	}
}

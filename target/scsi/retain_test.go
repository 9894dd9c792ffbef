package scsi_test

import (
	"testing"

	"pmsapp/internal/block"
	"pmsapp/internal/block/blocktest"
)

// retaining is a device whose disk hangs with the data of a write.
type retaining struct{ *blocktest.Memory }

func (d *retaining) Submit(r *block.Request) {
	if r.Op == block.Write && r.MayRetain {
		done := r.Done
		r.Done = func(r *block.Request) {
			r.Done, r.Retained = done, true
			done(r)
		}
	}
	d.Memory.Submit(r)
}

// TestRetained: data that a disk that hangs still has are never used for anything else.
func TestRetained(t *testing.T) {
	r := newRig(t)
	if err := r.lu.Serve(&retaining{blocktest.NewMemory(devSize, 512)}, r.keeper); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		cdb  []byte
		kept bool
	}{
		{rw10(0x2a, 0, 8, 8), true},  // WRITE
		{rw10(0x2e, 0, 8, 8), false}, // WRITE AND VERIFY, whose data are compared afterwards
	} {
		task := r.do(x.cdb, make([]byte, 4096), 0)
		r.good(task)
		if (task.DataOut == nil) != x.kept {
			t.Errorf("CDB %x: the connection layer gets %d bytes to use anew", x.cdb, len(task.DataOut))
		}
	}
}

package scsi_test

import (
	"bytes"
	"slices"
	"testing"

	"pmsapp/internal/block"
	"pmsapp/internal/block/blocktest"
)

// cached is a volume that may say that it is volatile; it notes what it is asked.
type cached struct {
	*blocktest.Memory
	volatile bool
	losses   uint64
	ops      []block.Op
	fua      []bool
}

func (c *cached) Geometry() block.Geometry {
	g := c.Memory.Geometry()
	g.Volatile, g.Losses = c.volatile, c.losses
	return g
}

func (c *cached) Submit(r *block.Request) {
	c.ops, c.fua = append(c.ops, r.Op), append(c.fua, r.FUA)
	c.Memory.Submit(r)
}

// TestWriteCache: MODE SENSE says WCE exactly as long as what is acknowledged may be volatile; SYNCHRONIZE CACHE and FUA reach the device;
// a COMPARE AND WRITE is always durable; hosts are told of a change, and of a loss, before anything else (invariant 10).
func TestWriteCache(t *testing.T) {
	r := newRig(t)
	d := &cached{Memory: r.dev}
	wce := func() bool {
		t.Helper()
		b := r.good(r.do(cdb(0x1a, 8, 0x08, 0, 64), nil, 64))
		return b[4+2]&0x04 != 0
	}
	serve := func() {
		t.Helper()
		if err := r.lu.Serve(d, r.keeper); err != nil {
			t.Fatal(err)
		}
	}
	serve()
	if wce() {
		t.Fatal("WCE=1, and everything is durable")
	}
	d.volatile = true
	serve()
	r.attention(0x2a01)
	if !wce() {
		t.Fatal("WCE=0, and something may be lost")
	}
	if b := r.good(r.do(cdb(0x1a, 8, 0x48, 0, 64), nil, 64)); b[4+2] != 0 { // PAGE CONTROL: changeable
		t.Fatalf("%x", b)
	}
	d.ops, d.fua = nil, nil
	r.good(r.do(rw10(0x2a, 0, 0, 1), fill(512, 1), 0))
	r.good(r.do(rw10(0x2a, 8, 0, 1), fill(512, 1), 0))
	r.good(r.do(rw10(0x35, 0, 0, 0), nil, 0))
	old, next := fill(512, 1), fill(512, 2)
	r.good(r.do(caw(0, 1), append(old, next...), 0))
	var writes []bool
	flushes := 0
	for i, op := range d.ops {
		switch op {
		case block.Write, block.Update:
			writes = append(writes, d.fua[i])
		case block.Flush:
			flushes++
		}
	}
	if len(writes) != 3 || writes[0] || !writes[1] || !writes[2] || flushes != 1 {
		t.Fatalf("%v %v", d.ops, d.fua)
	}
	// What was not flushed is lost: to a host the disk was switched off.
	other := *r
	d.losses++
	serve()
	r.attention(0x2901)
	serve()
	other.good(other.do(cdb(0x00), nil, 0)) // once
	d.volatile = false
	serve()
	r.attention(0x2a01)
	if wce() {
		t.Fatal("WCE=1, and everything is durable")
	}
}

// TestLossWhileStandingBy: a node's hosts are told of what was lost while it stood by.
func TestLossWhileStandingBy(t *testing.T) {
	r := newRig(t)
	r.lu.Standby()
	if err := r.lu.Serve(&cached{Memory: r.dev, volatile: true, losses: 3}, r.keeper); err != nil {
		t.Fatal(err)
	}
	r.attention(0x2a01)
	r.attention(0x2901)
	r.good(r.do(cdb(0x00), nil, 0))
}

// TestReadFromMedium: what a READ with FUA or a VERIFY has seen is on the medium when it is answered (SBC-4, FUA and verify operations): a later version in
// a cache is written first. Without a write cache it is anyhow.
func TestReadFromMedium(t *testing.T) {
	r := newRig(t)
	d := &cached{Memory: r.dev, volatile: true}
	if err := r.lu.Serve(d, r.keeper); err != nil {
		t.Fatal(err)
	}
	r.attention(0x2a01)
	r.good(r.do(rw10(0x2a, 0, 0, 1), fill(512, 1), 0))
	asked := func(c []byte, in int64) []block.Op {
		t.Helper()
		d.ops = nil
		if b := r.good(r.do(c, nil, in)); in > 0 && !bytes.Equal(b, fill(512, 1)) {
			t.Fatalf("%x", b[:8])
		}
		return d.ops
	}
	for _, x := range []struct {
		cdb  []byte
		in   int64
		want []block.Op
	}{
		{rw10(0x28, 0, 0, 1), 512, []block.Op{block.Read}},
		{rw10(0x28, 8, 0, 1), 512, []block.Op{block.Read, block.Flush}},
		{rw10(0x2f, 0, 0, 1), 0, []block.Op{block.Read, block.Flush}},
		{cdb(0x08, 0, 0, 0, 1), 512, []block.Op{block.Read}},
	} {
		if got := asked(x.cdb, x.in); !slices.Equal(got, x.want) {
			t.Errorf("%x: %v, want %v", x.cdb, got, x.want)
		}
	}
	d.volatile = false
	if err := r.lu.Serve(d, r.keeper); err != nil {
		t.Fatal(err)
	}
	r.attention(0x2a01)
	if got := asked(rw10(0x28, 8, 0, 1), 512); !slices.Equal(got, []block.Op{block.Read}) {
		t.Errorf("without a cache: %v", got)
	}
}

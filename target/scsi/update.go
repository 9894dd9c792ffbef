package scsi

import (
	"encoding/binary"
	"errors"

	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"pmsapp/internal/block"
)

// errMiscompare ends the request of a COMPARE AND WRITE that found something else than it compared with.
var errMiscompare = errors.New("scsi: what is there is not what was compared with")

// compareBlocks bounds COMPARE AND WRITE: a physical block, which each member writes in one. Hosts learn it from VPD page
// B0h; their locks are single blocks.
func compareBlocks(st *state) uint64 { return uint64(st.geo.Physical) >> st.shift }

// or does ORWRITE (SBC-3 5.10): what is read and what is written is one, in the device's order.
func (c *io) or() (sense, bool) {
	if c.protected() {
		return invalidField(), true
	}
	if s, bad := c.inRange(); bad {
		return s, true
	}
	t := c.task
	t.Moved = int64(c.n << c.st.shift)
	n := c.arrived()
	if n == 0 {
		c.good()
		return sense{}, false
	}
	c.update(n, c.task.CDB[1]&bitFUA != 0, func(r *block.Request) error {
		orInto(r.Data, t.DataOut)
		return nil
	})
	return sense{}, false
}

// orInto sets the bits in b that are set in bits. It runs while the device is held up: blocks are whole words.
func orInto(b, bits []byte) {
	for ; len(b) >= 8; b, bits = b[8:], bits[8:] {
		binary.NativeEndian.PutUint64(b, binary.NativeEndian.Uint64(b)|binary.NativeEndian.Uint64(bits))
	}
}

// compareWrite does COMPARE AND WRITE (SBC-3 5.3). The first half of the data is compared, the second written.
func (c *io) compareWrite(port string) (sense, bool) {
	t := c.task
	if c.protected() {
		return invalidField(), true
	}
	if c.lba >= c.st.count || c.n > c.st.count-c.lba {
		return illegal(gotgt.ASC_LBA_OUT_OF_RANGE), true
	}
	if c.n > compareBlocks(c.st) {
		return invalidField(), true
	}
	half := int64(c.n << c.st.shift)
	t.Moved = 2 * half
	if t.ExpOut != 2*half {
		return invalidField(), true // half a comparison is none
	}
	if half == 0 {
		c.good()
		return sense{}, false
	}
	if c.st.locks != nil {
		c.lock(c.st.locks, port)
		return sense{}, false
	}
	// Durable whatever the volume's durability: it may be somebody's lock.
	c.update(c.n, true, func(r *block.Request) error {
		if at := differs(r.Data, t.DataOut[:half]); at >= 0 {
			c.differ = uint32(at)
			return errMiscompare
		}
		copy(r.Data, t.DataOut[half:])
		return nil
	})
	return sense{}, false
}

// update submits an update of n blocks.
func (c *io) update(n uint64, fua bool, modify func(*block.Request) error) {
	c.buf = block.Get(int(n << c.st.shift))
	c.req.Modify = modify
	c.submit(block.Update, c.lba, n, c.buf, fua)
}

// prefetch does PRE-FETCH (SBC-3 5.11). Nothing is cached, which GOOD says, rather than CONDITION MET.
func (c *io) prefetch() (sense, bool) {
	if c.lba >= c.st.count || c.n > c.st.count-c.lba {
		return illegal(gotgt.ASC_LBA_OUT_OF_RANGE), true
	}
	c.good()
	return sense{}, false
}

package scsi

import (
	"encoding/binary"

	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"pmsapp/internal/block"
)

// Bounds of the commands that change many blocks with little data; hosts learn them from VPD page B0h.
const (
	maxSame        = 16 << 20 // bytes of one WRITE SAME
	maxUnmap       = 1 << 20  // blocks of one UNMAP
	maxDescriptors = 256      // of one UNMAP
	maxPattern     = 1 << 20
)

// patternLen is the length in bytes of the buffer that WRITE SAME writes from.
func patternLen(st *state) int64 { return min(maxPattern, int64(st.max<<st.shift)) }

// writeSame does WRITE SAME. Blocks of zeros are zeroed, whether the UNMAP bit asks for it or not; other data is written
// even if it does, as SBC-3 5.50 has it for data that an unmapped block would not read as.
func (c *io) writeSame() (sense, bool) {
	t, bs := c.task, 1<<c.st.shift
	if c.protected() || t.CDB[1]&bitAnchor != 0 || t.CDB[1]&0x06 != 0 || c.n == 0 || c.n > maxSame>>c.st.shift {
		return invalidField(), true
	}
	if c.lba >= c.st.count || c.n > c.st.count-c.lba {
		return illegal(gotgt.ASC_LBA_OUT_OF_RANGE), true
	}
	need := int(dataOut(kWriteSame, t.CDB, c.n, c.st))
	t.Moved = int64(need)
	if len(t.DataOut) < need || t.ExpOut != int64(need) {
		return invalidField(), true // the initiator has another idea of the block than the unit
	}
	if need == 0 || isZero(t.DataOut[:bs]) {
		c.submit(block.Zero, c.lba, c.n, nil, false)
		return sense{}, false
	}
	size := int(min(int64(c.n<<c.st.shift), patternLen(c.st)))
	size -= size % bs
	c.buf = block.Get(size)
	for off := copy(c.buf, t.DataOut[:bs]); off < size; {
		off += copy(c.buf[off:], c.buf[:off])
	}
	total := int(c.n << c.st.shift)
	c.reserve((total + size - 1) / size)
	for i := range c.more {
		r := &c.more[i]
		n := min(size, total-i*size)
		r.Op, r.Off, r.Len = block.Write, int64(c.lba<<c.st.shift)+int64(i*size), int64(n)
		r.Data, r.FUA, r.Err = c.buf[:n], false, nil
	}
	c.submitMore()
	return sense{}, false
}

// submitMore sends the requests in c.more. The last Done gives c back, perhaps before the last Submit returns.
func (c *io) submitMore() {
	c.req.Err = nil
	more, dev := c.more, c.st.dev
	c.left.Store(int32(len(more)))
	for i := range more {
		dev.Submit(&more[i])
	}
}

func isZero(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
	}
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// unmap does UNMAP (SBC-3 5.28). All descriptors are checked before anything is done.
func (c *io) unmap() (sense, bool) {
	t := c.task
	length := int(binary.BigEndian.Uint16(t.CDB[7:]))
	t.Moved = int64(length)
	if t.CDB[1]&1 != 0 { // ANCHOR, which is not supported
		return invalidField(), true
	}
	if length == 0 {
		c.good()
		return sense{}, false
	}
	if length < 8 || len(t.DataOut) < length {
		return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR), true
	}
	list := t.DataOut[:length]
	n := min(int(binary.BigEndian.Uint16(list[2:])), length-8) / 16
	if n > maxDescriptors {
		return invalidParm(), true
	}
	list = list[8 : 8+16*n]
	var total uint64
	requests := 0
	for d := list; len(d) > 0; d = d[16:] {
		lba, count := binary.BigEndian.Uint64(d), uint64(binary.BigEndian.Uint32(d[8:]))
		if lba > c.st.count || count > c.st.count-lba {
			return illegal(gotgt.ASC_LBA_OUT_OF_RANGE), true
		}
		if total += count; total > maxUnmap {
			return invalidParm(), true
		}
		if count > 0 {
			requests++
		}
	}
	if requests == 0 {
		c.good()
		return sense{}, false
	}
	c.reserve(requests)
	i := 0
	for d := list; len(d) > 0; d = d[16:] {
		lba, count := binary.BigEndian.Uint64(d), uint64(binary.BigEndian.Uint32(d[8:]))
		if count == 0 {
			continue
		}
		r := &c.more[i]
		r.Op, r.Off, r.Len = block.Zero, int64(lba<<c.st.shift), int64(count<<c.st.shift)
		r.Data, r.FUA, r.Err = nil, false, nil
		i++
	}
	c.submitMore()
	return sense{}, false
}

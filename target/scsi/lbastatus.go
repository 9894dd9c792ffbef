package scsi

import (
	"encoding/binary"

	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"pmsapp/internal/block"
)

// Provisioning status (SBC-3 table 46).
const (
	mapped      = 0
	deallocated = 1
)

const (
	statusHead       = 8
	statusDescriptor = 16
	// statusWindow is how many bytes of the volume an answer covers at most: the host asks again for what follows. Some ask
	// for one descriptor at a time, and looking at a window costs by what is in it.
	statusWindow    = 1 << 30
	statusWindowOne = 64 << 20
)

// lbaStatus does GET LBA STATUS (SBC-3 5.4): it asks a member for what is allocated.
func (c *io) lbaStatus() (sense, bool) {
	c.lba = binary.BigEndian.Uint64(c.task.CDB[2:])
	if c.lba >= c.st.count {
		return illegal(gotgt.ASC_LBA_OUT_OF_RANGE), true
	}
	window := uint64(statusWindow)
	if binary.BigEndian.Uint32(c.task.CDB[10:]) < statusHead+2*statusDescriptor {
		window = statusWindowOne
	}
	c.n = min(c.st.count-c.lba, window>>c.st.shift)
	c.req.Extents = c.req.Extents[:0]
	c.submit(block.Map, c.lba, c.n, nil, false)
	return sense{}, false
}

// extents makes the answer of GET LBA STATUS. A block that is partly allocated is mapped.
func (c *io) extents() {
	t, end := c.task, c.lba+c.n
	b := block.Get(maxAnswer)
	used := statusHead
	clear(b[:statusHead])
	put := func(lba, n uint64, status byte) bool {
		if n == 0 {
			return true
		}
		if used+statusDescriptor > maxAnswer {
			return false
		}
		d := b[used : used+statusDescriptor]
		clear(d)
		binary.BigEndian.PutUint64(d, lba)
		binary.BigEndian.PutUint32(d[8:], uint32(n))
		d[12] = status
		used += statusDescriptor
		return true
	}
	at, more := c.lba, true
	for _, x := range c.req.Extents {
		lo := max(uint64(x.Off)>>c.st.shift, at)
		hi := min((uint64(x.Off+x.Len)+1<<c.st.shift-1)>>c.st.shift, end)
		if hi <= lo {
			continue
		}
		if more = put(at, lo-at, deallocated) && put(lo, hi-lo, mapped); !more {
			break
		}
		at = hi
	}
	if more {
		put(at, end-at, deallocated)
	}
	binary.BigEndian.PutUint32(b, uint32(used-4))
	allocation := int(min(binary.BigEndian.Uint32(t.CDB[10:]), maxAnswer))
	t.DataIn = b[:min(used, allocation)]
	t.Status = 0
}

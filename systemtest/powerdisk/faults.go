package powerdisk

import "slices"

// Range is a part of the disk, in bytes.
type Range struct {
	Off int64 `json:"off"`
	Len int64 `json:"len"`
}

// Op is a kind of request.
type Op string

// The kinds of requests that can fail.
const (
	Read  Op = "read"
	Write Op = "write" // zeros and discards, too
	Flush Op = "flush"
)

// Fault makes requests of a kind fail with EIO, or hang.
type Fault struct {
	Op Op `json:"op"`
	// Ranges says where: a request that touches one fails. None: everywhere. Of a flush that fails, what is not flushed within them
	// is lost like at a loss of power, and the next flush succeeds without it.
	Ranges []Range `json:"ranges,omitempty"`
	Count  int     `json:"count"` // how many requests fail; negative: all, until it is taken away
	// UntilWritten ends the fault of a range once it is written, as a whole: a bad sector is replaced then.
	UntilWritten bool `json:"until_written,omitempty"`
	// Hang makes them hang instead, until it is taken away. They then succeed. Behind a flush or a buffered request that hangs, the loop
	// device lets everything else wait, too.
	Hang bool `json:"hang,omitempty"`
}

// within tells whether an offset is in one of the ranges; in none is everywhere.
func within(ranges []Range, at int64) bool { return touches(ranges, at, 1) }

func touches(ranges []Range, off, n int64) bool {
	for _, r := range ranges {
		if off < r.Off+r.Len && r.Off < off+n {
			return true
		}
	}
	return len(ranges) == 0
}

// faults are those that are on.
type faults struct {
	list []Fault
	hits int
}

// next is the fault that a request meets; nil: none. It counts.
func (f *faults) next(op Op, off, n int64) *Fault {
	for i := range f.list {
		x := &f.list[i]
		if x.Op != op || x.Count == 0 || x.UntilWritten && len(x.Ranges) == 0 || op != Flush && !touches(x.Ranges, off, n) {
			continue
		}
		if x.Count > 0 {
			x.Count--
		}
		f.hits++
		return x
	}
	return nil
}

// written ends faults that last until their range is written.
func (f *faults) written(off, n int64) {
	for i := range f.list {
		if x := &f.list[i]; x.UntilWritten {
			x.Ranges = slices.DeleteFunc(x.Ranges, func(r Range) bool { return off <= r.Off && r.Off+r.Len <= off+n })
		}
	}
}

// bad is how many ranges wait to be written.
func (f *faults) bad() (n int) {
	for _, x := range f.list {
		if x.UntilWritten {
			n += len(x.Ranges)
		}
	}
	return n
}

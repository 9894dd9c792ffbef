package sim

// Sector is what a disk writes whole or not at all, in bytes.
const Sector = 512

// File is bytes on a simulated disk. Reads see what was written last; a crash leaves of each sector that was not flushed
// the old or the new bytes.
type File struct {
	cur   []byte // what reads see
	dur   []byte // what is on stable media
	dirty []bool // by sector: written since it was captured by a flush
}

// NewFile returns a file of zeros, durable.
func NewFile(size int64) *File {
	return &File{cur: make([]byte, size), dur: make([]byte, size), dirty: make([]bool, (size+Sector-1)/Sector)}
}

// Size is the file's, in bytes.
func (f *File) Size() int64 { return int64(len(f.cur)) }

// Grow makes the file longer by zeros, durably.
func (f *File) Grow(size int64) {
	f.cur = append(f.cur, make([]byte, size-f.Size())...)
	f.dur = append(f.dur, make([]byte, size-int64(len(f.dur)))...)
	f.dirty = append(f.dirty, make([]bool, (size+Sector-1)/Sector-int64(len(f.dirty)))...)
}

// Read returns the bytes as reads see them; they must not be changed.
func (f *File) Read(off, n int64) []byte { return f.cur[off : off+n] }

// Durable returns the bytes on stable media; they must not be changed.
func (f *File) Durable(off, n int64) []byte { return f.dur[off : off+n] }

// Write changes bytes, not durably.
func (f *File) Write(off int64, data []byte) {
	copy(f.cur[off:off+int64(len(data))], data)
	f.mark(off, int64(len(data)))
}

// Zero makes bytes zero, not durably.
func (f *File) Zero(off, n int64) {
	clear(f.cur[off : off+n])
	f.mark(off, n)
}

func (f *File) mark(off, n int64) {
	for s := off / Sector; s*Sector < off+n; s++ {
		f.dirty[s] = true
	}
}

// Extents calls fn for each range of sectors that are not all zero within [off, off+n).
func (f *File) Extents(off, n int64, fn func(off, n int64)) {
	start := int64(-1)
	for at := off; at < off+n; at += Sector {
		if zero(f.cur[at:min(at+Sector, off+n)]) {
			if start >= 0 {
				fn(start, at-start)
				start = -1
			}
		} else if start < 0 {
			start = at
		}
	}
	if start >= 0 {
		fn(start, off+n-start)
	}
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// Flush is the sectors that a flush under way will make durable.
type Flush struct {
	f    *File
	at   []int64
	data []byte
}

// Flush begins a flush of everything written so far; Done or Failed ends it.
func (f *File) Flush() *Flush { return f.FlushRange(0, f.Size()) }

// FlushRange begins a flush of a range, as a write with O_DSYNC does for its own bytes.
func (f *File) FlushRange(off, n int64) *Flush {
	fl := &Flush{f: f}
	for s := off / Sector; s*Sector < off+n; s++ {
		if f.dirty[s] {
			f.dirty[s] = false
			fl.at = append(fl.at, s)
			fl.data = append(fl.data, f.cur[s*Sector:min((s+1)*Sector, f.Size())]...)
		}
	}
	return fl
}

// Done says that the flush succeeded.
func (fl *Flush) Done() {
	for i, s := range fl.at {
		copy(fl.f.dur[s*Sector:], fl.sector(i))
	}
}

// Failed says that the flush failed: any of the sectors may have reached the media; a later flush does not try again.
func (fl *Flush) Failed(r *Rand) {
	for i, s := range fl.at {
		if r.Chance(0.5) {
			copy(fl.f.dur[s*Sector:], fl.sector(i))
		}
	}
}

// Of tells whether it is of that file.
func (fl *Flush) Of(f *File) bool { return fl.f == f }

func (fl *Flush) sector(i int) []byte {
	return fl.data[i*Sector : min((i+1)*Sector, len(fl.data))]
}

// Crash is the power failing or the operating system dying: of every sector not flushed, the old or the new bytes stay.
// The flushes of this file that are under way must be among those given.
func (f *File) Crash(r *Rand, under []*Flush) {
	for _, fl := range under {
		if fl.f == f {
			fl.Failed(r)
		}
	}
	for s := range f.dirty {
		if f.dirty[s] {
			at := int64(s) * Sector
			if r.Chance(0.5) {
				copy(f.dur[at:min(at+Sector, f.Size())], f.cur[at:])
			}
			f.dirty[s] = false
		}
	}
	copy(f.cur, f.dur)
}

// Reload makes reads see what is on stable media: the cache of a range is given up.
func (f *File) Reload(off, n int64) {
	copy(f.cur[off:off+n], f.dur[off:off+n])
	for s := off / Sector; s*Sector < off+n; s++ {
		f.dirty[s] = false
	}
}

// Clone returns a file with the durable bytes of this one: a snapshot to which a disk may be reverted.
func (f *File) Clone() *File {
	c := NewFile(f.Size())
	copy(c.dur, f.dur)
	copy(c.cur, f.dur)
	return c
}

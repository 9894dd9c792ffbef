package scsi

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"

	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/reserve"
)

// copyChunk is how many bytes of an EXTENDED COPY are read and written at a time: its whole memory.
const copyChunk = 1 << 20

// errStopped ends a copy whose task was aborted.
var errStopped = errors.New("scsi: the copy was aborted")

// copyRange is a segment that has been looked up: n bytes, all within both devices. Parts of it that are not overwritten
// before they are read are copied first: from its end if back is set.
type copyRange struct {
	from, to block.Device
	src, dst int64
	n        int64
	back     bool
	segment  int  // its number in the list
	block    uint // of the destination, as a power of two
}

// copying is an EXTENDED COPY under way: it reads a chunk, writes it, and goes on.
//
// Unlike all other commands it submits requests after Execute has returned. So it has a Stop, which the connection layer
// calls when it stops the task: a write is submitted with mu held and stopped false, or never (invariant 4).
type copying struct {
	x        *Nexus
	c        *io
	id       uint32
	lid4     bool
	kept     bool // there is a result to be kept for RECEIVE COPY RESULTS
	segments int
	ranges   []copyRange
	size     int64 // of a chunk

	turns atomic.Int32 // calls of advance that are not over
	req   block.Request
	buf   []byte
	done  int64 // bytes of the first range that are copied
	n     int64 // bytes of the chunk under way

	mu      sync.Mutex // guards what follows, and the order of Stop and the submission of writes
	stopped bool
	far     copyProgress
}

// extendedCopy does EXTENDED COPY (SPC-4 6.4, 6.5). The status is given when all is copied.
func (x *Nexus) extendedCopy(c *io) (sense, bool) {
	t := c.task
	length := dataOut(kCopy, t.CDB, 0, c.st)
	t.Moved = int64(length)
	if length == 0 {
		c.good()
		return sense{}, false
	}
	if length > maxCopyList || uint64(len(t.DataOut)) < length {
		return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR), true
	}
	lid4, _ := copyFormat(t.CDB)
	list, s := parseCopyList(t.DataOut, lid4)
	if s != (sense{}) {
		return s, true
	}
	k := &copying{x: x, c: c, id: list.id, lid4: lid4, kept: !list.discard, segments: len(list.segments), size: copyChunk}
	if s := k.look(list); s != (sense{}) {
		return s, true
	}
	if c.unit.lu.state.Load() != c.st {
		// The units that were found may be served under another epoch than that of the command (invariant 8).
		fail(t, block.ErrEnded, false)
		t.Done(t)
		return sense{}, false
	}
	if s := k.copies().begin(k); s != (sense{}) {
		return s, true
	}
	k.buf = block.Get(int(k.size))
	k.req.Done = func(*block.Request) { k.advance() }
	t.Stop = k.stop
	k.goesOn(0, 0)
	k.advance()
	return sense{}, false
}

// look finds the logical units and makes ranges of the segments. Everything is looked at before anything is copied.
func (k *copying) look(l copyList) sense {
	found := make([]unit, len(l.targets))
	for i, t := range l.targets { // one that no segment needs may be missing
		found[i] = k.x.designated(t)
	}
	for i, g := range l.segments {
		aborted := func(asc uint16) sense { return sense{key: gotgt.COPY_ABORTED, asc: asc, segment: uint16(i)} }
		if int(g.from) >= len(found) || int(g.to) >= len(found) || found[g.from].lu == nil || found[g.to].lu == nil {
			return aborted(ascUnreachable)
		}
		from, to := found[g.from].lu, found[g.to].lu
		a, b := from.state.Load(), to.state.Load()
		switch {
		case a.dev == nil || b.dev == nil:
			return standby()
		case wrongBlock(l.targets[g.from], a) || wrongBlock(l.targets[g.to], b):
			return invalidParm()
		}
		if s, fixed := found[g.to].writeProtected(); fixed {
			return s
		}
		if !k.c.also(found[g.from], reserve.Read) || !k.c.also(found[g.to], reserve.Write) {
			return aborted(ascThirdParty) // reserved by somebody else
		}
		r, s := rangeOf(g, a, b)
		if s != (sense{}) {
			s.segment = uint16(i)
			return s
		}
		r.segment, r.block = i, b.shift
		r.back = from == to && r.src < r.dst && r.dst < r.src+r.n
		if r.n > 0 {
			k.ranges = append(k.ranges, r)
			k.size = min(k.size, a.geo.MaxLen, b.geo.MaxLen)
		}
	}
	return sense{}
}

func wrongBlock(t copyTarget, st *state) bool {
	return t.block != 0 && t.block != uint32(st.geo.Logical)
}

// rangeOf makes bytes of a segment. What is beyond the end of a unit aborts the copy before it begins.
func rangeOf(g copySegment, a, b *state) (r copyRange, s sense) {
	counted := a
	if g.ofTarget {
		counted = b
	}
	r = copyRange{from: a.dev, to: b.dev, n: int64(g.n << counted.shift)}
	if r.n > maxSegmentLength {
		return r, invalidParm()
	}
	if r.n%int64(a.geo.Logical) != 0 || r.n%int64(b.geo.Logical) != 0 {
		return r, sense{key: gotgt.COPY_ABORTED, asc: ascInexact}
	}
	na, nb := uint64(r.n)>>a.shift, uint64(r.n)>>b.shift
	if g.source > a.count || na > a.count-g.source || g.target > b.count || nb > b.count-g.target {
		return r, sense{key: gotgt.COPY_ABORTED, asc: 0}
	}
	r.src, r.dst = int64(g.source<<a.shift), int64(g.target<<b.shift)
	return r, s
}

// designated finds the unit that a descriptor names by its NAA designator; there is no lu in what it returns if there is none.
func (x *Nexus) designated(t copyTarget) unit {
	if t.code != gotgt.INQ_CODE_BIN || t.kind != gotgt.DESG_NAA {
		return unit{}
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, u := range x.units {
		if bytes.Equal(naa(u.lu.id), t.name) {
			return u
		}
	}
	return unit{}
}

// stop is Task.Stop: when it returns no write of the copy is submitted any more.
func (k *copying) stop() {
	k.mu.Lock()
	k.stopped = true
	k.mu.Unlock()
}

// advance goes on with a copy. A request that ends within Submit does not make the stack grow: whoever is at it goes on.
func (k *copying) advance() {
	if k.turns.Add(1) != 1 {
		return
	}
	for {
		k.step()
		if k.turns.Add(-1) == 0 {
			return
		}
	}
}

// step takes the end of the request before and submits the next one.
func (k *copying) step() {
	r := &k.req
	if r.Err != nil {
		k.end(r.Err, r.Op != block.Read)
		return
	}
	if r.Op == block.Read {
		k.goesOn(0, 1)
		k.write()
		return
	}
	if r.Op != 0 {
		k.done += k.n
		if k.done == k.ranges[0].n {
			k.ranges, k.done = k.ranges[1:], 0
		}
		k.goesOn(k.n, 1)
	}
	if len(k.ranges) == 0 {
		k.end(nil, false)
		return
	}
	g := &k.ranges[0]
	k.n = min(k.size, g.n-k.done)
	r.Op, r.Off, r.Len, r.Data = block.Read, g.src+k.place(), k.n, k.buf[:k.n]
	g.from.Submit(r)
}

// place is where in its range the chunk under way is.
func (k *copying) place() int64 {
	if g := &k.ranges[0]; g.back {
		return g.n - k.done - k.n
	}
	return k.done
}

// write writes what was read. Zeros are zeroed: what is unmapped stays so.
func (k *copying) write() {
	r, g := &k.req, &k.ranges[0]
	r.Op, r.Off = block.Write, g.dst+k.place()
	if isZero(r.Data) {
		r.Op, r.Data = block.Zero, nil
	}
	k.mu.Lock()
	if !k.stopped {
		defer k.mu.Unlock()
		g.to.Submit(r)
		return
	}
	k.mu.Unlock()
	k.end(errStopped, false)
}

// naa is the NAA designator of a volume, which is the same from every node and for ever.
func naa(v ids.Volume) []byte {
	id := ids.ID(v)
	b := append([]byte(nil), id[:8]...)
	b[0] = b[0]&0x0f | gotgt.NAA_LOCAL<<4
	return b
}

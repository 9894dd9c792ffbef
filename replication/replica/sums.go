package replica

import (
	"errors"
	"sync"
	"sync/atomic"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/poolfs"
)

// sums are the checksums of a replica's blocks (invariant 16). The file is used through the page cache, which is what keeps
// them: the process has 1 byte for each 448 KiB. What the file says of a region holds if the region is clean, or from the
// moment on at which this process has said so; DESIGN.md argues.
type sums struct {
	f      file // nil: there are none
	volume ids.Volume
	size   int64 // of the replica
	zeros  uint32
	tail   uint32 // the CRC of zeros of the last block, which may be shorter

	locks [64]sync.Mutex // each guards the leaves of every 64th page, and their void
	void  []uint8        // for each leaf, the chunks of which nothing is known; what the file says of them is a hint

	off   atomic.Bool // without a file, or after a flush of it failed: nothing is known of any block, and no region becomes clean
	dirty atomic.Bool // something was written since the last flush
	group group

	holds [64]sync.RWMutex // for I/O that is not of whole blocks: see holdFor
}

func newSums(f file, spec peer.Spec) *sums {
	s := &sums{f: f, volume: spec.Volume, size: spec.Size, zeros: zeroSum(sumBlock), void: make([]uint8, leavesOf(spec.Size))}
	s.tail = zeroSum((spec.Size-1)%sumBlock + 1)
	s.group.flush = s.flush
	s.off.Store(f == nil)
	return s
}

// forget makes nothing known of a range.
func (s *sums) forget(off, end int64) {
	for c := off / sumChunk; c*sumChunk < end; c++ {
		s.void[c/leafChunks] |= 1 << (c % leafChunks)
	}
}

func (s *sums) lock(i int64) *sync.Mutex { return &s.locks[i/pageLeaves%int64(len(s.locks))] }

// load reads what the file says of a leaf; the lock is held. What cannot be read is not known.
func (s *sums) load(i int64, l *leaf) (blank bool, err error) {
	if s.off.Load() {
		return decodeLeaf(nil, s.volume, i, l)
	}
	b := sectors.Get().(*[leafSize]byte)
	defer sectors.Put(b)
	if err = s.f.readAt(b[:], leafAt(i)); err != nil {
		s.gone(err)
		clear(b[:]) // for decodeLeaf
		decodeLeaf(b[:], s.volume, i, l)
	} else {
		blank, err = decodeLeaf(b[:], s.volume, i, l)
	}
	return blank, err
}

// without makes nothing known of chunks of a leaf.
func (l *leaf) without(chunks uint8) {
	for k := range l {
		if chunks&(1<<(k/chunkSums)) != 0 {
			l[k] = unknownSum
		}
	}
}

// chunksOf are the chunks in which the blocks lie from from to to.
func chunksOf(from, to int) uint8 { return 1<<((to-1)/chunkSums+1) - 1<<(from/chunkSums) }

var sectors = sync.Pool{New: func() any { return new([leafSize]byte) }}

// store writes a leaf, of which the chunks are void from then on; the lock is held. If that fails all of it is.
func (s *sums) store(i int64, l *leaf, void uint8) {
	if s.off.Load() {
		return
	}
	b := sectors.Get().(*[leafSize]byte)
	defer sectors.Put(b)
	encodeLeaf(b[:], s.volume, i, l)
	s.dirty.Store(true)
	err := s.f.writeAt(b[:], leafAt(i))
	if err != nil && !errors.Is(err, poolfs.ErrNotReady) {
		// A part of a page cannot be written where the rest of it cannot be read. The whole can: of its other leaves nothing
		// is known then.
		page := block.Get(blockSize)
		clear(page)
		copy(page[i%pageLeaves*leafSize:], b[:])
		err = s.f.writeAt(page, leafAt(i/pageLeaves*pageLeaves))
		block.Put(page)
	}
	if s.void[i] = void; err != nil {
		s.gone(err)
		s.void[i] = 1<<leafChunks - 1
	}
}

// of is the sum of a block.
func (s *sums) of(index int64, b []byte) uint32 {
	if index == (s.size-1)/sumBlock {
		return sumOf(b, s.tail)
	}
	return sumOf(b, s.zeros)
}

// next sums the blocks from first whose bytes are at the beginning of data, as far as one leaf has them. It returns the leaf,
// the places in it, and the rest of data.
func (s *sums) next(l *leaf, first int64, data []byte) (i int64, from, to int, rest []byte) {
	i, from = first/leafSums, int(first%leafSums)
	for to = from; to < leafSums && len(data) > 0; to++ {
		n := min(sumBlock, len(data))
		l[to] = s.of(first, data[:n])
		data = data[n:]
		first++
	}
	return i, from, to, data
}

// put says what the blocks from first have: data, whole blocks.
func (s *sums) put(first int64, data []byte) {
	var l leaf
	for len(data) > 0 {
		i, from, to, rest := s.next(&l, first, data)
		s.change(i, from, to, &l, false)
		first, data = first+int64(to-from), rest
	}
}

// fill says the same sum of the n blocks from first: 0, or unknownSum.
func (s *sums) fill(first, n int64, sum uint32) {
	var l leaf
	for i := range l {
		l[i] = sum
	}
	for n > 0 {
		from := first % leafSums
		k := min(n, leafSums-from)
		s.change(first/leafSums, int(from), int(from+k), &l, false)
		first, n = first+k, n-k
	}
}

// change takes sums of a leaf from next, and writes the leaf if that changed it. With learn it takes those that are not known.
// Of a leaf that was never written, zeros need not be known.
func (s *sums) change(i int64, from, to int, next *leaf, learn bool) {
	m := s.lock(i)
	m.Lock()
	defer m.Unlock()
	var l leaf
	blank, _ := s.load(i, &l)
	known := s.void[i] & chunksOf(from, to)
	l.without(known)
	void := s.void[i] &^ known
	changed := known != 0
	for k := from; k < to; k++ {
		if l[k] != next[k] && (!learn || l[k] == unknownSum) {
			l[k] = next[k]
			changed = true
		}
	}
	if blank && l.nothing() {
		s.void[i] = 0 // as it says
	} else if changed {
		s.store(i, &l, void)
	}
}

// nothing tells whether a leaf has no sum but of zeros.
func (l *leaf) nothing() bool {
	for _, x := range l {
		if x != 0 && x != unknownSum {
			return false
		}
	}
	return true
}

// check compares the blocks from first with their sums, and learns those that are not known. It returns the first block that
// differs, and how many do. With hints, what differs from what the file says of a void chunk counts too.
func (s *sums) check(first int64, data []byte, hints bool) (at int64, bad int) {
	var has, says leaf
	for len(data) > 0 {
		i, from, to, rest := s.next(&has, first, data)
		m := s.lock(i)
		m.Lock()
		s.load(i, &says)
		void := s.void[i] & chunksOf(from, to)
		m.Unlock()
		learn := void != 0
		if !hints {
			says.without(void)
		}
		for k := from; k < to; k++ {
			switch says[k] {
			case has[k]:
			case unknownSum:
				learn = true
			default:
				if bad == 0 {
					at = first + int64(k-from)
				}
				bad++
			}
		}
		if learn && (bad == 0 || !hints) { // else it would be a hint no more
			s.change(i, from, to, &has, true)
		}
		first, data = first+int64(to-from), rest
	}
	return at, bad
}

// settle makes the file say, for a region that is to become clean, what is known of it, and tells whether it does. sync must
// come after, before the region is clean.
func (s *sums) settle(off, end int64) bool {
	if s.off.Load() {
		return false
	}
	for i := off / leafSpan; i*leafSpan < end; i++ {
		m := s.lock(i)
		m.Lock()
		chunks := chunksOf(int(max(off-i*leafSpan, 0)/sumBlock), int((min(end, (i+1)*leafSpan)-i*leafSpan+sumBlock-1)/sumBlock))
		if chunks &= s.void[i]; chunks != 0 {
			var l leaf
			if blank, _ := s.load(i, &l); blank {
				s.void[i] = 0 // as it says
			} else {
				l.without(chunks)
				s.store(i, &l, s.void[i]&^chunks)
			}
		}
		still := s.void[i]&chunks != 0
		m.Unlock()
		if still {
			return false
		}
	}
	return true
}

// sync makes durable what was written before. Many share a flush.
func (s *sums) sync() error { return s.group.do() }

func (s *sums) flush() error {
	if !s.dirty.Swap(false) {
		return nil
	}
	err := s.f.flush()
	if err != nil {
		// The file is not used again until it is opened anew: what it has is not known (invariant 10). The data do not depend on it.
		s.off.Store(true)
	}
	return err
}

// gone looks for a flush of another file that failed, and took with it what this one had not flushed: then it is not used again either.
func (s *sums) gone(err error) {
	if errors.Is(err, poolfs.ErrLost) {
		s.off.Store(true)
	}
}

// lost returns the blocks within a hole that have a sum, and not that of zeros: what they had is gone.
func (s *sums) lost(off, end int64, out []peer.Extent) ([]peer.Extent, error) {
	first, last := (off+sumBlock-1)/sumBlock, end/sumBlock
	if end == s.size {
		last = (end + sumBlock - 1) / sumBlock
	}
	if s.off.Load() || first >= last {
		return out, nil
	}
	written, err := s.f.extents(leafAt(first/leafSums), leafAt((last-1)/leafSums+1))
	if err != nil {
		return out, err
	}
	for _, x := range written {
		for i := (x.Off - sumsHead) / leafSize; leafAt(i) < x.Off+x.Len; i++ {
			var l leaf
			m := s.lock(i)
			m.Lock()
			s.load(i, &l)
			l.without(s.void[i])
			m.Unlock()
			for b := max(first, i*leafSums); b < min(last, (i+1)*leafSums); b++ {
				if v := l[b-i*leafSums]; v == 0 || v == unknownSum {
					continue
				}
				at, to := b*sumBlock, min((b+1)*sumBlock, s.size)
				if n := len(out); n > 0 && out[n-1].Off+out[n-1].Len == at {
					out[n-1].Len += to - at
				} else {
					out = append(out, peer.Extent{Off: at, Len: to - at})
				}
			}
		}
	}
	return out, nil
}

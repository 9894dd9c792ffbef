package replica

import (
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"path/filepath"
	"slices"

	"pmsapp/internal/block"
	"pmsapp/replication/peer"
)

const fileSums = "sums"

// makeSums makes a file of sums of which nothing is known, durable but for its name.
func makeSums(d disk, path string, spec peer.Spec) error {
	if err := d.create(path, sumsSize(spec.Size), false); err != nil {
		return err
	}
	f, err := d.open(path, 1)
	if err != nil {
		return err
	}
	if err = f.writeAt(encodeSumsHead(spec.Volume), 0); err == nil {
		err = f.flush()
	}
	return errors.Join(err, f.close())
}

// openSums opens the sums, or makes them if there are none that can be used: they prove the bytes, and no byte depends on them.
// Only those that a newer version has written are an error, and a lack of descriptors or memory. Without a file no region
// becomes clean: another process could find the file usable, and rely on what it says of regions that were written since.
func openSums(d disk, dir string, spec peer.Spec) (*sums, error) {
	path := filepath.Join(dir, fileSums)
	f, err := openSumsFile(d, path, spec)
	if err == nil {
		return newSums(f, spec), nil
	}
	if errors.Is(err, ErrVersion) || scarce(err) {
		return nil, err
	}
	tmp := path + ".new"
	err = d.removeAll(tmp)
	if err == nil {
		err = makeSums(d, tmp, spec)
	}
	if err == nil {
		err = d.rename(tmp, path)
	}
	if err == nil {
		err = d.syncDir(dir)
	}
	if err == nil {
		f, err = openSumsFile(d, path, spec)
	}
	if scarce(err) {
		return nil, err
	}
	if err != nil {
		f = nil
	}
	return newSums(f, spec), nil
}

func openSumsFile(d disk, path string, spec peer.Spec) (file, error) {
	// Through the page cache, which keeps what is used: a sum is 4 bytes, and a block of the disk is not.
	f, err := d.open(path, 1)
	if err != nil {
		return nil, err
	}
	err = checkSumsFile(f, spec)
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func checkSumsFile(f file, spec peer.Spec) error {
	n, err := f.size()
	if err != nil {
		return err
	}
	b, err := readBlock(f)
	if err != nil {
		return err
	}
	v, err := decodeSumsHead(b)
	switch {
	case err != nil:
		return err
	case n < sumsSize(spec.Size) || v != spec.Volume:
		return fmt.Errorf("%w: sums of volume %s, %d bytes", ErrDamaged, v, n)
	}
	return nil
}

// openSums takes the sums into use. Nothing is known of regions that are active.
func (r *replica) openSums(spec peer.Spec, m *marks) error {
	s, err := openSums(r.disk, r.dir, spec)
	if err != nil {
		return err
	}
	for _, x := range m.list() {
		off := int64(x.Region) * spec.Region
		s.forget(off, min(off+spec.Region, spec.Size))
	}
	r.sums = s
	return nil
}

// whole tells whether a range begins and ends where blocks do.
func (s *sums) whole(off, n int64) bool {
	return off%sumBlock == 0 && ((off+n)%sumBlock == 0 || off+n == s.size)
}

// edges are the blocks of a range that are only in part in it, as lo and hi; -1: none. They differ.
func (s *sums) edges(off, n int64) (lo, hi int64) {
	lo, hi = -1, -1
	end := off + n
	if off%sumBlock != 0 {
		lo = off / sumBlock
	}
	if end%sumBlock != 0 && end != s.size && end/sumBlock != lo {
		hi = end / sumBlock
	}
	return lo, hi
}

func (s *sums) bytesOf(index int64) int64 { return min(sumBlock, s.size-index*sumBlock) }

// holdFor takes the edges' locks: a write of a part of a block reads and sums the rest of it, and a read checks it. Those who order
// commands may do so in less than our blocks. The locks of lower numbers come first.
func (s *sums) holdFor(lo, hi int64, alone bool) (release func()) {
	at := make([]int64, 0, 2)
	for _, b := range [2]int64{lo, hi} {
		if k := b % int64(len(s.holds)); b >= 0 && (len(at) == 0 || at[0] != k) {
			at = append(at, k)
		}
	}
	if len(at) == 2 && at[0] > at[1] {
		at[0], at[1] = at[1], at[0]
	}
	for _, k := range at {
		if alone {
			s.holds[k].Lock()
		} else {
			s.holds[k].RLock()
		}
	}
	return func() {
		for _, k := range at {
			if alone {
				s.holds[k].Unlock()
			} else {
				s.holds[k].RUnlock()
			}
		}
	}
}

// read reads what is proved (invariant 16); hints are of peer.Command.Proved.
func (r *replica) read(b []byte, off int64, hints bool) error {
	s, n := r.sums, int64(len(b))
	if s.whole(off, n) {
		if err := r.data.readAt(b, off); err != nil {
			return err
		}
		return s.prove(off/sumBlock, b, hints)
	}
	lo, hi := s.edges(off, n)
	defer s.holdFor(lo, hi, false)()
	from, to := off/sumBlock*sumBlock, min((off+n+sumBlock-1)/sumBlock*sumBlock, s.size)
	p := block.Get(int(to - from))
	defer block.Put(p)
	if err := r.data.readAt(p, from); err != nil {
		return err
	}
	if err := s.prove(from/sumBlock, p, hints); err != nil {
		return err
	}
	copy(b, p[off-from:])
	return nil
}

// sumUp answers peer.Sums: what is read is proved, and not sent.
func (r *replica) sumUp(c *peer.Call) error {
	if !r.sums.whole(c.Off, c.Len) || c.Len > maxSumUp {
		return fmt.Errorf("sums of %d bytes at %d: %w", c.Len, c.Off, peer.ErrInvalid)
	}
	b := block.Get(int(c.Len))
	defer block.Put(b)
	if err := r.read(b, c.Off, false); err != nil {
		return diskError("reading", err)
	}
	for at := 0; at < len(b); at += sumBlock {
		c.Sums = append(c.Sums, crc32.Checksum(b[at:min(at+sumBlock, len(b))], castagnoli()))
	}
	return nil
}

// maxSumUp bounds one command.
const maxSumUp = 8 << 20

func (s *sums) prove(first int64, b []byte, hints bool) error {
	if at, bad := s.check(first, b, hints); bad > 0 {
		return fmt.Errorf("%w: %d of them, the first at %d", errSum, bad, at*sumBlock)
	}
	return nil
}

var errSum = errors.New("blocks differ from their checksums")

// edge is a block of which a part is written.
type edge struct {
	index int64
	bytes []byte // what it will have
	bad   bool   // what it had is not what it should have
}

// write writes data, or zeros if it is nil, and says so in the sums. The region is marked: they are void if this process ends.
func (r *replica) write(off, n int64, data []byte) error {
	s := r.sums
	if s.whole(off, n) {
		first, count := off/sumBlock, (n+sumBlock-1)/sumBlock
		if err := r.store(off, n, data); err != nil {
			s.fill(first, count, unknownSum)
			return err
		}
		if data == nil {
			s.fill(first, count, 0)
		} else {
			s.put(first, data)
		}
		return nil
	}
	lo, hi := s.edges(off, n)
	defer s.holdFor(lo, hi, true)()
	var edges []*edge
	for _, index := range [2]int64{lo, hi} {
		if index < 0 {
			continue
		}
		e := &edge{index: index, bytes: block.Get(int(s.bytesOf(index)))}
		defer block.Put(e.bytes)
		if err := r.data.readAt(e.bytes, index*sumBlock); err != nil {
			e.bad = true
		} else if _, bad := s.check(index, e.bytes, false); bad > 0 {
			e.bad = true
		}
		edges = append(edges, e)
	}
	err := r.store(off, n, data)
	first, end := (off+sumBlock-1)/sumBlock, (off+n)/sumBlock // the whole ones
	if off+n == s.size {
		end = (off + n + sumBlock - 1) / sumBlock
	}
	switch {
	case first >= end:
	case err != nil:
		s.fill(first, end-first, unknownSum)
	case data == nil:
		s.fill(first, end-first, 0)
	default:
		s.put(first, data[first*sumBlock-off:min(end*sumBlock-off, n)])
	}
	for _, e := range edges {
		switch {
		case err == nil:
			r.sumEdge(e, off, n, data)
		case !e.bad:
			s.fill(e.index, 1, unknownSum)
		}
	}
	return err
}

// store writes data, or zeros.
func (r *replica) store(off, n int64, data []byte) (err error) {
	r.cache.writing(r.number, off, n)
	if data == nil {
		err = r.data.zero(off, n)
	} else {
		err = r.data.writeAt(data, off)
	}
	r.cache.written(r.number, off, n)
	return err
}

// readKept is read, and keeps what it has read.
func (r *replica) readKept(b []byte, off int64) error {
	var t cacheTicket
	r.cache.reading(r.number, off, int64(len(b)), &t)
	err := r.read(b, off, false)
	if err == nil {
		r.cache.keep(r.number, b, off, &t)
	}
	return err
}

// hit answers a read from memory, without waiting for anything, or returns false.
func (r *replica) hit(c *peer.Call, s *Session) bool {
	if r.cache == nil || !r.use.TryRLock() { // it is being opened anew
		return false
	}
	defer r.use.RUnlock()
	if r.gone || r.foreign != nil || r.state() != nil || c.Off < 0 || c.Len <= 0 || (c.Off|c.Len)%512 != 0 || c.Off > r.spec.Size ||
		c.Len > r.spec.Size-c.Off || int64(len(c.Data)) != c.Len || !s.means(c, r.incarnation) { // which execute refuses by name
		return false
	}
	return r.cache.get(r.number, c.Data, c.Off)
}

// sumEdge says what a block has of which a part was written. One that was bad stays so: the rest of it is not what it should
// have, and a sum that fits would hide it.
func (r *replica) sumEdge(e *edge, off, n int64, data []byte) {
	s, at := r.sums, e.index*sumBlock
	if e.bad {
		if r.data.readAt(e.bytes, at) != nil {
			return // it cannot be read, and should that change, it does not fit what is said of it
		}
		var l leaf
		k := e.index % leafSums
		l[k] = s.of(e.index, e.bytes) ^ spoiledBy
		s.change(e.index/leafSums, int(k), int(k)+1, &l, false)
		return
	}
	from, to := max(at, off), min(at+int64(len(e.bytes)), off+n)
	if data == nil {
		clear(e.bytes[from-at : to-at])
	} else {
		copy(e.bytes[from-at:to-at], data[from-off:])
	}
	s.put(e.index, e.bytes)
}

// extents are the parts that hold data, or should: what has a sum and lies in a hole was lost, and is found when it is read.
func (r *replica) extents(off, end int64) ([]peer.Extent, error) {
	has, err := r.data.extents(off, end)
	if err != nil {
		return nil, err
	}
	var out []peer.Extent
	at := off
	for _, x := range has {
		if out, err = r.sums.lost(at, x.Off, out); err != nil {
			return nil, err
		}
		out = append(out, x)
		at = x.Off + x.Len
	}
	if out, err = r.sums.lost(at, end, out); err != nil {
		return nil, err
	}
	if len(out) > maxExtents {
		k := maxExtents - 1
		out[k].Len = out[len(out)-1].Off + out[len(out)-1].Len - out[k].Off
		out = out[:k+1]
	}
	return out, nil
}

func (r *replica) closeSums() {
	if r.sums != nil && r.sums.f != nil {
		r.sums.f.close()
	}
	r.sums = nil
}

// settle makes the sums of regions durable that are to become clean, and returns those of which they are, as the Clear of that
// number.
func (r *replica) settle(list []peer.RegionSeq) (settled []peer.RegionSeq, id uint64, err error) {
	r.mu.Lock()
	r.clears++
	id = r.clears
	for _, x := range list {
		if r.marks.clearable(x) {
			r.clearing[x.Region] = id
			settled = append(settled, x)
		}
	}
	r.mu.Unlock()
	settled = slices.DeleteFunc(settled, func(x peer.RegionSeq) bool {
		off := int64(x.Region) * r.spec.Region
		return !r.sums.settle(off, min(off+r.spec.Region, r.spec.Size))
	})
	if len(settled) > 0 {
		if err = r.sums.sync(); err != nil {
			settled = nil
			err = fmt.Errorf("flushing the checksums of %s: %w", r.spec.Volume, err)
		}
	}
	return settled, id, err
}

// settled leaves on a list what no write has touched since settle. Called with mu.
func (r *replica) settled(list []peer.RegionSeq, id uint64) []peer.RegionSeq {
	list = slices.DeleteFunc(list, func(x peer.RegionSeq) bool { return r.clearing[x.Region] != id })
	maps.DeleteFunc(r.clearing, func(_ uint32, of uint64) bool { return of == id })
	return list
}

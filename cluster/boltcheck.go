package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"syscall"
)

// bbolt maps its file and trusts what it finds: a file that was cut, or a page that another program has overwritten, ends the
// process by a signal, or by a panic in a goroutine of bbolt's own. So the tree of pages is walked before bbolt sees it. The
// layout is bbolt's, version 2 (go.etcd.io/bbolt, internal/common): every page is little-endian and begins with its id (8),
// flags (2), count of elements (2) and of overflow pages (4).
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	boltHead    = 16 // bytes of a page's header, of a branch's and of a leaf's element
	boltBranch  = 0x01
	boltLeaf    = 0x02
	boltBucket  = 0x01    // of a leaf's element: its value is a bucket
	boltDepth   = 64      // more levels, or buckets within buckets, are a loop
	boltMost    = 1 << 30 // bytes of one page with its overflow
)

type boltMeta struct {
	pageSize   int64
	root, high uint64 // page of the root bucket, and the first that was never used
	txid       uint64
}

// checkBolt returns nil for a file that bbolt can open without harm, or reports by itself; otherwise what is damaged. It
// changes nothing. A file that another process has open is left to bbolt, which tells.
func checkBolt(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return nil // bbolt's to tell
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		return nil
	}
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil
	}
	m, ok := newestMeta(f)
	if !ok {
		return nil // bbolt refuses it
	}
	if m.pageSize < 512 || m.pageSize > 1<<16 || m.high > uint64(info.Size()/m.pageSize) {
		return fmt.Errorf("it has %d bytes, and %d pages of %d are in use: it was cut", info.Size(), m.high, m.pageSize)
	}
	w := boltWalk{r: f, meta: m, seen: make(map[uint64]bool)}
	_, err = w.page(m.root, 0, nil, nil)
	return err
}

// newestMeta finds the meta page that bbolt goes by.
func newestMeta(r io.ReaderAt) (best boltMeta, ok bool) {
	offsets := []int64{0}
	if m, good := readMeta(r, 0); good {
		offsets = append(offsets, m.pageSize)
	} else {
		for i := range 7 {
			offsets = append(offsets, 1024<<i)
		}
	}
	for _, o := range offsets {
		if m, good := readMeta(r, o); good && (!ok || m.txid > best.txid) {
			best, ok = m, true
		}
	}
	return best, ok
}

func readMeta(r io.ReaderAt, off int64) (m boltMeta, ok bool) {
	var b [boltHead + 64]byte
	if _, err := r.ReadAt(b[:], off); err != nil {
		return m, false
	}
	d, le := b[boltHead:], binary.LittleEndian
	sum := fnv.New64a()
	sum.Write(d[:56])
	if le.Uint32(d) != boltMagic || le.Uint32(d[4:]) != boltVersion || le.Uint64(d[56:]) != sum.Sum64() {
		return m, false
	}
	return boltMeta{pageSize: int64(le.Uint32(d[8:])), root: le.Uint64(d[16:]), high: le.Uint64(d[40:]), txid: le.Uint64(d[48:])}, true
}

var errBolt = errors.New("a page of it is damaged")

type boltWalk struct {
	r    io.ReaderAt
	meta boltMeta
	seen map[uint64]bool
}

// page checks a page and all below it: its keys are at least min and below max, where these are not nil. It returns the last.
func (w *boltWalk) page(id uint64, depth int, min, max []byte) (last []byte, err error) {
	var head [boltHead]byte
	if id < 2 || id >= w.meta.high || w.seen[id] || depth > boltDepth {
		return nil, fmt.Errorf("%w: a reference to %d", errBolt, id)
	}
	w.seen[id] = true
	off := int64(id) * w.meta.pageSize
	if _, err := w.r.ReadAt(head[:], off); err != nil {
		return nil, fmt.Errorf("%w: %d: %w", errBolt, id, err)
	}
	more := uint64(binary.LittleEndian.Uint32(head[12:]))
	size := int64(1+more) * w.meta.pageSize
	if binary.LittleEndian.Uint64(head[:]) != id || more >= w.meta.high-id || size > boltMost {
		return nil, fmt.Errorf("%w: %d: its header", errBolt, id)
	}
	for i := id + 1; i <= id+more; i++ {
		if w.seen[i] {
			return nil, fmt.Errorf("%w: %d overlaps %d", errBolt, id, i)
		}
		w.seen[i] = true
	}
	b := make([]byte, size)
	if _, err := w.r.ReadAt(b, off); err != nil {
		return nil, fmt.Errorf("%w: %d: %w", errBolt, id, err)
	}
	if last, err = w.elements(b, depth, min, max); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return last, nil
}

// elements checks those of a page, or of a bucket that is kept within its parent's value. Their order is checked as bbolt does it,
// in a goroutine of its own that ends the process.
func (w *boltWalk) elements(b []byte, depth int, min, max []byte) (last []byte, err error) {
	if len(b) < boltHead || depth > boltDepth {
		return nil, errBolt
	}
	le := binary.LittleEndian
	flags, count := le.Uint16(b[8:]), int(le.Uint16(b[10:]))
	if flags != boltBranch && flags != boltLeaf || boltHead*(1+count) > len(b) || flags == boltBranch && count == 0 {
		return nil, fmt.Errorf("%w: %d elements, flags %#x", errBolt, count, flags)
	}
	keys := make([][]byte, count)
	for i := range count {
		at := boltHead * (1 + i)
		e := b[at:]
		// A branch's element: where the key is (4), its size (4), the page (8). A leaf's: flags (4), where (4), sizes of key and
		// value (4, 4).
		where, size, rest := le.Uint32(e), le.Uint32(e[4:]), uint32(0)
		if flags == boltLeaf {
			where, size, rest = le.Uint32(e[4:]), le.Uint32(e[8:]), le.Uint32(e[12:])
		}
		from := uint64(at) + uint64(where)
		if from+uint64(size)+uint64(rest) > uint64(len(b)) {
			return nil, fmt.Errorf("%w: element %d", errBolt, i)
		}
		keys[i] = b[from : from+uint64(size)]
	}
	for i, key := range keys {
		order := bytes.Compare(min, key)
		if min != nil && i == 0 && order > 0 || i > 0 && order >= 0 || max != nil && bytes.Compare(key, max) >= 0 {
			return nil, fmt.Errorf("%w: the order of element %d", errBolt, i)
		}
		at := boltHead * (1 + i)
		e := b[at:]
		if flags == boltBranch {
			below := max
			if i+1 < count {
				below = keys[i+1]
			}
			if min, err = w.page(le.Uint64(e[8:]), depth+1, key, below); err != nil {
				return nil, err
			}
			continue
		}
		min = key
		if le.Uint32(e)&boltBucket == 0 {
			continue
		}
		from := uint64(at) + uint64(le.Uint32(e[4:])) + uint64(len(key))
		v := b[from : from+uint64(le.Uint32(e[12:]))]
		if len(v) < 16 {
			return nil, fmt.Errorf("%w: the bucket of element %d", errBolt, i)
		}
		if root := le.Uint64(v); root != 0 {
			_, err = w.page(root, depth+1, nil, nil)
		} else {
			_, err = w.elements(v[16:], depth+1, nil, nil)
		}
		if err != nil {
			return nil, err
		}
	}
	if count == 0 {
		return nil, nil
	}
	return min, nil
}

package powerdisk

import (
	"fmt"
	"io"
	"math/rand/v2"
)

const (
	sectorSize = 512 // is written as a whole or not at all
	pageSize   = 4096
	// cacheSize bounds what is not flushed, in bytes: a disk's cache is finite. Past it everything becomes durable.
	cacheSize = 128 << 20
)

// store is where a medium's bytes are.
type store interface {
	io.ReaderAt
	io.WriterAt
}

// medium is what a disk holds: what reads see, and what of it is not durable. It is for one goroutine at a time.
type medium struct {
	store  store // what reads see
	size   int64 // in bytes, a multiple of pageSize
	random *rand.Rand

	// Since the last flush: the writes in their order, and what each page that they touch held before the first of them.
	writes []write
	before map[int64][]byte
	cached int64 // bytes of writes
}

// write is a write that was not flushed.
type write struct {
	off  int64
	data []byte
}

func newMedium(s store, size int64, seed uint64) *medium {
	return &medium{store: s, size: size, random: rand.New(rand.NewPCG(seed, 7)), before: map[int64][]byte{}}
}

// in tells whether a range is the medium's.
func (m *medium) in(off, n int64) bool {
	return off >= 0 && n >= 0 && off <= m.size && n <= m.size-off && (off|n)%sectorSize == 0
}

func (m *medium) read(b []byte, off int64) error {
	_, err := m.store.ReadAt(b, off)
	return err
}

// write changes a range of whole sectors. It keeps data.
func (m *medium) write(data []byte, off int64) error {
	for at := off / pageSize * pageSize; at < off+int64(len(data)); at += pageSize {
		if m.before[at] != nil {
			continue
		}
		page := make([]byte, pageSize)
		if err := m.read(page, at); err != nil {
			return err
		}
		m.before[at] = page
	}
	if _, err := m.store.WriteAt(data, off); err != nil {
		return err
	}
	m.writes = append(m.writes, write{off, data})
	if m.cached += int64(len(data)); m.cached > cacheSize {
		m.flush()
	}
	return nil
}

// zero makes a range of whole sectors zeros.
func (m *medium) zero(off, n int64) error {
	for n > 0 {
		part := min(n, 1<<20)
		if err := m.write(make([]byte, part), off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// flush makes everything durable that was written before.
func (m *medium) flush() {
	m.writes, m.cached = nil, 0
	clear(m.before)
}

// Loss is what a failure of power has done.
type Loss struct {
	How     string `json:"how"`
	Writes  int    `json:"writes"` // that were not flushed
	Sectors int    `json:"sectors"`
	Lost    int    `json:"lost"` // of the sectors
}

func (l Loss) String() string {
	return fmt.Sprintf("%d of %d sectors of %d unflushed writes lost (%s)", l.Lost, l.Sectors, l.Writes, l.How)
}

// The ways in which unflushed writes are lost. A write that survives is applied in its place of the order, over those before it.
const (
	loseAll     = "all"
	loseSectors = "any sectors"
	loseWrites  = "any writes"
	loseTail    = "those after one, which is torn"
	loseHead    = "those before one"
	loseOne     = "one"
)

// lose makes what is left durable. Only writes within the ranges are lost; nil: all may be.
func (m *medium) lose(ranges []Range) (Loss, error) {
	ways := []string{loseAll, loseSectors, loseSectors, loseWrites, loseTail, loseHead, loseOne}
	l := Loss{How: ways[m.random.IntN(len(ways))], Writes: len(m.writes)}
	survives := m.survival(l.How)
	for at, page := range m.before {
		if _, err := m.store.WriteAt(page, at); err != nil {
			return l, err
		}
	}
	for i, w := range m.writes {
		for s := 0; s < len(w.data); s += sectorSize {
			at := w.off + int64(s)
			l.Sectors++
			if within(ranges, at) && !survives(i, at) {
				l.Lost++
				continue
			}
			if _, err := m.store.WriteAt(w.data[s:s+sectorSize], at); err != nil {
				return l, err
			}
		}
	}
	m.flush()
	return l, nil
}

// survival returns what tells of the sector at an offset, of write i, whether it survives. It is asked once for each.
func (m *medium) survival(how string) func(i int, at int64) bool {
	n := max(1, len(m.writes))
	one, chance := m.random.IntN(n), []float64{0.1, 0.5, 0.9}[m.random.IntN(3)]
	any := func() bool { return m.random.Float64() < chance }
	switch how {
	case loseSectors:
		// Of 512 bytes, or of 4096 that belong together: both kinds of disks are sold.
		if m.random.IntN(2) == 0 {
			return func(int, int64) bool { return any() }
		}
		type key struct {
			i    int
			page int64
		}
		known := map[key]bool{}
		return func(i int, at int64) bool {
			k := key{i, at / pageSize}
			if _, ok := known[k]; !ok {
				known[k] = any()
			}
			return known[k]
		}
	case loseWrites:
		keep := make([]bool, n)
		for i := range keep {
			keep[i] = any()
		}
		return func(i int, _ int64) bool { return keep[i] }
	case loseTail:
		sectors := 0
		if len(m.writes) > 0 {
			sectors = m.random.IntN(len(m.writes[one].data)/sectorSize + 1)
		}
		return func(i int, _ int64) bool {
			if i == one {
				sectors--
				return sectors >= 0
			}
			return i < one
		}
	case loseHead:
		return func(i int, _ int64) bool { return i > one }
	case loseOne:
		return func(i int, _ int64) bool { return i != one }
	}
	return func(int, int64) bool { return false }
}

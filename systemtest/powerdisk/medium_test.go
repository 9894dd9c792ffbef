package powerdisk

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

type memory []byte

func (m memory) ReadAt(b []byte, off int64) (int, error)  { return copy(b, m[off:]), nil }
func (m memory) WriteAt(b []byte, off int64) (int, error) { return copy(m[off:], b), nil }

// TestMedium: a flushed sector has what was flushed, any other has that or what one of the writes since has left; and each way of losing
// loses something and keeps what it should.
func TestMedium(t *testing.T) {
	const size, sectors = 64 << 10, 64 << 10 / sectorSize
	ways, lost, kept := map[string]int{}, 0, 0
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 0))
		disk := make(memory, size)
		m := newMedium(disk, size, seed)
		possible := make([][]byte, sectors) // by the first byte of a sector; the last is what reads see
		for i := range possible {
			possible[i] = []byte{0}
		}
		for step := range 1 + random.IntN(60) {
			if random.IntN(8) == 0 {
				m.flush()
				for i, p := range possible {
					possible[i] = p[len(p)-1:]
				}
				continue
			}
			at, n, with := random.IntN(sectors), 1+random.IntN(20), byte(step+1)
			n = min(n, sectors-at)
			var err error
			if random.IntN(6) == 0 {
				with = 0
				err = m.zero(int64(at)*sectorSize, int64(n)*sectorSize)
			} else {
				err = m.write(bytes.Repeat([]byte{with}, n*sectorSize), int64(at)*sectorSize)
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				possible[at+i] = append(possible[at+i][:len(possible[at+i]):len(possible[at+i])], with)
			}
		}
		for i, p := range possible {
			if disk[i*sectorSize] != p[len(p)-1] {
				t.Fatalf("seed %d: sector %d reads as %d before the power fails, not %d", seed, i, disk[i*sectorSize], p[len(p)-1])
			}
		}
		writes := len(m.writes)
		l, err := m.lose(nil)
		if err != nil || l.Writes != writes {
			t.Fatal(l, err)
		}
		ways[l.How]++
		lost, kept = lost+l.Lost, kept+l.Sectors-l.Lost
		if l.How == loseAll && l.Lost != l.Sectors {
			t.Errorf("seed %d: %v", seed, l)
		}
		for i, p := range possible {
			b := disk[i*sectorSize : (i+1)*sectorSize]
			if !bytes.Equal(b, bytes.Repeat(b[:1], sectorSize)) || !bytes.Contains(p, b[:1]) {
				t.Fatalf("seed %d (%v): sector %d has %d, not one of %d", seed, l, i, b[0], p)
			}
		}
		if l, _ := m.lose(nil); l.Writes != 0 {
			t.Fatal("what is left is not durable")
		}
	}
	if len(ways) != 6 || lost < 1000 || kept < 1000 {
		t.Errorf("%v, %d sectors lost, %d kept", ways, lost, kept)
	}
}

// TestRanges: only what lies in the ranges is lost.
func TestRanges(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		disk := make(memory, 4*pageSize)
		m := newMedium(disk, int64(len(disk)), seed)
		if err := m.write(bytes.Repeat([]byte{1}, len(disk)), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := m.lose([]Range{{pageSize, pageSize}}); err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsRune(disk[:pageSize], 0) || bytes.ContainsRune(disk[2*pageSize:], 0) {
			t.Fatal("something else was lost")
		}
		lost += bytes.Count(disk[pageSize:2*pageSize], []byte{0})
	}
	if lost == 0 {
		t.Fatal("nothing was lost")
	}
}

// TestCache: what is not flushed is bounded.
func TestCache(t *testing.T) {
	disk := make(memory, pageSize)
	m := newMedium(disk, pageSize, 1)
	for range 2*cacheSize/pageSize + 1 {
		if err := m.write(make([]byte, pageSize), 0); err != nil {
			t.Fatal(err)
		}
	}
	if m.cached > cacheSize || len(m.writes) == 0 {
		t.Fatal(m.cached, len(m.writes))
	}
}

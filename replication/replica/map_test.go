package replica

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/replication/peer"
)

// TestTornMap: whatever half of a map's write reaches the disk, the state is the one before or the one after.
func TestTornMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for round := range 300 {
		m := newMarks(perBlock + 10)
		disk := make([]byte, 2*blockSize*len(m.blocks))
		var before, after []peer.RegionSeq
		seq := peer.Seq(0)
		for range 1 + rnd.IntN(8) {
			before = after
			seq++
			r := rnd.Uint32N(m.regions - 1)
			m.begin(r, r+1, seq, seq-1)
			m.end(r, r+1)
			if rnd.IntN(3) == 0 {
				m.clear([]peer.RegionSeq{{Region: r, Seq: seq}}, seq)
			}
			list := m.take()
			after = m.list()
			for i, w := range list {
				b := w.bytes
				if i == len(list)-1 && rnd.IntN(2) == 0 { // torn, perhaps, and overwritten by the next
					b = b[:512*rnd.IntN(8)]
					copy(disk[w.at:], b)
					got := load(t, disk, m.regions)
					if len(list) == 1 && !cmp.Equal(got, before) && !cmp.Equal(got, after) {
						t.Fatalf("round %d: %v, neither %v nor %v", round, got, before, after)
					}
				}
				copy(disk[w.at:], w.bytes)
			}
			m.wrote(list)
			if d := cmp.Diff(after, load(t, disk, m.regions)); d != "" {
				t.Fatal(d)
			}
		}
	}
}

func load(t *testing.T, disk []byte, regions uint32) []peer.RegionSeq {
	t.Helper()
	m := newMarks(regions)
	for i := range m.blocks {
		at := 2 * blockSize * i
		if err := m.load(uint32(i), [2][]byte{disk[at : at+blockSize], disk[at+blockSize : at+2*blockSize]}); err != nil {
			t.Fatal(err)
		}
	}
	l := m.list()
	if m.active != len(l) {
		t.Fatal(m.active, len(l))
	}
	return l
}

// runError is what a run answered: each answers its number.
type runError int

func (e runError) Error() string { return fmt.Sprint("run ", int(e)) }

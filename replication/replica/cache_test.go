package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"pmsapp/replication/peer"
)

// TestCacheModel: whatever is read, kept, written and opened anew in any order, the cache never has anything but what is there,
// and never more than it may.
func TestCacheModel(t *testing.T) {
	const blocks, most = 300, 2 * cacheShards
	c, err := newCache(most * cacheBlock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close() })
	if small, err := newCache(cacheBlock); small != nil || err != nil {
		t.Fatal("a cache of less than a block for each shard", err)
	}
	type replica struct {
		number uint64
		has    []byte
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	replicas := []*replica{{number: c.number(), has: make([]byte, blocks*cacheBlock)}, {number: c.number(), has: make([]byte, blocks*cacheBlock)}}
	type pending struct {
		r   *replica
		off int64
		b   []byte
		t   cacheTicket
	}
	var reads []*pending
	hits := 0
	for i := range 30000 {
		r := replicas[rnd.IntN(2)]
		off := rnd.Int64N(blocks)
		n := min(1+rnd.Int64N(3), blocks-off)
		off, n = off*cacheBlock, n*cacheBlock
		switch k := rnd.IntN(100); {
		case k < 30: // a read of the disk begins
			p := &pending{r: r, off: off, b: make([]byte, n)}
			c.reading(r.number, off, n, &p.t)
			copy(p.b, r.has[off:])
			reads = append(reads, p)
		case k < 60 && len(reads) > 0: // and ends, perhaps much later
			x := rnd.IntN(len(reads))
			c.keep(reads[x].r.number, reads[x].b, reads[x].off, &reads[x].t)
			reads = append(reads[:x], reads[x+1:]...)
		case k < 70:
			c.writing(r.number, off, n)
			var p cacheTicket
			if c.reading(r.number, off, n, &p); p.good {
				t.Fatal("a read beside a write would be kept")
			}
			for x := off; x < off+n; x += 8 {
				binary.BigEndian.PutUint64(r.has[x:], uint64(i))
			}
			c.written(r.number, off, n)
		case k < 71 && i%10 == 0: // opened anew, and what it has is another
			for _, p := range reads {
				if p.r == r {
					p.t.good = false // no command is under way then
				}
			}
			r.number = c.number()
			for x := range r.has {
				r.has[x] = byte(i)
			}
		default:
			off += 512 * rnd.Int64N(8)
			n = min(512*(1+rnd.Int64N(12)), int64(len(r.has))-off)
			if got := make([]byte, n); c.get(r.number, got, off) {
				hits++
				if !bytes.Equal(got, r.has[off:off+n]) {
					t.Fatalf("step %d: %d bytes at %d are not what is there", i, n, off)
				}
			}
		}
	}
	kept := 0
	for i := range c.shards {
		s := &c.shards[i]
		indexed := 0
		for key, g := range s.index {
			n := 0
			for b := range uint64(cacheGroupBlocks) {
				if k, ok := g.slot(b); ok {
					n++
					if s.slots[k].key != key*cacheGroupBlocks+b {
						t.Fatal("a slot has another block than the index says")
					}
				}
			}
			if indexed += n; n != g.blocks || n == 0 {
				t.Fatalf("%d blocks of a group, %d counted", n, g.blocks)
			}
		}
		if kept += indexed; indexed+len(s.free) != len(s.slots) || len(s.slots) > s.limit {
			t.Fatal("more than it may have, or a slot is lost")
		}
	}
	if hits < 100 || kept == 0 {
		t.Errorf("%d hits, %d blocks kept", hits, kept)
	}
}

// keptRead is a read that may be answered from memory; hit says that it was.
func (p *proved) keptRead(off, n int64) (b []byte, hit bool, err error) {
	p.t.Helper()
	b = make([]byte, n)
	c := peer.Command{Kind: peer.Read, Volume: p.spec.Volume, Off: off, Len: n, Data: b, Kept: true}
	call := &peer.Call{Command: c, Done: func(*peer.Call) {}}
	if p.s.(*Session).Hit(call) {
		return b, true, call.Err
	}
	return b, false, do(p.t, p.s, c).Err
}

func newKept(t *testing.T) *proved {
	p := newProved(t)
	p.cache = 64 << 20
	p.again()
	return p
}

// TestKeptReads: a read is answered from memory if it was read before and nothing has changed since, and in no other case.
func TestKeptReads(t *testing.T) {
	p := newKept(t)
	data := random(1 << 20)
	expect := func(what string, off int64, want []byte, hit bool) {
		t.Helper()
		b, was, err := p.keptRead(off, int64(len(want)))
		if err != nil || was != hit || !bytes.Equal(b, want) {
			t.Fatalf("%s: hit %v, right %v, %v", what, was, bytes.Equal(b, want), err)
		}
	}
	p.write(0, data)
	expect("what was only written", 0, data, false)
	expect("what was read", 0, data, true)
	expect("a part of it", 512, data[512:9000/512*512], true)
	copy(data[4096:], make([]byte, 512))
	p.write(4096, data[4096:4608])
	expect("beside what was written", 8192, data[8192:], true)
	expect("what was written in part", 4096, data[4096:8192], false)
	expect("and read again", 0, data, true)
	must(t, p.s, peer.Command{Kind: peer.Zero, Volume: p.spec.Volume, Off: 0, Len: p.spec.Size, Seq: p.seq})
	clear(data)
	expect("what was unmapped", 0, data, false)
	expect("and read again", 0, data, true)

	// Reads that prove what the disk has ask the disk.
	p.damage(fileData, 0, 1, 1)
	p.bad(0, 4096)
	expect("what is kept", 0, data[:4096], true)
	p.write(0, data[:4096])
	expect("what was mended", 0, data[:4096], false)

	// Another session has what was kept; one that has ended has nothing.
	old := p.s
	p.s = p.open(p.node.Accepted() + 1)
	expect("in a new session", 0, data, true)
	p.s, old = old, p.s
	if _, hit, err := p.keptRead(0, 4096); hit || !errors.Is(err, peer.ErrEpoch) {
		t.Fatal("in an old session:", hit, err)
	}
	p.s = old

	// A flush that fails has it opened anew: what was kept is gone.
	r := p.node.pools[0].replicas[p.spec.Volume]
	failing := &failOnce{file: r.data, err: syscall.EIO, hangs: make(chan struct{}), release: make(chan struct{})}
	r.data = failing
	close(failing.release)
	if a := do(t, p.s, write(p.spec.Volume, 8<<20, data[:4096], p.seq)); !errors.Is(a.Err, peer.ErrMedium) {
		t.Fatal(a.Err)
	}
	p.good(0, data[:4096]) // asks the disk: it is open again
	expect("after a flush that failed", 0, data, false)
	expect("and read again", 0, data, true)
	must(t, p.s, peer.Command{Kind: peer.Reset, Spec: p.spec})
	expect("a new replica in its place", 0, data, false)
}

// TestKeptReadsRace: writers of a few blocks, each the only one of its block, beside readers of all of them, who may be kept: who
// has written a block reads what it has written.
func TestKeptReadsRace(t *testing.T) {
	p := newKept(t)
	g := Guard(p.s, 1<<40)
	t.Cleanup(g.Close)
	call := func(c peer.Command) error {
		ended := make(chan error, 1)
		g.Submit(&peer.Call{Command: c, Done: func(c *peer.Call) { ended <- c.Err }})
		return <-ended
	}
	const blocks, rounds = 8, 150
	var writers, readers sync.WaitGroup
	var over atomic.Bool
	for k := range int64(blocks) {
		writers.Go(func() {
			b, got := make([]byte, 4096), make([]byte, 4096)
			for i := range uint64(rounds) {
				binary.BigEndian.PutUint64(b, i)
				w := write(p.spec.Volume, k*4096, b, peer.Seq(i+1))
				if err := call(w); err != nil {
					t.Error(err)
					return
				}
				for range 3 {
					if err := call(peer.Command{Kind: peer.Read, Volume: p.spec.Volume, Off: k * 4096, Len: 4096, Data: got, Kept: true}); err != nil || !bytes.Equal(b, got) {
						t.Errorf("block %d has %d, not %d: %v", k, binary.BigEndian.Uint64(got), i, err)
						return
					}
				}
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			b := make([]byte, blocks*4096)
			for !over.Load() {
				// One that overlaps writes may find blocks torn between bytes and sum: what it is told is not looked at.
				call(peer.Command{Kind: peer.Read, Volume: p.spec.Volume, Off: 0, Len: int64(len(b)), Data: b, Kept: true})
			}
		})
	}
	writers.Wait()
	over.Store(true)
	readers.Wait()
}

// BenchmarkKept is a read of 4 KiB that the cache has.
func BenchmarkKept(b *testing.B) {
	c, err := newCache(256 << 20)
	if err != nil {
		b.Fatal(err)
	}
	defer c.close()
	n, buf := c.number(), make([]byte, 4096)
	for off := int64(0); off < 16<<20; off += 4096 {
		var t cacheTicket
		c.reading(n, off, 4096, &t)
		c.keep(n, buf, off, &t)
	}
	b.ReportAllocs()
	b.SetBytes(4096)
	for i := 0; b.Loop(); i++ {
		if !c.get(n, buf, int64(i%4096)*4096) {
			b.Fatal("it is not there")
		}
	}
}

// BenchmarkCacheGet reads 1 MiB that is kept.
func BenchmarkCacheGet(b *testing.B) {
	c, err := newCache(256 << 20)
	if err != nil {
		b.Fatal(err)
	}
	defer c.close()
	p := make([]byte, 1<<20)
	number := c.number()
	for off := int64(0); off < 32<<20; off += int64(len(p)) {
		var t cacheTicket
		c.reading(number, off, int64(len(p)), &t)
		c.keep(number, p, off, &t)
	}
	b.SetBytes(int64(len(p)))
	for off := int64(0); b.Loop(); off = (off + int64(len(p))) % (32 << 20) {
		if !c.get(number, p, off) {
			b.Fatal("not kept")
		}
	}
}

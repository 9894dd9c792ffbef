package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// proved is a host with a replica, whose files can be damaged.
type proved struct {
	*host
	s    peer.Session
	spec peer.Spec
	seq  peer.Seq
}

func newProved(t *testing.T) *proved {
	p := &proved{host: newHost(t, 1)}
	p.s = p.open(1)
	p.spec = p.host.spec(0)
	must(t, p.s, peer.Command{Kind: peer.Create, Spec: p.spec})
	return p
}

func (p *proved) path(name string) string {
	return filepath.Join(p.pools[0], dirReplicas, p.spec.Volume.String(), name)
}

func (p *proved) write(off int64, b []byte) {
	p.t.Helper()
	p.seq++
	must(p.t, p.s, write(p.spec.Volume, off, b, p.seq))
}

func (p *proved) read(off, n int64) ([]byte, error) {
	p.t.Helper()
	b := make([]byte, n)
	return b, do(p.t, p.s, peer.Command{Kind: peer.Read, Volume: p.spec.Volume, Off: off, Len: n, Data: b}).Err
}

func (p *proved) bad(off, n int64) {
	p.t.Helper()
	if _, err := p.read(off, n); !errors.Is(err, peer.ErrMedium) {
		p.t.Fatalf("%d bytes at %d: %v", n, off, err)
	}
}

func (p *proved) good(off int64, want []byte) {
	p.t.Helper()
	if b, err := p.read(off, int64(len(want))); err != nil || !bytes.Equal(b, want) {
		p.t.Fatalf("%d bytes at %d: %v", len(want), off, err)
	}
}

func (p *proved) clear() {
	p.t.Helper()
	var list []peer.RegionSeq
	for r := range regionsOf(p.spec) {
		list = append(list, peer.RegionSeq{Region: r, Seq: p.seq})
	}
	must(p.t, p.s, peer.Command{Kind: peer.Clear, Volume: p.spec.Volume, Regions: list})
}

func (p *proved) active() int {
	p.t.Helper()
	return len(must(p.t, p.s, peer.Command{Kind: peer.ReadMap, Volume: p.spec.Volume}).Active)
}

func (p *proved) again() { p.t.Helper(); p.restart(); p.s = p.open(p.node.Accepted() + 1) }

// damage xors bytes of a file.
func (p *proved) damage(name string, off int64, x byte, n int) {
	p.t.Helper()
	f, err := os.OpenFile(p.path(name), os.O_RDWR, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		p.t.Fatal(err)
	}
	for i := range b {
		b[i] ^= x
	}
	if _, err := f.WriteAt(b, off); err != nil {
		p.t.Fatal(err)
	}
	if err := f.Sync(); err != nil { // past direct I/O
		p.t.Fatal(err)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	r.Read(b)
	return b
}

// TestFlippedBits: they are noticed by reads of any length, before and after a restart, until the block is written as a whole.
func TestFlippedBits(t *testing.T) {
	p := newProved(t)
	data := random(1 << 20)
	p.write(448<<10-8192, data) // two leaves
	p.good(448<<10-8192, data)
	p.clear()
	p.again()
	for _, block := range []int64{448<<10 - 4096, 448 << 10} {
		p.damage(fileData, block+1234, 1, 1)
		p.bad(block, 4096)
		p.bad(block+512, 512) // which is not in the sector that was damaged
		p.bad(448<<10-8192, 1<<20)
		p.good(block-4096, data[block-4096-(448<<10-8192):][:4096])
		// To write another part of it does not make it good.
		p.write(block+1536, make([]byte, 512))
		p.bad(block, 512)
		p.clear()
		p.again()
		p.bad(block, 4096)
		p.write(block, data[block-(448<<10-8192):][:4096])
		p.good(448<<10-8192, data)
	}
	// What is active at a restart is not known, and learnt when it is read.
	p.again()
	p.good(448<<10-8192, data)
	p.damage(fileData, 448<<10+1, 0x80, 1)
	p.bad(448<<10, 4096)
}

// TestHints: what the file says of a region that was active when the process ended proves nothing, and is not forgotten: of
// two members that differ, the one is believed that it does not speak against.
func TestHints(t *testing.T) {
	p := newProved(t)
	data := random(256 << 10)
	p.write(0, data)
	p.again()
	p.damage(fileData, 70000, 1, 1)
	proved := func(off int64) error {
		b := make([]byte, 4096)
		return do(t, p.s, peer.Command{Kind: peer.Read, Volume: p.spec.Volume, Off: off, Len: 4096, Data: b, Proved: true}).Err
	}
	for range 2 {
		if err := proved(70000 / 4096 * 4096); !errors.Is(err, peer.ErrMedium) {
			t.Fatal(err)
		}
		if err := proved(0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.read(0, 256<<10); err != nil {
		t.Fatal("what may be an unfinished write is refused: ", err)
	}
}

// TestSums: the sums of a range, without its data, and only if it is proved.
func TestSums(t *testing.T) {
	p := newProved(t)
	end := p.spec.Size - 512
	p.write(end-4096, random(4608)) // the last block has 512 bytes
	a := must(t, p.s, peer.Command{Kind: peer.Sums, Volume: p.spec.Volume, Off: end - 4096, Len: 4608})
	if b := random(4608); len(a.Sums) != 2 || a.Sums[0] != crc32.Checksum(b[:4096], castagnoli()) || a.Sums[1] != crc32.Checksum(b[4096:], castagnoli()) {
		t.Fatalf("%x", a.Sums)
	}
	for _, c := range [][2]int64{{512, 4096}, {4096, 512}, {0, 16 << 20}} {
		if a := do(t, p.s, peer.Command{Kind: peer.Sums, Volume: p.spec.Volume, Off: c[0], Len: c[1]}); !errors.Is(a.Err, peer.ErrInvalid) {
			t.Fatal(c, a.Err)
		}
	}
	p.damage(fileData, end-4096, 1, 1)
	if a := do(t, p.s, peer.Command{Kind: peer.Sums, Volume: p.spec.Volume, Off: end - 4096, Len: 4608}); !errors.Is(a.Err, peer.ErrMedium) || a.Sums != nil {
		t.Fatal(a)
	}
}

// TestLostBlock: a block that reads as zeros and should not is noticed, and does not pass for a hole.
func TestLostBlock(t *testing.T) {
	p := newProved(t)
	p.write(3<<20, random(64<<10))
	p.clear()
	f, err := os.OpenFile(p.path(fileData), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := (&osFile{f: f}).zero(3<<20+8192, 4096); err != nil {
		t.Fatal(err)
	}
	p.bad(3<<20+8192, 4096)
	got := must(t, p.s, peer.Command{Kind: peer.Extents, Volume: p.spec.Volume, Len: p.spec.Size}).Extents
	for _, x := range got {
		if x.Off <= 3<<20+8192 && x.Off+x.Len >= 3<<20+12288 {
			return
		}
	}
	t.Fatalf("it passes for a hole: %v", got)
}

// TestZeros: what was never written, or unmapped, reads as zeros, and what should be zeros and is not is noticed beside data.
func TestZeros(t *testing.T) {
	p := newProved(t)
	end := p.spec.Size - 1024 // the last block is shorter
	p.good(50<<20, make([]byte, 1<<20))
	p.good(end, make([]byte, 1024))
	p.write(end, random(1024))
	p.write(8192, random(8192))
	p.seq++
	must(t, p.s, peer.Command{Kind: peer.Zero, Volume: p.spec.Volume, Off: 8192 + 512, Len: p.spec.Size - 8192 - 1024, Seq: p.seq})
	p.good(16384, make([]byte, 4096))
	p.good(8192, random(8192)[:512])
	p.good(p.spec.Size-512, random(1024)[512:])
	p.clear()
	p.again()
	p.good(8192+512, make([]byte, 1<<20))
	p.damage(fileData, 12288, 4, 1)
	p.bad(12288, 512)
	p.damage(fileData, p.spec.Size-1, 4, 1)
	p.bad(p.spec.Size-512, 512)
	if st, err := os.Stat(p.path(fileSums)); err != nil || st.Sys().(*syscall.Stat_t).Blocks*512 > 64<<10 {
		t.Fatalf("unmapping all of it takes %+v", st)
	}
}

// TestNoSums: data never depend on the file of sums. Without one that can be used they are not known, and none is guessed.
func TestNoSums(t *testing.T) {
	p := newProved(t)
	data := random(64 << 10)
	for name, spoil := range map[string]func() error{
		"made by an older version": func() error { return os.Remove(p.path(fileSums)) },
		"short":                    func() error { return os.Truncate(p.path(fileSums), 4096) },
		"empty":                    func() error { return os.Truncate(p.path(fileSums), 0) },
		"a damaged head":           func() error { p.damage(fileSums, 20, 1, 1); return nil },
		"a damaged leaf":           func() error { p.damage(fileSums, 4096+512*2+100, 1, 1); return nil },
	} {
		p.write(1<<20, data)
		p.clear()
		if p.active() != 0 {
			t.Fatal(name)
		}
		p.node.Close()
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		p.damage(fileData, 1<<20+100, 1, 1) // nobody can know
		p.start()
		p.s = p.open(p.node.Accepted() + 1)
		if _, err := p.read(1<<20, 4096); err != nil {
			t.Fatal(name, err)
		}
		p.damage(fileData, 1<<20+100, 1, 1)
		p.bad(1<<20, 4096) // it was learnt
		p.write(1<<20, data)
		p.damage(fileData, 1<<20+100, 1, 1)
		p.bad(1<<20, 4096)
	}
	p.node.Close()
	b, err := os.ReadFile(p.path(fileSums))
	if err != nil {
		t.Fatal(err)
	}
	b[11]++
	binary.BigEndian.PutUint32(b[4092:], crc32.Checksum(b[:4092], castagnoli()))
	if err := os.WriteFile(p.path(fileSums), b, 0); err != nil {
		t.Fatal(err)
	}
	p.start()
	if r := p.node.pools[0].find(p.spec.Volume); !errors.Is(r.foreign, ErrVersion) {
		t.Fatal("a newer version is not refused: ", r.foreign)
	}
}

// TestClearAndWrite: a region that is written while its sums are made durable stays active, whatever its Seq.
func TestClearAndWrite(t *testing.T) {
	p := newProved(t)
	p.write(0, random(4096))
	p.write(1<<20, random(4096))
	r := p.node.pools[0].find(p.spec.Volume)
	list, id, err := r.settle([]peer.RegionSeq{{Region: 0, Seq: 9}, {Region: 1, Seq: 9}, {Region: 2, Seq: 9}})
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	must(t, p.s, write(p.spec.Volume, 0, random(8192), 1)) // no higher Seq
	if list = r.settled(list, id); len(list) != 1 || list[0].Region != 1 || len(r.clearing) != 0 {
		t.Fatal(list, r.clearing)
	}
}

// badFile is a file of sums whose disk fails.
type badFile struct {
	file
	reads, writes, flushes error
	small                  error // writes of less than a page
}

func (f *badFile) readAt(b []byte, off int64) error {
	if f.reads != nil {
		return f.reads
	}
	return f.file.readAt(b, off)
}

func (f *badFile) writeAt(b []byte, off int64) error {
	if f.writes != nil {
		return f.writes
	}
	if len(b) < blockSize && f.small != nil {
		return f.small
	}
	return f.file.writeAt(b, off)
}

func (f *badFile) flush() error {
	if f.flushes != nil {
		return f.flushes
	}
	return f.file.flush()
}

// TestSumsDiskFails: I/O goes on, what is not known is not believed, and no region becomes clean whose sums are not durable.
func TestSumsDiskFails(t *testing.T) {
	p := newProved(t)
	r := p.node.pools[0].find(p.spec.Volume)
	f := &badFile{file: r.sums.f}
	r.sums.f = f
	old, data := random(4096), random(8192)
	p.write(0, old)
	p.clear()
	f.writes = syscall.ENOSPC
	p.write(0, data)
	p.good(0, data)
	p.clear()
	if p.active() != 1 {
		t.Fatal("a region is clean, and its sums are the old ones")
	}
	f.writes = nil
	p.good(0, data) // learnt
	p.clear()
	if p.active() != 0 {
		t.Fatal("a region stays active whose sums are durable")
	}
	p.damage(fileData, 0, 1, 1)
	p.bad(0, 512)
	f.reads, f.small = syscall.EIO, syscall.EIO // a page that cannot be read is written as a whole
	p.write(0, data)
	f.reads = nil
	p.damage(fileData, 0, 1, 1)
	p.bad(0, 512)
	p.write(0, data)
	f.small, f.flushes = nil, syscall.EIO
	if a := do(t, p.s, peer.Command{Kind: peer.Clear, Volume: p.spec.Volume, Regions: []peer.RegionSeq{{Region: 0, Seq: p.seq}}}); !errors.Is(a.Err, peer.ErrMedium) {
		t.Fatal(a.Err)
	}
	f.flushes = nil
	p.good(0, data)
	p.clear() // it is not tried again
	if p.active() != 1 {
		t.Fatal("a region is clean after its sums could not be flushed")
	}
	p.again()
	p.good(0, data)
	p.clear()
	if p.active() != 0 {
		t.Fatal("opened anew, and still active")
	}
}

// TestSumsFullPool: a replica of an older version in a pool that has no room for sums works without.
func TestSumsFullPool(t *testing.T) {
	m := newMachine(1)
	m.d.stop = 1 << 30
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
	spec := peer.Spec{Volume: ids.Volume{1}, Lineage: ids.Lineage{1}, Pool: m.pool, Size: crashSize, Region: crashRegion}
	if err := errors.Join(m.call(peer.Command{Kind: peer.Create, Spec: spec}).Err, m.call(write(spec.Volume, 0, random(4096), 1)).Err); err != nil {
		t.Fatal(err)
	}
	m.node.Close()
	dir := "/pool/replicas/" + spec.Volume.String()
	if err := m.d.removeAll(dir + "/" + fileSums); err != nil {
		t.Fatal(err)
	}
	m.d.full = true
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4096)
	if err := m.call(peer.Command{Kind: peer.Read, Volume: spec.Volume, Len: 4096, Data: got}).Err; err != nil || !bytes.Equal(got, random(4096)) {
		t.Fatal(err)
	}
	if err := m.call(peer.Command{Kind: peer.Clear, Volume: spec.Volume, Regions: []peer.RegionSeq{{Region: 0, Seq: 1}}}).Err; err != nil {
		t.Fatal(err)
	}
	if a := m.call(peer.Command{Kind: peer.ReadMap, Volume: spec.Volume}).Active; len(a) != 1 {
		t.Fatal("a region is clean, and nothing is known of it: ", a)
	}
	m.node.Close()
}

// BenchmarkSums is what the sums of one command cost.
func BenchmarkSums(b *testing.B) {
	for _, n := range []int{4096, 256 << 10} {
		s, spec := benchReplica(b, 1<<20)
		r := s.(*Session).node.pools[0].find(spec.Volume)
		data := random(n)
		for off := int64(0); off < benchSize; off += int64(n) {
			r.sums.put(off/sumBlock, data)
		}
		name := map[int]string{4096: "4K", 256 << 10: "256K"}[n]
		b.Run("write"+name, func(b *testing.B) {
			data = random(n)
			for i := range b.N {
				data[0] = byte(i)
				r.sums.put(rand.Int64N(benchSize/int64(n))*int64(n)/sumBlock, data)
			}
		})
		for off := int64(0); off < benchSize; off += int64(n) {
			r.sums.put(off/sumBlock, data)
		}
		b.Run("read"+name, func(b *testing.B) {
			for range b.N {
				if _, bad := r.sums.check(rand.Int64N(benchSize/int64(n))*int64(n)/sumBlock, data, false); bad > 0 {
					b.Fatal("it differs")
				}
			}
		})
	}
}

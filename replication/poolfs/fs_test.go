package poolfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"pmsapp/internal/sim"
)

func made(t testing.TB, size int64, inline bool) (*simDevice, *FS) {
	t.Helper()
	d := newSimDevice(1, size)
	if err := Format(d, testLayout(size), Options{}); err != nil {
		t.Fatal(err)
	}
	fs, err := Open(d, Options{Inline: inline})
	if err != nil {
		t.Fatal(err)
	}
	return d, fs
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func created(t testing.TB, fs *FS, name string, size int64) *File {
	t.Helper()
	ok(t, fs.Create(name, size, false))
	f, err := fs.Open(name, 512)
	ok(t, err)
	return f
}

// TestDamagedLog damages each sector of the log in turn: nothing goes back to an older state, or is guessed.
func TestDamagedLog(t *testing.T) {
	d, fs := made(t, testSize, true)
	f := created(t, fs, "/f", 40*testUnit)
	for i := range 12 {
		ok(t, f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, testUnit), int64(i)*testUnit))
		ok(t, f.Flush())
	}
	refused := 0
	for i := range 2 * fs.l.sectors() {
		for _, how := range []string{"flip", "zero", "lost"} {
			c := newSimDevice(1, testSize)
			c.f = d.f.Clone()
			off := fs.l.area(0) + int64(i)*sectorSize
			b := bytes.Clone(c.f.Read(off, sectorSize))
			before := bytes.Clone(b)
			switch how {
			case "flip":
				b[(i*37)%sectorSize] ^= 1 << (i % 8)
			case "zero":
				clear(b)
			case "lost": // what the sector before has
				copy(b, c.f.Read(off-sectorSize, sectorSize))
			}
			if bytes.Equal(b, before) {
				continue
			}
			c.f.Write(off, b)
			c.f.Flush().Done()
			g, err := Open(c, Options{Inline: true})
			if errors.Is(err, ErrDamaged) {
				refused++
				continue
			}
			ok(t, err)
			h, err := g.Open("/f", 512)
			if err != nil {
				t.Fatalf("sector %d, %s: %v", i, how, err)
			}
			last := i%fs.l.sectors() >= fs.log.at-perBlock && i%fs.l.sectors() < fs.log.at
			for k := range 12 {
				got := make([]byte, testUnit)
				ok(t, h.ReadAt(got, int64(k)*testUnit))
				if got[0] != byte(k+1) && !(last && how != "flip" && k == 11) { // as torn as one that was never answered
					t.Fatalf("sector %d, %s: unit %d reads as %d", i, how, k, got[0])
				}
			}
		}
	}
	if refused < 12*perBlock {
		t.Errorf("only %d times was the device refused", refused)
	}
}

// TestLateReader has a reader in a unit that is given up and wanted by another file.
func TestLateReader(t *testing.T) {
	d, fs := made(t, testSize, true)
	f := created(t, fs, "/f", testUnit)
	ok(t, f.WriteAt(bytes.Repeat([]byte{1}, testUnit), 0))
	ok(t, f.Flush())
	in, out := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d.hold = func() { once.Do(func() { close(in); <-out }) }
	var got [testUnit]byte
	var work sync.WaitGroup
	work.Go(func() {
		if err := f.ReadAt(got[:], 0); err != nil {
			t.Error(err)
		}
	})
	<-in
	ok(t, f.Zero(0, testUnit))
	ok(t, f.Flush())
	all := int64(fs.l.Units)
	g := created(t, fs, "/g", all*testUnit)
	full := bytes.Repeat([]byte{2}, testUnit)
	for i := range all - 1 {
		ok(t, g.WriteAt(full, i*testUnit))
	}
	work.Go(func() { // the last unit is the reader's
		if err := g.WriteAt(full, (all-1)*testUnit); err != nil {
			t.Error(err)
		}
	})
	close(out)
	work.Wait()
	if got[0] != 1 {
		t.Errorf("it read %d", got[0])
	}
	if err := fs.consistent(); err != nil {
		t.Error(err)
	}
}

// TestFull fills the device, and gives space back.
func TestFull(t *testing.T) {
	_, fs := made(t, testSize, true)
	f := created(t, fs, "/f", 1<<30)
	ok(t, fs.Create("/kept", 3*testUnit, true))
	n := int64(0)
	for ; ; n++ {
		if err := f.WriteAt(make([]byte, testUnit), n*testUnit); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n != int64(fs.l.Units)-3 {
		t.Errorf("%d of %d units were to be had", n, fs.l.Units)
	}
	kept, err := fs.Open("/kept", 512)
	ok(t, err)
	ok(t, kept.WriteAt(make([]byte, 3*testUnit), 0)) // its space is reserved
	ok(t, f.Zero(0, 2*testUnit))
	ok(t, f.WriteAt(make([]byte, testUnit), n*testUnit))
	if _, free := fs.Usage(); free != testUnit {
		t.Errorf("%d bytes are free", free)
	}
	ok(t, fs.RemoveAll("/f"))
	if size, free := fs.Usage(); free != size-3*testUnit {
		t.Errorf("%d of %d bytes are free", free, size)
	}
	for i := 0; ; i++ { // names have a limit, too
		if err := fs.Create(fmt.Sprintf("/%0200d", i), 0, false); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	ok(t, fs.Sync())
	ok(t, fs.Close())
}

// TestConcurrent has many files written, read, punched and removed at once, with what happens beside them.
func TestConcurrent(t *testing.T) {
	defer goleak.VerifyNone(t)
	d, fs := made(t, 2*testSize, false)
	const size = 60 * testUnit
	var work sync.WaitGroup
	for w := range 8 {
		work.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			name := fmt.Sprintf("/f%d", w)
			for range 6 {
				if err := concurrent(fs, rnd, name, size); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	work.Wait()
	ok(t, fs.Close())
	fs, err := Open(d, Options{Inline: true})
	ok(t, err)
	ok(t, fs.consistent())
	if size, free := fs.Usage(); size != free {
		t.Errorf("%d of %d bytes are free", free, size)
	}
}

func concurrent(fs *FS, rnd *rand.Rand, name string, size int64) error {
	if err := fs.Create(name, size, false); err != nil {
		return err
	}
	f, err := fs.Open(name, []int{1, 512}[rnd.IntN(2)])
	if err != nil {
		return err
	}
	want := make([]byte, size)
	for range 120 {
		off := rnd.Int64N(size/512) * 512
		n := 512 * (1 + rnd.Int64N(min(size-off, 6*testUnit)/512))
		if rnd.IntN(3) == 0 {
			clear(want[off : off+n])
			err = f.Zero(off, n)
		} else {
			for i := off; i < off+n; i += 8 {
				binary.BigEndian.PutUint64(want[i:], rnd.Uint64())
			}
			if err = f.WriteAt(want[off:off+n], off); errors.Is(err, syscall.ENOSPC) {
				err = f.ReadAt(want[off:off+n], off)
			}
		}
		if err == nil && rnd.IntN(4) == 0 {
			err = f.Flush()
		}
		got := make([]byte, n)
		if err == nil {
			err = f.ReadAt(got, off)
		}
		if err == nil && !bytes.Equal(got, want[off:off+n]) {
			err = errors.New("it reads as something else")
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(f.Close(), fs.RemoveAll(name))
}

// TestProbe tells blank devices from others.
func TestProbe(t *testing.T) {
	for at, want := range map[int64]error{-1: ErrBlank, 0: ErrOccupied, 510: ErrOccupied, start - 1: ErrOccupied, start: ErrBlank,
		testSize - start - 1: ErrBlank, testSize - start: ErrOccupied, testSize - 1: ErrOccupied} {
		d := newSimDevice(1, testSize)
		if at >= 0 {
			d.f.Write(at, []byte{1})
		}
		if _, err := Probe(d); !errors.Is(err, want) {
			t.Errorf("a byte at %d: %v", at, err)
		}
	}
	for _, s := range signatures {
		b := make([]byte, start)
		copy(b[s.at:], s.text)
		if got := signature(b); got != s.name {
			t.Errorf("%s is called %q", s.name, got)
		}
	}
	if _, err := Probe(newSimDevice(1, start)); !errors.Is(err, ErrTooSmall) {
		t.Error(err)
	}
	d, fs := made(t, testSize, true)
	small := newSimDevice(1, fs.l.size()-512)
	small.f.Write(0, d.f.Read(0, small.Size()))
	if _, err := Open(small, Options{Inline: true}); !errors.Is(err, ErrTooSmall) {
		t.Errorf("a device that became smaller: %v", err)
	}
	newer := fs.l.encode()
	binary.BigEndian.PutUint32(newer[8:], version+1)
	binary.BigEndian.PutUint32(newer[blockSize-4:], crc(newer[:blockSize-4]))
	d.f.Write(0, newer)
	if _, err := Open(d, Options{Inline: true}); !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
}

// FuzzLayout reads any superblock: what is accepted can be used.
func FuzzLayout(f *testing.F) {
	for _, size := range []int64{16 << 20, 1 << 30, 64 << 40} {
		l, err := Standard(size)
		ok(f, err)
		f.Add(l.encode()[16:44])
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		b := Layout{}.encode()
		copy(b[16:44], content)
		binary.BigEndian.PutUint32(b[blockSize-4:], crc(b[:blockSize-4]))
		l, err := decodeLayout(b)
		if err != nil {
			return
		}
		if l.room() <= 0 || l.size() <= 0 || l.area(1)+l.Area > l.Data {
			t.Errorf("%+v was accepted", l)
		}
		if got, err := decodeLayout(l.encode()); err != nil || got != l {
			t.Errorf("%+v is read as %+v, %v", l, got, err)
		}
	})
}

// FuzzArea replays any batches: what is accepted is whole, and comes back from its checkpoint.
func FuzzArea(f *testing.F) {
	l := testLayout(testSize)
	s := newState(l)
	rnd := sim.NewRand(1)
	var log []byte
	for i := range 60 {
		o := op{kind: opKind(1 + rnd.Intn(6)), id: uint32(2 + rnd.Intn(10)), parent: uint32(1 + rnd.Intn(3)), name: fmt.Sprint("n", i%7), dir: i%5 == 0,
			unit: uint32(rnd.Intn(8)), at: uint32(rnd.Intn(100)), count: uint32(rnd.Intn(4))}
		if !o.dir {
			o.size = int64(rnd.Intn(20)) * 512
		}
		if _, err := s.apply(o); err == nil {
			log = o.append(log)
		}
	}
	f.Add(log)
	f.Add(s.checkpoint())
	f.Fuzz(func(t *testing.T, ops []byte) {
		b := append(putSectors(attempt{3, 4}, 0, ops), putSectors(attempt{3, 4}, 1, nil)...)
		n := len(b) / sectorSize
		a, err := readArea(n, func(i int) ([]byte, error) { return b[i*sectorSize : (i+1)*sectorSize], nil })
		if err != nil || a.state != areaWhole || !bytes.Equal(a.batches[0], ops) {
			t.Fatalf("a batch of %d bytes: %v, %s", len(ops), err, a.why)
		}
		s, err := replay(l, [][]byte{ops})
		if err != nil {
			return
		}
		all := s.checkpoint()
		again, err := replay(l, [][]byte{all})
		if err != nil || !bytes.Equal(again.checkpoint(), all) || again.used.count != s.used.count || again.names != s.names {
			t.Fatalf("a checkpoint does not come back: %v", err)
		}
	})
}

// FuzzSectors reads any bytes as an area.
func FuzzSectors(f *testing.F) {
	f.Add(putSectors(attempt{1, 2}, 0, []byte("abc")))
	f.Add(append(putSectors(attempt{1, 2}, 0, nil), putSectors(attempt{1, 2}, 2, nil)...))
	f.Add(putSectors(attempt{1, 2}, givenUp, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := len(b) / sectorSize
		if n == 0 {
			return
		}
		for i := range n { // checksums that fit
			s := b[i*sectorSize : (i+1)*sectorSize]
			binary.BigEndian.PutUint32(s[sectorSize-4:], crc(s[:sectorSize-4]))
		}
		a, err := readArea(n, func(i int) ([]byte, error) { return b[i*sectorSize : (i+1)*sectorSize], nil })
		if err != nil || (a.state == areaWhole) != (len(a.batches) > 0 && a.state != areaDamaged) {
			t.Fatalf("%+v, %v", a, err)
		}
	})
}

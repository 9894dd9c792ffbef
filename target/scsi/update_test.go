package scsi_test

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"

	"pmsapp/internal/block"
	"pmsapp/target"
)

func TestOrWrite(t *testing.T) {
	r := newRig(t)
	r.good(r.do(rw16(0x8a, 0, 5, 3), fill(3*512, 0x0f), 0))
	bits := append(append(fill(512, 0x10), fill(512, 0)...), fill(512, 0x83)...)
	r.good(r.do(rw16(0x8b, 0x08, 5, 3), bits, 0))
	want := append(append(fill(512, 0x1f), fill(512, 0x0f)...), fill(512, 0x8f)...)
	if got := r.dev.Bytes(5*512, 3*512); !bytes.Equal(got, want) {
		t.Error("ORWRITE has written something else")
	}
	if got := r.dev.Bytes(0, 5*512); !bytes.Equal(got, make([]byte, 5*512)) || r.dev.Bytes(8*512, 1)[0] != 0 {
		t.Error("ORWRITE has written outside its range")
	}
	writes := r.dev.Writes()
	r.good(r.do(rw16(0x8b, 0, 5, 0), nil, 0))
	r.sense(r.do(rw16(0x8b, 0x20, 5, 1), fill(512, 1), 0), illegalRequest, 0x2400)
	r.sense(r.do(rw16(0x8b, 0, devSize/512, 1), fill(512, 1), 0), illegalRequest, 0x2100)
	if r.dev.Writes() != writes {
		t.Error("a command that was refused has written")
	}
}

// caw is COMPARE AND WRITE.
func caw(lba uint64, n byte) []byte {
	c := cdb(0x89)
	binary.BigEndian.PutUint64(c[2:], lba)
	c[13] = n
	return c
}

func TestCompareAndWrite(t *testing.T) {
	r := newRig(t)
	r.good(r.do(rw16(0x8a, 0, 7, 2), fill(1024, 1), 0))
	r.good(r.do(caw(7, 2), append(fill(1024, 1), fill(1024, 2)...), 0))
	if got := r.dev.Bytes(7*512, 1024); !bytes.Equal(got, fill(1024, 2)) {
		t.Error("what matched was not written")
	}
	writes := r.dev.Writes()
	differs := fill(2048, 2)
	differs[1000], differs[1010] = 9, 9
	w := r.do(caw(7, 2), differs, 0)
	r.sense(w, 0xe, 0x1d00)
	if w.Sense[0] != 0xf0 || binary.BigEndian.Uint32(w.Sense[3:]) != 1000 {
		t.Errorf("sense %x does not tell that byte 1000 differs first", w.Sense)
	}
	r.good(r.do(caw(7, 0), nil, 0))
	r.sense(r.do(caw(7, 2), fill(1024, 2), 0), illegalRequest, 0x2400) // half of the data
	r.sense(r.do(caw(7, 9), fill(9*1024, 2), 0), illegalRequest, 0x2400)
	r.sense(r.do(caw(devSize/512, 1), fill(1024, 2), 0), illegalRequest, 0x2100)
	if r.dev.Writes() != writes {
		t.Error("a command that was refused has written")
	}
	if b := r.good(r.do(cdb(0x12, 1, 0xb0, 0, 64), nil, 64)); b[5] != 8 {
		t.Errorf("VPD page B0h says %d blocks", b[5])
	}
	r.dev.Fail(func(*block.Request) error { return block.ErrHeld })
	if w := r.do(caw(7, 1), fill(1024, 2), 0); w.Status != 8 {
		t.Errorf("status %x, want BUSY", w.Status)
	}
}

// TestCompareAndWriteRace: of many nexuses that compare with the same block and write their own, exactly one wins each time.
func TestCompareAndWriteRace(t *testing.T) {
	r := newRig(t)
	const racers, rounds = 8, 200
	start, won := make([]sync.WaitGroup, rounds), make([]int, rounds)
	var mu sync.Mutex
	var work sync.WaitGroup
	for i := range start {
		start[i].Add(racers)
	}
	for i := range racers {
		work.Add(1)
		go func() {
			defer work.Done()
			q := *r
			q.nexus = r.target.Nexus(target.Login{})
			defer q.nexus.End(nil)
			q.attention(0x2900)
			for j := range rounds {
				start[j].Done()
				start[j].Wait()
				mu.Lock()
				had := r.dev.Bytes(int64(j)*512, 512)
				mu.Unlock()
				if had[0] != 0 {
					had = make([]byte, 512) // somebody was quicker
				}
				w, ended := q.start(caw(uint64(j), 1), append(had, fill(512, byte(i+1))...), 0)
				<-ended // it may wait for another's
				if w.Status == 0 {
					mu.Lock()
					won[j]++
					mu.Unlock()
				}
			}
		}()
	}
	work.Wait()
	for j, n := range won {
		if n != 1 {
			t.Fatalf("round %d has %d winners", j, n)
		}
	}
}

func TestLBAStatus(t *testing.T) {
	r := newRig(t)
	status := func(lba uint64, allocation uint32) (out [][3]uint64) {
		t.Helper()
		b := r.good(r.do(rw16(0x9e, 0x12, lba, allocation), nil, int64(allocation)))
		if n := int(binary.BigEndian.Uint32(b)) + 4; len(b) != min(n, int(allocation)) {
			t.Errorf("%d bytes of %d", len(b), n)
		}
		for d := b[8:]; len(d) > 0; d = d[16:] {
			out = append(out, [3]uint64{binary.BigEndian.Uint64(d), uint64(binary.BigEndian.Uint32(d[8:])), uint64(d[12])})
		}
		return out
	}
	expect := func(got [][3]uint64, want ...[3]uint64) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%v, want %v", got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%v, want %v", got, want)
			}
		}
	}
	expect(status(0, 4096), [3]uint64{0, devSize / 512, 1})
	r.good(r.do(rw16(0x8a, 0, 19, 2), fill(1024, 1), 0))
	expect(status(0, 4096), [3]uint64{0, 16, 1}, [3]uint64{16, 8, 0}, [3]uint64{24, devSize/512 - 24, 1})
	expect(status(20, 24), [3]uint64{20, 4, 0})
	r.good(r.do(cdb(0x42, 0, 0, 0, 0, 0, 0, 0, 24), unmapList(16, 8), 0))
	expect(status(16, 4096), [3]uint64{16, devSize/512 - 16, 1})
	for i := range uint64(400) { // more than an answer has room for
		r.good(r.do(rw16(0x8a, 0, i*16, 1), fill(512, 1), 0))
	}
	if got := status(0, 1<<20); len(got) != (4096-8)/16 || got[0] != [3]uint64{0, 8, 0} || got[1] != [3]uint64{8, 8, 1} {
		t.Errorf("%d descriptors, %v", len(got), got[:2])
	}
	r.sense(r.do(rw16(0x9e, 0x12, devSize/512, 24), nil, 24), illegalRequest, 0x2100)
}

func TestPrefetch(t *testing.T) {
	r := newRig(t)
	r.good(r.do(rw10(0x34, 2, 0, 8), nil, 0))
	r.good(r.do(rw16(0x90, 0, devSize/512-1, 1), nil, 0))
	r.sense(r.do(rw16(0x90, 0, devSize/512-1, 2), nil, 0), illegalRequest, 0x2100)
	r.sense(r.do(rw10(0x34, 0, devSize/512, 0), nil, 0), illegalRequest, 0x2100)
}

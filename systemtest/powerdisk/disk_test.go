package powerdisk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// program builds the server of disks.
func program(t *testing.T) string {
	t.Helper()
	if err := Usable(); err != nil {
		t.Skip(err)
	}
	bin := filepath.Join(t.TempDir(), "serve")
	if out, err := exec.Command("go", "build", "-o", bin, "./serve").CombinedOutput(); err != nil {
		t.Fatalf("building the disks' server: %v: %s", err, out)
	}
	return bin
}

func newDisk(t *testing.T, c Config) *Disk {
	t.Helper()
	if c.Size == 0 {
		c.Size = 64 << 20
	}
	c.Dir = filepath.Join(t.TempDir(), "disk")
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// cycle is a failure of power and its return.
func cycle(t *testing.T, d *Disk) Loss {
	t.Helper()
	if err := d.Freeze(); err != nil {
		t.Fatal(err)
	}
	l, err := d.Cut()
	if err == nil {
		err = d.On()
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestFlush writes to the block device: a flush of the device reaches the disk, whichever I/O the loop device uses, and only what was
// not flushed is lost.
func TestFlush(t *testing.T) {
	bin := program(t)
	for _, buffered := range []bool{false, true} {
		lost, kept := 0, 0
		d := newDisk(t, Config{Server: bin, Seed: 3, Buffered: buffered})
		for round := range 12 {
			f, err := os.OpenFile(d.Device(), os.O_RDWR|unix.O_DIRECT, 0)
			if err != nil {
				t.Fatal(err)
			}
			b := alignedBuffer(64 << 10)
			put := func(with byte, off int64) {
				t.Helper()
				for i := range b {
					b[i] = with
				}
				if _, err := f.WriteAt(b, off); err != nil {
					t.Fatal(err)
				}
			}
			before := counts(t, d)
			put(byte(round+1), 0)
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			if c := counts(t, d); c.Flushes == before.Flushes || c.Pending != 0 || c.Writes == before.Writes {
				t.Fatalf("buffered %v: %+v, then %+v: the flush did not arrive", buffered, before, c)
			}
			put(byte(round+101), 1<<20)
			if c := counts(t, d); c.Pending == 0 {
				t.Fatalf("the write did not arrive: %+v", c)
			}
			f.Close()
			l := cycle(t, d)
			if f, err = os.OpenFile(d.Device(), os.O_RDONLY|unix.O_DIRECT, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(round + 1)}, len(b))) {
				t.Fatalf("buffered %v: what was flushed is lost: %v (%v)", buffered, l, err)
			}
			if _, err := f.ReadAt(b, 1<<20); err != nil {
				t.Fatal(err)
			}
			new := bytes.Count(b, []byte{byte(round + 101)}) / sectorSize
			lost, kept = lost+l.Sectors-new, kept+new
			f.Close()
		}
		if lost == 0 || kept == 0 {
			t.Errorf("buffered %v: %d sectors were lost and %d kept", buffered, lost, kept)
		}
		t.Logf("buffered %v: %d sectors lost, %d kept", buffered, lost, kept)
	}
}

// TestFiles: ext4 is right after each failure of power. A program that flushes loses nothing; one that does not loses something.
func TestFiles(t *testing.T) {
	d := newDisk(t, Config{Server: program(t), Seed: 5})
	if err := d.Format(); err != nil {
		t.Fatal(err)
	}
	content := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, 20000) }
	lost := 0
	for round := 1; round <= 8; round++ {
		safe, unsafe := filepath.Join(d.Mount, fmt.Sprint("safe", round)), filepath.Join(d.Mount, fmt.Sprint("unsafe", round))
		for path, sync := range map[string]bool{safe: true, unsafe: false} {
			f, err := os.Create(path)
			if err == nil {
				_, err = f.Write(content(round))
			}
			if err == nil && sync {
				err = f.Sync()
			}
			if err != nil {
				t.Fatal(err)
			}
			if sync {
				dir, err := os.Open(d.Mount)
				if err == nil {
					err = errors.Join(dir.Sync(), dir.Close())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			f.Close()
		}
		l := cycle(t, d)
		if err := d.Check(); err != nil {
			t.Fatalf("round %d: %v: the file system is broken: %v", round, l, err)
		}
		for n := 1; n <= round; n++ {
			if b, err := os.ReadFile(filepath.Join(d.Mount, fmt.Sprint("safe", n))); err != nil || !bytes.Equal(b, content(n)) {
				t.Fatalf("round %d: %v: file %d, which was flushed, is lost: %v", round, l, n, err)
			}
		}
		if b, err := os.ReadFile(unsafe); err != nil || !bytes.Equal(b, content(round)) {
			lost++
		}
	}
	if lost == 0 {
		t.Error("a program that never flushes lost nothing")
	}
	t.Logf("%d of 8 files that were not flushed were lost", lost)
}

// TestFaults: errors and hangs where and as often as they are asked for; a failed flush loses what it says and is then over.
func TestFaults(t *testing.T) {
	d := newDisk(t, Config{Server: program(t), Seed: 9})
	f, err := os.OpenFile(d.Device(), os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { f.Close() }()
	b := alignedBuffer(pageSize)
	fail := func(list ...Fault) {
		t.Helper()
		if err := d.Fail(list...); err != nil {
			t.Fatal(err)
		}
	}
	fail(Fault{Op: Read, Ranges: []Range{{1 << 20, pageSize}}, Count: -1}, Fault{Op: Write, Ranges: []Range{{2 << 20, pageSize}}, Count: 1})
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := f.ReadAt(b, 1<<20); !errors.Is(err, syscall.EIO) {
			t.Errorf("a read of a bad block: %v", err)
		}
	}
	if _, err := f.WriteAt(b, 2<<20); !errors.Is(err, syscall.EIO) {
		t.Errorf("a write of a bad block: %v", err)
	}
	if _, err := f.WriteAt(b, 2<<20); err != nil {
		t.Errorf("the second write: %v", err)
	}
	if c := counts(t, d); c.Hits < 3 {
		t.Errorf("%+v", c)
	}
	fail(Fault{Op: Read, Ranges: []Range{{1 << 20, pageSize}}, Count: -1, UntilWritten: true})
	if _, err := f.ReadAt(b, 1<<20); !errors.Is(err, syscall.EIO) || counts(t, d).Bad != 1 {
		t.Errorf("a read of a bad block: %v", err)
	}
	if _, err := f.WriteAt(b, 1<<20); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadAt(b, 1<<20); err != nil || counts(t, d).Bad != 0 {
		t.Errorf("a read of a bad block that was written: %v", err)
	}
	lost := false
	for range 20 {
		fail(Fault{Op: Flush, Count: 1, Ranges: []Range{{3 << 20, pageSize}}})
		clear(b)
		b[0] = 1
		if _, err := f.WriteAt(b, 3<<20); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err == nil {
			t.Fatal("the flush did not fail")
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(b, 3<<20); err != nil {
			t.Fatal(err)
		}
		lost = lost || b[0] == 0
	}
	if !lost {
		t.Error("failed flushes have lost nothing")
	}
	fail(Fault{Op: Flush, Count: -1, Hang: true})
	ended := make(chan error, 1)
	go func() { ended <- f.Sync() }()
	for until := time.Now().Add(10 * time.Second); counts(t, d).Held == 0; {
		if time.Now().After(until) {
			t.Fatal("the flush does not hang")
		}
	}
	select {
	case err := <-ended:
		t.Fatal("the flush has ended:", err)
	default:
	}
	fail()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestPlaces: a file's bytes are where Places says.
func TestPlaces(t *testing.T) {
	d := newDisk(t, Config{Server: program(t)})
	if err := d.Format(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.Mount, "file")
	want := bytes.Repeat([]byte("pmsApp's block  "), 1<<16)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	if dir, err := os.Open(path); err != nil || errors.Join(dir.Sync(), dir.Close()) != nil {
		t.Fatal("flushing it")
	}
	list, err := Places(path, 4096, int64(len(want)))
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.Open(filepath.Join(d.cfg.Dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	var got []byte
	for _, r := range list {
		b := make([]byte, r.Len)
		if _, err := image.ReadAt(b, r.Off); err != nil {
			t.Fatal(err)
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got, want[4096:]) {
		t.Fatalf("%v has %d other bytes", list, len(got))
	}
}

func counts(t *testing.T, d *Disk) Counts {
	t.Helper()
	c, err := d.Counts()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// alignedBuffer is one for direct I/O.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+pageSize)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (pageSize - 1)
	return b[skip : skip+uintptr(n)]
}

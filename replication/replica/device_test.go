package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/poolfs"
)

// images makes devices: a regular file, and a loop device over one, which needs root.
func images(t *testing.T, size int64, do func(t *testing.T, path string)) {
	make := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "image")
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("file", func(t *testing.T) { do(t, make(t)) })
	for _, sector := range []string{"512", "4096"} {
		t.Run("loop"+sector, func(t *testing.T) {
			if os.Getuid() != 0 {
				t.Skip("loop devices need root")
			}
			out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", "--sector-size", sector, make(t)).CombinedOutput()
			if err != nil {
				t.Fatalf("losetup: %v: %s", err, out)
			}
			path := strings.TrimSpace(string(out))
			t.Cleanup(func() {
				if out, err := exec.Command("losetup", "--detach", path).CombinedOutput(); err != nil {
					t.Errorf("losetup: %v: %s", err, out)
				}
			})
			do(t, path)
		})
	}
}

func openOn(t *testing.T, state, path string, may bool) (*Node, ids.Pool, error) {
	t.Helper()
	n, err := OpenNode(Config{Dir: state, Cluster: ids.Cluster{1}, free: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	id, err := n.AddPool(path, may)
	if err != nil {
		n.Close()
	}
	return n, id, err
}

// TestDevicePool uses a pool on a device as a leader does, twice.
func TestDevicePool(t *testing.T) {
	const size, volume = 64 << 20, 24 << 20
	images(t, size, func(t *testing.T, path string) {
		state := t.TempDir()
		if _, _, err := openOn(t, state, path, false); !errors.Is(err, ErrNotPool) {
			t.Fatalf("a blank device where no pool may be made: %v", err)
		}
		n, id, err := openOn(t, state, path, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := openOn(t, t.TempDir(), path, true); !errors.Is(err, ErrInUse) {
			t.Errorf("the same device twice: %v", err)
		}
		if err := FormatDevice(path, true); !errors.Is(err, ErrInUse) {
			t.Errorf("a device that is in use is formatted: %v", err)
		}
		s, err := n.Open(context.Background(), 1)
		if err != nil {
			t.Fatal(err)
		}
		spec := peer.Spec{Volume: ids.Volume{1}, Lineage: ids.Lineage{1}, Pool: id, Size: volume, Region: 1 << 20}
		noErr(t, doCall(s, peer.Command{Kind: peer.Create, Volume: spec.Volume, Spec: spec}))
		first := n.pools[0].replicas[spec.Volume].incarnation
		before := free(n)
		want := make([]byte, volume)
		rnd := rand.New(rand.NewPCG(1, 2))
		seq := peer.Seq(0)
		write := func(kind peer.Kind, off, n int64) {
			seq++
			c := peer.Command{Kind: kind, Volume: spec.Volume, Off: off, Len: n, Seq: seq, Durable: seq - 1}
			if kind == peer.Write {
				c.Data = make([]byte, n)
				for i := range c.Data {
					c.Data[i] = byte(rnd.Uint32())
				}
				copy(want[off:], c.Data)
			} else {
				clear(want[off : off+n])
			}
			noErr(t, doCall(s, c))
		}
		check := func() {
			t.Helper()
			got := make([]byte, volume)
			noErr(t, doCall(s, peer.Command{Kind: peer.Read, Volume: spec.Volume, Len: volume, Data: got}))
			if !bytes.Equal(got, want) {
				t.Fatal("it reads as something else")
			}
		}
		for range 60 {
			off := rnd.Int64N(volume/512-600) * 512
			write(peer.Write, off, 512*(1+rnd.Int64N(600)))
			write(peer.Zero, rnd.Int64N(volume/512-4000)*512, 512*(1+rnd.Int64N(4000)))
		}
		check()
		write(peer.Write, 4<<20, 4<<20)
		n.Close()
		if n, _, err = openOn(t, state, path, false); err != nil {
			t.Fatal(err)
		}
		defer func() { n.Close() }()
		if n.pools[0].replicas[spec.Volume].incarnation == first {
			t.Error("the incarnation of a process before is kept: what that had not flushed may be lost")
		}
		if s, err = n.Open(context.Background(), 2); err != nil {
			t.Fatal(err)
		}
		check()
		if free(n) >= before {
			t.Errorf("%d bytes are free, and %d before anything was written", free(n), before)
		}
		write(peer.Zero, 0, volume)
		check()
		noErr(t, doCall(s, peer.Command{Kind: peer.Delete, Volume: spec.Volume}))
		noErr(t, doCall(s, peer.Command{Kind: peer.Create, Volume: spec.Volume, Spec: spec}))
		if free(n) != before {
			t.Errorf("%d bytes are free, and %d before anything was written", free(n), before)
		}
		clear(want)
		check()
	})
}

func free(n *Node) int64 { return n.Pools()[0].Free }

func doCall(s peer.Session, c peer.Command) error {
	done := make(chan struct{})
	k := &peer.Call{Command: c, Done: func(*peer.Call) { close(done) }}
	s.Submit(k)
	<-done
	return k.Err
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDeviceFull fills a device: the write is refused as by a full file system, and an UNMAP makes room.
func TestDeviceFull(t *testing.T) {
	images(t, 16<<20, func(t *testing.T, path string) {
		n, id, err := openOn(t, t.TempDir(), path, true)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		s, err := n.Open(context.Background(), 1)
		if err != nil {
			t.Fatal(err)
		}
		spec := peer.Spec{Volume: ids.Volume{1}, Lineage: ids.Lineage{1}, Pool: id, Size: 64 << 20, Region: 1 << 20}
		noErr(t, doCall(s, peer.Command{Kind: peer.Create, Volume: spec.Volume, Spec: spec}))
		c := peer.Command{Kind: peer.Write, Volume: spec.Volume, Len: 1 << 20, Data: make([]byte, 1<<20), Seq: 1}
		for err = nil; err == nil; c.Off += 1 << 20 {
			c.Seq++
			err = doCall(s, c)
		}
		if !errors.Is(err, peer.ErrNoSpace) {
			t.Fatal(err)
		}
		full := c.Off - 1<<20
		noErr(t, doCall(s, peer.Command{Kind: peer.Zero, Volume: spec.Volume, Len: 1 << 20, Seq: c.Seq}))
		c.Off = full
		noErr(t, doCall(s, c))
	})
}

// TestForeignDevice has devices with other systems' signatures refused, and wiped by command.
func TestForeignDevice(t *testing.T) {
	images(t, 16<<20, func(t *testing.T, path string) {
		if out, err := exec.Command("mkfs.ext4", "-qF", path).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.ext4: %v: %s", err, out)
		}
		before := content(t, path)
		_, _, err := openOn(t, t.TempDir(), path, true)
		if !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), "ext4") || !strings.Contains(err.Error(), "--wipe") {
			t.Fatal(err)
		}
		if err := FormatDevice(path, false); !errors.Is(err, poolfs.ErrOccupied) {
			t.Fatal(err)
		}
		if content(t, path) != before {
			t.Fatal("a device that was refused was changed")
		}
		noErr(t, FormatDevice(path, true))
		state := t.TempDir()
		n, _, err := openOn(t, state, path, true)
		if err != nil {
			t.Fatal(err)
		}
		n.Close()
		before = content(t, path)
		if err := FormatDevice(path, false); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("a pool is formatted without being told to: %v", err)
		}
		other, err := OpenNode(Config{Dir: t.TempDir(), Cluster: ids.Cluster{2}, free: true, Log: slog.New(slog.DiscardHandler)})
		noErr(t, err)
		if _, err := other.AddPool(path, true); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "--wipe") {
			t.Errorf("another cluster's: %v", err)
		}
		other.Close()
		if content(t, path) != before {
			t.Error("another cluster's device was changed")
		}
		noErr(t, FormatDevice(path, true))
		if _, _, err := openOn(t, state, path, false); !errors.Is(err, ErrNotPool) {
			t.Errorf("a device that was formatted anew passes for the pool: %v", err)
		}
	})
	dir := t.TempDir()
	if err := FormatDevice(dir, true); err == nil {
		t.Error("a directory is formatted")
	}
	if _, _, err := openOn(t, t.TempDir(), "/dev/null", true); err == nil {
		t.Error("/dev/null is a pool")
	}
}

// content is all that a device has.
func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	noErr(t, err)
	return string(b)
}

// TestRefusedDevices has devices that are too small, or have what other systems write, refused as they are.
func TestRefusedDevices(t *testing.T) {
	for _, x := range []struct {
		name string
		size int64
		at   int64
		text string
		want error
	}{
		{"too small for its superblock", 1 << 20, 0, "", poolfs.ErrTooSmall},
		{"too small for a unit", 3 << 20, 0, "", poolfs.ErrTooSmall},
		{"a GUID partition table", 16 << 20, 512, "EFI PART", ErrNotEmpty},
		{"LVM", 16 << 20, 512, "LABELONE", ErrNotEmpty},
		{"a partition table", 16 << 20, 510, "\x55\xaa", ErrNotEmpty},
		{"data of an unknown kind", 16 << 20, 16<<20 - 1, "x", ErrNotEmpty},
	} {
		images(t, x.size, func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			noErr(t, err)
			_, err = f.WriteAt([]byte(x.text), x.at)
			noErr(t, errors.Join(err, f.Sync(), f.Close()))
			before := content(t, path)
			if _, _, err := openOn(t, t.TempDir(), path, true); !errors.Is(err, x.want) || !strings.Contains(err.Error(), path) ||
				x.want == ErrNotEmpty && !strings.Contains(err.Error(), x.name) {
				t.Errorf("%s: %v", x.name, err)
			}
			if err := FormatDevice(path, false); err == nil {
				t.Errorf("%s: it is formatted without being told to", x.name)
			}
			if content(t, path) != before {
				t.Errorf("%s: a device that was refused was changed", x.name)
			}
		})
	}
}

// TestMountedDevice refuses a device with a mounted file system.
func TestMountedDevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	images(t, 16<<20, func(t *testing.T, path string) {
		if !strings.HasPrefix(path, "/dev/") {
			return
		}
		dir := t.TempDir()
		if out, err := exec.Command("mkfs.ext4", "-qF", path).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.ext4: %v: %s", err, out)
		}
		noErr(t, unix.Mount(path, dir, "ext4", 0, ""))
		defer unix.Unmount(dir, 0)
		if err := FormatDevice(path, true); !errors.Is(err, ErrInUse) {
			t.Errorf("a mounted device is formatted: %v", err)
		}
	})
}

// TestDeviceZero looks at what the device calls make of bytes, in the page cache and past it.
func TestDeviceZero(t *testing.T) {
	images(t, 4<<20, func(t *testing.T, path string) {
		d, err := openDevice(path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
		b := bytes.Repeat([]byte{7}, 64<<10)
		for _, cached := range []bool{false, true} {
			noErr(t, d.WriteAt(b, 1<<20, cached))
			noErr(t, d.Zero(1<<20, 64<<10))
			for _, c := range []bool{false, true} {
				noErr(t, d.ReadAt(b, 1<<20, c))
				if !allZero(b) {
					t.Fatalf("written cached=%v and zeroed, it reads cached=%v as %x", cached, c, b[:8])
				}
			}
			for i := range b {
				b[i] = 7
			}
			if err := d.Discard(1<<20, 64<<10); err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
				t.Error(fmt.Errorf("discard: %w", err))
			}
		}
		noErr(t, d.Flush())
	})
}

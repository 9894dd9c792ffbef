package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

const benchSize = 512 << 20

// BenchmarkIO is the data path of one replica beside a raw file on the same file system, in the same run. Sparse is a new
// volume, full one whose blocks have all been written.
func BenchmarkIO(b *testing.B) {
	for _, full := range []bool{false, true} {
		for _, w := range []struct {
			size, depth int
			kind        peer.Kind
			random      bool
		}{{4096, 1, peer.Write, true}, {4096, 32, peer.Write, true}, {256 << 10, 1, peer.Write, false}, {256 << 10, 8, peer.Write, false},
			{4096, 32, peer.Read, true}, {256 << 10, 8, peer.Read, false}} {
			if w.kind == peer.Read && !full {
				continue
			}
			name := fmt.Sprintf("full=%v/%s%dK/QD%d/", full, map[peer.Kind]string{peer.Read: "read", peer.Write: "write"}[w.kind], w.size>>10, w.depth)
			next := func(i int64) int64 {
				if w.random {
					return rand.Int64N(benchSize/int64(w.size)) * int64(w.size)
				}
				return i % (benchSize / int64(w.size)) * int64(w.size)
			}
			b.Run(name+"raw", func(b *testing.B) {
				path := filepath.Join(b.TempDir(), "raw")
				if err := (osDisk{}).create(path, benchSize, false); err != nil {
					b.Fatal(err)
				}
				f, err := osDisk{}.open(path, 512)
				if err != nil {
					b.Fatal(err)
				}
				defer f.close()
				fd := int(f.(*osFile).f.Fd())
				benchFill(b, full, func(buf []byte, off int64) error { return f.writeAt(buf, off) })
				benchLoop(b, w.size, w.depth, next, func(buf []byte, off int64) error {
					if w.kind == peer.Read {
						return f.readAt(buf, off)
					}
					_, err := unix.Pwritev2(fd, [][]byte{buf}, off, unix.RWF_DSYNC)
					return err
				})
			})
			b.Run(name+"replica", func(b *testing.B) {
				s, spec := benchReplica(b, 1<<20)
				benchFill(b, full, benchCommand(s, spec, peer.Write))
				benchLoop(b, w.size, w.depth, next, benchCommand(s, spec, w.kind))
			})
		}
	}
}

// BenchmarkDevice is a pool on a block device beside one in a directory of ext4 on such a device: loop devices over files whose space is
// taken, in the same run (root).
func BenchmarkDevice(b *testing.B) {
	for _, full := range []bool{false, true} {
		for _, w := range []struct {
			size, depth int
			random      bool
		}{{4096, 1, true}, {4096, 32, true}, {256 << 10, 1, false}, {256 << 10, 8, false}} {
			next := func(i int64) int64 {
				if w.random {
					return rand.Int64N(benchSize/int64(w.size)) * int64(w.size)
				}
				return i % (benchSize / int64(w.size)) * int64(w.size)
			}
			for _, pool := range []string{"directory", "device"} {
				b.Run(fmt.Sprintf("full=%v/write%dK/QD%d/%s", full, w.size>>10, w.depth, pool), func(b *testing.B) {
					path := benchDevice(b)
					if pool == "directory" {
						path = benchMount(b, path)
					}
					s, spec := benchReplicaIn(b, path, 1<<20)
					benchFill(b, full, benchCommand(s, spec, peer.Write))
					benchLoop(b, w.size, w.depth, next, benchCommand(s, spec, peer.Write))
				})
			}
		}
	}
}

func benchDevice(b *testing.B) string {
	if os.Getuid() != 0 {
		b.Skip("loop devices need root")
	}
	image := filepath.Join(b.TempDir(), "image")
	f, err := os.Create(image)
	if err == nil {
		// Written, not only reserved: or the file system below would pay for the first write of each block.
		err = errors.Join((&osFile{f: f}).writeZeros(0, benchSize+256<<20), f.Sync(), f.Close())
	}
	if err != nil {
		b.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", image).CombinedOutput()
	if err != nil {
		b.Fatalf("losetup: %v: %s", err, out)
	}
	path := strings.TrimSpace(string(out))
	b.Cleanup(func() { exec.Command("losetup", "--detach", path).Run() })
	return path
}

func benchMount(b *testing.B, device string) string {
	dir := b.TempDir()
	for _, c := range [][]string{{"mkfs.ext4", "-qFm0", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", device}, {"mount", device, dir}, {"rmdir", filepath.Join(dir, "lost+found")}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			b.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	b.Cleanup(func() { exec.Command("umount", dir).Run() })
	return dir
}

func benchCommand(s peer.Session, spec peer.Spec, kind peer.Kind) func(buf []byte, off int64) error {
	return func(buf []byte, off int64) error {
		c := benchCalls.Get().(*benchCall)
		c.call.Command = peer.Command{Kind: kind, Volume: spec.Volume, Off: off, Len: int64(len(buf)), Data: buf, Seq: 1}
		s.Submit(&c.call)
		<-c.done
		err := c.call.Err
		benchCalls.Put(c)
		return err
	}
}

type benchCall struct {
	call peer.Call
	done chan struct{}
}

var benchCalls = sync.Pool{New: func() any {
	c := &benchCall{done: make(chan struct{}, 1)}
	c.call.Done = func(*peer.Call) { c.done <- struct{}{} }
	return c
}}

func benchReplica(b testing.TB, region int64) (peer.Session, peer.Spec) {
	return benchReplicaIn(b, b.TempDir(), region)
}

func benchReplicaIn(b testing.TB, pool string, region int64) (peer.Session, peer.Spec) {
	n, err := OpenNode(Config{Dir: b.TempDir(), Cluster: ids.NewCluster(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(n.Close)
	id, err := n.AddPool(pool, true)
	if err != nil {
		b.Fatal(err)
	}
	s, err := n.Open(b.Context(), 1)
	if err != nil {
		b.Fatal(err)
	}
	spec := peer.Spec{Volume: ids.NewVolume(), Lineage: ids.NewLineage(), Pool: id, Size: benchSize, Region: region}
	done := make(chan error, 1)
	s.Submit(&peer.Call{Command: peer.Command{Kind: peer.Create, Spec: spec}, Done: func(c *peer.Call) { done <- c.Err }})
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return s, spec
}

func benchFill(b *testing.B, full bool, write func([]byte, int64) error) {
	buf := block.Get(1 << 20)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	for off := int64(0); full && off < benchSize; off += int64(len(buf)) {
		if err := write(buf, off); err != nil {
			b.Fatal(err)
		}
	}
}

func benchLoop(b *testing.B, size, depth int, next func(int64) int64, do func([]byte, int64) error) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	var at atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for range depth {
		all.Go(func() {
			buf := block.Get(size)
			defer block.Put(buf)
			for {
				i := at.Add(1) - 1
				if i >= int64(b.N) {
					return
				}
				if err := do(buf, next(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "IOPS")
}

// TestThousandReplicas: 1,000 sparse replicas of 1 GiB are opened and fenced in a short time and little memory, also when
// many of their regions are active. The bounds are wide; what was measured is logged.
func TestThousandReplicas(t *testing.T) {
	count := 1000
	if testing.Short() {
		count = 100
	}
	dir, pooldir, cluster := t.TempDir(), t.TempDir(), ids.NewCluster()
	open := func() (*Node, ids.Pool) {
		n, err := OpenNode(Config{Dir: dir, Cluster: cluster, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		id, err := n.AddPool(pooldir, true)
		if err != nil {
			t.Fatal(err)
		}
		return n, id
	}
	n, id := open()
	for i := range count { // made past the commands, which flush each name
		spec := peer.Spec{Volume: ids.Volume{byte(i), byte(i >> 8), 1}, Lineage: ids.Lineage{1}, Pool: id, Size: 1 << 30, Region: 1 << 20}
		path := filepath.Join(pooldir, dirReplicas, spec.Volume.String())
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		m := newMarks(regionsOf(spec))
		m.begin(0, 1023, 5, 4)
		b := make([]byte, mapSize(spec))
		for _, w := range m.take() {
			copy(b[w.at:], w.bytes)
		}
		for name, content := range map[string][]byte{fileSuper: encodeSpec(spec), fileData: nil, fileMap: b} {
			if err := os.WriteFile(filepath.Join(path, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Truncate(filepath.Join(path, fileData), spec.Size); err != nil {
			t.Fatal(err)
		}
		if err := makeSums(osDisk{}, filepath.Join(path, fileSums), spec); err != nil {
			t.Fatal(err)
		}
	}
	n.Close()
	before := heap()
	began := time.Now()
	n, _ = open()
	opened := time.Since(began)
	s, err := n.Open(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	fenced := time.Since(began) - opened
	f := s.Fenced()
	used := heap() - before
	t.Logf("%d replicas with 1,024 active regions each: opened in %v, fenced in %v, %d KiB of memory", count, opened, fenced, used>>10)
	if r := f.Pools[0].Replicas; len(r) != count || r[0].Foreign || r[0].Active != 1024 || used > 100<<20 || fenced > 5*time.Second {
		t.Errorf("%d replicas, the first %+v", len(r), r[0])
	}
	n.Close()
}

func heap() int64 {
	runtime.GC()
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

package mirror_test

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/replica"
	"pmsapp/replication/throttle"
	"pmsapp/replication/truth"
)

var awayFlag = flag.Duration("away", 10*time.Second, "BenchmarkResync: how long the member is away")

const (
	benchSize   = 1 << 30
	benchRegion = 1 << 20
	benchLoad   = 4 // writes under way together
)

// pair is a mirror over two replicas on this machine's disk, without a network.
type pair struct {
	b        *testing.B
	vol      truth.Volume
	nodes    [2]*replica.Node
	places   [2]truth.Place
	m        *mirror.Mirror
	throttle *throttle.Throttle
	ended    chan mirror.ResyncStatus
	failed   chan error

	mu       sync.Mutex // guards what follows
	sessions [2]peer.Session
	away     bool // node 1
}

// newPair makes one. The pool of node 0, from which a resync copies, is in the directory source.
func newPair(b *testing.B, source string) *pair {
	p := &pair{b: b, ended: make(chan mirror.ResyncStatus, 1), failed: make(chan error, 1)}
	p.vol = truth.Volume{ID: ids.Volume(ids.New()), Lineage: ids.Lineage(ids.New()), Name: "v", Size: benchSize, Region: benchRegion, Logical: 512, Version: 1}
	p.throttle = throttle.New(func() throttle.Settings { return throttle.Settings{GuestP99: 30 * time.Millisecond, Floor: 8 << 20} })
	cluster := ids.Cluster(ids.New())
	for i := range p.nodes {
		n, err := replica.OpenNode(replica.Config{Dir: b.TempDir(), Cluster: cluster, Log: slog.New(slog.DiscardHandler)})
		p.ok(err)
		pool, err := n.AddPool([]string{source, b.TempDir()}[i], true)
		p.ok(err)
		p.nodes[i], p.places[i] = n, truth.Place{Node: ids.Node{byte(i + 1)}, Pool: pool}
		p.sessions[i], err = n.Open(context.Background(), 1)
		p.ok(err)
		p.make(i, peer.Create)
	}
	p.vol.Replicas, p.vol.InSync = p.places[:], slices.Clone(p.places[:])
	cfg := mirror.Config{Params: mirror.Params{Volume: p.vol, Epoch: 1, Self: p.places[0].Node}, Sessions: p, Catalog: p, Budget: p.throttle,
		Log: slog.New(slog.DiscardHandler), Resynced: func(_ ids.Node, s mirror.ResyncStatus, err error) {
			if err != nil {
				p.failed <- err
				return
			}
			p.ended <- s
		}}
	for _, pl := range p.places {
		cfg.Params.Members = append(cfg.Params.Members, mirror.Member{Node: pl.Node})
	}
	var err error
	p.m, err = mirror.Open(context.Background(), cfg)
	p.ok(err)
	b.Cleanup(func() {
		for _, n := range p.nodes {
			n.Close()
		}
	})
	b.Cleanup(func() { p.m.Close(nil) })
	return p
}

func (p *pair) ok(err error) {
	p.b.Helper()
	if err != nil {
		p.b.Fatal(err)
	}
}

// make creates or resets a replica.
func (p *pair) make(i int, kind peer.Kind) {
	done := make(chan struct{})
	c := &peer.Call{Command: peer.Command{Kind: kind, Volume: p.vol.ID, Spec: peer.Spec{Volume: p.vol.ID, Lineage: p.vol.Lineage, Pool: p.places[i].Pool,
		Size: benchSize, Region: benchRegion}}, Done: func(*peer.Call) { close(done) }}
	p.sessions[i].Submit(c)
	<-done
	p.ok(c.Err)
}

// Session implements mirror.Sessions.
func (p *pair) Session(ctx context.Context, id ids.Node) (peer.Session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := int(id[0]) - 1
	if i == 1 && p.away {
		return nil, errors.New("away")
	}
	if p.sessions[i] == nil {
		s, err := p.nodes[i].Open(ctx, 1)
		if err != nil {
			return nil, err
		}
		p.sessions[i] = s
	}
	return p.sessions[i], nil
}

// View implements truth.Catalog; a mirror does not ask.
func (p *pair) View() *truth.View { return nil }

// Propose implements truth.Catalog: everything is granted.
func (p *pair) Propose(_ context.Context, x truth.Proposal) (truth.Outcome, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vol.Version++
	switch x := x.(type) {
	case truth.RemoveMember:
		p.vol.InSync = slices.DeleteFunc(slices.Clone(p.vol.InSync), func(pl truth.Place) bool { return pl.Node == x.Node })
	case truth.AddMember:
		p.vol.InSync = append(slices.Clone(p.vol.InSync), p.places[int(x.Node[0])-1])
	}
	return truth.Outcome{Version: p.vol.Version, InSync: p.vol.InSync}, nil
}

func (p *pair) leave() {
	p.mu.Lock()
	s := p.sessions[1]
	p.sessions[1], p.away = nil, true
	p.mu.Unlock()
	s.Close()
	for len(p.m.Status().Members) != 1 {
		p.ok(p.write(make([]byte, 4096), 0)) // waits for the removal
	}
}

// back begins the resync of node 1. Empty: it is made anew first.
func (p *pair) back(empty bool) {
	p.mu.Lock()
	p.away = false
	p.mu.Unlock()
	_, err := p.Session(context.Background(), p.places[1].Node)
	p.ok(err)
	if empty {
		p.make(1, peer.Reset)
	}
	p.ok(p.m.StartResync(context.Background(), mirror.Joiner{Place: p.places[1], Empty: empty}))
}

func (p *pair) synced() mirror.ResyncStatus {
	select {
	case err := <-p.failed:
		p.b.Fatal(err)
	case s := <-p.ended:
		return s
	}
	panic("unreachable")
}

func (p *pair) write(b []byte, off int64) error {
	done := make(chan struct{})
	r := &block.Request{Op: block.Write, Off: off, Len: int64(len(b)), Data: b, Done: func(*block.Request) { close(done) }}
	p.m.Submit(r)
	<-done
	return r.Err
}

// load writes 4 KiB at random until stop is closed. It answers the regions that it wrote to, and how long each write took.
func (p *pair) load(stop <-chan struct{}) (regions map[int64]bool, took []time.Duration) {
	regions = map[int64]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range benchLoad {
		wg.Go(func() {
			b := make([]byte, 4096)
			for {
				select {
				case <-stop:
					return
				default:
				}
				off := rand.Int64N(benchSize/4096) * 4096
				b[0] = byte(rand.Uint32())
				begun := time.Now()
				if err := p.write(b, off); err != nil {
					p.b.Error(err)
					return
				}
				d := time.Since(begun)
				mu.Lock()
				regions[off/benchRegion] = true
				took = append(took, d)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return regions, took
}

func after(d time.Duration) <-chan struct{} {
	stop := make(chan struct{})
	time.AfterFunc(d, func() { close(stop) })
	return stop
}

func p99(took []time.Duration) float64 {
	slices.Sort(took)
	return took[len(took)-1-len(took)/100].Seconds() * 1e3
}

// fill writes all of the volume.
func (p *pair) fill() {
	b := make([]byte, 1<<20)
	for off := int64(0); off < benchSize; off += int64(len(b)) {
		for i := 0; i < len(b); i += 512 {
			b[i] = byte(off>>20) + 1
		}
		p.ok(p.write(b, off))
	}
}

// rawSpeed is MiB in a second of direct, synced writes of 1 MiB to a new file beside the replicas, as dd does them.
func rawSpeed(b *testing.B) float64 {
	f, err := os.OpenFile(filepath.Join(b.TempDir(), "raw"), os.O_CREATE|os.O_WRONLY|unix.O_DIRECT|unix.O_DSYNC, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 1<<20+4096)
	buf = buf[4096-uintptr(unsafe.Pointer(&buf[0]))%4096:][:1<<20]
	begun := time.Now()
	for off := int64(0); off < benchSize/2; off += 1 << 20 {
		buf[0]++
		if _, err := f.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
	}
	return float64(benchSize/2>>20) / time.Since(begun).Seconds()
}

// rawCopy is MiB in a second of a copy from a file to a new one by direct reads and writes of 256 KiB, as many together as a resync has,
// and one flush at its end.
func rawCopy(b *testing.B) float64 {
	open := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(b.TempDir(), name), os.O_CREATE|os.O_RDWR|unix.O_DIRECT, 0o600)
		if err == nil {
			err = f.Truncate(benchSize / 2)
		}
		if err != nil {
			b.Fatal(err)
		}
		return f
	}
	const chunk, together = 256 << 10, 8
	from, to := open("from"), open("to")
	defer from.Close()
	defer to.Close()
	var began time.Time
	for _, step := range []func(p []byte, off int64) error{
		func(p []byte, off int64) error { p[0]++; _, err := from.WriteAt(p, off); return err },
		func(p []byte, off int64) error {
			_, err := from.ReadAt(p, off)
			if err == nil {
				_, err = to.WriteAt(p, off)
			}
			return err
		},
	} {
		began = time.Now()
		var next atomic.Int64
		var wg sync.WaitGroup
		for range together {
			wg.Go(func() {
				p := make([]byte, chunk+4096)
				p = p[4096-uintptr(unsafe.Pointer(&p[0]))%4096:][:chunk]
				for off := next.Add(chunk) - chunk; off < benchSize/2; off = next.Add(chunk) - chunk {
					if err := step(p, off); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if err := errors.Join(from.Sync(), to.Sync()); err != nil {
			b.Fatal(err)
		}
	}
	return float64(benchSize/2>>20) / time.Since(began).Seconds()
}

// fullCopy measures full copies from a pool in a directory, in turn with what they are compared with.
func fullCopy(b *testing.B, source string, raw func(*testing.B) float64, name string) {
	for b.Loop() {
		p := newPair(b, source)
		p.leave()
		p.fill()
		var other, copied []float64
		for range 3 {
			other = append(other, raw(b))
			p.back(true)
			s := p.synced()
			copied = append(copied, float64(s.Copied>>20)/s.Seconds)
			p.leave()
		}
		slices.Sort(other)
		slices.Sort(copied)
		b.ReportMetric(other[1], "MiB/s-"+name)
		b.ReportMetric(copied[1], "MiB/s-copied")
		b.ReportMetric(copied[1]/other[1], "copied/"+name)
	}
}

// BenchmarkResync measures what issue 3's table asks of a resync. Run it with -benchtime 1x -timeout 1h; -away 10m for the long absence.
func BenchmarkResync(b *testing.B) {
	b.Run("missed", func(b *testing.B) {
		for b.Loop() {
			p := newPair(b, b.TempDir())
			p.load(after(time.Second))
			p.leave()
			regions, _ := p.load(after(*awayFlag))
			p.back(false)
			s := p.synced()
			missed := float64(len(regions)) * benchRegion
			b.ReportMetric(float64(s.Copied)/missed, "copied/missed")
			b.ReportMetric(float64(s.Total)/missed, "compared/missed")
		}
	})
	// As fast as a network that is no bound brings it: the source is read from memory.
	b.Run("full", func(b *testing.B) {
		source, err := os.MkdirTemp("/dev/shm", "resync")
		if err != nil {
			b.Skip(err)
		}
		b.Cleanup(func() { os.RemoveAll(source) })
		fullCopy(b, source, rawSpeed, "dd")
	})
	// Both replicas share a disk, so that a copy reads as much of it as it writes. What it is compared with does, too.
	b.Run("onedisk", func(b *testing.B) { fullCopy(b, b.TempDir(), rawCopy, "rawcopy") })
	b.Run("p99", func(b *testing.B) {
		for b.Loop() {
			p := newPair(b, b.TempDir())
			p.fill()
			var alone, beside, speed []float64
			for range 3 {
				_, took := p.load(after(5 * time.Second))
				alone = append(alone, p99(took))
				p.leave()
				p.back(true)
				stop := make(chan struct{})
				go func() {
					s := p.synced()
					speed = append(speed, float64(s.Copied>>20)/s.Seconds)
					close(stop)
				}()
				_, took = p.load(stop)
				beside = append(beside, p99(took))
			}
			slices.Sort(alone)
			slices.Sort(beside)
			slices.Sort(speed)
			b.ReportMetric(alone[1], "ms-p99-alone")
			b.ReportMetric(beside[1], "ms-p99-beside")
			b.ReportMetric(speed[1], "MiB/s-copied")
			b.ReportMetric(beside[1]/alone[1], "beside/alone")
		}
	})
}

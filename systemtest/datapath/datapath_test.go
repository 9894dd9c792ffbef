// Package datapath measures the way of a command from a host's socket to the disks and back, within one process: the target, the
// device server, the mirror, the replicas of one or two nodes, and between nodes a session over TCP. The client is our initiator.
package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/initiator"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/replica"
	"pmsapp/replication/truth"
	"pmsapp/systemtest/lunserver"
	"pmsapp/systemtest/peering"
)

const (
	small = 64 << 20
	epoch = 1
)

// member is a node with one replica, and the leader's session with it.
type member struct {
	id      ids.Node
	session peer.Session
	place   truth.Place
}

// sessions are the reign's.
type sessions map[ids.Node]peer.Session

func (s sessions) Session(_ context.Context, n ids.Node) (peer.Session, error) {
	if x := s[n]; x != nil {
		return x, nil
	}
	return nil, peer.ErrLost
}

// catalog decides nothing: no member may be lost.
type catalog struct{}

func (catalog) View() *truth.View { return &truth.View{} }

func (catalog) Propose(context.Context, truth.Proposal) (truth.Outcome, error) {
	return truth.Outcome{}, errors.New("nothing is to be decided")
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start makes a node with a replica of v, and a session with it: its own node's, or one over TCP.
func start(t testing.TB, v truth.Volume, far bool) member {
	t.Helper()
	cluster := ids.NewCluster()
	n, err := replica.OpenNode(replica.Config{Dir: t.TempDir(), Cluster: cluster, Log: quiet(), Cache: 2 * small})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	pool, err := n.AddPool(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	m := member{id: ids.NewNode()}
	m.place = truth.Place{Node: m.id, Pool: pool}
	if far {
		m.session = dial(t, cluster, m.id, n)
	} else {
		s, err := n.Open(t.Context(), epoch)
		if err != nil {
			t.Fatal(err)
		}
		m.session = replica.Guard(s, time.Minute)
	}
	t.Cleanup(m.session.Close)
	made := make(chan error, 1)
	spec := peer.Spec{Volume: v.ID, Lineage: v.Lineage, Pool: pool, Size: v.Size, Region: v.Region}
	m.session.Submit(&peer.Call{Command: peer.Command{Kind: peer.Create, Volume: v.ID, Spec: spec}, Done: func(c *peer.Call) { made <- c.Err }})
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	return m
}

// dial serves a node over the target, and opens a session with it.
func dial(t testing.TB, cluster ids.Cluster, id ids.Node, n *replica.Node) peer.Session {
	s, err := peering.Serve(t, cluster, id, n).Open(t.Context(), id, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// path is a LUN and a host's session with it.
type path struct {
	session *initiator.Session
	size    int64
	first   *counted // the leader's own replica
}

// open makes a volume with so many replicas, serves it, and logs in.
func open(t testing.TB, replicas int, size, region int64, tune mirror.Tunables) *path {
	t.Helper()
	v := truth.Volume{ID: ids.NewVolume(), Lineage: ids.NewLineage(), Name: "v", Size: size, Region: region, Logical: 512, Version: 1}
	all, first, p := sessions{}, new(counted), mirror.Params{Epoch: epoch, Tunables: tune}
	for i := range replicas {
		m := start(t, v, i > 0)
		if i == 0 {
			p.Self = m.id
		}
		if all[m.id] = m.session; i == 0 {
			first.Session = m.session
			all[m.id] = first
		}
		v.Replicas, v.InSync = append(v.Replicas, m.place), append(v.InSync, m.place)
		p.Members = append(p.Members, mirror.Member{Node: m.id})
	}
	p.Volume = v
	m, err := mirror.Open(t.Context(), mirror.Config{Params: p, Sessions: all, Catalog: catalog{}, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(nil) })
	s := lunserver.Start(t, m)
	in, err := initiator.Dial(t.Context(), initiator.Config{Portal: s.Addr.String(), Initiator: "iqn.2026-11.app.pmsapp:host", Target: lunserver.Name,
		Timeouts: initiator.HostTimeouts(), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	x := &path{in, size, first}
	for range 4 { // unit attentions
		x.once(t, &initiator.Command{CDB: []byte{0, 0, 0, 0, 0, 0}}, false)
	}
	return x
}

// once carries out one command.
func (x *path) once(t testing.TB, c *initiator.Command, must bool) {
	t.Helper()
	ended := make(chan struct{})
	c.LUN, c.Done = 1<<48, func(*initiator.Command) { close(ended) }
	x.session.Submit(c)
	<-ended
	if must && (c.Err != nil || c.Status != initiator.StatusGood) {
		t.Fatal(c.Err, c.Status, c.Sense)
	}
}

// kind is what is measured.
type kind struct {
	write        bool
	bytes, depth int
}

func (k kind) String() string {
	return fmt.Sprintf("%s%dK/QD%d", map[bool]string{true: "write", false: "read"}[k.write], k.bytes>>10, k.depth)
}

func kinds() []kind {
	return []kind{{true, 4096, 1}, {true, 4096, 32}, {false, 4096, 1}, {false, 4096, 32}, {true, 256 << 10, 8}, {false, 256 << 10, 8}}
}

// load keeps commands under way; the commands are made once.
type load struct {
	x    *path
	k    kind
	free chan *initiator.Command // those that have ended
	next func() int64            // where the next one goes; anywhere if nil
	rnd  *rand.Rand
}

func (x *path) load(k kind) *load {
	l := &load{x: x, k: k, free: make(chan *initiator.Command, k.depth), rnd: rand.New(rand.NewPCG(1, 2))}
	for range k.depth {
		c := &initiator.Command{LUN: 1 << 48, CDB: make([]byte, 16), Done: func(c *initiator.Command) { l.free <- c }}
		buf := block.Get(k.bytes)
		if c.CDB[0] = 0x88; k.write {
			c.CDB[0], c.DataOut = 0x8a, buf
		} else {
			c.DataIn = buf
		}
		binary.BigEndian.PutUint32(c.CDB[10:], uint32(k.bytes/512))
		l.free <- c
	}
	return l
}

// run carries out n commands.
func (l *load) run(t testing.TB, n int) {
	for range n {
		l.x.submit(t, l)
	}
	for range l.k.depth { // until all have ended
		c := <-l.free
		l.check(t, c)
		defer func() { l.free <- c }()
	}
}

func (l *load) check(t testing.TB, c *initiator.Command) {
	if c.Err != nil || c.Status != initiator.StatusGood {
		t.Fatal(c.Err, c.Status, c.Sense)
	}
}

func (x *path) submit(t testing.TB, l *load) {
	c := <-l.free
	l.check(t, c)
	off := l.rnd.Int64N(x.size/int64(l.k.bytes)) * int64(l.k.bytes)
	if l.next != nil {
		off = l.next()
	}
	binary.BigEndian.PutUint64(c.CDB[2:], uint64(off/512))
	x.session.Submit(c)
}

// fill writes every block, so that reads find data and writes make no blocks.
func (x *path) fill(t testing.TB) {
	buf := block.Get(1 << 20)
	for off := int64(0); off < x.size; off += int64(len(buf)) {
		c := &initiator.Command{CDB: make([]byte, 16), DataOut: buf}
		c.CDB[0] = 0x8a
		binary.BigEndian.PutUint64(c.CDB[2:], uint64(off/512))
		binary.BigEndian.PutUint32(c.CDB[10:], uint32(len(buf)/512))
		x.once(t, c, true)
	}
}

// TestAllocations: a READ or WRITE allocates nothing on its whole way once the path is warm. What is left are timers, the clearing
// of marks and the like, which do not grow with the commands: hence the bound is not 0, but far below one for each command.
func TestAllocations(t *testing.T) {
	const most = 0.25
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would empty the pools of buffers
	for replicas := 1; replicas <= 2; replicas++ {
		x := open(t, replicas, small, 1<<20, mirror.Tunables{})
		x.fill(t)
		for _, k := range kinds() {
			l := x.load(k)
			n := 2000
			if k.bytes > 4096 {
				n = 400
			}
			l.run(t, n) // warms up
			best := 1e9
			for range 3 { // something else may allocate meanwhile
				best = min(best, mallocs(func() { l.run(t, n) })/float64(n))
				if best <= most {
					break
				}
			}
			t.Logf("%d replicas, %v: %.3f allocations for a command", replicas, k, best)
			if best > most {
				t.Errorf("%d replicas, %v: %.2f allocations for a command, at most %v", replicas, k, best, most)
			}
		}
	}
}

// mallocs counts the allocations of the process. It is testing.AllocsPerRun for work that many goroutines do together.
func mallocs(fn func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs)
}

// BenchmarkPath is the whole way of commands, with the client's part.
func BenchmarkPath(b *testing.B) {
	for replicas := 1; replicas <= 2; replicas++ {
		x := open(b, replicas, small, 1<<20, mirror.Tunables{})
		x.fill(b)
		for _, k := range kinds() {
			b.Run(fmt.Sprintf("replicas=%d/%v", replicas, k), func(b *testing.B) {
				l := x.load(k)
				l.run(b, 4*k.depth)
				b.SetBytes(int64(k.bytes))
				b.ReportAllocs()
				b.ResetTimer()
				l.run(b, b.N)
			})
		}
	}
}

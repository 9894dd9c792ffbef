package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/internal/iscsi/iscsitest"
	"pmsapp/replication/initiator"
	"pmsapp/replication/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeNode has one replica in memory, and says what it is told to say.
type fakeNode struct {
	mu       sync.Mutex
	accepted peer.Epoch
	fenced   peer.Fenced
	data     []byte
	active   []peer.RegionSeq
	extents  []peer.Extent
	sums     []uint32
	fail     error // the answer to every command
	hold     bool  // commands are kept in held
	held     []*peer.Call
	got      []peer.Command // all but READ and WRITE
	opened   int
	closed   int
}

func (n *fakeNode) Accepted() peer.Epoch {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.accepted
}

func (n *fakeNode) Open(ctx context.Context, e peer.Epoch) (peer.Session, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e < n.accepted {
		return nil, &peer.EpochError{Accepted: n.accepted}
	}
	n.accepted = e
	n.opened++
	return &fakeSession{n: n, e: e}, nil
}

type fakeSession struct {
	n *fakeNode
	e peer.Epoch
}

func (s *fakeSession) Fenced() peer.Fenced                       { return s.n.fenced }
func (s *fakeSession) Poll(context.Context) (peer.Fenced, error) { return s.n.fenced, nil }
func (s *fakeSession) Done() <-chan struct{}                     { return nil }
func (s *fakeSession) Err() error                                { return nil }
func (s *fakeSession) Close()                                    { s.n.mu.Lock(); s.n.closed++; s.n.mu.Unlock() }
func (s *fakeSession) Submit(c *peer.Call) {
	n := s.n
	n.mu.Lock()
	if n.hold {
		n.held = append(n.held, c)
		n.mu.Unlock()
		return
	}
	defer n.mu.Unlock()
	defer c.Done(c)
	c.Err = n.fail
	if n.accepted != s.e {
		c.Err = &peer.EpochError{Accepted: n.accepted}
	}
	if c.Err != nil {
		return
	}
	switch c.Kind {
	case peer.Read:
		copy(c.Data, n.data[c.Off:])
		return
	case peer.Write:
		copy(n.data[c.Off:], c.Data)
		return
	case peer.ReadMap:
		c.Active, c.Birth, c.Incarnation, c.Highest, c.Known = n.active, ids.ID{7}, ids.ID{6}, 8, []peer.Other{{ID: peer.ReplicaID{Birth: ids.ID{9}}, Absent: true, Seq: 5}}
	case peer.Extents, peer.ReadMissed:
		c.Extents = n.extents
	case peer.Sums:
		c.Sums = n.sums
	}
	got := c.Command
	n.got = append(n.got, got)
}

var (
	clusterID  = ids.NewCluster()
	nodeID     = ids.NewNode()
	clusterKey = []byte("the key of the cluster")
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// serve carries a Server over the test target, and returns a dialer to it.
func serve(t testing.TB, n *fakeNode) *Dialer {
	server := NewServer(ServerConfig{Cluster: clusterID, Node: n, Log: quiet()})
	leader, node := Secrets(clusterKey)
	wish := iscsi.DefaultWish()
	cfg := iscsitest.Config{Wish: wish, Auth: iscsi.Auth{Initiator: leader, Own: node}, Decide: func(c *iscsitest.Conn) (iscsi.LoginStatus, []iscsi.Pair) {
		x, keys, err := server.Login(c.Names.Vendor)
		if err != nil {
			r := err.(*Refusal)
			return r.Status, r.Keys
		}
		c.State = x
		return iscsi.LoginOK, keys
	}}
	t.Cleanup(server.Wait)
	addr := iscsitest.Listen(t, cfg, func(c *iscsitest.Conn) {
		x := c.State.(*Nexus)
		c.ServeThen(func(task *iscsitest.Task) {
			out, in := x.Want(task.CDB, int64(len(task.DataOut)), int64(task.InLen))
			if out != 0 && out != int64(len(task.DataOut)) || in > int64(task.InLen) {
				t.Errorf("want %d %d of %d %d", out, in, len(task.DataOut), task.InLen)
			}
			x.Execute(&Task{CDB: task.CDB, DataOut: task.DataOut, InLen: task.InLen, Done: func(a *Task) {
				if a.Moved != len(task.DataOut) {
					t.Errorf("moved %d of %d", a.Moved, len(task.DataOut))
				}
				task.Reply(a.Status, a.Sense, a.DataIn)
			}})
		}, x.End)
	})
	return NewDialer(DialerConfig{Cluster: clusterID, Self: ids.NewNode(), Key: clusterKey, Log: quiet(),
		Portal: func(ids.Node) (string, error) { return addr, nil }})
}

func open(t testing.TB, d *Dialer, e peer.Epoch) *Session {
	t.Helper()
	s, err := d.Open(t.Context(), nodeID, e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		<-s.Done()
	})
	return s.(*Session)
}

func call(s peer.Session, c peer.Command) *peer.Call {
	ch := make(chan struct{})
	k := &peer.Call{Command: c, Done: func(*peer.Call) { close(ch) }}
	s.Submit(k)
	<-ch
	return k
}

func bigFenced(replicas int) peer.Fenced {
	f := peer.Fenced{Highest: 41, Pools: []peer.FencedPool{
		{Pool: ids.NewPool(), Busy: true, Previous: 40, Accepted: []peer.EpochRange{{Lo: 1, Hi: 3}, {Lo: 7, Hi: 40}}, Replicas: []peer.FencedReplica{}},
		{Pool: ids.NewPool(), Previous: 41, Reverted: true, Accepted: []peer.EpochRange{}, Replicas: []peer.FencedReplica{}},
	}}
	p := &f.Pools[1]
	for i := range replicas {
		p.Replicas = append(p.Replicas, peer.FencedReplica{
			Spec:    peer.Spec{Volume: ids.NewVolume(), Lineage: ids.NewLineage(), Pool: p.Pool, Size: 1 << 40, Region: 1 << 20},
			Foreign: i%3 == 0, Incarnation: ids.New(), Seq: peer.Seq(i * 5), Durable: peer.Seq(i * 4), Active: i})
	}
	return f
}

func TestCommands(t *testing.T) {
	n := &fakeNode{data: make([]byte, 4<<20), fenced: bigFenced(3)}
	s := open(t, serve(t, n), 42)
	if diff := cmp.Diff(n.fenced, s.Fenced()); diff != "" {
		t.Error(diff)
	}
	v := ids.NewVolume()
	for _, size := range []int{512, 4096, 300 << 10, 2 << 20} {
		data := bytes.Repeat([]byte{byte(size >> 9), 2, 3, 4}, size/4)
		if c := call(s, peer.Command{Kind: peer.Write, Volume: v, Off: 1 << 20, Len: int64(size), Data: data, Seq: 5, Durable: 4}); c.Err != nil {
			t.Fatal(c.Err)
		}
		got := make([]byte, size)
		if c := call(s, peer.Command{Kind: peer.Read, Volume: v, Off: 1 << 20, Len: int64(size), Data: got}); c.Err != nil {
			t.Fatal(c.Err)
		}
		if !bytes.Equal(got, data) {
			t.Fatal(size, "differs")
		}
	}
	spec := peer.Spec{Volume: v, Lineage: ids.NewLineage(), Pool: ids.NewPool(), Size: 1 << 30, Region: 1 << 20}
	others := []peer.Other{{ID: peer.ReplicaID{Node: ids.NewNode(), Pool: ids.NewPool(), Birth: ids.New()}},
		{ID: peer.ReplicaID{Node: ids.NewNode(), Pool: ids.NewPool(), Birth: ids.New()}, Absent: true, All: true, Epoch: 3, Seq: 1 << 63}}
	want := []peer.Command{
		{Kind: peer.Zero, Volume: v, Off: 512, Len: 1 << 40, Seq: 1<<63 + 7, Durable: 1 << 62},
		{Kind: peer.Zero, Volume: v, Off: 512, Len: 512, Seq: 8, Volatile: true},
		{Kind: peer.Flush, Volume: v},
		{Kind: peer.Confirm},
		{Kind: peer.Clear, Volume: v, Durable: 1 << 61, Regions: []peer.RegionSeq{{Region: 3, Seq: 9}, {Region: 1<<32 - 1, Seq: 1 << 63}}},
		{Kind: peer.Create, Volume: v, Spec: spec},
		{Kind: peer.Delete, Volume: v},
		{Kind: peer.Delete, Volume: v, Spec: peer.Spec{Pool: spec.Pool}},
		{Kind: peer.Reset, Volume: v, Spec: spec},
		{Kind: peer.Grow, Volume: v, Spec: spec},
		{Kind: peer.Know, Volume: v, Others: others},
		{Kind: peer.ReadMissed, Volume: v, Len: 1 << 30, Others: []peer.Other{{ID: peer.ReplicaID{Birth: ids.ID{1, 15: 2}}}}},
		{Kind: peer.AddMissed, Volume: v, Others: others[1:], Missed: []peer.Extent{{Off: 0, Len: 1 << 20}, {Off: 1 << 40, Len: 1 << 20}}},
		{Kind: peer.DropMissed, Volume: v, Others: others[1:], Missed: []peer.Extent{{Off: 1 << 20, Len: 1 << 20}}},
	}
	for _, c := range want {
		if k := call(s, c); k.Err != nil {
			t.Error(c.Kind, k.Err)
		}
	}
	n.mu.Lock()
	if diff := cmp.Diff(want, n.got); diff != "" {
		t.Error(diff)
	}
	n.mu.Unlock()
}

// TestLargeAnswers has answers of several parts, and many at once.
func TestLargeAnswers(t *testing.T) {
	n := &fakeNode{fenced: bigFenced(30000)}
	for i := range 70000 {
		n.active = append(n.active, peer.RegionSeq{Region: uint32(i), Seq: peer.Seq(i) << 8})
		n.sums = append(n.sums, uint32(i)<<16)
		n.extents = append(n.extents, peer.Extent{Off: int64(i) << 20, Len: 4096})
	}
	s := open(t, serve(t, n), 1)
	if diff := cmp.Diff(n.fenced, s.Fenced()); diff != "" {
		t.Error("fenced differs")
	}
	if f, err := s.Poll(t.Context()); err != nil || len(f.Pools) != 2 || len(f.Pools[1].Replicas) != 30000 {
		t.Error("poll", err)
	}
	var all sync.WaitGroup
	for range 3 * maxLarge {
		all.Go(func() {
			if c := call(s, peer.Command{Kind: peer.ReadMap}); c.Err != nil || len(c.Active) != len(n.active) {
				t.Error(c.Err, len(c.Active))
			}
		})
	}
	all.Wait()
	if c := call(s, peer.Command{Kind: peer.ReadMap}); !cmp.Equal(c.Active, n.active) || c.Birth != (ids.ID{7}) || c.Incarnation != (ids.ID{6}) || c.Highest != 8 ||
		!cmp.Equal(c.Known, []peer.Other{{ID: peer.ReplicaID{Birth: ids.ID{9}}, Absent: true, Seq: 5}}) {
		t.Error("the map differs")
	}
	if c := call(s, peer.Command{Kind: peer.Extents, Len: 1 << 40}); c.Err != nil || !cmp.Equal(c.Extents, n.extents) {
		t.Error("extents differ", c.Err)
	}
	if c := call(s, peer.Command{Kind: peer.Sums, Len: int64(len(n.sums)) * 4096}); c.Err != nil || !cmp.Equal(c.Sums, n.sums) {
		t.Error("sums differ", c.Err)
	}
	if c := call(s, peer.Command{Kind: peer.Clear, Regions: n.active}); c.Err != nil {
		t.Error(c.Err)
	}
	if c := call(s, peer.Command{Kind: peer.Reserve, Off: 512, Len: 1 << 40}); c.Err != nil {
		t.Error(c.Err)
	}
	if c := call(s, peer.Command{Kind: peer.Reserve, Off: 1, Len: 512}); !errors.Is(c.Err, peer.ErrInvalid) {
		t.Error(c.Err)
	}
	n.mu.Lock()
	var cleared []peer.RegionSeq
	for _, c := range n.got {
		cleared = append(cleared, c.Regions...)
	}
	n.mu.Unlock()
	if !cmp.Equal(cleared, n.active) {
		t.Error("cleared differs", len(cleared))
	}
}

func TestErrors(t *testing.T) {
	for _, want := range []error{peer.ErrNoSpace, peer.ErrMedium, peer.ErrNoReplica, peer.ErrInvalid} {
		n := &fakeNode{fail: fmt.Errorf("volume x: %w", want)}
		s := open(t, serve(t, n), 1)
		for k := peer.Read; k <= peer.Sums; k++ {
			c := peer.Command{Kind: k}
			if k == peer.Read || k == peer.Write {
				c.Data, c.Len = make([]byte, 512), 512
			}
			if k == peer.Clear {
				c.Regions = []peer.RegionSeq{{Region: 1}}
			}
			if got := call(s, c); !errors.Is(got.Err, want) {
				t.Errorf("kind %d: %v, want %v", k, got.Err, want)
			}
		}
		if s.Err() != nil {
			t.Error("the session died of", s.Err())
		}
	}
	s := open(t, serve(t, &fakeNode{fail: io.ErrUnexpectedEOF}), 1)
	if c := call(s, peer.Command{Kind: peer.Zero}); !errors.Is(c.Err, peer.ErrMedium) {
		t.Error("an unknown error:", c.Err)
	}
	for _, bad := range []peer.Command{{Kind: 0}, {Kind: 99}, {Kind: peer.Read, Len: 512}, {Kind: peer.Write, Len: 0},
		{Kind: peer.Zero, Off: 1, Len: 512}, {Kind: peer.Write, Data: make([]byte, 100), Len: 100}} {
		if c := call(s, bad); !errors.Is(c.Err, peer.ErrInvalid) {
			t.Errorf("%+v: %v", bad, c.Err)
		}
	}
}

func TestEpochs(t *testing.T) {
	n := &fakeNode{data: make([]byte, 1<<20), accepted: 7}
	d := serve(t, n)
	var epoch *peer.EpochError
	if _, err := d.Open(t.Context(), nodeID, 6); !errors.As(err, &epoch) || epoch.Accepted != 7 || !errors.Is(err, peer.ErrEpoch) {
		t.Fatal("login:", err)
	}
	s := open(t, d, 7)
	if c := call(s, peer.Command{Kind: peer.Confirm}); c.Err != nil {
		t.Fatal(c.Err)
	}
	newer := open(t, d, 8)
	c := call(s, peer.Command{Kind: peer.Confirm})
	if !errors.As(c.Err, &epoch) || epoch.Accepted != 8 {
		t.Fatal("confirm:", c.Err)
	}
	<-s.Done()
	if !errors.Is(s.Err(), peer.ErrEpoch) {
		t.Error(s.Err())
	}
	for k := peer.Read; k <= peer.Sums; k++ {
		if c := call(s, peer.Command{Kind: k, Data: make([]byte, 512), Len: 512}); !errors.Is(c.Err, peer.ErrEpoch) {
			t.Errorf("kind %d: %v", k, c.Err)
		}
	}
	if c := call(newer, peer.Command{Kind: peer.Confirm}); c.Err != nil {
		t.Error(c.Err)
	}
}

// TestLost closes sessions with commands under way: each must end, with ErrLost, and the node's session must be closed.
func TestLost(t *testing.T) {
	n := &fakeNode{hold: true}
	d := serve(t, n)
	s := open(t, d, 1)
	var all sync.WaitGroup
	for k := peer.Read; k <= peer.Sums; k++ {
		c := peer.Command{Kind: k}
		if k == peer.Read || k == peer.Write {
			c.Data, c.Len = make([]byte, 4096), 4096
		}
		if k == peer.Clear {
			c.Regions = []peer.RegionSeq{{Region: 1}}
		}
		all.Go(func() {
			if c := call(s, c); !errors.Is(c.Err, peer.ErrLost) {
				t.Errorf("kind %d: %v", k, c.Err)
			}
		})
	}
	eventually(t, func() bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.held) == int(peer.Sums) })
	s.Close()
	all.Wait()
	<-s.Done()
	if !errors.Is(s.Err(), peer.ErrLost) || !errors.Is(s.Err(), initiator.ErrClosed) {
		t.Error(s.Err())
	}
	eventually(t, func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.closed == 1 })
	n.mu.Lock()
	held := n.held
	n.mu.Unlock()
	for _, c := range held { // answers to nobody
		c.Err = peer.ErrLost
		c.Done(c)
	}
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 10000 {
		if cond() {
			return
		}
		<-tick.C
	}
	t.Fatal("in vain")
}

func TestOpenRefused(t *testing.T) {
	n := &fakeNode{}
	good := serve(t, n)
	edit := func(f func(*DialerConfig)) *Dialer {
		c := good.cfg
		f(&c)
		return NewDialer(c)
	}
	for _, c := range []struct {
		name string
		d    *Dialer
		want error
	}{
		{"another key", edit(func(c *DialerConfig) { c.Key = []byte("x") }), initiator.ErrLoginRefused},
		{"another cluster", edit(func(c *DialerConfig) { c.Cluster = ids.NewCluster() }), initiator.ErrLoginRefused},
		{"unknown node", edit(func(c *DialerConfig) {
			c.Portal = func(ids.Node) (string, error) { return "", net.UnknownNetworkError("x") }
		}), ErrNode},
		{"nobody there", edit(func(c *DialerConfig) {
			c.Portal = func(ids.Node) (string, error) { return "127.0.0.1:1", nil }
		}), initiator.ErrConnect},
	} {
		if _, err := c.d.Open(t.Context(), nodeID, 1); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if n.opened != 0 {
		t.Error("the node was fenced")
	}
}

// TestFenceComesFirst sends commands that Session never sends.
func TestFenceComesFirst(t *testing.T) {
	n := &fakeNode{data: make([]byte, 1<<20)}
	server := NewServer(ServerConfig{Cluster: clusterID, Node: n, Log: quiet()})
	x, _, err := server.Login(loginKeys(clusterID, 3))
	if err != nil {
		t.Fatal(err)
	}
	run := func(q request, in int) *Task {
		var cdb [cdbLen]byte
		q.encode(&cdb)
		ch := make(chan struct{})
		task := &Task{CDB: cdb[:], InLen: in, Done: func(*Task) { close(ch) }}
		x.Execute(task)
		<-ch
		return task
	}
	for _, a := range []action{actPoll, actRead, actConfirm, actReadMap} {
		if r := run(request{act: a, length: 512}, 4096); r.Status != statusCheckCondition || r.Sense[12] != codeSequence.asc {
			t.Errorf("%#x before the fence: %d %x", a, r.Status, r.Sense)
		}
	}
	if r := run(request{act: actFence, seq: 4}, 4096); r.Sense == nil {
		t.Error("fence of another epoch")
	}
	if r := run(request{act: actFence, seq: 3}, 4096); r.Sense == nil {
		t.Error("fence twice")
	}
	x.End()
	x, _, _ = server.Login(loginKeys(clusterID, 3))
	if r := run(request{act: actFence, seq: 3}, 4096); r.Sense != nil {
		t.Errorf("%x", r.Sense)
	}
	if r := run(request{act: actFetch, seq: 1, length: 1}, 4096); r.Sense == nil {
		t.Error("fetch of nothing")
	}
	if r := run(request{act: actRead, length: 4096}, 512); r.Sense == nil {
		t.Error("read without room")
	}
	if r := run(request{act: actWrite, length: 4096}, 0); r.Sense == nil {
		t.Error("write without data")
	}
	x.End()
	server.Wait()
	for _, keys := range [][]iscsi.Pair{nil, loginKeys(clusterID, 0), loginKeys(ids.NewCluster(), 3), {{Key: keyCluster, Value: clusterID.String()}, {Key: keyEpoch, Value: "x"}}} {
		if _, _, err := server.Login(keys); err == nil {
			t.Error(keys)
		}
	}
}

func BenchmarkWrite4k(b *testing.B) {
	n := &fakeNode{data: make([]byte, 1<<20)}
	s := open(b, serve(b, n), 1)
	b.ReportAllocs()
	data := make([]byte, 4096)
	slots := make(chan *peer.Call, 32)
	for range cap(slots) {
		slots <- &peer.Call{Command: peer.Command{Kind: peer.Write, Len: 4096, Data: data}, Done: func(c *peer.Call) { slots <- c }}
	}
	for b.Loop() {
		s.Submit(<-slots)
	}
	for range cap(slots) {
		<-slots
	}
}

package initiator

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmsapp/internal/iscsi"
	"pmsapp/internal/iscsi/iscsitest"
)

// cluster is a set of portals of which one serves; all have the same data.
type cluster struct {
	mu      sync.Mutex
	data    []byte
	serving int // index of the portal that serves; the others say NOT READY 04h/0Bh
	conns   map[int][]io.Closer
	sense   []byte       // if not nil, the answer to the next command
	deaf    map[int]bool // portals that do not answer
	full    int          // how many commands are answered with TASK SET FULL
	same    bool         // WRITE SAME is supported
}

var notReady = []byte{0x70, 0, KeyNotReady, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x0b, 0, 0, 0, 0}

func senseOf(key, asc, ascq byte) []byte {
	return []byte{0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0}
}

func newCluster(t testing.TB, n int) (*cluster, DiskConfig) {
	c := &cluster{data: make([]byte, 4<<20), conns: map[int][]io.Closer{}, deaf: map[int]bool{}, same: true}
	cfg := DiskConfig{Initiator: "iqn.2026-11.app.pmsapp:test", Target: "iqn.2026-11.app.pmsapp:v", Log: quiet()}
	for i := range n {
		cfg.Portals = append(cfg.Portals, iscsitest.Listen(t, iscsitest.Config{}, func(conn *iscsitest.Conn) {
			c.mu.Lock()
			c.conns[i] = append(c.conns[i], conn)
			c.mu.Unlock()
			conn.Serve(func(task *iscsitest.Task) { c.execute(i, task) })
		}))
	}
	return c, cfg
}

func (c *cluster) execute(portal int, t *iscsitest.Task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sense != nil {
		s := c.sense
		c.sense = nil
		t.Reply(StatusCheckCondition, s, nil)
		return
	}
	if portal != c.serving {
		t.Reply(StatusCheckCondition, notReady, nil)
		return
	}
	if c.deaf[portal] {
		go t.Reply(StatusBusy, nil, nil)
		return
	}
	if c.full > 0 {
		c.full--
		t.Reply(StatusTaskSetFull, nil, nil)
		return
	}
	off, n := binary.BigEndian.Uint64(t.CDB[2:])*512, int(binary.BigEndian.Uint32(t.CDB[10:]))*512
	switch t.CDB[0] {
	case opServiceActionIn:
		a := make([]byte, 32)
		binary.BigEndian.PutUint64(a, uint64(len(c.data)/512-1))
		binary.BigEndian.PutUint32(a[8:], 512)
		a[13] = 3
		t.Reply(0, nil, a)
	case opRead16:
		t.Reply(0, nil, bytes.Clone(c.data[off:int(off)+n]))
	case opWrite16:
		copy(c.data[off:], t.DataOut)
		t.Reply(0, nil, nil)
	case opWriteSame16:
		if !c.same {
			t.Reply(StatusCheckCondition, senseOf(KeyIllegalRequest, 0x20, 0), nil)
			return
		}
		clear(c.data[off : int(off)+n])
		t.Reply(0, nil, nil)
	case opSynchronize10:
		t.Reply(0, nil, nil)
	default:
		t.Reply(StatusCheckCondition, senseOf(KeyIllegalRequest, 0x24, 0), nil)
	}
}

// serve makes another portal serve; kill drops the connections of the former one.
func (c *cluster) serve(i int, kill bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kill {
		for _, conn := range c.conns[c.serving] {
			conn.Close()
		}
		c.conns[c.serving] = nil
	}
	c.serving = i
}

func mustOpen(t testing.TB, cfg DiskConfig) *Disk {
	t.Helper()
	d, err := OpenDisk(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestDisk(t *testing.T) {
	for _, same := range []bool{true, false} {
		c, cfg := newCluster(t, 3)
		c.serving, c.same = 2, same
		cfg.MaxLen = 64 << 10
		d := mustOpen(t, cfg)
		if g := d.Geometry(); g != (Geometry{Size: 4 << 20, Block: 512, Physical: 4096}) {
			t.Fatal(g)
		}
		if d.Portal() != cfg.Portals[2] {
			t.Error(d.Portal())
		}
		ctx := t.Context()
		data := bytes.Repeat([]byte("abcdefgh"), 40<<10)
		got := make([]byte, len(data))
		if err := errors.Join(d.WriteAt(ctx, data, 512), d.Flush(ctx), d.ReadAt(ctx, got, 512)); err != nil || !bytes.Equal(got, data) {
			t.Fatal(err)
		}
		if err := errors.Join(d.Zero(ctx, 1024, 128<<10), d.ReadAt(ctx, got, 512)); err != nil {
			t.Fatal(err)
		}
		clear(data[512 : 512+128<<10])
		if !bytes.Equal(got, data) {
			t.Error("not zero")
		}
		for _, bad := range [][2]int64{{1, 512}, {512, 100}, {-512, 512}, {4 << 20, 512}, {4<<20 - 512, 1024}} {
			if err := d.ReadAt(ctx, make([]byte, bad[1]), bad[0]); !errors.Is(err, ErrRange) {
				t.Error(bad, err)
			}
		}
		var refused *StatusError
		if _, err := d.Inquiry(ctx, false, 0); !errors.As(err, &refused) || refused.Sense.Key != KeyIllegalRequest {
			t.Error(err)
		}
		d.Close()
		if err := d.Flush(ctx); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
}

// TestDiskSurvives has many writers while the portals take turns, with and without warning.
func TestDiskSurvives(t *testing.T) {
	c, cfg := newCluster(t, 3)
	var retried, completed, lost atomic.Int64
	cfg.Hooks = Hooks{
		Retried:   func(string, error) { retried.Add(1) },
		Completed: func(Op, time.Time) { completed.Add(1) },
		Lost:      func(string, error) { lost.Add(1) },
	}
	d := mustOpen(t, cfg)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			block, got := make([]byte, 4096), make([]byte, 4096)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				binary.BigEndian.PutUint64(block, rnd.Uint64())
				off := int64(w*16+i%16) * 4096
				if err := errors.Join(d.WriteAt(t.Context(), block, off), d.ReadAt(t.Context(), got, off)); err != nil || !bytes.Equal(got, block) {
					t.Error(err)
					return
				}
			}
		})
	}
	for turn := range 9 {
		before := completed.Load()
		eventually(t, func() bool { return completed.Load() > before+200 })
		c.serve(turn%3, turn%2 == 0)
	}
	close(stop)
	all.Wait()
	if retried.Load() == 0 || lost.Load() == 0 {
		t.Error(retried.Load(), lost.Load())
	}
}

func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 20000 {
		if cond() {
			return
		}
		<-tick.C
	}
	t.Fatal("in vain")
}

func TestDiskRetries(t *testing.T) {
	c, cfg := newCluster(t, 2)
	d := mustOpen(t, cfg)
	buf := make([]byte, 512)
	for _, s := range [][]byte{senseOf(KeyUnitAttention, 0x29, 0), senseOf(KeyAborted, 0, 0), notReady, senseOf(KeyNotReady, 4, 0x0a), senseOf(KeyNotReady, 4, 1)} {
		c.mu.Lock()
		c.sense = s
		c.mu.Unlock()
		if err := d.ReadAt(t.Context(), buf, 0); err != nil {
			t.Errorf("%x: %v", s, err)
		}
	}
	for _, s := range [][]byte{senseOf(KeyMediumError, 0x11, 0), senseOf(KeyDataProtect, 0x27, 7), senseOf(KeyIllegalRequest, 0x25, 0), senseOf(KeyNotReady, 0x3a, 0)} {
		c.mu.Lock()
		c.sense = s
		c.mu.Unlock()
		var refused *StatusError
		if err := d.ReadAt(t.Context(), buf, 0); !errors.As(err, &refused) || refused.Sense != ParseSense(s) {
			t.Errorf("%x: %v", s, err)
		}
	}
}

// TestDiskRetriesTaskSetFull: a target that has no room for a command, as it says again and again, gets it again; only the end
// of the context gives it up.
func TestDiskRetriesTaskSetFull(t *testing.T) {
	c, cfg := newCluster(t, 1)
	retried := 0
	cfg.Hooks.Retried = func(_ string, why error) {
		var status *StatusError
		if !errors.As(why, &status) || status.Status != StatusTaskSetFull {
			t.Error(why)
		}
		retried++ // one command at a time
	}
	d := mustOpen(t, cfg)
	fill := func(n int) { c.mu.Lock(); c.full = n; c.mu.Unlock() }
	out, in := bytes.Repeat([]byte{7}, 512), make([]byte, 512)
	fill(5)
	if err := d.WriteAt(t.Context(), out, 512); err != nil || retried != 5 {
		t.Error(err, retried)
	}
	fill(3)
	if err := d.ReadAt(t.Context(), in, 512); err != nil || retried != 8 || !bytes.Equal(in, out) {
		t.Error(err, retried)
	}
	fill(1 << 30)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := d.WriteAt(ctx, out, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestDiskContext ends contexts: while no portal can be reached, while none serves, and while a command is executed.
func TestDiskContext(t *testing.T) {
	short := func() (context.Context, func()) { return context.WithTimeout(t.Context(), 80*time.Millisecond) }
	_, cfg := newCluster(t, 2)
	dead := cfg
	dead.Portals = []string{"127.0.0.1:1", "127.0.0.1:2"}
	ctx, cancel := short()
	defer cancel()
	if _, err := OpenDisk(ctx, dead); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrConnect) {
		t.Error(err)
	}
	c, cfg := newCluster(t, 2)
	d := mustOpen(t, cfg)
	c.serve(5, false)
	ctx, cancel = short()
	defer cancel()
	var refused *StatusError
	if err := d.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &refused) {
		t.Error(err)
	}
	hold := make(chan struct{})
	addr := iscsitest.Listen(t, iscsitest.Config{}, func(conn *iscsitest.Conn) {
		conn.Serve(func(task *iscsitest.Task) {
			if task.CDB[0] == opRead16 {
				go func() { <-hold; task.Reply(StatusTaskAborted, nil, nil) }()
				return
			}
			c.mu.Lock()
			c.serving = 0
			c.mu.Unlock()
			c.execute(0, task)
		})
	})
	cfg.Portals = []string{addr}
	d = mustOpen(t, cfg)
	ctx, cancel = short()
	defer cancel()
	if err := d.ReadAt(ctx, make([]byte, 512), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(hold) // the target answers an aborted task: that ends the session, and the next command makes a new one
	if err := d.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPolicy(t *testing.T) {
	s := time.Second
	for _, c := range []struct {
		last  int
		until []time.Duration
		now   time.Duration
		want  int
	}{
		{-1, []time.Duration{0, 0, 0}, s, 0},
		{0, []time.Duration{0, 0, 0}, s, 1},
		{2, []time.Duration{0, 0, 0}, s, 0},
		{0, []time.Duration{0, 5 * s, 0}, s, 2},
		{0, []time.Duration{9 * s, 5 * s, 7 * s}, s, 1},
		{0, []time.Duration{0}, s, 0},
		{0, []time.Duration{9 * s}, s, 0},
	} {
		if got := choose(c.last, c.until, c.now); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	if backoff(0) != minBackoff || backoff(1) != 2*minBackoff || backoff(5) != maxBackoff || backoff(1000) != maxBackoff {
		t.Error("backoff")
	}
	for err, want := range map[error]decision{ErrPeerClosed: decideElse, ErrClosed: decideElse, ErrRecoveryTimeout: decideElse,
		ErrQueueFull: decideLater, ErrAborted: decideLater, ErrFailed: decideLater, ErrCommand: decideFail} {
		if got := decide(&Command{Err: err}); got != want {
			t.Error(err, got)
		}
	}
	for status, want := range map[byte]decision{0: decideDone, StatusBusy: decideElse, StatusTaskSetFull: decideLater,
		StatusTaskAborted: decideLater, StatusReservationConflict: decideFail, StatusACAActive: decideFail} {
		if got := decide(&Command{Status: status}); got != want {
			t.Error(status, got)
		}
	}
	if ParseSense([]byte{0x72, 3, 0x11, 5}) != (Sense{3, 0x11, 5}) || ParseSense([]byte{0x70}) != (Sense{}) {
		t.Error("sense")
	}
}

func FuzzSense(f *testing.F) {
	f.Add(notReady)
	f.Add([]byte{0x72, 3, 0x11, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseSense(b)
		if g, err := parseCapacity16(b); err == nil && (g.Size <= 0 || g.Block < 512) {
			t.Fatal(g)
		}
		if g, err := parseCapacity10(b); err == nil && (g.Size <= 0 || g.Block < 512) {
			t.Fatal(g)
		}
	})
}

func FuzzDiscovery(f *testing.F) {
	f.Add("TargetAddress", "[::1]:3260,1")
	f.Fuzz(func(t *testing.T, key, value string) {
		if p, err := parsePortal(value); err == nil && (p.Group < 0 || p.Group > 65535) {
			t.Fatal(p)
		}
	})
}

// TestSilentPortalIsBack: the only portal that serves does not answer at first, as that of a stopped node. As soon as it does it
// is used, long before its silence is over, although the others say NOT READY all the time.
func TestSilentPortalIsBack(t *testing.T) {
	c, cfg := newCluster(t, 3)
	c.serving = 0
	var frozen atomic.Bool
	frozen.Store(true)
	cfg.Timeouts = HostTimeouts()
	cfg.Timeouts.Login = 50 * time.Millisecond
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == cfg.Portals[0] && frozen.Load() {
			near, far := net.Pipe()
			go io.Copy(io.Discard, far) // ends with near
			return near, nil
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	began := time.Now()
	time.AfterFunc(400*time.Millisecond, func() { frozen.Store(false) })
	d := mustOpen(t, cfg)
	if took := time.Since(began); took < 400*time.Millisecond || took > 5*time.Second || d.Portal() != cfg.Portals[0] {
		t.Errorf("after %v: %s", took, d.Portal())
	}
}

// TestDiskIsSentElsewhere: a login that is sent to another portal goes there, and asks the first again the next time; one that is sent
// around in circles ends.
func TestDiskIsSentElsewhere(t *testing.T) {
	c, cfg := newCluster(t, 2)
	c.serving = 1
	var asked atomic.Int64
	sends := func(to func() string) string {
		return iscsitest.Listen(t, iscsitest.Config{Decide: func(*iscsitest.Conn) (iscsi.LoginStatus, []iscsi.Pair) {
			asked.Add(1)
			return iscsi.LoginMovedTemporarily, []iscsi.Pair{{Key: iscsi.KeyTargetAddress, Value: to()}}
		}}, nil)
	}
	to := cfg.Portals[1]
	cfg.Portals = []string{sends(func() string { return to })}
	d := mustOpen(t, cfg)
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
	c.mu.Lock()
	for _, conn := range c.conns[1] {
		conn.Close()
	}
	c.mu.Unlock()
	if err := d.Flush(t.Context()); err != nil || asked.Load() < 2 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
	var circle string
	circle = sends(func() string { return circle + ",1" })
	asked.Store(0)
	s := config(circle)
	if _, err := follow(t.Context(), s); !errors.Is(err, ErrLoginRefused) || asked.Load() != maxMoves+1 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
	nowhere := sends(func() string { return "" })
	if _, err := follow(t.Context(), config(nowhere)); !errors.Is(err, ErrLoginRefused) {
		t.Error(err)
	}
}

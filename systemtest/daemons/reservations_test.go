package daemons

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/internal/iscsi"
	"pmsapp/replication/initiator"
	"pmsapp/systemtest/program"
)

var failovers = flag.Int("failovers", 5, "how many leaders TestReservations kills")

// member is a host of a cluster of hosts: an initiator port with a key, and a block of its own that it writes.
type member struct {
	t    *testing.T
	name string
	key  uint64
	off  int64
	disk *initiator.Disk

	mu      sync.Mutex
	allowed bool // by what is reserved; false while that changes
	refused bool // likewise
	written atomic.Int64
	denied  atomic.Int64
}

func newMember(t *testing.T, c *local.Cluster, lun api.LUN, i int) *member {
	t.Helper()
	m := &member{t: t, name: fmt.Sprintf("host%d", i), key: uint64(0x1000 + i), off: int64(i) << 20}
	portals := []string{c.Virtual}
	for _, n := range c.Nodes {
		portals = append(portals, n.Config.Address.Portal)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	d, err := initiator.OpenDisk(ctx, initiator.DiskConfig{Portals: portals, Initiator: "iqn.2026-11.app.pmsapp:" + m.name, Target: lun.Target,
		LUN: int(lun.Number), ISID: iscsi.ISID{0x80, 0, 0, 0, 0, byte(i)}, Timeouts: initiator.PeerTimeouts(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	m.disk = d
	return m
}

// expect says what must become of the member's writes from now on.
func (m *member) expect(allowed, refused bool) {
	m.mu.Lock()
	m.allowed, m.refused = allowed, refused
	m.mu.Unlock()
}

// load writes until ctx ends, and compares what becomes of it with what must.
func (m *member) load(ctx context.Context) {
	for n := uint64(1); ctx.Err() == nil; n++ {
		m.mu.Lock()
		allowed, refused := m.allowed, m.refused
		m.mu.Unlock()
		block := make([]byte, 4096)
		binary.BigEndian.PutUint64(block, n)
		wctx, cancel := context.WithTimeout(ctx, 40*time.Second)
		err := m.disk.WriteAt(wctx, block, m.off)
		cancel()
		if ctx.Err() != nil {
			return
		}
		m.mu.Lock()
		same := allowed == m.allowed && refused == m.refused
		m.mu.Unlock()
		switch {
		case err == nil:
			m.written.Add(1)
			if same && refused {
				m.t.Errorf("%s has written, and it was forbidden", m.name)
			}
		case conflict(err):
			m.denied.Add(1)
			if same && allowed {
				m.t.Errorf("%s was refused, and it was allowed", m.name)
			}
		default:
			m.t.Errorf("%s: %v", m.name, err)
			return
		}
	}
}

// conflict tells whether err is RESERVATION CONFLICT.
func conflict(err error) bool {
	var s *initiator.StatusError
	return errors.As(err, &s) && s.Status == initiator.StatusReservationConflict
}

// out does PERSISTENT RESERVE OUT. ALL_TG_PT has REGISTER include all nodes' ports.
func (m *member) out(action, typ byte, key, service uint64) error {
	cdb := make([]byte, 10)
	cdb[0], cdb[1], cdb[2], cdb[8] = 0x5f, action, typ, 24
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], service)
	list[20] = 0x05 // ALL_TG_PT, APTPL
	ctx, cancel := context.WithTimeout(m.t.Context(), 40*time.Second)
	defer cancel()
	_, err := m.disk.Command(ctx, cdb, list, nil)
	return err
}

func (m *member) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
}

// in does PERSISTENT RESERVE IN.
func (m *member) in(action byte) []byte {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 40*time.Second)
	defer cancel()
	buf := make([]byte, 4096)
	n, err := m.disk.Command(ctx, []byte{0x5e, action, 0, 0, 0, 0, 0, 0x10, 0, 0}, nil, buf)
	m.must(err)
	return buf[:n]
}

// holds checks who holds the reservation, and its type.
func (m *member) holds(by *member, typ byte) {
	m.t.Helper()
	b := m.in(1)
	if len(b) != 24 || binary.BigEndian.Uint64(b[8:]) != by.key || b[21] != typ {
		m.t.Fatalf("%s reads the reservation %x, want type %d and the key of %s", m.name, b, typ, by.name)
	}
}

// TestReservations: two hosts share a volume as clusters of hosts do (types 5 and 6), a third is shut out, and a fourth changes its
// registration all the time. Leaders are killed. Whoever is shut out never writes, whoever is not is never refused, and what was
// answered holds after each failover (invariant 17).
func TestReservations(t *testing.T) {
	c := program.Cluster(t, local.Config{Nodes: 3})
	if _, err := c.Client().CreateVolume(t.Context(), api.NewVolume{Name: "v", Size: 64 << 20, Replicas: 2}); err != nil {
		t.Fatal(err)
	}
	lun, err := c.Client().Export(t.Context(), api.NewLUN{Volume: "v"})
	if err != nil {
		t.Fatal(err)
	}
	var hosts [4]*member
	for i := range hosts {
		hosts[i] = newMember(t, c, lun, i)
	}
	a, b, out, changes := hosts[0], hosts[1], hosts[2], hosts[3]
	for _, m := range []*member{a, b} {
		m.must(m.out(6, 0, 0, m.key))
		m.expect(true, false)
	}
	a.must(a.out(1, 5, a.key, 0))
	out.expect(false, true)

	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	stop := func() { cancel(); work.Wait() }
	defer stop()
	for _, m := range []*member{a, b, out} {
		work.Go(func() { m.load(ctx) })
	}
	registered := 0
	work.Go(func() {
		for key := uint64(0x2000); ctx.Err() == nil; key++ {
			if err := changes.out(6, 0, 0, key); err != nil {
				t.Errorf("registering: %v", err)
				return
			}
			registered++
			if !bytes.Contains(changes.in(0), binary.BigEndian.AppendUint64(nil, key)) {
				t.Errorf("key %x is not registered, and REGISTER was answered GOOD", key)
				return
			}
			pause(ctx, 20*time.Millisecond)
		}
	})

	typ := byte(5)
	for round := range *failovers {
		st := settled(t, c)
		if t.Failed() {
			return
		}
		before := [3]int64{a.written.Load(), b.written.Load(), out.denied.Load()}
		if err := c.Kill(c.Index(st.Leader)); err != nil {
			t.Fatal(err)
		}
		if err := local.Wait(t.Context(), "all to go on after the failover", 30*time.Second, func(context.Context) (bool, error) {
			return a.written.Load() > before[0]+20 && b.written.Load() > before[1]+20 && out.denied.Load() > before[2]+20 || t.Failed(), nil
		}); err != nil {
			t.Fatal(err)
		}
		b.holds(a, typ)
		if err := c.Start(c.Index(st.Leader)); err != nil {
			t.Fatal(err)
		}
		// The other takes over: one cluster of hosts fails over, too.
		typ = 11 - typ
		a.expect(false, false)
		b.must(b.out(4, typ, b.key, a.key))
		a.expect(false, true)
		before[0] = a.denied.Load()
		if err := local.Wait(t.Context(), "the host that was preempted to be refused", 30*time.Second, func(context.Context) (bool, error) {
			return a.denied.Load() > before[0]+5 || t.Failed(), nil
		}); err != nil {
			t.Fatal(err)
		}
		a.expect(false, false)
		a.must(a.out(6, 0, 0, a.key))
		a.expect(true, false)
		a.holds(b, typ)
		t.Logf("failover %d: %d and %d written, %d refused, %d registrations", round+1, a.written.Load(), b.written.Load(), out.denied.Load(), registered)
		a, b = b, a
	}
	stop()
	if out.written.Load() != 0 {
		t.Errorf("the host that is shut out has written %d times", out.written.Load())
	}
}

package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"pmsapp/internal/ids"
	"pmsapp/internal/sim"
	"pmsapp/replication/peer"
)

// machine is a node on a memDisk that lives several times, and what a leader knows of it. Every life ends at some step of its
// disk, by the process dying or by the power failing; the next begins with the checks of what was promised.
type machine struct {
	d       *memDisk
	rnd     *sim.Rand
	cluster ids.Cluster
	pool    ids.Pool
	node    *Node
	s       peer.Session
	epoch   peer.Epoch // of the session, or of the last attempt
	fenced  peer.Epoch // the highest that was answered
	vols    []*volume
	seq     peer.Seq
	failing bool // flushes fail now and then
	failNow bool // one of the command under way does
	device  bool // the pool is a block device
	// opened is called with the pools open and nothing fenced: a planted bug's.
	opened func(*Node)
}

// volume is what the leader knows of a replica.
type volume struct {
	spec    peer.Spec
	exists  fate
	sectors []uint64   // acknowledged, or read and so relied upon
	maybe   [][]uint64 // written, and not acknowledged
	active  map[uint32]peer.Seq
	seq     peer.Seq // at least this was recorded
	grows   int64    // the size that a Grow named that was not answered
	// What was answered from memory is there as long as the replica has the incarnation under which it was; past it, it or what was before.
	incarnation ids.ID
	loose       map[int][]uint64 // by sector: what was before

	birth  ids.ID          // of the replica; zero: not known
	absent fate            // whether another replica is recorded as absent
	missed map[uint32]bool // if it is: at least these regions
}

// larger has the volume another size.
func (v *volume) larger(size int64) {
	n := int(size-v.spec.Size) / 512
	v.spec.Size = size
	v.sectors, v.maybe = append(v.sectors, make([]uint64, n)...), append(v.maybe, make([][]uint64, n)...)
}

// grow makes a replica larger: by some blocks, regions, or a block of the map.
func (m *machine) grow(v *volume) error {
	if v.spec.Size%sumBlock != 0 || v.spec.Size > 500*crashRegion || m.device && v.spec.Size > 20*crashRegion {
		return nil
	}
	spec := v.spec
	steps := []int{4, 4, 2, 1}
	if m.device {
		steps[3] = 0 // it is small
	}
	spec.Size += []int64{sumBlock, 3 * crashRegion, 5*crashRegion + sumBlock, 480 * crashRegion}[m.rnd.Weighted(steps)]
	v.grows = spec.Size
	err := m.call(peer.Command{Kind: peer.Grow, Volume: spec.Volume, Spec: spec}).Err
	if err != nil {
		if err = m.ended(err); err == nil {
			err = m.open() // what became of it?
		}
		return err
	}
	v.larger(spec.Size)
	v.grows = 0
	return nil
}

type fate uint8

const (
	no fate = iota
	yes
	unknown
)

const (
	crashSize   = 8*(64<<10) + 512 // two leaves of sums
	crashRegion = 64 << 10
)

func newMachine(seed uint64) *machine {
	m := &machine{d: newMemDisk(seed), rnd: sim.NewRand(seed + 1), cluster: ids.Cluster{1}}
	for _, p := range []string{"/state", "/pool"} {
		m.d.root.change(map[string]*memNode{strings.Trim(p, "/"): newDir()})
	}
	m.d.root.durable, m.d.root.pending = map[string]*memNode{"state": m.d.root.names["state"], "pool": m.d.root.names["pool"]}, nil
	return m
}

// onDevice has the machine's pool on a block device.
func (m *machine) onDevice() {
	f := &memNode{data: sim.NewFile(6 << 20)}
	m.d.root.names["pool"], m.d.root.durable["pool"] = f, f
	m.device = true
}

func (m *machine) call(c peer.Command) peer.Answer {
	done := make(chan struct{})
	call := &peer.Call{Command: c, Done: func(*peer.Call) { close(done) }}
	m.s.Submit(call)
	<-done
	return call.Answer
}

// start begins a life: whatever a crash has left, everything opens.
func (m *machine) start() error {
	var err error
	if m.node, err = OpenNode(Config{Dir: "/state", Cluster: m.cluster, Log: slog.New(slog.DiscardHandler), disk: m.d, free: true}); err != nil {
		return err
	}
	id, err := m.node.AddPool("/pool", true)
	if err != nil {
		return err
	}
	if !m.pool.IsZero() && m.pool != id {
		return errors.New("the pool is another one")
	}
	m.pool = id
	if m.opened != nil {
		m.opened(m.node)
	}
	if m.node.Accepted() < m.fenced || m.node.own.epoch < m.fenced {
		return fmt.Errorf("the epoch fell from %d to %d, and in the node's record to %d", m.fenced, m.node.Accepted(), m.node.own.epoch)
	}
	return m.open()
}

func (m *machine) open() error {
	m.epoch++
	s, err := m.node.Open(context.Background(), m.epoch)
	if err != nil {
		return err
	}
	f := s.Fenced()
	if f.Highest < m.fenced || len(f.Pools) != 1 {
		return fmt.Errorf("the fence of %d answers %+v, after %d", m.epoch, f, m.fenced)
	}
	p := f.Pools[0]
	if m.fenced > 0 && (!peer.Has(p.Accepted, m.fenced) || p.Previous < m.fenced || p.Reverted) {
		return fmt.Errorf("epoch %d was accepted, and the pool says %+v", m.fenced, p)
	}
	m.s, m.fenced = s, m.epoch
	found := map[ids.Volume]peer.FencedReplica{}
	for _, r := range p.Replicas {
		found[r.Spec.Volume] = r
	}
	for i, v := range m.vols {
		r, ok := found[v.spec.Volume]
		if ok && r.Foreign && m.d.dead() {
			return errCrashed
		}
		if ok && r.Foreign {
			x := m.node.pools[0].find(v.spec.Volume)
			return fmt.Errorf("volume %d is foreign: %w", i, errors.Join(x.foreign, x.state()))
		}
		if ok && v.exists == no || !ok && v.exists == yes {
			return fmt.Errorf("volume %d: there: %v, and should be %d", i, ok, v.exists)
		}
		if v.exists == unknown && ok && r.Seq == 0 {
			v.reset() // a Reset or Create that was not answered
		}
		v.exists = no
		if !ok {
			continue
		}
		v.exists = yes
		if err := m.proved(v); err != nil {
			return fmt.Errorf("volume %d: %w", i, err)
		}
		if err := m.check(v, r); err != nil {
			return fmt.Errorf("volume %d: %w", i, err)
		}
	}
	return nil
}

func (v *volume) reset() {
	n := v.spec.Size / 512
	v.sectors, v.maybe, v.active, v.seq = make([]uint64, n), make([][]uint64, n), map[uint32]peer.Seq{}, 0
	v.birth, v.absent, v.missed = ids.ID{}, no, nil
	v.loose = map[int][]uint64{}
}

// check compares a replica with what is known of it, and from then on relies on what was read.
func (m *machine) check(v *volume, r peer.FencedReplica) error {
	if v.grows != 0 && r.Spec.Size == v.grows {
		v.larger(v.grows)
	}
	v.grows = 0
	if r.Seq < v.seq || r.Spec != v.spec {
		return fmt.Errorf("the Seq fell from %d to %d, or it is another: %+v", v.seq, r.Seq, r.Spec)
	}
	v.seq = r.Seq
	if r.Incarnation != v.incarnation {
		for i, before := range v.loose {
			v.maybe[i] = append(v.maybe[i], before...)
		}
	}
	v.incarnation, v.loose = r.Incarnation, map[int][]uint64{} // who reads the map has it flushed
	a := m.call(peer.Command{Kind: peer.ReadMap, Volume: v.spec.Volume})
	b := make([]byte, v.spec.Size)
	rd := m.call(peer.Command{Kind: peer.Read, Volume: v.spec.Volume, Len: v.spec.Size, Data: b})
	if err := errors.Join(a.Err, rd.Err); err != nil {
		return err
	}
	active := map[uint32]peer.Seq{}
	for _, x := range a.Active {
		active[x.Region] = x.Seq
	}
	if len(active) != r.Active {
		return fmt.Errorf("%d regions are active, and %d was answered", len(active), r.Active)
	}
	for reg, seq := range v.active {
		if active[reg] < seq {
			return fmt.Errorf("region %d has the mark %d, and had %d", reg, active[reg], seq)
		}
	}
	if err := m.checkMissed(v, a, active); err != nil {
		return err
	}
	for i := range v.sectors {
		got := binary.BigEndian.Uint64(b[512*i:])
		if got != v.sectors[i] {
			ok := false
			for _, x := range v.maybe[i] {
				ok = ok || x == got
			}
			if !ok {
				return fmt.Errorf("sector %d is %d: neither %d, which was acknowledged, nor of %d", i, got, v.sectors[i], v.maybe[i])
			}
			if active[uint32(i*512/crashRegion)] == 0 {
				return fmt.Errorf("sector %d was written and not acknowledged, and its region is not marked", i)
			}
		}
		v.sectors[i], v.maybe[i] = got, nil // reconciled: another replica has been made equal to this one
	}
	v.active = active
	return nil
}

// work is one random thing that a leader does. An error is a broken promise, or errCrashed.
func (m *machine) work() error {
	if len(m.vols) < 2 {
		v := &volume{spec: peer.Spec{Volume: ids.Volume{byte(len(m.vols) + 1)}, Lineage: ids.Lineage{1}, Pool: m.pool, Size: crashSize, Region: crashRegion}}
		if len(m.vols) == 1 {
			v.spec.Size -= 512
		}
		v.reset()
		m.vols = append(m.vols, v)
	}
	v := m.vols[m.rnd.Intn(len(m.vols))]
	if v.exists != yes {
		return m.made(v, peer.Create)
	}
	switch k := m.rnd.Intn(40); {
	case k == 0:
		v.exists = unknown
		err := m.ended(m.call(peer.Command{Kind: peer.Delete, Volume: v.spec.Volume}).Err)
		if err == nil {
			v.exists = no
			v.reset()
		}
		return err
	case k == 1:
		return m.made(v, peer.Reset)
	case k < 4:
		return m.open()
	case k == 39:
		return m.grow(v)
	case k < 10:
		return m.clear(v)
	case k < 12:
		return m.damage(v, m.rnd.Intn(int(v.spec.Size/sumBlock)))
	case k < 14:
		return m.know(v)
	case k < 17:
		return m.changeMissed(v)
	case k < 24 && !m.device: // where each is a worker's own, what comes first would differ from run to run
		return m.writeBatch(v)
	}
	return m.write(v)
}

func (m *machine) made(v *volume, k peer.Kind) error {
	v.exists = unknown
	err := m.ended(m.call(peer.Command{Kind: k, Spec: v.spec, Volume: v.spec.Volume}).Err)
	if err == nil {
		v.exists = yes
		v.reset()
	}
	return err
}

// ended is what an error of a command means for the life.
func (m *machine) ended(err error) error {
	if err != nil && m.failing && errors.Is(err, peer.ErrMedium) {
		if m.d.dead() {
			return errCrashed // the last step failed
		}
		return nil
	}
	return err
}

func (m *machine) write(v *volume) error {
	n := 1 + m.rnd.Intn(200)
	first := m.rnd.Intn(len(v.sectors) - n)
	m.seq++
	c := peer.Command{Kind: peer.Write, Volume: v.spec.Volume, Off: int64(first) * 512, Len: int64(n) * 512, Seq: m.seq, Durable: m.seq - 1}
	low, high := uint32(c.Off/crashRegion), uint32((c.Off+c.Len-1)/crashRegion)
	if q := v.active[low]; q != 0 && low == high && m.rnd.Chance(0.7) {
		c.Seq = q // hot
	}
	value := uint64(m.seq)
	if m.rnd.Chance(0.2) {
		c.Kind, value = peer.Zero, 0
	} else {
		c.Data = make([]byte, c.Len)
		for i := range n {
			binary.BigEndian.PutUint64(c.Data[512*i:], value)
		}
	}
	for i := first; i < first+n; i++ {
		v.maybe[i] = append(v.maybe[i], value)
	}
	m.failNow = m.failing && m.rnd.Chance(0.1)
	c.Volatile = m.rnd.Chance(0.3)
	err := m.call(c).Err
	m.failNow = false
	if err != nil {
		if err := m.ended(err); err != nil {
			return err
		}
		return m.open() // which has it opened anew
	}
	if !c.Volatile {
		clear(v.loose) // it flushed those, too
	}
	for i := first; i < first+n; i++ {
		if c.Volatile {
			v.loose[i] = append(append(v.loose[i], v.sectors[i]), v.maybe[i]...)
		}
		v.sectors[i], v.maybe[i] = value, nil
	}
	for r := low; r <= high; r++ {
		if v.absent == yes {
			v.missed[r] = true
		}
		v.active[r] = max(v.active[r], c.Seq)
	}
	v.seq = max(v.seq, c.Seq)
	return nil
}

// clear cleans what a leader would: regions without a write that was not acknowledged.
func (m *machine) clear(v *volume) error {
	if len(v.loose) > 0 && m.rnd.Chance(0.5) {
		m.failNow = m.failing && m.rnd.Chance(0.1)
		err := m.call(peer.Command{Kind: peer.Flush, Volume: v.spec.Volume}).Err
		m.failNow = false
		if err != nil {
			if err := m.ended(err); err != nil {
				return err
			}
			return m.open()
		}
		clear(v.loose)
	}
	var list []peer.RegionSeq
next:
	for _, r := range slices.Sorted(maps.Keys(v.active)) {
		q := v.active[r]
		for i := int(r) * crashRegion / 512; i < min(len(v.sectors), int(r+1)*crashRegion/512); i++ {
			if v.maybe[i] != nil || v.loose[i] != nil {
				continue next
			}
		}
		list = append(list, peer.RegionSeq{Region: r, Seq: q})
		delete(v.active, r)
	}
	m.failNow = m.failing && m.rnd.Chance(0.1)
	err := m.call(peer.Command{Kind: peer.Clear, Volume: v.spec.Volume, Regions: list}).Err
	m.failNow = false
	if err != nil {
		if err := m.ended(err); err != nil {
			return err
		}
		return m.open()
	}
	return nil
}

// live is one life of up to so many steps of the disk; it ends by the power failing or the process dying.
func (m *machine) live(steps int) error {
	m.d.steps, m.d.stop = 0, steps
	err := m.start()
	for err == nil {
		err = m.work()
	}
	if m.node != nil {
		m.d.stop = 0
		m.d.steps = 0
		m.d.stop = 1 // nothing more reaches the disk
		m.node.Close()
		m.node = nil
	}
	if m.rnd.Chance(0.6) {
		m.d.crash()
	}
	if strings.Contains(err.Error(), errCrashed.Error()) {
		return nil
	}
	return err
}

// survive runs a machine through some lives, the first of which ends at a given step.
func survive(seed uint64, first int, plant func(*machine)) error {
	m := newMachine(seed)
	m.failing = seed%3 == 2
	if m.failing {
		m.d.fails = func(path string) bool {
			return m.failNow && (path == "/pool" || strings.HasSuffix(path, "/data") || strings.HasSuffix(path, "/map") || strings.HasSuffix(path, "/sums")) && m.d.rnd.Chance(0.5)
		}
	}
	if plant != nil {
		plant(m)
	}
	for life, steps := range []int{first, 1 + m.rnd.Intn(120), 1 + m.rnd.Intn(60), 1 + m.rnd.Intn(120), 400} {
		if err := m.live(steps); err != nil {
			return fmt.Errorf("seed %d, first %d, life %d: %w", seed, first, life, err)
		}
	}
	return nil
}

// TestCrashPoints ends a first life at each step in turn, and what a power failure leaves is different each time.
func TestCrashPoints(t *testing.T) { crashPoints(t, 150, nil) }

// TestCrashPointsOnDevice is the same with the pool on a block device.
func TestCrashPointsOnDevice(t *testing.T) { crashPoints(t, 70, (*machine).onDevice) }

func crashPoints(t *testing.T, points int, plant func(*machine)) {
	if testing.Short() {
		points = 40
	}
	for first := 1; first <= points; first++ {
		for seed := range uint64(3) {
			if err := survive(1000*seed+uint64(first)*17, first, plant); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCrashPointsBite plants a bug and looks whether it is found.
func TestCrashPointsBite(t *testing.T) {
	suffix := func(what, end string) func(*machine) {
		return func(m *machine) {
			m.d.skip = func(w, path string) bool { return w == what && strings.HasSuffix(path, end) }
		}
	}
	// atOpen skips the first flush of a file in a life.
	atOpen := func(end string) func(*machine) {
		return func(m *machine) {
			var in *Node
			m.d.skip = func(w, path string) bool {
				if w != "flush" || !strings.HasSuffix(path, end) || in == m.node && in != nil && m.s != nil {
					return false
				}
				return m.node != nil && len(m.node.pools) == 0
			}
		}
	}
	for name, plant := range map[string]func(*machine){
		"a write is applied before its mark is durable":      suffix("flush", "/map"),
		"a write is acknowledged before it is durable":       suffix("flush", "/data"),
		"a region is clean before its checksums are durable": suffix("flush", "/sums"),
		"a flush of a device that failed for another replica is not noticed": func(m *machine) {
			m.onDevice()
			m.d.blind, m.failing = true, true
			m.d.fails = func(path string) bool { return m.failNow && path == "/pool" && m.d.rnd.Chance(0.5) }
		},
		"the checksums of active regions are relied upon": func(m *machine) {
			m.opened = func(n *Node) {
				for _, r := range n.pools[0].replicas {
					if r.foreign == nil { // the disk may have died while it was opened
						clear(r.sums.void)
					}
				}
			}
		},
		"the map of a larger replica is not durable before its superblock": func(m *machine) {
			m.d.skip = func(what, path string) bool { return what == "flush" && strings.Contains(path, "/"+fileMap+".") }
		},
		"an epoch is answered before it is durable":                 suffix("flush", "/epochs"),
		"the name of a replica is not durable":                      suffix("syncDir", "/replicas"),
		"the names in a replica are not durable":                    suffix("syncDir", ".new"),
		"the names in a pool are not durable":                       suffix("syncDir", "/pool"),
		"a superblock gets its name before its bytes":               suffix("flush", "super.new"),
		"data that a dead process has not flushed are relied upon":  atOpen("/data"),
		"marks that a dead process has not flushed are relied upon": atOpen("/map"),
		"the name of the node's record is not durable":              suffix("syncDir", "/state"),
	} {
		t.Run(name, func(t *testing.T) {
			for first := 1; first <= 300; first++ {
				for seed := range uint64(20) {
					if err := survive(1000*seed+uint64(first)*17, first, plant); err != nil {
						t.Log(err)
						return
					}
				}
			}
			t.Error("it was not found")
		})
	}
}

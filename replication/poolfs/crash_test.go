package poolfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"

	"pmsapp/internal/sim"
)

const (
	testUnit = 4096
	testSize = 3 << 20
)

func testLayout(size int64) Layout {
	l, err := NewLayout(size, testUnit, 32<<10)
	if err != nil {
		panic(err)
	}
	return l
}

// model is what must be on the device.
type model struct {
	dev   *simDevice
	rnd   *sim.Rand
	fs    *FS
	files []*modelFile            // every one that was a name's since the sync
	now   map[string]*modelFile   // by name; nil: a directory
	past  []map[string]*modelFile // the names since the last sync, the newest last: one of these is found after a crash
	value uint64
	nonce uint64
}

type modelFile struct {
	size  int64
	f     *File
	now   []uint64
	maybe map[int][]uint64 // by sector: what it may have besides, until a sync
}

func (m *model) options() Options {
	return Options{Inline: true, Nonce: func() uint64 { m.nonce++; return m.nonce }}
}

func newModel(seed uint64) *model {
	m := &model{dev: newSimDevice(seed, testSize), rnd: sim.NewRand(seed + 1), now: map[string]*modelFile{}}
	garbage := make([]byte, testSize)
	for i := range garbage {
		garbage[i] = 0xa5
	}
	m.dev.f.Write(0, garbage)
	m.dev.f.Flush().Done()
	if seed%2 == 1 {
		m.dev.grain = 4096
	}
	if err := Format(m.dev, testLayout(testSize), m.options()); err != nil {
		panic(err)
	}
	m.synced()
	return m
}

func (m *model) synced() {
	m.past = []map[string]*modelFile{maps.Clone(m.now)}
	for _, f := range m.files {
		clear(f.maybe)
	}
}

// work is one random thing. An error is the device's, or a broken promise.
func (m *model) work() error {
	name := fmt.Sprintf("/d%d/f%d", m.rnd.Intn(2), m.rnd.Intn(4))
	dir := name[:3]
	if _, ok := m.now[dir]; !ok {
		m.now[dir] = nil
		m.past = append(m.past, maps.Clone(m.now))
		return m.fs.Mkdir(dir)
	}
	f := m.now[name]
	switch k := m.rnd.Intn(40); {
	case f == nil:
		return m.create(name)
	case k == 0:
		delete(m.now, name)
		if m.rnd.Chance(0.2) {
			for _, n := range slices.Collect(maps.Keys(m.now)) {
				if len(n) >= 3 && n[:3] == dir {
					delete(m.now, n)
				}
			}
			name = dir
		}
		m.past = append(m.past, maps.Clone(m.now))
		return m.fs.RemoveAll(name)
	case k == 1:
		to := fmt.Sprintf("%s/f%d", dir, m.rnd.Intn(6))
		delete(m.now, name)
		m.now[to] = f
		m.past = append(m.past, maps.Clone(m.now))
		return m.fs.Rename(name, to)
	case k == 2:
		return m.extend(name, f)
	case k < 8:
		var err error
		if m.rnd.Chance(0.5) {
			err = m.fs.Sync()
		} else {
			err = f.f.Flush()
		}
		if err == nil {
			m.synced()
		}
		return err
	case k < 12:
		return m.read(f)
	}
	return m.write(f)
}

func (m *model) create(name string) error {
	size := int64(m.rnd.Intn(40)) * 512
	if m.dev.grain > 512 {
		size = size / 4096 * 4096
	}
	f := &modelFile{size: size, now: make([]uint64, size/512), maybe: map[int][]uint64{}}
	m.files, m.now[name] = append(m.files, f), f
	m.past = append(m.past, maps.Clone(m.now))
	err := m.fs.Create(name, size, m.rnd.Chance(0.2))
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EIO) { // no space was to be had: the name is gone again
		delete(m.now, name)
		m.past = append(m.past, maps.Clone(m.now))
		if errors.Is(err, syscall.ENOSPC) {
			return nil
		}
		return err
	}
	if err == nil {
		f.f, err = m.fs.Open(name, 512)
	}
	return err
}

func (m *model) extend(name string, f *modelFile) error {
	size := f.size + int64(m.rnd.Intn(5))*4096
	g := *f // the same bytes, of another size
	g.size, g.now = size, append(slices.Clone(f.now), make([]uint64, (size-f.size)/512)...)
	g.maybe = maps.Clone(f.maybe)
	m.files, m.now[name] = append(m.files, &g), &g
	m.past = append(m.past, maps.Clone(m.now))
	err := m.fs.Extend(name, size)
	if err == nil {
		m.synced()
	}
	return err
}

func (m *model) span(f *modelFile) (at, n int) {
	g := m.dev.grain / 512
	all := len(f.now) / g
	n = 1 + m.rnd.Intn(all)
	return m.rnd.Intn(all-n+1) * g, n * g
}

func (m *model) write(f *modelFile) error {
	if len(f.now) == 0 {
		return nil
	}
	at, n := m.span(f)
	m.value++
	v := m.value
	if m.rnd.Chance(0.3) {
		v = 0
	}
	for i := at; i < at+n; i++ {
		f.maybe[i] = append(f.maybe[i], f.now[i], v)
		f.now[i] = v
	}
	var err error
	if v == 0 {
		err = f.f.Zero(int64(at)*512, int64(n)*512)
	} else {
		b := make([]byte, n*512)
		for i := 0; i < len(b); i += 8 {
			binary.BigEndian.PutUint64(b[i:], v)
		}
		err = f.f.WriteAt(b, int64(at)*512)
	}
	if errors.Is(err, syscall.ENOSPC) {
		return m.reread(f, at, n)
	}
	return err
}

// reread takes over what a write without space has left: old or new.
func (m *model) reread(f *modelFile, at, n int) error {
	got, err := m.sectors(f, at, n)
	if err == nil {
		for i := range got {
			if !slices.Contains(f.maybe[at+i], got[i]) {
				return fmt.Errorf("sector %d is %d", at+i, got[i])
			}
			f.now[at+i] = got[i]
		}
	}
	return err
}

func (m *model) sectors(f *modelFile, at, n int) (out []uint64, err error) {
	b := make([]byte, n*512)
	if err := f.f.ReadAt(b, int64(at)*512); err != nil {
		return nil, err
	}
	for i := 0; i < len(b); i += 512 {
		v := binary.BigEndian.Uint64(b[i:])
		for k := 0; k < 512; k += 8 {
			if binary.BigEndian.Uint64(b[i+k:]) != v {
				return nil, fmt.Errorf("sector %d is torn, or rubbish: %x", at+i/512, b[i:i+512])
			}
		}
		out = append(out, v)
	}
	return out, nil
}

func (m *model) read(f *modelFile) error {
	if len(f.now) == 0 {
		return nil
	}
	at, n := m.span(f)
	got, err := m.sectors(f, at, n)
	if err == nil && !slices.Equal(got, f.now[at:at+n]) {
		err = fmt.Errorf("sectors from %d on are %v, and should be %v", at, got, f.now[at:at+n])
	}
	return err
}

// reopen begins another life with the checks of what was promised.
func (m *model) reopen() error {
	var err error
	if m.fs, err = Open(m.dev, m.options()); err != nil {
		return err
	}
	if err := m.fs.consistent(); err != nil {
		return err
	}
	names := map[string]int64{}
	for _, d := range []string{"/d0", "/d1"} {
		list, err := m.fs.List(d)
		if err != nil {
			if errors.Is(err, errGone) {
				return err
			}
			continue
		}
		names[d] = -1
		for _, n := range list {
			f, err := m.fs.Open(d+"/"+n, 512)
			if err != nil {
				return err
			}
			names[d+"/"+n], _ = f.Size()
		}
	}
	why := fmt.Errorf("the names are %v: none of the %d sets since the sync", names, len(m.past))
	for _, was := range slices.Backward(m.past) {
		if !fits(was, names) {
			continue
		}
		if why = m.adopt(was); why == nil {
			m.synced()
			return nil
		}
		if errors.Is(why, errGone) {
			return why
		}
	}
	return why
}

func fits(was map[string]*modelFile, names map[string]int64) bool {
	if len(was) != len(names) {
		return false
	}
	for n, size := range names {
		f, ok := was[n]
		if !ok || (f == nil) != (size < 0) || f != nil && f.size != size {
			return false
		}
	}
	return true
}

// adopt takes a set of names for what is there, if the bytes are right.
func (m *model) adopt(was map[string]*modelFile) error {
	found := map[string]*modelFile{}
	for n, f := range was {
		if f == nil {
			found[n] = nil
			continue
		}
		g := &modelFile{size: f.size, maybe: map[int][]uint64{}}
		var err error
		if g.f, err = m.fs.Open(n, 512); err != nil {
			return err
		}
		if len(f.now) > 0 {
			if g.now, err = m.sectors(g, 0, len(f.now)); err != nil {
				return fmt.Errorf("%s: %w", n, err)
			}
		}
		for i, v := range g.now {
			if v != f.now[i] && !slices.Contains(f.maybe[i], v) {
				return fmt.Errorf("%s: sector %d is %d, neither %d nor of %v", n, i, v, f.now[i], f.maybe[i])
			}
		}
		found[n] = g
	}
	m.now, m.files = found, nil
	for _, f := range found {
		if f != nil {
			m.files = append(m.files, f)
		}
	}
	return nil
}

// consistent looks for units that are somebody's twice, or nobody's.
func (fs *FS) consistent() error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	seen := newBitmap(fs.l.Units)
	for _, n := range fs.st.nodes {
		var err error
		n.runs(func(o op) {
			for i := range o.count {
				if seen.has(o.at + i) {
					err = fmt.Errorf("unit %d is two files'", o.at+i)
				}
				seen.set(o.at + i)
			}
		})
		if err != nil {
			return err
		}
	}
	for _, u := range slices.Concat(fs.space.freed, fs.space.stock) {
		if seen.has(u) || fs.space.free.has(u) {
			return fmt.Errorf("unit %d is given out, and to be given out", u)
		}
		seen.set(u)
	}
	for _, x := range fs.space.limbo {
		for _, u := range x.units {
			if seen.has(u) || fs.space.free.has(u) {
				return fmt.Errorf("unit %d is in limbo and elsewhere", u)
			}
			seen.set(u)
		}
	}
	for u := range fs.l.Units {
		if seen.has(u) == fs.space.free.has(u) {
			return fmt.Errorf("unit %d is nobody's or somebody's: %v", u, seen.has(u))
		}
	}
	return nil
}

// failed is what a host does after an error of the device: it opens the files anew, and finds old or new bytes of what was not flushed.
func (m *model) failed() error {
	for name, f := range m.now {
		if f == nil {
			continue
		}
		g, err := m.fs.Open(name, 512)
		if err != nil {
			return err
		}
		f.f = g
		for i, v := range f.now {
			f.maybe[i] = append(f.maybe[i], v)
		}
		if len(f.now) > 0 {
			if err := m.reread(f, 0, len(f.now)); err != nil {
				return fmt.Errorf("%s: after a failure: %w", name, err)
			}
		}
	}
	return m.fs.consistent()
}

// again does something until it does not fail for want of the device.
func again(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, syscall.EIO) {
			return err
		}
	}
}

// survive runs a model through some lives, the first of which ends at a given step of the device.
func survive(seed uint64, first int, plant func(*simDevice)) error {
	m := newModel(seed)
	if plant != nil {
		plant(m.dev)
	}
	for life, steps := range []int{first, 1 + m.rnd.Intn(80), 1 + m.rnd.Intn(30), 1 + m.rnd.Intn(300), 250} {
		m.dev.stop = steps
		if seed/10000%2 == 1 {
			m.dev.fails = func(string) bool { return m.dev.rnd.Chance(0.04) }
		}
		err := again(m.reopen)
		for err == nil {
			if err = m.work(); errors.Is(err, syscall.EIO) || errors.Is(err, ErrLost) {
				err = again(m.failed)
			}
		}
		if !errors.Is(err, errGone) {
			return fmt.Errorf("seed %d, first %d, life %d: %w", seed, first, life, err)
		}
		m.dev.crash(m.rnd.Chance(0.7))
	}
	return nil
}

// TestCrashPoints ends a first life before each step of the device in turn; any sectors that were not flushed are lost.
func TestCrashPoints(t *testing.T) {
	points := 120
	if testing.Short() {
		points = 40
	}
	for first := 1; first <= points; first++ {
		for seed := range uint64(3) {
			if err := survive(10000*seed+uint64(first), first, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCrashPointsBite plants a bug and looks whether it is found.
func TestCrashPointsBite(t *testing.T) {
	skip := func(what string) func(*simDevice) {
		return func(d *simDevice) { d.skip = func(w string) bool { return w == what } }
	}
	for name, plant := range map[string]func(*simDevice){
		"nothing is flushed":              skip("flush"),
		"units are not zeroed before use": skip("zero"),
		"every fourth flush does nothing": func(d *simDevice) { n := 0; d.skip = func(w string) bool { n++; return w == "flush" && n%4 == 0 } },
	} {
		t.Run(name, func(t *testing.T) {
			for first := 1; first <= 300; first++ {
				for seed := range uint64(4) {
					if err := survive(10000*seed+uint64(first), first, plant); err != nil {
						t.Log(err)
						return
					}
				}
			}
			t.Error("it was not found")
		})
	}
}

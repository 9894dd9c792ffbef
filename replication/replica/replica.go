package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// Names within a replica's directory.
const (
	fileSuper = "super"
	fileData  = "data"
	fileMap   = "map"
)

// replica is one replica, open. Commands of it hold use shared; its deletion holds it alone.
type replica struct {
	spec    peer.Spec
	dir     string
	foreign error // it cannot be used, and why

	use    sync.RWMutex
	gone   bool // deleted. Guarded by use
	data   *data
	mapf   *os.File
	flush  group // of data
	commit group // of the map

	mu     sync.Mutex // guards what follows
	marks  *marks
	broken error // a flush failed: what the disk has is not known until it is opened anew
}

// openReplica opens what is in a directory. A replica that is damaged is returned as foreign.
func openReplica(dir string, volume ids.Volume, pool ids.Pool) *replica {
	r := &replica{dir: dir, spec: peer.Spec{Volume: volume, Pool: pool}}
	if err := r.open(); err != nil {
		r.foreign = err
		r.close()
	}
	return r
}

func (r *replica) open() error {
	b, err := readBlock(filepath.Join(r.dir, fileSuper))
	if err != nil {
		return fmt.Errorf("the superblock: %w", err)
	}
	spec, err := decodeSpec(b)
	if err != nil {
		return fmt.Errorf("the superblock: %w", err)
	}
	if spec.Volume != r.spec.Volume || spec.Pool != r.spec.Pool {
		return fmt.Errorf("the superblock: %w: it is that of volume %s in pool %s", ErrDamaged, spec.Volume, spec.Pool)
	}
	r.spec = spec
	if r.data, err = openData(filepath.Join(r.dir, fileData)); err != nil {
		return fmt.Errorf("the data: %w", err)
	}
	if info, err := r.data.f.Stat(); err != nil || info.Size() != spec.Size {
		return fmt.Errorf("the data: %w: its size is not %d (%w)", ErrDamaged, spec.Size, errors.Join(err))
	}
	if r.mapf, err = os.OpenFile(filepath.Join(r.dir, fileMap), os.O_RDWR, 0); err != nil {
		return fmt.Errorf("the map: %w", err)
	}
	m := newMarks(regionsOf(spec))
	slots := make([]byte, 2*blockSize)
	for i := range m.blocks {
		if _, err := r.mapf.ReadAt(slots, 2*blockSize*int64(i)); err != nil {
			return fmt.Errorf("the map: %w: %w", ErrDamaged, err)
		}
		if err := m.load(uint32(i), [2][]byte{slots[:blockSize], slots[blockSize:]}); err != nil {
			return fmt.Errorf("the map: %w", err)
		}
	}
	r.marks = m
	r.flush.flush = r.flushData
	r.commit.flush = r.commitMap
	return nil
}

func (r *replica) close() {
	if r.data != nil {
		r.data.close()
	}
	if r.mapf != nil {
		r.mapf.Close()
	}
}

// make makes an empty replica: first all of it under another name, then the name.
func makeReplica(dir string, spec peer.Spec) error {
	if err := checkSpec(spec); err != nil {
		return err
	}
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	m := newMarks(regionsOf(spec))
	err := errors.Join(
		replaceFile(filepath.Join(tmp, fileSuper), encodeSpec(spec)),
		makeFile(filepath.Join(tmp, fileData), spec.Size, false),
		makeFile(filepath.Join(tmp, fileMap), m.mapSize(), true),
		syncDir(tmp))
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err == nil {
		err = syncDir(filepath.Dir(dir))
	}
	if err != nil {
		os.RemoveAll(tmp)
	}
	return err
}

// describe is the replica at a fence.
func (r *replica) describe() peer.FencedReplica {
	f := peer.FencedReplica{Spec: r.spec, Foreign: r.foreign != nil}
	if r.foreign != nil {
		return f
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f.Seq, f.Durable = r.marks.highest()
	f.Active = r.marks.active
	f.Foreign = r.broken != nil
	return f
}

// flushData makes all writes that have returned durable. A flush that failed is never repeated: the kernel may have dropped
// what it could not write.
func (r *replica) flushData() error {
	err := r.data.flush()
	if err != nil {
		r.fail(fmt.Errorf("flushing the data of %s: %w", r.spec.Volume, err))
	}
	return err
}

// commitMap writes what has changed in the map.
func (r *replica) commitMap() error {
	r.mu.Lock()
	list, broken := r.marks.take(), r.broken
	r.mu.Unlock()
	if broken != nil {
		return broken
	}
	for _, w := range list {
		if _, err := r.mapf.WriteAt(w.bytes, w.at); err != nil {
			r.fail(fmt.Errorf("writing the map of %s: %w", r.spec.Volume, err))
			return err
		}
	}
	if err := (&data{f: r.mapf}).flush(); err != nil {
		r.fail(fmt.Errorf("flushing the map of %s: %w", r.spec.Volume, err))
		return err
	}
	r.mu.Lock()
	r.marks.wrote(list)
	r.mu.Unlock()
	return nil
}

func (r *replica) fail(err error) {
	r.mu.Lock()
	if r.broken == nil {
		r.broken = err
	}
	r.mu.Unlock()
}

// execute carries a command out; it blocks.
func (r *replica) execute(c *peer.Call) error {
	r.use.RLock()
	defer r.use.RUnlock()
	r.mu.Lock()
	broken := r.broken
	r.mu.Unlock()
	switch {
	case r.gone || r.foreign != nil:
		return fmt.Errorf("volume %s: %w", c.Volume, peer.ErrNoReplica)
	case broken != nil:
		return diskError("the replica awaits a new session", broken)
	}
	switch c.Kind {
	case peer.Clear:
		r.mu.Lock()
		flush := r.marks.clear(c.Regions)
		r.mu.Unlock()
		if flush {
			return diskError("clearing marks", r.commit.do())
		}
		return nil
	case peer.ReadMap:
		r.mu.Lock()
		c.Active = r.marks.list()
		r.mu.Unlock()
		return nil
	}
	if c.Off < 0 || c.Len <= 0 || c.Off%512 != 0 || c.Len%512 != 0 || c.Len > r.spec.Size-c.Off || c.Off > r.spec.Size {
		return fmt.Errorf("%d bytes at %d of %d: %w", c.Len, c.Off, r.spec.Size, peer.ErrInvalid)
	}
	switch c.Kind {
	case peer.Read:
		if int64(len(c.Data)) != c.Len {
			return fmt.Errorf("%d bytes of data for %d: %w", len(c.Data), c.Len, peer.ErrInvalid)
		}
		return diskError("reading", r.data.readAt(c.Data, c.Off))
	case peer.Extents:
		var err error
		c.Extents, err = r.data.extents(c.Off, c.Off+c.Len)
		return diskError("looking for data", err)
	case peer.Write:
		if int64(len(c.Data)) != c.Len {
			return fmt.Errorf("%d bytes of data for %d: %w", len(c.Data), c.Len, peer.ErrInvalid)
		}
		return r.change(c, func() error { return r.data.writeAt(c.Data, c.Off) })
	case peer.Zero:
		return r.change(c, func() error { return r.data.zero(c.Off, c.Len) })
	}
	return fmt.Errorf("command %d: %w", c.Kind, peer.ErrInvalid)
}

// change marks, applies and flushes (invariant 12).
func (r *replica) change(c *peer.Call, apply func() error) error {
	if c.Seq == 0 {
		return fmt.Errorf("a write without a Seq: %w", peer.ErrInvalid)
	}
	first, last := uint32(c.Off/r.spec.Region), uint32((c.Off+c.Len-1)/r.spec.Region)
	r.mu.Lock()
	flush := r.marks.begin(first, last, c.Seq, c.Durable)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.marks.end(first, last)
		r.mu.Unlock()
	}()
	if flush {
		if err := r.commit.do(); err != nil {
			return diskError("marking", err)
		}
	}
	if err := apply(); err != nil {
		return diskError("writing", err)
	}
	return diskError("flushing", r.flush.do())
}

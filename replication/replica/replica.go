package replica

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// Names within a replica's directory.
const (
	fileSuper = "super"
	fileData  = "data"
	fileMap   = "map"
)

// replica is one replica, open. Commands of it hold use shared; who opens it anew or deletes it holds it alone.
type replica struct {
	disk    disk
	dir     string
	spec    peer.Spec
	foreign error // it cannot be used, and why

	use         sync.RWMutex
	gone        bool // deleted or closed. Guarded by use
	data        file // so are these
	incarnation ids.ID
	mapf        file
	sums        *sums
	number      uint64 // in the cache, since it was opened
	cache       *cache // of reads; set before it is used
	flush       group  // of data
	commit      group  // of the map
	batches     batcher
	batched     atomic.Bool // small writes go in batches: the data's file takes many at once

	knowing sync.Mutex // held, over I/O, by who changes others

	mu     sync.Mutex // guards what follows
	marks  *marks
	others othersRecord // as it is on the disk
	// clearing are the regions whose sums are being made durable, each for the Clear that came last, until a write touches them.
	clearing map[uint32]uint64
	clears   uint64
	volatile bool   // writes were taken in that need not be durable when they are answered, and no flush has covered them all
	taken    uint64 // how many of them there were
	taking   int    // those that are under way
	failures uint64 // of the disk, when the files were opened: see disk
	broken   error  // a write of the map, or a flush, failed: what the disk has is not known until it is opened anew
}

// openReplica opens what is in a directory. A replica that is damaged is returned as foreign. An error is about this process,
// and says nothing of the replica.
func openReplica(d disk, dir string, volume ids.Volume, pool ids.Pool) (*replica, error) {
	r := &replica{disk: d, dir: dir, spec: peer.Spec{Volume: volume, Pool: pool}, clearing: map[uint32]uint64{}, incarnation: ids.New(), failures: d.failures()}
	r.flush.flush = r.flushData
	r.commit.flush = r.commitMap
	if err := r.open(); err != nil {
		r.closeFiles()
		if scarce(err) {
			return nil, fmt.Errorf("volume %s: %w", volume, err)
		}
		r.foreign = err
	}
	return r, nil
}

func (r *replica) open() error {
	b, err := readBlockAt(r.disk, filepath.Join(r.dir, fileSuper))
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
	if r.data, err = r.disk.open(filepath.Join(r.dir, fileData), 512); err != nil {
		return fmt.Errorf("the data: %w", err)
	}
	many, ok := r.data.(manyWriter)
	r.batched.Store(ok && many.takesMany())
	if n, err := r.data.size(); err != nil || n < spec.Size { // a longer one is what is left of a growth: zeros
		return fmt.Errorf("the data: %w: it has %d bytes, and should have %d (%w)", ErrDamaged, n, spec.Size, errors.Join(err))
	}
	if err := r.finishGrowth(spec); err != nil {
		return fmt.Errorf("the map: %w", err)
	}
	if r.mapf, err = r.disk.open(filepath.Join(r.dir, fileMap), blockSize); err != nil {
		return fmt.Errorf("the map: %w", err)
	}
	m, others, err := r.loadMap(spec)
	if err != nil {
		return fmt.Errorf("the map: %w", err)
	}
	// A process may have died between a write and its flush. What is read from here on, and found equal to another replica's,
	// must still be there after a crash: such bytes are in active regions only.
	if m.active > 0 {
		if err := r.data.flush(); err != nil {
			return fmt.Errorf("the data: flushing what was left: %w", err)
		}
	}
	if err := r.openSums(spec, m); err != nil {
		return fmt.Errorf("the checksums: %w", err)
	}
	r.mu.Lock()
	r.spec, r.marks, r.others = spec, m, others
	clear(r.clearing)
	r.mu.Unlock()
	r.number = r.cache.number() // nothing that was read before is answered any more
	return nil
}

// keepIn has what is read kept in a cache. It is called before the replica is used.
func (r *replica) keepIn(c *cache) { r.cache, r.number = c, c.number() }

// loadMap reads the map. It is flushed first: a mark that a dead process wrote and did not flush would be taken for one that
// is on the disk.
func (r *replica) loadMap(spec peer.Spec) (*marks, othersRecord, error) {
	var none othersRecord
	size := mapSize(spec)
	if n, err := r.mapf.size(); err != nil || n != size {
		if err := r.oldMap(); err != nil {
			return nil, none, err
		}
		return nil, none, fmt.Errorf("%w: it has %d bytes, and should have %d (%w)", ErrDamaged, n, size, errors.Join(err))
	}
	if err := r.mapf.flush(); err != nil {
		return nil, none, err
	}
	others, err := r.loadOthers(spec)
	if err != nil {
		return nil, none, err
	}
	m := newMarks(regionsOf(spec))
	for _, e := range others.others {
		if e.Absent {
			m.maps[e.slot] = missedMap{e.gen, e.All}
		}
	}
	const pair = 2 * blockSize
	end := mapBlocks(spec)
	buf := block.Get(int(min(end, 256*pair)))
	defer block.Put(buf)
	for at := int64(0); at < end; at += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), end-at)]
		if err := r.mapf.readAt(part, at); err != nil {
			return nil, none, err
		}
		for i := 0; i < len(part); i += pair {
			if err := m.load(uint32((at+int64(i))/pair), [2][]byte{part[i : i+blockSize], part[i+blockSize : i+pair]}); err != nil {
				return nil, none, err
			}
		}
	}
	return m, others, nil
}

func (r *replica) closeFiles() {
	if r.data != nil {
		r.data.close()
		r.data = nil
	}
	if r.mapf != nil {
		r.mapf.close()
		r.mapf = nil
	}
	r.closeSums()
}

// close waits for the replica's commands and closes it.
func (r *replica) close() {
	r.use.Lock()
	defer r.use.Unlock()
	r.gone = true
	r.closeFiles()
}

// makeReplica makes an empty replica: first all of it under another name, durably, then the name.
func makeReplica(d disk, dir string, spec peer.Spec) error {
	tmp := dir + ".new"
	if err := d.removeAll(tmp); err != nil {
		return err
	}
	if err := d.mkdir(tmp); err != nil {
		return err
	}
	err := writeNew(d, filepath.Join(tmp, fileSuper), encodeSpec(spec))
	if err == nil {
		err = d.create(filepath.Join(tmp, fileData), spec.Size, false)
	}
	if err == nil {
		err = makeMap(d, filepath.Join(tmp, fileMap), spec)
	}
	if err == nil {
		err = makeSums(d, filepath.Join(tmp, fileSums), spec)
	}
	if err == nil {
		err = d.syncDir(tmp)
	}
	if err == nil {
		err = d.rename(tmp, dir)
	}
	if err != nil {
		return errors.Join(err, d.removeAll(tmp))
	}
	return d.syncDir(filepath.Dir(dir))
}

// describe is the replica at a fence.
func (r *replica) describe() peer.FencedReplica {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := peer.FencedReplica{Spec: r.spec, Foreign: r.foreign != nil || r.stateLocked() != nil}
	if f.Foreign {
		return f
	}
	f.Incarnation = r.incarnation
	f.Seq, f.Durable = r.marks.highest()
	f.Active = r.marks.active
	return f
}

// flushData makes all writes that have returned durable. After a flush that failed the next may succeed without the bytes:
// the kernel may have dropped them. So there is none (invariant 10).
func (r *replica) flushData() error {
	r.mu.Lock()
	err, taken, taking := r.stateLocked(), r.taken, r.taking
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if err := r.data.flush(); err != nil {
		r.fail(fmt.Errorf("flushing the data of %s: %w", r.spec.Volume, err))
		return err
	}
	r.mu.Lock()
	if taking == 0 && taken == r.taken {
		r.volatile = false // this flush began when all of them had been written: none is lost any more
	}
	r.mu.Unlock()
	return nil
}

// commitMap makes what has changed in the map durable.
func (r *replica) commitMap() error {
	r.mu.Lock()
	if err := r.stateLocked(); err != nil {
		r.mu.Unlock()
		return err
	}
	list := r.marks.take()
	r.mu.Unlock()
	if len(list) == 0 {
		return nil // an earlier run has taken it along
	}
	for _, w := range list {
		if err := r.mapf.writeAt(w.bytes, w.at); err != nil {
			r.fail(fmt.Errorf("writing the map of %s: %w", r.spec.Volume, err))
			return err
		}
	}
	if err := r.mapf.flush(); err != nil {
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

func (r *replica) state() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stateLocked()
}

// stateLocked is called with mu. A flush that failed for another replica counts, where they have one for all.
func (r *replica) stateLocked() error {
	if r.broken == nil && r.foreign == nil && r.failures != r.disk.failures() {
		r.broken = errShared
	}
	return r.broken
}

var errShared = errors.New("a flush of the pool's device failed for all its replicas")

// renew opens a replica anew whose flush has failed: from here on it holds what the disk says; under another incarnation, if
// writes may be lost that were answered (invariant 10). wait says that commands in progress are waited for; otherwise it does nothing while there are any.
func (r *replica) renew(wait bool) (renewed bool) {
	if wait {
		r.use.Lock()
	} else if !r.use.TryLock() {
		return false
	}
	defer r.use.Unlock()
	if r.gone || r.foreign != nil || r.state() == nil {
		return false
	}
	failures := r.disk.failures() // those that come from here on are of the files that are opened now, too
	r.closeFiles()
	if err := r.open(); err != nil {
		r.closeFiles()
		r.mu.Lock()
		r.broken = err
		r.mu.Unlock()
		return false
	}
	r.mu.Lock()
	r.broken, r.failures = nil, failures
	if r.volatile {
		r.volatile, r.incarnation = false, ids.New()
	}
	r.mu.Unlock()
	return true
}

package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// Names within a pool's directory.
const (
	filePool    = "pmsapp-pool"
	fileEpochs  = "epochs"
	dirReplicas = "replicas"
)

// pool is a directory that holds replicas.
type pool struct {
	id    ids.Pool
	path  string
	super *os.File // locked as long as the pool is open
	epoch *os.File
	work  *workers

	mu       sync.Mutex // guards what follows
	count    uint64     // of writes of the epochs
	accepted []peer.EpochRange
	failed   error // recording an epoch failed: the pool is as good as absent
	replicas map[ids.Volume]*replica
}

// openPool opens a pool, or makes one of an empty directory if may is set.
func openPool(path string, cluster ids.Cluster, may bool) (*pool, error) {
	super, err := os.OpenFile(filepath.Join(path, filePool), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err := makePool(path, cluster, may); err != nil {
			return nil, err
		}
		super, err = os.OpenFile(filepath.Join(path, filePool), os.O_RDWR, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", path, err)
	}
	p := &pool{path: path, super: super, work: newWorkers(maxWorkers), replicas: map[ids.Volume]*replica{}}
	if err := p.open(cluster); err != nil {
		p.close()
		return nil, fmt.Errorf("pool %s: %w", path, err)
	}
	return p, nil
}

// makePool makes a pool of an empty directory. The superblock comes last: with it the directory is a pool.
func makePool(path string, cluster ids.Cluster, may bool) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("pool %s: %w (make the directory, or mount its disk)", path, err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "lost+found", fileEpochs, dirReplicas, filePool + ".new": // a file system's own, and what an interrupted attempt left
		default:
			return fmt.Errorf("pool %s: %w: it has %q; empty it, or name another directory", path, ErrNotEmpty, e.Name())
		}
	}
	if !may {
		return fmt.Errorf("pool %s: %w: is its disk mounted?", path, ErrNotPool)
	}
	if sub, err := os.ReadDir(filepath.Join(path, dirReplicas)); err == nil && len(sub) > 0 {
		return fmt.Errorf("pool %s: %w: it has replicas and no superblock; restore %s from a backup", path, ErrDamaged, filePool)
	}
	if err := os.RemoveAll(filepath.Join(path, fileEpochs)); err != nil {
		return fmt.Errorf("making pool %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Join(path, dirReplicas), 0o700); err != nil {
		return fmt.Errorf("making pool %s: %w", path, err)
	}
	err = makeFile(filepath.Join(path, fileEpochs), 2*blockSize, true)
	if err == nil {
		err = replaceFile(filepath.Join(path, filePool), poolSuper{cluster, ids.NewPool()}.encode())
	}
	if err != nil {
		return fmt.Errorf("making pool %s: %w", path, err)
	}
	return nil
}

func (p *pool) open(cluster ids.Cluster) error {
	if err := unix.Flock(int(p.super.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return ErrInUse
		}
		return fmt.Errorf("locking: %w", err)
	}
	b, err := readBlock(p.super.Name())
	if err != nil {
		return fmt.Errorf("the superblock: %w", err)
	}
	super, err := decodePool(b)
	if err != nil {
		return fmt.Errorf("the superblock: %w: restore the file %s from a backup, or empty the directory to give its replicas up",
			err, filePool)
	}
	if super.cluster != cluster {
		return fmt.Errorf("%w (%s): name another directory, or empty this one to give its replicas up", ErrForeign, super.cluster)
	}
	p.id = super.pool
	if err := p.loadEpochs(); err != nil {
		return err
	}
	return p.scan()
}

// loadEpochs reads the newer slot that is whole. A torn one is of a fence that was not answered.
func (p *pool) loadEpochs() (err error) {
	if p.epoch, err = os.OpenFile(filepath.Join(p.path, fileEpochs), os.O_RDWR, 0); err != nil {
		return fmt.Errorf("the epochs: %w", err)
	}
	var last error
	damaged, found := 0, false
	for i := range int64(2) {
		b := make([]byte, blockSize)
		if _, err := p.epoch.ReadAt(b, i*blockSize); err != nil {
			return fmt.Errorf("the epochs: %w: %w", ErrDamaged, err)
		}
		if allZero(b) {
			continue
		}
		count, rs, err := decodeEpochs(b)
		if err != nil {
			damaged++
			last = err
			continue
		}
		if !found || count > p.count {
			p.count, p.accepted, found = count, rs, true
		}
	}
	if damaged == 2 {
		return fmt.Errorf("the epochs: %w", last)
	}
	return nil
}

// scan opens the replicas, and removes what a crash has left.
func (p *pool) scan() error {
	dir := filepath.Join(p.path, dirReplicas)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the replicas: %w", err)
	}
	for _, e := range entries {
		id, err := ids.Parse(e.Name())
		if err != nil {
			if strings.HasSuffix(e.Name(), ".new") || strings.HasSuffix(e.Name(), ".gone") {
				if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
					return fmt.Errorf("removing what is left of a replica: %w", err)
				}
			}
			continue
		}
		p.replicas[ids.Volume(id)] = openReplica(filepath.Join(dir, e.Name()), ids.Volume(id), p.id)
	}
	return nil
}

// record adds an epoch durably to those that the pool has accepted.
func (p *pool) record(e peer.Epoch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != nil {
		return p.failed
	}
	next := peer.Accept(p.accepted, e)
	if err := writeBlock(p.epoch, encodeEpochs(p.count+1, next), int64((p.count+1)%2)*blockSize); err != nil {
		p.failed = fmt.Errorf("recording an epoch in pool %s: %w", p.path, err)
		return p.failed
	}
	p.count++
	p.accepted = next
	return nil
}

// highest is the highest epoch that the pool has accepted.
func (p *pool) highest() peer.Epoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.accepted); n > 0 {
		return p.accepted[n-1].Hi
	}
	return 0
}

func (p *pool) find(v ids.Volume) *replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.replicas[v]
}

// create makes the replica of a spec; one that is there and was never written is as good.
func (p *pool) create(spec peer.Spec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.replicas[spec.Volume]; r != nil {
		if d := r.describe(); !d.Foreign && d.Spec == spec && d.Seq == 0 {
			return nil
		}
		return fmt.Errorf("a replica of volume %s is there: %w", spec.Volume, peer.ErrInvalid)
	}
	dir := filepath.Join(p.path, dirReplicas, spec.Volume.String())
	if err := makeReplica(dir, spec); err != nil {
		if errors.Is(err, peer.ErrInvalid) {
			return err
		}
		return diskError("making a replica", err)
	}
	r := openReplica(dir, spec.Volume, p.id)
	if r.foreign != nil {
		return diskError("opening a new replica", r.foreign)
	}
	p.replicas[spec.Volume] = r
	return nil
}

// remove deletes a replica: it is gone durably when this returns, and its space soon after.
func (p *pool) remove(v ids.Volume) error {
	p.mu.Lock()
	r := p.replicas[v]
	delete(p.replicas, v)
	p.mu.Unlock()
	if r == nil {
		return nil
	}
	r.use.Lock() // waits for its commands
	r.gone = true
	r.close()
	r.use.Unlock()
	gone := r.dir + ".gone"
	if err := os.RemoveAll(gone); err != nil {
		return diskError("removing a replica", err)
	}
	if err := os.Rename(r.dir, gone); err != nil && !errors.Is(err, os.ErrNotExist) {
		return diskError("removing a replica", err)
	}
	if err := syncDir(filepath.Dir(r.dir)); err != nil {
		return diskError("removing a replica", err)
	}
	return diskError("freeing a replica's space", os.RemoveAll(gone))
}

// renew opens the replicas anew whose flush has failed: what they hold is what the disk says (invariant 10). Nothing uses
// them: it is called within a fence, when the pool is not busy.
func (p *pool) renew() (renewed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for v, r := range p.replicas {
		r.mu.Lock()
		broken := r.broken
		r.mu.Unlock()
		if broken == nil {
			continue
		}
		r.use.Lock()
		r.gone = true
		r.close()
		r.use.Unlock()
		p.replicas[v] = openReplica(r.dir, v, p.id)
		renewed = true
	}
	return renewed
}

func (p *pool) close() {
	for _, r := range p.replicas {
		r.use.Lock()
		if !r.gone {
			r.gone = true
			r.close()
		}
		r.use.Unlock()
	}
	if p.epoch != nil {
		p.epoch.Close()
	}
	p.super.Close()
}

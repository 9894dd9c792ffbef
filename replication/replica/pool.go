package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// Names within a pool's directory.
const (
	filePool    = "pmsapp-pool"
	fileEpochs  = "epochs"
	dirReplicas = "replicas"
)

// pool is a directory, or a block device, that holds replicas.
type pool struct {
	disk   disk
	give   func() error // gives disk up
	id     ids.Pool
	path   string
	super  file   // locked as long as the pool is open
	cache  *cache // of reads; nil: none
	work   *workers
	queues queues // for batches of writes
	// shapes makes and deletes replicas, one at a time and in the order of their coming: I/O must not wait for a worker meanwhile.
	shapes *workers
	freer  *freer

	recorder sync.WaitGroup // of those that record epochs, or open replicas anew

	shape sync.Mutex // held, over I/O, by who makes, deletes or renews replicas

	mu        sync.Mutex    // guards what follows; never held over I/O, for every command takes it
	epochs    slots         // used by who has set recording
	recording bool          // an epoch is being recorded
	reopening chan struct{} // closed when replicas have been opened anew; nil: none is
	accepted  []peer.EpochRange
	written   Written // what the catalog was when the newest was recorded
	failed    error   // recording an epoch failed: the pool is as good as absent
	replicas  map[ids.Volume]*replica
}

// openPool opens a pool, or makes one of an empty directory or a blank device if may is set.
func openPool(cfg Config, path string, may bool) (*pool, error) {
	d, give, err := cfg.disk.pool(path, may, func(d disk) error { return notForeign(d, path, cfg.Cluster) })
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", path, err)
	}
	if d == nil {
		return openPoolOn(cfg, path, may)
	}
	cfg.disk = d
	p, err := openPoolOn(cfg, path, may)
	if err != nil {
		return nil, errors.Join(err, give())
	}
	p.give = give
	return p, nil
}

// notForeign refuses the files on a device if they are another cluster's. Whatever else is wrong with them is told by who opens them.
func notForeign(d disk, path string, cluster ids.Cluster) error {
	b, err := readBlockAt(d, filepath.Join(path, filePool))
	if err != nil {
		return nil
	}
	if super, err := decodePool(b); err == nil && super.cluster != cluster {
		return foreign(d, super.cluster)
	}
	return nil
}

func foreign(d disk, cluster ids.Cluster) error {
	return fmt.Errorf("%w (%s): name another; or %s", ErrForeign, cluster, remedy(d, ""))
}

func openPoolOn(cfg Config, path string, may bool) (*pool, error) {
	d, cluster := cfg.disk, cfg.Cluster
	super, err := d.open(filepath.Join(path, filePool), blockSize)
	if errors.Is(err, os.ErrNotExist) {
		if err := makePool(d, path, cluster, may); err != nil {
			return nil, err
		}
		super, err = d.open(filepath.Join(path, filePool), blockSize)
	}
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", path, err)
	}
	p := &pool{disk: d, path: path, super: super, work: newWorkers(maxWorkers), shapes: newWorkers(1), freer: newFreer(d), replicas: map[ids.Volume]*replica{},
		give: func() error { return nil }}
	p.freer.inline = cfg.free
	if err := p.open(cluster); err != nil {
		p.close()
		return nil, fmt.Errorf("pool %s: %w", path, err)
	}
	return p, nil
}

func (p *pool) open(cluster ids.Cluster) error {
	if err := p.super.lock(); err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	// Whoever made it may have died before its name was durable.
	if err := p.disk.syncDir(p.path); err != nil {
		return err
	}
	b, err := readBlock(p.super)
	if err != nil {
		return fmt.Errorf("the superblock: %w", err)
	}
	super, err := decodePool(b)
	if err != nil {
		return fmt.Errorf("the superblock: %w: %s",
			err, remedy(p.disk, filePool))
	}
	if super.cluster != cluster {
		return foreign(p.disk, super.cluster)
	}
	p.id = super.pool
	if p.epochs.f, err = p.disk.open(filepath.Join(p.path, fileEpochs), blockSize); err == nil {
		err = p.epochs.load(func(b []byte) (count uint64, err error) {
			count, p.accepted, p.written, err = decodeEpochs(b)
			return count, err
		})
	}
	if err != nil {
		return fmt.Errorf("the epochs: %w: %s", err, remedy(p.disk, fileEpochs))
	}
	return p.scan()
}

// remedy says what an admin can do about a pool that cannot be used, because of a file or as a whole.
func remedy(d disk, file string) string {
	switch _, device := d.(*poolDisk); {
	case device:
		return "`pmsapp pool format --wipe` gives its replicas up"
	case file != "":
		return "restore the file " + file + " from a backup, or empty the directory to give its replicas up"
	}
	return "empty the directory to give its replicas up"
}

// scan opens the replicas, and removes what a crash has left.
func (p *pool) scan() error {
	dir := filepath.Join(p.path, dirReplicas)
	// A process may have died between a name and its syncDir: what is seen here will be acknowledged if it is asked for again.
	if err := p.disk.syncDir(dir); err != nil {
		return fmt.Errorf("the replicas: %w", err)
	}
	names, err := p.disk.list(dir)
	if err != nil {
		return fmt.Errorf("the replicas: %w", err)
	}
	for _, name := range names {
		id, err := ids.Parse(name)
		if err != nil {
			base, unfinished := strings.CutSuffix(name, ".new")
			if _, _, gone := goneName(name); gone {
				p.freer.add(filepath.Join(dir, name))
			} else if _, err := ids.Parse(base); err == nil && unfinished { // anything else is nothing of ours
				if err := p.disk.removeAll(filepath.Join(dir, name)); err != nil {
					return fmt.Errorf("removing what is left of a replica: %w", err)
				}
			}
			continue
		}
		r, err := openReplica(p.disk, filepath.Join(dir, name), ids.Volume(id), p.id)
		if err != nil {
			return err
		}
		p.replicas[ids.Volume(id)] = r
	}
	return nil
}

// begin has an epoch recorded durably beside those that the pool has accepted, which it returns. It returns at once: done is
// called at the end. ok is false while an earlier one is being recorded.
func (p *pool) begin(e peer.Epoch, w Written, done func(error)) (before []peer.EpochRange, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.recording {
		return nil, false
	}
	p.recording = true
	before = p.accepted
	p.recorder.Go(func() { done(p.record(e, w)) }) // ends when the disk answers
	return before, true
}

func (p *pool) record(e peer.Epoch, w Written) error {
	p.mu.Lock()
	next, err := peer.Accept(p.accepted, e), p.failed
	p.mu.Unlock()
	if err == nil {
		if err = p.epochs.write(encodeEpochs(p.epochs.count+1, next, w)); err != nil {
			err = fmt.Errorf("recording an epoch in pool %s: %w", p.path, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recording = false
	if p.failed = err; err == nil {
		p.accepted, p.written = next, w
	}
	return err
}

// history is what the pool has accepted; ok is false while that is changing.
func (p *pool) history() (accepted []peer.EpochRange, failed error, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted, p.failed, !p.recording
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

func (p *pool) all() []*replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*replica, 0, len(p.replicas))
	for _, r := range p.replicas {
		out = append(out, r)
	}
	return out
}

// create makes the replica of a spec; one that is there and was never written is as good.
func (p *pool) create(spec peer.Spec) error {
	p.shape.Lock()
	defer p.shape.Unlock()
	return p.createLocked(spec)
}

func (p *pool) createLocked(spec peer.Spec) error {
	if r := p.find(spec.Volume); r != nil {
		if d := r.describe(); !d.Foreign && d.Spec == spec && d.Seq == 0 {
			return nil
		}
		return fmt.Errorf("a replica of volume %s is there: %w", spec.Volume, peer.ErrInvalid)
	}
	dir := filepath.Join(p.path, dirReplicas, spec.Volume.String())
	if err := makeReplica(p.disk, dir, spec); err != nil {
		p.reopenLeft(dir, spec.Volume)
		return diskError("making a replica", err)
	}
	r, err := openReplica(p.disk, dir, spec.Volume, p.id)
	if err != nil {
		return diskError("opening a new replica", err)
	}
	p.put(spec.Volume, r)
	if r.foreign != nil {
		return diskError("opening a new replica", r.foreign)
	}
	return nil
}

// reopenLeft keeps in the list what a failed attempt may have left under the name of a replica, as foreign: so it is deleted
// when that is asked for, and never taken for one that is there durably.
func (p *pool) reopenLeft(dir string, v ids.Volume) {
	names, err := p.disk.list(filepath.Dir(dir))
	if err != nil {
		return
	}
	for _, name := range names {
		if name == filepath.Base(dir) {
			p.put(v, &replica{disk: p.disk, dir: dir, spec: peer.Spec{Volume: v, Pool: p.id}, foreign: ErrDamaged})
		}
	}
}

func (p *pool) put(v ids.Volume, r *replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r == nil {
		delete(p.replicas, v)
	} else {
		r.keepIn(p.cache)
		p.replicas[v] = r
	}
}

// remove deletes a replica: it is gone durably when this returns without an error; its space is free later. After one it is still in the list, so that
// another attempt does all of it again.
func (p *pool) remove(v ids.Volume) error {
	p.shape.Lock()
	defer p.shape.Unlock()
	return p.removeLocked(v)
}

func (p *pool) removeLocked(v ids.Volume) error {
	r := p.find(v)
	if r == nil {
		return nil
	}
	r.close() // waits for its commands
	gone := p.freer.name(r.dir)
	if err := p.disk.rename(r.dir, gone); err != nil && !errors.Is(err, os.ErrNotExist) {
		return diskError("removing a replica", err)
	}
	if err := p.disk.syncDir(filepath.Dir(r.dir)); err != nil {
		return diskError("removing a replica", err)
	}
	p.put(v, nil)
	p.freer.add(gone)
	return nil
}

// reset deletes and creates in one.
func (p *pool) reset(spec peer.Spec) error {
	if err := checkSpec(spec); err != nil {
		return err
	}
	p.shape.Lock()
	defer p.shape.Unlock()
	if err := p.removeLocked(spec.Volume); err != nil {
		return err
	}
	return p.createLocked(spec)
}

// reopen has renew done beside the caller, and returns what is closed at its end; nil if there is nothing to do. told is called if a
// replica was opened anew.
func (p *pool) reopen(told func()) <-chan struct{} {
	broken := slices.ContainsFunc(p.all(), func(r *replica) bool { return r.state() != nil })
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reopening == nil && broken {
		over := make(chan struct{})
		p.reopening = over
		p.recorder.Go(func() { // ends when the disk answers
			if p.renew() {
				told()
			}
			p.mu.Lock()
			p.reopening = nil
			p.mu.Unlock()
			close(over)
		})
	}
	return p.reopening
}

// renew opens the replicas anew whose flush has failed. It leaves those that have commands in progress.
func (p *pool) renew() (renewed bool) {
	for range 2 { // to open one flushes, and on a device a flush that fails has failed for those before it, too
		for _, r := range p.all() {
			if r.state() != nil && r.renew(false) {
				renewed = true
			}
		}
	}
	return renewed
}

func (p *pool) close() {
	p.freer.close()
	for _, r := range p.all() {
		r.close()
	}
	p.recorder.Wait()
	if p.epochs.f != nil {
		p.epochs.f.close()
	}
	p.super.close()
	p.queues.close()
	p.give() // all that was answered is durable
}

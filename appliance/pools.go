package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/cluster"
	"pmsapp/internal/ids"
	"pmsapp/replication/replica"
)

// pools are this node's. Which directories are pools is remembered beside the catalog: a directory that was one and is empty
// now is a disk that is not mounted, and never made a pool again. A disk may hang while its pool is opened: each known one has a goroutine for
// that, so that none keeps the node, its vote and the others away.
type pools struct {
	file     string
	replicas poolHolder
	log      *slog.Logger
	work     sync.WaitGroup // of those that open pools

	saving sync.Mutex // held, over I/O, by who writes the file

	mu      sync.Mutex          // guards what follows; never held over I/O, for status takes it
	known   map[string]ids.Pool // by path; what the file has
	absent  map[string]error    // known, and not open: why
	opening map[string]bool     // paths that are being opened
	back    []string            // opened since anybody asked
}

// poolHolder is what a replica.Node does with pools.
type poolHolder interface {
	AddPool(path string, may bool) (ids.Pool, error)
	Pools() []replica.PoolInfo
}

// poolWait is how long a start waits for its pools.
const poolWait = 5 * time.Second

// errOpening says that a pool is being opened, and that takes long.
var errOpening = errors.New("its disk does not answer")

func newPools(dir string, r poolHolder, log *slog.Logger) *pools {
	return &pools{file: filepath.Join(dir, "pools"), replicas: r, log: log, known: map[string]ids.Pool{}, absent: map[string]error{}, opening: map[string]bool{}}
}

// openAll opens the configured pools and those that were added. A known one that is absent, or whose disk hangs, is not waited for.
func (p *pools) openAll(configured []string) error {
	b, err := os.ReadFile(p.file)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return fmt.Errorf("reading the list of pools: %w", err)
	default:
		if err := json.Unmarshal(b, &p.known); err != nil {
			return fmt.Errorf("%s is damaged: remove it, after you have made sure that the disks of all pools are mounted: %w", p.file, err)
		}
	}
	opened := map[string]<-chan error{}
	var known []string
	for path := range p.known {
		known = append(known, path)
	}
	slices.Sort(known)
	for _, path := range known {
		opened[path] = p.begin(path)
	}
	for _, path := range configured {
		if !slices.Contains(known, path) { // a new one
			if err := <-p.begin(path); err != nil {
				return err
			}
		}
	}
	limit := time.NewTimer(poolWait)
	defer limit.Stop()
	over := false
	for _, path := range known {
		var err error
		if over {
			err = p.slow(path, opened[path])
		} else {
			select {
			case err = <-opened[path]:
			case <-limit.C:
				over = true
				err = p.slow(path, opened[path])
			}
		}
		if errors.Is(err, replica.ErrInUse) {
			return err
		}
		if err != nil {
			// The vote and the other pools are worth more than the refusal: this one's replicas leave the in-sync sets.
			p.log.Error("a pool cannot be used; the node goes on without it, and tries again", "pool", path, "err", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.back = nil
	return nil
}

// slow is the end of an opening, or says that there is none yet.
func (p *pools) slow(path string, opened <-chan error) error {
	select {
	case err := <-opened:
		return err
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opening[path] {
		p.absent[path] = errOpening
	}
	return errOpening
}

// missing are the known pools that are not open.
func (p *pools) missing() (out []replica.PoolInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for path, err := range p.absent {
		out = append(out, replica.PoolInfo{ID: p.known[path], Path: path, Size: -1, Free: -1, Err: err})
	}
	slices.SortFunc(out, func(a, b replica.PoolInfo) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// begin opens a pool, and remembers it; the end comes by the channel, which has room for it.
func (p *pools) begin(path string) <-chan error {
	done := make(chan error, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opening[path] {
		done <- fmt.Errorf("pool %s is being opened: %w", path, errOpening)
		return done
	}
	p.opening[path] = true
	was, known := p.known[path]
	p.work.Go(func() {
		id, err := p.replicas.AddPool(path, !known)
		if err == nil {
			err = p.remember(path, was, id, known)
		}
		p.mu.Lock()
		delete(p.opening, path)
		if err == nil {
			delete(p.absent, path)
			p.back = append(p.back, path)
		} else if known {
			p.absent[path] = err
		}
		p.mu.Unlock()
		done <- err
	})
	return done
}

// remember keeps that a path is a pool's.
func (p *pools) remember(path string, was, id ids.Pool, known bool) error {
	if was == id {
		return nil
	}
	if known {
		p.log.Warn("another pool is at the place of a known one", "pool", path, "was", was.String(), "is", id.String())
	}
	p.saving.Lock()
	defer p.saving.Unlock()
	p.mu.Lock()
	p.known[path] = id
	b, err := json.Marshal(p.known)
	p.mu.Unlock()
	if err == nil {
		err = cluster.WriteFile(p.file, b)
	}
	if err != nil {
		return fmt.Errorf("remembering the pool: %w", err)
	}
	return nil
}

// add makes an empty directory a pool, or opens one that is there.
func (p *pools) add(path string) (ids.Pool, error) {
	is := func() (ids.Pool, bool) {
		for _, i := range p.replicas.Pools() {
			if i.Path == path {
				return i.ID, true
			}
		}
		return ids.Pool{}, false
	}
	if id, open := is(); open {
		return id, nil
	}
	if err := <-p.begin(path); err != nil {
		return ids.Pool{}, err
	}
	id, _ := is()
	return id, nil
}

// retry looks for absent pools, and tells when one has come.
func (p *pools) retry(ctx context.Context, came func()) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		back := p.back
		p.back = nil
		p.mu.Unlock()
		if len(back) > 0 {
			p.log.Info("pools are there", "pools", strings.Join(back, ", "))
			came()
		}
		for _, i := range p.missing() {
			p.begin(i.Path) // nothing, if it still is
		}
	}
}

// close waits a moment for those that open pools. One whose disk hangs ends when that does, and finds the node closed.
func (p *pools) close() {
	done := make(chan struct{})
	go func() { defer close(done); p.work.Wait() }()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
	}
}

// checkPath tells whether a path can be a pool's.
func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) > 1024 {
		return api.Errorf(api.ErrInvalid, "", "path: %q is not a clean absolute path, as in /srv/pool1", path)
	}
	return nil
}

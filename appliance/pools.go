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
// now is a disk that is not mounted, and never made a pool again.
type pools struct {
	file     string
	replicas *replica.Node
	log      *slog.Logger

	opening sync.Mutex // held, over I/O, by who opens pools, and writes the file

	mu     sync.Mutex          // guards what follows; never held over I/O, for status takes it
	known  map[string]ids.Pool // by path; what the file has
	absent map[string]error    // known, and not open: why
}

func newPools(dir string, r *replica.Node, log *slog.Logger) *pools {
	return &pools{file: filepath.Join(dir, "pools"), replicas: r, log: log, known: map[string]ids.Pool{}, absent: map[string]error{}}
}

// openAll opens the configured pools and those that were added. A known one that is absent is waited for.
func (p *pools) openAll(configured []string) error {
	p.opening.Lock()
	defer p.opening.Unlock()
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
	all := slices.Clone(configured)
	for path := range p.known {
		if !slices.Contains(all, path) {
			all = append(all, path)
		}
	}
	for _, path := range all {
		if _, err := p.open(path); err != nil {
			if _, known := p.known[path]; !known || errors.Is(err, replica.ErrInUse) {
				return err
			}
			// The vote and the other pools are worth more than the refusal: this one's replicas leave the in-sync sets.
			p.log.Error("a pool cannot be used; the node goes on without it, and tries again", "pool", path, "err", err)
			p.mu.Lock()
			p.absent[path] = err
			p.mu.Unlock()
		}
	}
	return nil
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

// open opens a pool and remembers it. Called with opening: who holds it may read known without mu.
func (p *pools) open(path string) (ids.Pool, error) {
	was, known := p.known[path]
	id, err := p.replicas.AddPool(path, !known)
	if err != nil {
		return id, err
	}
	if known && was != id {
		p.log.Warn("another pool is at the place of a known one", "pool", path, "was", was.String(), "is", id.String())
	}
	if was != id {
		p.mu.Lock()
		p.known[path] = id
		p.mu.Unlock()
		b, err := json.Marshal(p.known)
		if err == nil {
			err = cluster.WriteFile(p.file, b)
		}
		if err != nil {
			return id, fmt.Errorf("remembering the pool: %w", err)
		}
	}
	return id, nil
}

// add makes an empty directory a pool, or opens one that is there.
func (p *pools) add(path string) (ids.Pool, error) {
	p.opening.Lock()
	defer p.opening.Unlock()
	for _, i := range p.replicas.Pools() {
		if i.Path == path {
			return i.ID, nil
		}
	}
	id, err := p.open(path)
	if err == nil {
		p.mu.Lock()
		delete(p.absent, path)
		p.mu.Unlock()
	}
	return id, err
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
		back := false
		for _, i := range p.missing() {
			if p.again(i.Path) {
				p.log.Info("a pool is back", "pool", i.Path)
				back = true
			}
		}
		if back {
			came()
		}
	}
}

// again tries to open a pool that was absent.
func (p *pools) again(path string) bool {
	p.opening.Lock()
	defer p.opening.Unlock()
	p.mu.Lock()
	_, absent := p.absent[path]
	p.mu.Unlock()
	if !absent {
		return false // added meanwhile
	}
	_, err := p.open(path)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.absent[path] = err
		return false
	}
	delete(p.absent, path)
	return true
}

// checkPath tells whether a path can be a pool's.
func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) > 1024 {
		return api.Errorf(api.ErrInvalid, "", "path: %q is not a clean absolute path, as in /srv/pool1", path)
	}
	return nil
}

package memshare

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
)

// Exports is a list of exports that tests change.
type Exports struct {
	mu  sync.Mutex
	all []*nfs.Export
}

// Set adds an export, or replaces that of the same share; Remove takes it away.
func (x *Exports) Set(e nfs.Export) {
	x.Remove(e.ID)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all = append(slices.Clone(x.all), &e)
	slices.SortFunc(x.all, func(a, b *nfs.Export) int { return cmp.Compare(a.Path, b.Path) })
}

func (x *Exports) Remove(id ids.Volume) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all = slices.DeleteFunc(slices.Clone(x.all), func(e *nfs.Export) bool { return e.ID == id })
}

func (x *Exports) All() []*nfs.Export {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.all
}

func (x *Exports) ByShare(_ context.Context, id ids.Volume) (*nfs.Export, error) {
	for _, e := range x.All() {
		if e.ID == id {
			return e, nil
		}
	}
	return nil, nfs3.ErrStale
}

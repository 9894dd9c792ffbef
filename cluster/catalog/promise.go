package catalog

import (
	"fmt"
	"slices"

	"pmsapp/internal/ids"
)

// Promise is what of a pool is promised to volumes, in bytes: the whole size of each replica there, however little of it is written. Volumes
// in the trash count, for they can come back, and so does what waits to be deleted, for it takes space.
type Promise struct{ All, Trash int64 }

// Limit is how much a pool may promise, in bytes, as the leader sees it that proposes: it is a multiple of the pool's size, which the catalog
// does not know. The command that carries it is judged by what is promised when it is applied, so that two at once do not both pass.
type Limit struct {
	Pool ids.Pool
	Most int64
}

// maxLimits bounds those of a command.
const maxLimits = 256

// Promised adds up what each pool has promised.
func (s *State) Promised() map[ids.Pool]Promise {
	out := map[ids.Pool]Promise{}
	add := func(v Volume, trash bool) {
		for _, p := range slices.Concat(v.Replicas, v.Gone) {
			x := out[p.Pool]
			if x.All += v.Size; trash {
				x.Trash += v.Size
			}
			out[p.Pool] = x
		}
	}
	for _, v := range s.Volumes {
		add(v, false)
	}
	for _, t := range s.Trash {
		add(t.Volume, true)
	}
	return out
}

// mayPromise checks that the pools of places may promise more, bytes more each. One without a limit may.
func (s *State) mayPromise(limits []Limit, places []Place, more int64) error {
	if len(limits) == 0 {
		return nil
	}
	if len(limits) > maxLimits {
		return invalid("%d limits", len(limits))
	}
	have := s.Promised()
	for _, l := range limits {
		all := have[l.Pool].All + more
		if all > l.Most && slices.ContainsFunc(places, func(p Place) bool { return p.Pool == l.Pool }) {
			return fmt.Errorf("pool %s would have promised %d bytes, and may promise %d: %w", l.Pool, all, l.Most, ErrPromised)
		}
	}
	return nil
}

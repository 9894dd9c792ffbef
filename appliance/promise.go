package appliance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/reign"
)

// promise is what of a pool is promised to volumes, in bytes: the whole size of each replica there, however little of it is written. Volumes
// in the trash count, for they can come back, and so does what waits to be deleted, for it takes space.
type promise struct{ all, trash int64 }

// promises adds up what each pool has promised.
func promises(st *catalog.State) map[ids.Pool]promise {
	out := map[ids.Pool]promise{}
	add := func(v catalog.Volume, trash bool) {
		for _, p := range slices.Concat(v.Replicas, v.Gone) {
			x := out[p.Pool]
			if x.all += v.Size; trash {
				x.trash += v.Size
			}
			out[p.Pool] = x
		}
	}
	for _, v := range st.Volumes {
		add(v, false)
	}
	for _, t := range st.Trash {
		add(t.Volume, true)
	}
	return out
}

// tooMuch tells whether a pool of a size may not promise so much. A ratio of 0 is no limit.
func tooMuch(promised, size int64, ratio float64) bool {
	return ratio > 0 && size > 0 && float64(promised) > math.Floor(float64(size)*ratio)
}

// mayPromise checks that the pools of places may promise more, bytes more each. Pools that do not answer are not judged: they cannot be
// written to either.
func (n *node) mayPromise(ctx context.Context, places []catalog.Place, more int64) error {
	ratio, have := n.volumeTunables().OverSubscription, promises(n.cluster.State())
	said := n.poolsOf(ctx, 2*time.Second)
	for _, p := range places {
		for _, q := range said[p.Node] {
			if q.ID == p.Pool.String() && tooMuch(have[p.Pool].all+more, q.Size, ratio) {
				return overSubscribed(fmt.Sprintf("pool %s of node %s has %s, and would have promised %s", q.Path, q.Node, gib(q.Size), gib(have[p.Pool].all+more)), ratio)
			}
		}
	}
	return nil
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

func overSubscribed(what string, ratio float64) error {
	return api.Errorf(api.ErrConflict, "add a pool, or purge volumes (pmsapp pool list shows what is promised, the trash included); or say --over-subscribe, and watch how full the pools are",
		"%s: more than %g times its size (volumes.over_subscription)", what, ratio)
}

// toldPlaces is told, for requests that look for places.
func (n *node) toldPlaces(err error) error {
	if errors.Is(err, reign.ErrPromised) {
		return overSubscribed("the pools that are there have promised too much for that", n.volumeTunables().OverSubscription)
	}
	return told(err)
}

package appliance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/reign"
)

// tooMuch tells whether a pool of a size may not promise so much. A ratio of 0 is no limit.
func tooMuch(promised, size int64, ratio float64) bool {
	return ratio > 0 && size > 0 && promised > most(size, ratio)
}

// most is how much a pool of a size may promise.
func most(size int64, ratio float64) int64 { return int64(math.Floor(float64(size) * ratio)) }

// limits are how much pools may promise, for the admins' commands that are under way, by volume. What is proposed for such a volume carries
// them, and is judged when it is applied: of two commands that were both right when they were asked, one may be refused then.
type limits struct {
	mu sync.Mutex
	of map[ids.Volume][]catalog.Limit
}

// set says what counts for a volume until forget is called.
func (l *limits) set(v ids.Volume, list []catalog.Limit) (forget func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[ids.Volume][]catalog.Limit{}
	}
	l.of[v] = list
	return func() {
		l.mu.Lock()
		delete(l.of, v)
		l.mu.Unlock()
	}
}

func (l *limits) get(v ids.Volume) []catalog.Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[v]
}

// limitsNow are the limits of all pools that answer; none where more is meant.
func (n *node) limitsNow(ctx context.Context, over bool) (out []catalog.Limit) {
	ratio := n.volumeTunables().OverSubscription
	if over || ratio <= 0 {
		return nil
	}
	for _, pools := range n.poolsOf(ctx, 2*time.Second) {
		for _, p := range pools {
			if id, err := ids.Parse(p.ID); err == nil && p.Size > 0 {
				out = append(out, catalog.Limit{Pool: ids.Pool(id), Most: most(p.Size, ratio)})
			}
		}
	}
	return out
}

// mayPromise checks that the pools of places may promise more, bytes more each. Pools that do not answer are not judged: they cannot be
// written to either.
func (n *node) mayPromise(ctx context.Context, places []catalog.Place, more int64) error {
	ratio, have := n.volumeTunables().OverSubscription, n.cluster.State().Promised()
	said := n.poolsOf(ctx, 2*time.Second)
	for _, p := range places {
		for _, q := range said[p.Node] {
			if q.ID == p.Pool.String() && tooMuch(have[p.Pool].All+more, q.Size, ratio) {
				return overSubscribed(fmt.Sprintf("pool %s of node %s has %s, and would have promised %s", q.Path, q.Node, gib(q.Size), gib(have[p.Pool].All+more)), ratio)
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
	if errors.Is(err, reign.ErrPromised) || errors.Is(err, catalog.ErrPromised) {
		return overSubscribed("the pools that are there have promised too much for that", n.volumeTunables().OverSubscription)
	}
	return told(err)
}

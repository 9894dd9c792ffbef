package appliance

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/target/scsi"
)

// softThresholds are the parts of a pool, in percent, at which hosts are told that it fills up.
func softThresholds() [3]int64 { return [...]int64{75, 85, 95} }

// slack is by how many percent a pool must fall below a threshold before reaching it is told again.
const slack = 2

// fillEvery is how often the leader looks at the pools.
const fillEvery = 5 * time.Second

// fill knows how full the pools are, as far as hosts were told. It is pure.
type fill struct {
	told map[ids.Pool]int // thresholds that were reached and told
}

// seen takes what a pool says of itself and tells which threshold, in percent, it has reached since; 0: none.
func (f *fill) seen(p ids.Pool, size, free int64) int64 {
	if size <= 0 || free < 0 || free > size {
		return 0
	}
	used := float64(size-free) / float64(size) * 100
	level, at := f.told[p], softThresholds()
	for level > 0 && used < float64(at[level-1]-slack) {
		level--
	}
	reached := int64(0)
	for level < len(at) && used >= float64(at[level]) {
		reached = at[level]
		level++
	}
	f.told[p] = level
	return reached
}

// pooled is a pool of the cluster with what its node says of it.
type pooled struct {
	node       ids.Node
	pool       ids.Pool
	path       string
	size, free int64
}

// whileLeading calls look every so often while this node leads, with what it has seen since it began to.
func whileLeading[T any](ctx context.Context, n *node, every time.Duration, begin func() *T, look func(context.Context, *T)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var seen *T
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !n.cluster.IsLeader() {
			seen = nil // who leads next tells anew what it finds
			continue
		}
		if seen == nil {
			seen = begin()
		}
		look(ctx, seen)
	}
}

// watchFill tells hosts and the event log, while this node leads, when a pool behind a LUN fills up, and gives LUNs what
// their log pages say of it.
func (n *node) watchFill(ctx context.Context) {
	whileLeading(ctx, n, fillEvery, func() *fill { return &fill{told: map[ids.Pool]int{}} }, n.lookAtFill)
}

func (n *node) lookAtFill(ctx context.Context, f *fill) {
	pools := answered(n.poolsOf(ctx, 2*time.Second))
	st := n.cluster.State()
	for _, p := range pools {
		reached := f.seen(p.pool, p.size, p.free)
		if reached == 0 {
			continue
		}
		n.events.add(catalog.Event{Kind: "pool-filling", Node: p.node, Text: fmt.Sprintf("pool %s of node %s has reached %d %%: %d MiB are free",
			p.path, nodeName(st, p.node), reached, p.free>>20)})
		for _, v := range st.Volumes {
			if slices.ContainsFunc(v.Replicas, func(r catalog.Place) bool { return r.Pool == p.pool }) {
				n.hosts.SoftThreshold(v.ID)
			}
		}
	}
	for _, v := range st.Volumes {
		if s, ok := fullest(v, pools); ok {
			n.hosts.SetSpace(v.ID, s)
		}
	}
}

// answered are the pools of nodes that told theirs.
func answered(said map[ids.Node][]api.Pool) (out []pooled) {
	for node, pools := range said {
		for _, p := range pools {
			if id, err := ids.Parse(p.ID); err == nil && p.State == "ok" {
				out = append(out, pooled{node: node, pool: ids.Pool(id), path: p.Path, size: p.Size, free: p.Free})
			}
		}
	}
	return out
}

// fullest is the pool of a volume with the least space, for a write needs space in each.
func fullest(v catalog.Volume, pools []pooled) (s scsi.Space, ok bool) {
	for _, p := range pools {
		if !slices.ContainsFunc(v.Replicas, func(r catalog.Place) bool { return r.Pool == p.pool }) {
			continue
		}
		if !ok || p.free < s.Available {
			s, ok = scsi.Space{Used: p.size - p.free, Available: p.free}, true
		}
	}
	return s, ok
}

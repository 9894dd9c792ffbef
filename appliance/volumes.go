package appliance

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/config"
	"pmsapp/cluster/catalog"
	"pmsapp/internal/ids"
	"pmsapp/replication/reign"
	"pmsapp/replication/truth"
)

// Sizes of volumes, in bytes.
const (
	minVolume   = 1 << 20
	maxVolume   = 64 << 40
	smallRegion = 1 << 20
	largeRegion = 4 << 20
	hotRegions  = 32 << 10 // so many of a volume may be active at a time (mirror.Tunables)
)

// regionOf is the size of a new volume's regions: the smallest of which all may be active at a time, so that a random write finds its
// region active and pays for one flush; larger ones would cost more to make equal after a failover.
func regionOf(size int64) int64 {
	r := int64(smallRegion)
	for r < largeRegion && size > hotRegions*r {
		r *= 2
	}
	return r
}

// CreateVolume implements api.Backend. Its ids follow from the request, so that a repeated call makes nothing twice.
func (n *node) CreateVolume(ctx context.Context, request string, w api.NewVolume) (_ api.Volume, err error) {
	return n.createVolume(ctx, request, w, false)
}

// createVolume makes a volume, or a share.
func (n *node) createVolume(ctx context.Context, request string, w api.NewVolume, share bool) (_ api.Volume, err error) {
	if err := config.CheckName(w.Name); err != nil {
		return api.Volume{}, api.Errorf(api.ErrInvalid, "", "name: %v", err)
	}
	if w.Logical == 0 {
		w.Logical = 512
	}
	switch {
	case w.Size < minVolume || w.Size > maxVolume || w.Size%physicalBlock != 0:
		return api.Volume{}, api.Errorf(api.ErrInvalid, "", "size: %d is not %d to %d bytes in steps of %d", w.Size, minVolume, int64(maxVolume), physicalBlock)
	case w.Replicas < 1 || w.Replicas > catalog.MaxReplicas:
		return api.Volume{}, api.Errorf(api.ErrInvalid, "", "replicas: %d is not 1 to %d", w.Replicas, catalog.MaxReplicas)
	case w.Logical != 512 && w.Logical != 4096:
		return api.Volume{}, api.Errorf(api.ErrInvalid, "", "logical_block: %d is neither 512 nor 4096", w.Logical)
	}
	memory, err := inMemory(w.Durability)
	if err != nil {
		return api.Volume{}, err
	}
	seed := sha256.Sum256([]byte("volume " + n.cluster.ID().String() + " " + request))
	v := truth.Volume{Name: w.Name, Size: w.Size, Region: regionOf(w.Size), Logical: w.Logical, Share: share, Memory: memory}
	copy(v.ID[:], seed[:16])
	copy(v.Lineage[:], seed[16:])
	st := n.cluster.State()
	if old, ok := st.VolumeNamed(w.Name); ok && old.ID != v.ID {
		return api.Volume{}, api.Errorf(api.ErrConflict, "choose another name", "a volume named %s exists", w.Name)
	}
	if _, made := st.Volumes[v.ID]; !made {
		req := reign.CreateVolume{Volume: v, Copies: w.Replicas}
		if req.On, err = n.places(w); err != nil {
			return api.Volume{}, err
		}
		defer n.limits.set(v.ID, n.limitsNow(ctx, w.OverSubscribe))()
		if err := n.makeVolume(ctx, req, w.OverSubscribe); err != nil {
			return api.Volume{}, n.toldPlaces(err)
		}
		n.awaitServed(ctx, v.ID)
	}
	return n.show(v.ID)
}

// reachWait is how long a volume waits for pools that its leader has not reached yet.
const reachWait = 2 * time.Second

// makeVolume makes a volume where there is space. Who leads since a moment ago has not reached all pools yet.
func (n *node) makeVolume(ctx context.Context, req reign.CreateVolume, over bool) error {
	for until := time.Now().Add(reachWait); ; {
		early := reaching(n.reign.Status())
		req.Space = n.spaceFor(ctx, req.Volume.Size, over)
		_, err := n.reign.CreateVolume(ctx, req)
		if !errors.Is(err, reign.ErrNoPlace) || !early || !time.Now().Before(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// reaching tells whether nothing is known yet of a node's pools: its first session is being opened.
func reaching(st reign.Status) bool {
	return slices.ContainsFunc(st.Nodes, func(x reign.NodeStatus) bool { return !x.Reachable && x.Err == "" })
}

// places checks where a volume is to have its replicas, and finds the nodes that were named.
func (n *node) places(w api.NewVolume) (on []ids.Node, err error) {
	if len(w.Nodes) > 0 && len(w.Nodes) != w.Replicas {
		return nil, api.Errorf(api.ErrInvalid, "", "nodes: %d are named for %d replicas", len(w.Nodes), w.Replicas)
	}
	for _, name := range w.Nodes {
		m, err := n.named(name)
		switch {
		case err != nil:
			return nil, err
		case m.Witness:
			return nil, api.Errorf(api.ErrConflict, "name storage nodes", "%s is a witness: it has no pools", m.Name)
		case len(m.Pools) == 0:
			return nil, api.Errorf(api.ErrConflict, "pmsapp pool add PATH --node "+m.Name, "%s has no pool", m.Name)
		case slices.Contains(on, m.ID):
			return nil, api.Errorf(api.ErrInvalid, "each replica is on a node of its own", "nodes: %s is named twice", m.Name)
		}
		on = append(on, m.ID)
	}
	storage := 0
	for _, m := range n.cluster.State().Nodes {
		if len(m.Pools) > 0 {
			storage++
		}
	}
	if w.Replicas > storage {
		return nil, api.Errorf(api.ErrConflict, "each replica is on a node of its own: add a pool or a node, or name fewer replicas",
			"%d replicas, and %d of the nodes have a pool", w.Replicas, storage)
	}
	return on, nil
}

// show describes one volume.
func (n *node) show(id ids.Volume) (api.Volume, error) {
	st := n.cluster.State()
	v, ok := st.Volumes[id]
	if !ok {
		return api.Volume{}, api.Errorf(api.ErrConflict, "", "the volume was deleted meanwhile")
	}
	for _, r := range n.reign.Status().Volumes {
		if r.Volume == id {
			return n.volume(st, v, r), nil
		}
	}
	return n.volume(st, v, reign.VolumeStatus{}), nil
}

// space is what is free on all pools that answer.
func (n *node) space(ctx context.Context) []reign.Space { return n.spaceFor(ctx, 0, true) }

// spaceFor is space for one more replica of a size. Those that may not promise it are tight, unless over says that they may.
func (n *node) spaceFor(ctx context.Context, size int64, over bool) (out []reign.Space) {
	ratio, have := n.volumeTunables().OverSubscription, n.cluster.State().Promised()
	for id, pools := range n.poolsOf(ctx, 2*time.Second) {
		for _, p := range pools {
			pid, err := ids.Parse(p.ID)
			if err == nil && p.State == "ok" {
				out = append(out, reign.Space{Node: id, Pool: ids.Pool(pid), Free: p.Free,
					Tight: !over && tooMuch(have[ids.Pool(pid)].All+size, p.Size, ratio)})
			}
		}
	}
	return out
}

// Resync implements api.Backend.
func (n *node) Resync(ctx context.Context, _, name string, r api.Resync) error {
	v, err := n.volumeNamed(name)
	if err != nil {
		return err
	}
	var only ids.Node
	if r.Node != "" {
		m, err := n.named(r.Node)
		if err != nil {
			return err
		}
		only = m.ID
	}
	held, begun := false, 0
	for _, p := range v.Replicas {
		if !only.IsZero() && p.Node != only {
			continue
		}
		held = true
		if slices.Contains(v.InSync, p) {
			continue
		}
		if err := n.reign.RestartResync(ctx, v.ID, p.Node); err != nil {
			return told(err)
		}
		begun++
	}
	switch {
	case !held:
		return api.Errorf(api.ErrNotFound, "pmsapp volume show "+v.Name+" tells where they are", "%s has no replica of %s", r.Node, v.Name)
	case begun == 0:
		return api.Errorf(api.ErrConflict, "", "there is nothing to resync: in sync already")
	}
	return nil
}

package soak

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pmsapp/appliance/api"
)

// move moves a replica to a node that has none; with as many replicas as nodes it removes one and adds it again. Every other
// time the leader is killed while the copy is made.
func (s *soak) move(ctx context.Context, st api.Status, back *time.Time) error {
	c, v := s.cluster.Client(), st.Volumes[0]
	from := v.Replicas[s.places%len(v.Replicas)].Node
	s.places++
	if len(v.Replicas) == len(s.cluster.Nodes) {
		if err := c.RemoveReplica(ctx, v.Name, from); err != nil {
			return fmt.Errorf("removing the replica on %s: %w", from, err)
		}
		if _, err := s.settled(ctx); err != nil {
			return err
		}
		if _, err := c.AddReplica(ctx, v.Name, api.NewReplica{Node: from}); err != nil {
			return fmt.Errorf("adding a replica on %s: %w", from, err)
		}
	} else if _, err := c.AddReplica(ctx, v.Name, api.NewReplica{Instead: from}); err != nil {
		return fmt.Errorf("moving the replica on %s: %w", from, err)
	}
	*back = time.Now()
	if s.places%2 == 0 {
		if err := s.killed(ctx, s.cluster.Index(st.Leader), back); err != nil {
			return err
		}
	}
	after, err := s.settled(ctx)
	if err != nil {
		return err
	}
	now := after.Volumes[0].Replicas
	if len(now) != len(v.Replicas) || len(v.Replicas) < len(s.cluster.Nodes) && slices.ContainsFunc(now, func(r api.Replica) bool { return r.Node == from }) {
		return fmt.Errorf("the replica on %s did not move: %+v", from, now)
	}
	return nil
}

// grow makes the volume larger; every other time while a node with a replica is away.
func (s *soak) grow(ctx context.Context, st api.Status, back *time.Time) error {
	v := st.Volumes[0]
	size := v.Size + 8<<20
	s.places++
	away := -1
	if s.places%2 == 0 {
		away = s.follower(st)
		if err := s.cluster.Kill(away); err != nil {
			return err
		}
		if err := s.progress(ctx, 200); err != nil {
			return err
		}
	}
	if _, err := s.cluster.Client().ResizeVolume(ctx, v.Name, api.NewSize{Size: size}); err != nil {
		return fmt.Errorf("making the volume larger: %w", err)
	}
	if *back = time.Now(); away >= 0 {
		if err := s.cluster.Start(away); err != nil {
			return err
		}
	}
	after, err := s.settled(ctx)
	if err == nil && after.Volumes[0].Size != size {
		err = fmt.Errorf("the volume has %d bytes, not %d", after.Volumes[0].Size, size)
	}
	return err
}

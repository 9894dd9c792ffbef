package soak

import (
	"context"
	"math/rand/v2"
	"time"
)

// power has a node's power fail, and comes back once I/O goes on without it.
func (s *soak) power(ctx context.Context, i int, back *time.Time) error {
	if err := s.cut(i); err != nil {
		return err
	}
	if err := s.progress(ctx, 300); err != nil {
		return err
	}
	*back = time.Now()
	if err := s.on(i); err != nil {
		return err
	}
	return s.proved(ctx, false)
}

// powerAll has the power of all nodes fail at once. They come back in any order, at their times.
func (s *soak) powerAll(ctx context.Context, back *time.Time) error {
	order := rand.Perm(len(s.cluster.Nodes))
	if err := s.cut(order...); err != nil {
		return err
	}
	*back = time.Now()
	for n, i := range order {
		if n > 0 {
			if err := s.pause(ctx, time.Duration(rand.Int64N(int64(2*time.Second)))); err != nil {
				return err
			}
		}
		if err := s.on(i); err != nil {
			return err
		}
	}
	if err := s.progress(ctx, 200); err != nil {
		return err
	}
	return s.proved(ctx, false)
}

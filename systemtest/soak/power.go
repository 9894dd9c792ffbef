package soak

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"pmsapp/appliance/api"
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
//
// Of a volume of the durability memory what was not flushed may be lost then, and hosts are told. What was flushed may not, and what nobody
// is told of is not lost.
func (s *soak) powerAll(ctx context.Context, st api.Status, back *time.Time) error {
	order := rand.Perm(len(s.cluster.Nodes))
	if err := s.cut(order...); err != nil {
		return err
	}
	s.rec.lose()
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
	if err := s.told(ctx, st); err != nil {
		return err
	}
	return s.proved(ctx, false)
}

// told finds out whether hosts were told of a loss since st, after all nodes have died. If not, there was none.
func (s *soak) told(ctx context.Context, st api.Status) error {
	after, err := s.settled(ctx)
	switch {
	case err != nil:
		return err
	case after.Volumes[0].Losses == st.Volumes[0].Losses:
		s.rec.keep()
	case s.cfg.Memory:
		s.say("hosts were told of a loss")
	default:
		return errors.New("hosts were told of a loss, and what they write is durable")
	}
	return nil
}

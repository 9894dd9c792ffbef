package memshare

import (
	"context"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/rangelock"
	"pmsapp/nfs"
)

func (s *Share) Lock(ctx context.Context, c nfs.Caller, f nfs.Ref, l rangelock.Lock) (*rangelock.Lock, error) {
	return once(s, ctx, "Lock", c, func() (*rangelock.Lock, error) {
		n, err := s.get(f)
		if err != nil {
			return nil, err
		}
		if conflict, found := n.locks.Conflict(l); found {
			return &conflict, nil
		}
		if !n.locks.Set(l) {
			return nil, nfs3.ErrNoSpace
		}
		return nil, nil
	})
}

func (s *Share) Unlock(ctx context.Context, c nfs.Caller, f nfs.Ref, l rangelock.Lock) error {
	_, err := once(s, ctx, "Unlock", c, func() (struct{}, error) {
		n, err := s.get(f)
		if err == nil && !n.locks.Clear(l) {
			err = nfs3.ErrNoSpace
		}
		return struct{}{}, err
	})
	return err
}

func (s *Share) Holds(f nfs.Ref, l rangelock.Lock) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.get(f)
	return err == nil && n.locks.Holds(l), err
}

func (s *Share) Locked(ctx context.Context, f nfs.Ref, l rangelock.Lock) (*rangelock.Lock, error) {
	if err := s.begin(ctx, "Locked"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.get(f)
	if err != nil {
		return nil, err
	}
	if conflict, found := n.locks.Conflict(l); found {
		return &conflict, nil
	}
	return nil, nil
}

func (s *Share) Release(ctx context.Context, c nfs.Caller, o rangelock.Owner, state uint32) error {
	_, err := once(s, ctx, "Release", c, func() (struct{}, error) {
		for _, n := range s.all {
			n.locks.Release(o, state)
		}
		return struct{}{}, nil
	})
	return err
}

var _ nfs.Locker = (*Share)(nil)

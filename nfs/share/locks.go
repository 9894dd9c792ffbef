package share

import (
	"context"
	"errors"

	"pmsapp/internal/filetree"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/rangelock"
	"pmsapp/nfs"
)

var _ nfs.Locker = (*Share)(nil)

// maxTries bounds how often a Lock is proposed that finds nothing in its way and is refused then.
const maxTries = 8

// Lock implements nfs.Locker. What is in the way already is found without a command; an answer that was remembered comes
// first, or a retry of what was granted and unlocked since would be granted anew.
func (s *Share) Lock(ctx context.Context, c nfs.Caller, f nfs.Ref, l rangelock.Lock) (*rangelock.Lock, error) {
	for range maxTries {
		t, err := s.tree()
		if err != nil {
			return nil, err
		}
		if _, again := t.Replied(key(c)); !again {
			if held, is := t.Locked(f.Ino, l); is {
				if _, err := live(t, f); err != nil {
					return nil, s.confirmed(ctx, err)
				}
				return &held, s.Confirm(ctx)
			}
		}
		_, err = s.do(ctx, c, filetree.LockOp(filetree.Lock, f.Ino, l), f)
		if !errors.Is(err, errHeld) {
			return nil, err
		}
	}
	return nil, nfs3.ErrNoSpace // others are always quicker: "no locks", for now
}

// errHeld is never an answer: somebody was quicker.
const errHeld = nfs3.Status(filetree.Held)

// Unlock implements nfs.Locker.
func (s *Share) Unlock(ctx context.Context, c nfs.Caller, f nfs.Ref, l rangelock.Lock) error {
	_, err := s.do(ctx, c, filetree.LockOp(filetree.Unlock, f.Ino, l), f)
	return err
}

// Holds implements nfs.Locker.
func (s *Share) Holds(f nfs.Ref, l rangelock.Lock) (bool, error) {
	t, err := s.tree()
	if err != nil {
		return false, err
	}
	return t.HoldsLock(f.Ino, l), nil
}

// Locked implements nfs.Locker.
func (s *Share) Locked(ctx context.Context, f nfs.Ref, l rangelock.Lock) (*rangelock.Lock, error) {
	t, err := s.tree()
	if err == nil {
		_, err = live(t, f)
	}
	if err != nil {
		return nil, s.confirmed(ctx, err)
	}
	held, is := t.Locked(f.Ino, l)
	if err := s.Confirm(ctx); err != nil || !is {
		return nil, err
	}
	return &held, nil
}

// Release implements nfs.Locker. For who has no lock nothing is committed: anybody may say by UDP that he has started anew.
func (s *Share) Release(ctx context.Context, c nfs.Caller, o rangelock.Owner, state uint32) error {
	t, err := s.tree()
	if err != nil {
		return err
	}
	if _, again := t.Replied(key(c)); !again && !t.HasLocks(o, state) {
		return s.Confirm(ctx)
	}
	_, err = s.do(ctx, c, filetree.ReleaseOp(o, state))
	return err
}

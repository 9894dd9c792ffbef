package catalog

import (
	"fmt"
	"slices"

	"pmsapp/internal/ids"
)

// Volatile is a member that may acknowledge what is not durable on it, under that incarnation (invariant 10).
type Volatile struct {
	Pool        ids.Pool
	Incarnation ids.ID
}

type (
	// SetVolatile is proposed by the mirror of a volume before a member acknowledges what is not durable, and with fewer members
	// when all is durable on the others: see truth.SetVolatile.
	SetVolatile struct {
		Epoch   uint64
		Volume  ids.Volume
		Members []Volatile
	}
	// SetDurability changes what an acknowledgement of a volume means, from some moment on.
	SetDurability struct {
		Volume ids.Volume
		Memory bool
	}
)

func (SetVolatile) kind() Kind   { return "set-volatile" }
func (SetDurability) kind() Kind { return "set-durability" }

func (s *State) setVolatile(b SetVolatile) error {
	if err := s.current(b.Epoch); err != nil {
		return err
	}
	v, ok := s.Volumes[b.Volume]
	switch {
	case !ok:
		return ErrNoVolume
	case len(b.Members) > MaxReplicas:
		return invalid("%s: %d members that are volatile", v.Name, len(b.Members))
	}
	v.Volatile = b.Members
	v.dropVolatile()
	s.setVolume(v)
	return nil
}

// dropVolatile leaves out who is in the in-sync set no more: it comes back with all that it lacks.
func (v *Volume) dropVolatile() {
	v.Volatile = slices.DeleteFunc(slices.Clone(v.Volatile), func(x Volatile) bool {
		return !slices.ContainsFunc(v.InSync, func(p Place) bool { return p.Pool == x.Pool })
	})
	if len(v.Volatile) == 0 {
		v.Volatile = nil
	}
}

func (s *State) setDurability(b SetDurability) error {
	v, ok := s.Volumes[b.Volume]
	switch {
	case !ok:
		return ErrNoVolume
	case v.Foreign:
		return fmt.Errorf("%s: %w", v.Name, ErrNotServed)
	}
	v.Memory = b.Memory
	s.setVolume(v)
	return nil
}

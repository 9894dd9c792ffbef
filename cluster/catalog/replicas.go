package catalog

import (
	"fmt"
	"slices"
	"time"

	"pmsapp/internal/ids"
)

// The commands below change where the replicas of a volume are. Each but ForgetReplica names the version of the in-sync set and
// raises it, so that of two that are proposed for one state only one is applied (replication/reign/DESIGN.md).
type (
	// AddReplica gives a volume a replica at a place, outside of the in-sync set: it is to be copied. With Instead the replica on
	// that node leaves as soon as the new one is in sync. A node with a replica is refused, and a place in Gone.
	AddReplica struct {
		Epoch   uint64
		Volume  ids.Volume
		Version uint64
		Place   Place
		Instead ids.Node
		Why     string  // of the Leave of Instead
		Limits  []Limit `json:",omitempty"`
	}
	// RetireReplica has the replica on a node leave. If it was to take another's place, that one stays. It is rejected if no
	// member of the in-sync set would stay.
	RetireReplica struct {
		Epoch   uint64
		Volume  ids.Volume
		Version uint64
		Node    ids.Node
		Why     string
	}
	// DropReplica moves the place of a replica that leaves, and is in no in-sync set, from Replicas to Gone.
	DropReplica struct {
		Epoch   uint64
		Volume  ids.Volume
		Version uint64
		Node    ids.Node
	}
	// ForgetReplica says that what was left of a replica has been deleted.
	ForgetReplica struct {
		Epoch  uint64
		Volume ids.Volume
		Place  Place
	}
)

// ResizeVolume gives a volume a larger size, which every replica of the set of that version has.
type ResizeVolume struct {
	Epoch   uint64
	Volume  ids.Volume
	Version uint64
	Size    int64   // bytes, a multiple of 4096
	Limits  []Limit `json:",omitempty"`
}

func (ResizeVolume) kind() Kind  { return "resize-volume" }
func (AddReplica) kind() Kind    { return "add-replica" }
func (RetireReplica) kind() Kind { return "retire-replica" }
func (DropReplica) kind() Kind   { return "drop-replica" }
func (ForgetReplica) kind() Kind { return "forget-replica" }

// Leave is a replica that is to leave a volume.
type Leave struct {
	Node ids.Node
	For  ids.Node // whose replica has to be in sync before; zero: nobody's
	Why  string   // one of the Why constants of package truth
}

// MaxPlaces bounds the replicas of a volume while one of them is on its way out.
const MaxPlaces = MaxReplicas + 1

// leaves tells whether the replica on a node is to leave now: what it waits for is in sync.
func (v *Volume) leaves(n ids.Node) bool {
	for _, l := range v.Leaving {
		if l.Node == n {
			return l.For.IsZero() || hasNode(v.InSync, l.For)
		}
	}
	return false
}

func hasNode(ps []Place, n ids.Node) bool {
	return slices.ContainsFunc(ps, func(p Place) bool { return p.Node == n })
}

// changePlaces finds a volume whose places are to be changed: by the leader that serves it (invariant 17).
func (s *State) changePlaces(epoch uint64, id ids.Volume, version uint64) (Volume, error) {
	v, err := s.change(epoch, id, version)
	if err == nil && v.LastServed != epoch {
		err = fmt.Errorf("%s: %w", v.Name, ErrNotServed)
	}
	return v, err
}

func (s *State) addReplica(b AddReplica) error {
	v, err := s.changePlaces(b.Epoch, b.Volume, b.Version)
	if err != nil {
		return err
	}
	n, ok := s.Nodes[b.Place.Node]
	switch {
	case !ok:
		return ErrNoNode
	case !slices.ContainsFunc(n.Pools, func(p Pool) bool { return p.ID == b.Place.Pool }):
		return invalid("node %s has no such pool", n.Name)
	case hasNode(v.Replicas, n.ID):
		return fmt.Errorf("%s has a replica of %s: %w", n.Name, v.Name, ErrInUse)
	case slices.Contains(v.Gone, b.Place):
		return fmt.Errorf("the former replica of %s on %s is not deleted yet: %w", v.Name, n.Name, ErrInUse)
	case len(b.Why) > 64:
		return invalid("a reason of %d bytes", len(b.Why))
	case len(v.Replicas) >= MaxPlaces:
		return fmt.Errorf("%s: another replica is on its way out: %w", v.Name, ErrLimit)
	case b.Instead.IsZero() && len(v.Replicas)-len(v.Leaving) >= MaxReplicas:
		return fmt.Errorf("%s has %d replicas, no more are allowed: %w", v.Name, MaxReplicas, ErrLimit)
	}
	if err := s.mayPromise(b.Limits, []Place{b.Place}, v.Size); err != nil {
		return err
	}
	if !b.Instead.IsZero() {
		if !hasNode(v.Replicas, b.Instead) {
			return ErrNoReplica
		}
		if slices.ContainsFunc(v.Leaving, func(l Leave) bool { return l.Node == b.Instead || l.For == b.Instead }) {
			return fmt.Errorf("%s: that replica is on its way already: %w", v.Name, ErrInUse)
		}
		v.Leaving = append(slices.Clone(v.Leaving), Leave{Node: b.Instead, For: n.ID, Why: b.Why})
	}
	v.Replicas = append(slices.Clone(v.Replicas), b.Place)
	v.Version++
	v.follow(nil, time.Time{})
	s.setVolume(v)
	return nil
}

func (s *State) retireReplica(b RetireReplica) error {
	v, err := s.changePlaces(b.Epoch, b.Volume, b.Version)
	if err != nil {
		return err
	}
	if !hasNode(v.Replicas, b.Node) {
		return ErrNoReplica
	}
	if len(b.Why) > 64 {
		return invalid("a reason of %d bytes", len(b.Why))
	}
	v.Leaving = slices.DeleteFunc(slices.Clone(v.Leaving), func(l Leave) bool { return l.Node == b.Node || l.For == b.Node })
	v.Leaving = append(v.Leaving, Leave{Node: b.Node, Why: b.Why})
	if !slices.ContainsFunc(v.InSync, func(p Place) bool { return !v.leaves(p.Node) }) {
		return fmt.Errorf("%s: %w", v.Name, ErrLastMember)
	}
	v.Version++
	s.setVolume(v)
	return nil
}

func (s *State) dropReplica(b DropReplica) error {
	v, err := s.changePlaces(b.Epoch, b.Volume, b.Version)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(v.Replicas, func(p Place) bool { return p.Node == b.Node })
	switch {
	case i < 0:
		return ErrNoReplica
	case hasNode(v.InSync, b.Node) || !v.leaves(b.Node):
		return fmt.Errorf("the replica of %s: %w", v.Name, ErrInUse)
	}
	v.Gone = append(slices.Clone(v.Gone), v.Replicas[i])
	v.Replicas = slices.Delete(slices.Clone(v.Replicas), i, i+1)
	v.Leaving = slices.DeleteFunc(slices.Clone(v.Leaving), func(l Leave) bool { return l.Node == b.Node })
	v.Version++
	v.follow(nil, time.Time{})
	s.setVolume(v)
	return nil
}

// maxSize bounds a volume, in bytes.
const maxSize = 64 << 40

func (s *State) resizeVolume(b ResizeVolume) error {
	v, err := s.changePlaces(b.Epoch, b.Volume, b.Version)
	switch {
	case err != nil:
		return err
	case b.Size < v.Size || b.Size > maxSize || b.Size%4096 != 0 || v.Size%4096 != 0:
		return invalid("volume %s has %d bytes, and cannot have %d", v.Name, v.Size, b.Size)
	}
	if more := b.Size - v.Size; more > 0 {
		if err := s.mayPromise(b.Limits, v.Replicas, more); err != nil {
			return err
		}
	}
	v.Size = b.Size
	v.Version++
	s.setVolume(v)
	return nil
}

func (s *State) forgetReplica(b ForgetReplica) error {
	if err := s.current(b.Epoch); err != nil {
		return err
	}
	v, ok := s.Volumes[b.Volume]
	if !ok {
		return ErrNoVolume
	}
	v.Gone = slices.DeleteFunc(slices.Clone(v.Gone), func(p Place) bool { return p == b.Place })
	s.setVolume(v)
	return nil
}

// withoutNode is a volume of which nothing is, was or will be on a node.
func (v Volume) withoutNode(n ids.Node) Volume {
	at := func(p Place) bool { return p.Node == n }
	v.Replicas = slices.DeleteFunc(slices.Clone(v.Replicas), at)
	v.Gone = slices.DeleteFunc(slices.Clone(v.Gone), at)
	v.Leaving = slices.DeleteFunc(slices.Clone(v.Leaving), func(l Leave) bool { return l.Node == n || l.For == n })
	v.follow(nil, time.Time{})
	return v
}

// mentions tells whether anything of a volume is, was or will be on a node.
func (v *Volume) mentions(n ids.Node) bool {
	return hasNode(v.Replicas, n) || hasNode(v.Gone, n)
}

// movePools has what of a volume is in pools that are n's now, and were another identity's, be on n (invariant 9).
func (v *Volume) movePools(from ids.Node, n Node) (changed bool) {
	replicas, a := moved(v.Replicas, from, n)
	inSync, b := moved(v.InSync, from, n)
	gone, c := moved(v.Gone, from, n)
	if a { // one replica of a volume is on a node: what was said of it is meant for its new name
		v.Leaving = slices.Clone(v.Leaving)
		for i, l := range v.Leaving {
			if l.Node == from {
				v.Leaving[i].Node = n.ID
			}
			if l.For == from {
				v.Leaving[i].For = n.ID
			}
		}
	}
	v.Replicas, v.InSync, v.Gone = replicas, inSync, gone
	if b {
		v.Version++
	}
	return a || b || c
}

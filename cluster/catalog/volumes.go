package catalog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"pmsapp/internal/ids"
)

func (s *State) takeOver(b TakeOver) error {
	n, ok := s.Nodes[b.Node]
	switch {
	case !ok:
		return fmt.Errorf("taking over: %w", ErrNoNode)
	case n.Witness:
		return invalid("a witness takes no epoch")
	case b.Epoch <= s.Epoch && !(b.Epoch == s.Epoch && b.Node == s.Leader):
		return fmt.Errorf("epoch %d, the catalog has %d: %w", b.Epoch, s.Epoch, ErrEpoch)
	}
	s.Epoch, s.Leader = b.Epoch, b.Node
	return nil
}

// current checks the epoch that a command names.
func (s *State) current(epoch uint64) error {
	if epoch != s.Epoch || epoch == 0 {
		return fmt.Errorf("epoch %d, the catalog has %d: %w", epoch, s.Epoch, ErrEpoch)
	}
	return nil
}

// sorted returns the volumes in a fixed order.
func (s *State) sorted() []Volume {
	return slices.SortedFunc(maps.Values(s.Volumes), func(a, b Volume) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
}

func (s *State) removeUnfenced(c Command, b RemoveUnfenced) (Result, error) {
	if err := s.current(b.Epoch); err != nil {
		return Result{}, err
	}
	fenced, remove := setOf(b.Fenced), setOf(b.Remove)
	for p := range fenced {
		if remove[p] {
			return Result{}, invalid("pool %s is both fenced and to be removed", p)
		}
	}
	var left []ids.Volume
	volumes := maps.Clone(s.Volumes)
	for _, v := range s.sorted() {
		if v.Foreign { // what the backup says of it is left as it is
			continue
		}
		rest := slices.DeleteFunc(slices.Clone(v.InSync), func(p Place) bool { return remove[p.Pool] })
		if len(rest) == len(v.InSync) {
			continue
		}
		if !slices.ContainsFunc(rest, func(p Place) bool { return fenced[p.Pool] }) {
			left = append(left, v.ID)
			continue
		}
		before := v.InSync
		v.InSync = rest
		v.Version++
		v.follow(before, c.Time)
		v.dropVolatile()
		volumes[v.ID] = v
	}
	s.Volumes = volumes
	return Result{Left: left}, nil
}

func setOf(pools []ids.Pool) map[ids.Pool]bool {
	m := make(map[ids.Pool]bool, len(pools))
	for _, p := range pools {
		m[p] = true
	}
	return m
}

func (s *State) served(b Served) (Result, error) {
	if err := s.current(b.Epoch); err != nil {
		return Result{}, err
	}
	var left []ids.Volume
	volumes := maps.Clone(s.Volumes)
	for _, w := range b.Volumes {
		v, ok := volumes[w.Volume]
		if !ok || v.Version != w.Version || v.Foreign {
			left = append(left, w.Volume)
			continue
		}
		v.LastServed = b.Epoch
		if w.Lost {
			v.Losses++
			v.Volatile = nil
		}
		volumes[v.ID] = v
	}
	s.Volumes = volumes
	return Result{Left: left}, nil
}

// change finds a volume whose set is to be changed.
func (s *State) change(epoch uint64, id ids.Volume, version uint64) (Volume, error) {
	if err := s.current(epoch); err != nil {
		return Volume{}, err
	}
	v, ok := s.Volumes[id]
	if !ok {
		return Volume{}, ErrNoVolume
	}
	if v.Version != version {
		return Volume{}, fmt.Errorf("%s: version %d, the set has %d: %w", v.Name, version, v.Version, ErrVersion)
	}
	return v, nil
}

func (s *State) removeMember(c Command, b RemoveMember) (Result, error) {
	v, err := s.change(b.Epoch, b.Volume, b.Version)
	if err != nil {
		return Result{}, err
	}
	rest := slices.DeleteFunc(slices.Clone(v.InSync), func(p Place) bool { return p.Node == b.Node })
	switch len(rest) {
	case len(v.InSync):
		return Result{}, ErrNoReplica
	case 0:
		return Result{}, ErrLastMember
	}
	before := v.InSync
	v.InSync = rest
	v.Version++
	v.follow(before, c.Time)
	v.dropVolatile()
	s.setVolume(v)
	return Result{Version: v.Version, InSync: v.InSync}, nil
}

func (s *State) addMember(b AddMember) (Result, error) {
	v, err := s.change(b.Epoch, b.Volume, b.Version)
	if err != nil {
		return Result{}, err
	}
	i := slices.IndexFunc(v.Replicas, func(p Place) bool { return p.Node == b.Node })
	if i < 0 {
		return Result{}, ErrNoReplica
	}
	if v.leaves(b.Node) {
		return Result{}, fmt.Errorf("%s: the replica is to leave: %w", v.Name, ErrNoReplica)
	}
	if slices.Contains(v.InSync, v.Replicas[i]) {
		return Result{}, fmt.Errorf("%s: the node is a member already: %w", v.Name, ErrVersion)
	}
	v.InSync = append(slices.Clone(v.InSync), v.Replicas[i])
	v.Version++
	v.follow(nil, time.Time{})
	s.setVolume(v)
	return Result{Version: v.Version, InSync: v.InSync}, nil
}

func (s *State) createVolume(c Command, b CreateVolume) error {
	if err := s.current(b.Epoch); err != nil {
		return err
	}
	v := b.Volume
	if old, ok := s.Volumes[v.ID]; ok {
		if old.Lineage == v.Lineage && old.Name == v.Name && old.Share == v.Share {
			return nil
		}
		return fmt.Errorf("volume %s: %w", v.ID, ErrNameTaken)
	}
	if _, taken := s.VolumeNamed(v.Name); taken {
		return fmt.Errorf("a volume named %s: %w", v.Name, ErrNameTaken)
	}
	if err := s.checkNew(v); err != nil {
		return err
	}
	if err := s.mayPromise(b.Limits, v.Replicas, v.Size); err != nil {
		return err
	}
	v.InSync = slices.Clone(v.Replicas) // invariant 15
	v.Version, v.LastServed, v.Leaving, v.Gone, v.Adopted, v.Behind = 1, 0, nil, nil, Adoption{}, nil
	v.Volatile, v.Losses, v.Foreign = nil, 0, false
	s.setVolume(v)
	if v.Share {
		s.newTree(c, v)
	}
	return nil
}

// checkNew checks a volume that there was not.
func (s *State) checkNew(v Volume) error {
	if len(s.Volumes)+len(s.Trash) >= MaxVolumes {
		return fmt.Errorf("volumes, %d are allowed: %w", MaxVolumes, ErrLimit)
	}
	switch {
	case v.ID.IsZero() || v.Lineage.IsZero() || v.Name == "" || len(v.Name) > 63:
		return invalid("a volume needs an id, a lineage and a name")
	case v.Logical != 512 && v.Logical != 4096 || v.Size <= 0 || v.Size%int64(v.Logical) != 0:
		return invalid("volume %s: %d bytes in blocks of %d", v.Name, v.Size, v.Logical)
	case v.Region < 64<<10 || v.Region > 4<<20 || v.Region&(v.Region-1) != 0:
		return invalid("volume %s: regions of %d bytes", v.Name, v.Region)
	case len(v.Replicas) < 1 || len(v.Replicas) > MaxReplicas:
		return invalid("volume %s: %d replicas", v.Name, len(v.Replicas))
	case slices.Contains(s.Deleted, v.ID) || s.Trash[v.ID].Since != 0:
		return fmt.Errorf("volume %s was deleted: %w", v.Name, ErrNoVolume)
	}
	for i, p := range v.Replicas {
		n, ok := s.Nodes[p.Node]
		if !ok || !slices.ContainsFunc(n.Pools, func(q Pool) bool { return q.ID == p.Pool }) {
			return invalid("volume %s: replica %d is on no known pool", v.Name, i)
		}
		if slices.ContainsFunc(v.Replicas[:i], func(q Place) bool { return q.Node == p.Node }) {
			return invalid("volume %s: two replicas on %s", v.Name, n.Name)
		}
	}
	return nil
}

// mayExport checks that the leader that proposes serves the volume (invariant 17).
func (s *State) mayExport(epoch uint64, id ids.Volume) error {
	if err := s.current(epoch); err != nil {
		return err
	}
	v, ok := s.Volumes[id]
	if !ok {
		return ErrNoVolume
	}
	if v.LastServed != epoch || v.Foreign {
		return fmt.Errorf("%s: %w", v.Name, ErrNotServed)
	}
	return nil
}

func (s *State) setExport(b SetExport) error {
	e := b.Export
	if err := s.mayExport(b.Epoch, e.Volume); err != nil {
		return err
	}
	if len(s.Maps[e.Volume]) > 0 {
		return fmt.Errorf("%s is mapped to hosts, not exported: %w", s.Volumes[e.Volume].Name, ErrInUse)
	}
	switch {
	case s.Volumes[e.Volume].Share:
		return fmt.Errorf("%s: %w", s.Volumes[e.Volume].Name, ErrIsShare)
	case e.LUN > 16383 || len(e.Initiators) > MaxInitiator:
		return invalid("LUN %d for %d initiators", e.LUN, len(e.Initiators))
	case (e.CHAPUser == "") != (len(e.CHAPSecret) == 0) || len(e.CHAPUser) > 255 || len(e.CHAPSecret) > 255:
		return invalid("CHAP needs a name and a secret")
	}
	if err := checkPaths(e.Paths); err != nil {
		return err
	}
	for _, i := range e.Initiators {
		if i == "" || len(i) > 223 {
			return invalid("an initiator's name of %d bytes", len(i))
		}
	}
	s.Exports = maps.Clone(s.Exports)
	if s.Exports == nil {
		s.Exports = map[ids.Volume]Export{}
	}
	s.Exports[e.Volume] = e
	return nil
}

func (s *State) removeExport(b RemoveExport) error {
	if err := s.mayExport(b.Epoch, b.Volume); err != nil {
		return err
	}
	s.Exports = maps.Clone(s.Exports)
	delete(s.Exports, b.Volume)
	s.endReservations(b.Volume)
	s.endOutcomes(b.Volume)
	return nil
}

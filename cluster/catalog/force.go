package catalog

import (
	"slices"

	"pmsapp/internal/ids"
)

// ForceVolume has a volume whose in-sync set is out of reach go on with one replica, whatever that lacks: the one at Place, which is
// of the lineage From, is the whole set, and the volume begins a new lineage. Its other replicas are of the former one: foreign.
type ForceVolume struct {
	Epoch   uint64
	Volume  ids.Volume
	Version uint64
	Place   Place
	From    ids.Lineage
	Lineage ids.Lineage
}

func (ForceVolume) kind() Kind { return "force-volume" }

// Adoption names a replica that counts as one of its volume's lineage though its superblock names another.
type Adoption struct {
	Pool    ids.Pool
	Lineage ids.Lineage
}

func (s *State) forceVolume(b ForceVolume) (Result, error) {
	if v, ok := s.Volumes[b.Volume]; ok && v.Lineage == b.Lineage {
		return Result{Version: v.Version, InSync: v.InSync}, nil // a repetition
	}
	v, err := s.change(b.Epoch, b.Volume, b.Version)
	switch {
	case err != nil:
		return Result{}, err
	case !slices.Contains(v.Replicas, b.Place):
		return Result{}, ErrNoReplica
	case b.Lineage.IsZero() || b.From != v.Lineage && v.Adopted != (Adoption{b.Place.Pool, b.From}):
		return Result{}, invalid("%s: a replica of lineage %s, and the volume's is %s", v.Name, b.From, v.Lineage)
	}
	v.Adopted, v.Lineage = Adoption{b.Place.Pool, b.From}, b.Lineage
	v.InSync, v.LastServed = []Place{b.Place}, 0
	v.Leaving = slices.DeleteFunc(slices.Clone(v.Leaving), func(l Leave) bool { return l.Node == b.Place.Node })
	v.Version++
	s.setVolume(v)
	return Result{Version: v.Version, InSync: v.InSync}, nil
}

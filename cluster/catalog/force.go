package catalog

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pmsapp/internal/ids"
)

// ErrIncomplete is returned when a replica is to be adopted that is known to be no copy of any one moment.
var ErrIncomplete = errors.New("the replica is an incomplete copy")

// ForceVolume has a volume whose in-sync set is out of reach go on with one replica, whatever that lacks: the one at Place, which is
// of the lineage From, is the whole set, and the volume begins a new lineage. Its other replicas are of the former one: foreign.
type ForceVolume struct {
	Epoch   uint64
	Volume  ids.Volume
	Version uint64
	Place   Place
	From    ids.Lineage
	Lineage ids.Lineage
	// Incomplete allows a replica that was never in sync, or to which a copy was begun. Without it that is ErrIncomplete.
	Incomplete bool
	// Short says that the replica is smaller than the volume: it is made larger before it is served, with zeros.
	Short bool
	// Of a volume that is Foreign, whose Place may be anywhere: the size that the volume has then, in bytes, if the replica is larger than the
	// backup says, and the places of other replicas of it that were found and the backup does not know: they are deleted.
	Size   int64   `json:",omitempty"`
	Others []Place `json:",omitempty"`
}

// BeginCopy says that the replica in a pool is going to be written by a resync: from then on it holds blocks of different moments.
// It changes no set, and comes before the first byte.
type BeginCopy struct {
	Epoch  uint64
	Volume ids.Volume
	Pool   ids.Pool
}

func (ForceVolume) kind() Kind { return "force-volume" }
func (BeginCopy) kind() Kind   { return "begin-copy" }

// Adoption names a replica that counts as one of its volume's lineage though its superblock names another.
type Adoption struct {
	Pool    ids.Pool
	Lineage ids.Lineage
	Short   bool `json:",omitempty"` // until the volume is served it may be smaller
}

// Behind is what is known of a replica outside of the in-sync set.
type Behind struct {
	Pool    ids.Pool
	Synced  bool      // it was in the set in this lineage
	Epoch   uint64    // LastServed when it left
	Time    time.Time // when it left, by the clock of the leader that proposed it. For people
	Copying bool      // a resync to it was begun since
}

// Complete tells whether a replica outside of the in-sync set is a copy of some moment.
func (b Behind) Complete() bool { return b.Synced && !b.Copying }

// BehindIn returns what is known of the replica in a pool, if it is outside of the in-sync set.
func (v *Volume) BehindIn(p ids.Pool) (Behind, bool) {
	for _, b := range v.Behind {
		if b.Pool == p {
			return b, true
		}
	}
	return Behind{}, false
}

// follow makes Behind that of the set and the places as they are now. before is the set that there was, of which some may have left.
func (v *Volume) follow(before []Place, at time.Time) {
	var out []Behind
	for _, p := range v.Replicas {
		if slices.Contains(v.InSync, p) {
			continue
		}
		b, known := v.BehindIn(p.Pool)
		switch {
		case known:
		case slices.ContainsFunc(before, func(q Place) bool { return q.Pool == p.Pool }):
			b = Behind{Pool: p.Pool, Synced: true, Epoch: v.LastServed, Time: at.UTC()}
		default:
			b = Behind{Pool: p.Pool}
		}
		out = append(out, b)
	}
	v.Behind = out
}

func (s *State) beginCopy(b BeginCopy) error {
	if err := s.current(b.Epoch); err != nil {
		return err
	}
	v, ok := s.Volumes[b.Volume]
	if !ok {
		return ErrNoVolume
	}
	i := slices.IndexFunc(v.Behind, func(x Behind) bool { return x.Pool == b.Pool })
	if i < 0 {
		return fmt.Errorf("%s: outside of the in-sync set: %w", v.Name, ErrNoReplica)
	}
	v.Behind = slices.Clone(v.Behind)
	v.Behind[i].Copying = true
	s.setVolume(v)
	return nil
}

func (s *State) forceVolume(b ForceVolume) (Result, error) {
	if v, ok := s.Volumes[b.Volume]; ok && v.Lineage == b.Lineage {
		return Result{Version: v.Version, InSync: v.InSync}, nil // a repetition
	}
	v, err := s.change(b.Epoch, b.Volume, b.Version)
	beyond := int64(0) // how large its tree is to be
	switch {
	case err != nil:
		return Result{}, err
	case v.Foreign:
		if err := s.adoptForeign(&v, b); err != nil {
			return Result{}, err
		}
		v.Behind, beyond = nil, v.Size // it is of another history
	case b.Size != 0 || b.Others != nil:
		return Result{}, invalid("%s: a size, or other replicas: the volume is of no backup", v.Name)
	case !slices.Contains(v.Replicas, b.Place):
		return Result{}, ErrNoReplica
	case b.Lineage.IsZero() || b.From != v.Lineage && (v.Adopted.Pool != b.Place.Pool || v.Adopted.Lineage != b.From):
		return Result{}, invalid("%s: a replica of lineage %s, and the volume's is %s", v.Name, b.From, v.Lineage)
	}
	if x, behind := v.BehindIn(b.Place.Pool); behind && !x.Complete() && !b.Incomplete {
		return Result{}, fmt.Errorf("%s: %w", v.Name, ErrIncomplete)
	}
	v.Adopted, v.Lineage = Adoption{b.Place.Pool, b.From, b.Short}, b.Lineage
	v.InSync, v.LastServed = []Place{b.Place}, 0
	v.Leaving = slices.DeleteFunc(slices.Clone(v.Leaving), func(l Leave) bool { return l.Node == b.Place.Node })
	v.Version++
	v.Behind = nil // in this lineage no other was ever in sync
	v.follow(nil, time.Time{})
	s.endOutcomes(v.ID) // of writes that may be lost
	if t := s.Trees[v.ID]; t != nil {
		s.setTree(v.ID, t.Doubted(beyond)) // the replica may lack that space was zeroed, too
	}
	if v.Memory || v.Volatile != nil {
		v.Volatile, v.Losses = nil, v.Losses+1
	}
	s.setVolume(v)
	return Result{Version: v.Version, InSync: v.InSync}, nil
}

package catalog

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"pmsapp/internal/ids"
)

// Trashed is a volume that was deleted and can be restored. Nobody serves it or removes its replicas, its in-sync set does not
// change, and its name is free.
type Trashed struct {
	Volume Volume
	Since  uint64    // the index of the command that deleted it: it names this deletion
	Time   time.Time // by the clock of the leader that deleted it; for people
	Until  int64     // seconds of State.Counted: from then on it may be purged; Forever: only by command
}

// Forever is no moment that State.Counted ever has.
const Forever = math.MaxInt64

// MaxCount bounds one CountTrash, in seconds: whatever becomes of a leader's clock, the trash does not grow older by more at once.
const MaxCount = 600

// These name no epoch: nobody serves what is in the trash, and Since names the deletion that is meant.
type (
	// RestoreVolume takes a deletion back; Name, if not empty, is the volume's from then on. A repetition succeeds.
	RestoreVolume struct {
		Volume ids.Volume
		Since  uint64
		Name   string
		Limits []Limit `json:",omitempty"`
	}
	// PurgeVolume makes a deletion final. With Expired it is rejected before its time. A repetition succeeds.
	PurgeVolume struct {
		Volume  ids.Volume
		Since   uint64
		Expired bool
	}
	// CountTrash says that a leader has counted seconds, from From, which is what the state must have, to To. Time passes for the
	// trash by these commands alone: clocks that jump, and the hours in which no node leads, do not count.
	CountTrash struct {
		From, To int64
	}
)

func (RestoreVolume) kind() Kind { return "restore-volume" }
func (PurgeVolume) kind() Kind   { return "purge-volume" }
func (CountTrash) kind() Kind    { return "count-trash" }

// TrashNamed finds deleted volumes by their name, the newest first.
func (s *State) TrashNamed(name string) (out []Trashed) {
	for _, t := range s.Trash {
		if t.Volume.Name == name {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b Trashed) int {
		if a.Since != b.Since {
			return int(min(max(int64(b.Since)-int64(a.Since), -1), 1))
		}
		return strings.Compare(a.Volume.ID.String(), b.Volume.ID.String())
	})
	return out
}

func (s *State) setTrash(t Trashed) {
	s.Trash = maps.Clone(s.Trash)
	if s.Trash == nil {
		s.Trash = map[ids.Volume]Trashed{}
	}
	s.Trash[t.Volume.ID] = t
}

func (s *State) dropTrash(id ids.Volume) {
	s.Trash = maps.Clone(s.Trash)
	delete(s.Trash, id)
}

// deleteVolume: the version is that of the set whose I/O was drained. It grows with a restoration, so that a deletion that comes
// late does not meet a volume that is served again (invariant 17).
func (s *State) deleteVolume(c Command, b DeleteVolume) error {
	if err := s.current(b.Epoch); err != nil {
		return err
	}
	v, ok := s.Volumes[b.Volume]
	if !ok {
		if _, trashed := s.Trash[b.Volume]; trashed || slices.Contains(s.Deleted, b.Volume) {
			return nil
		}
		return ErrNoVolume
	}
	_, exported := s.Exports[v.ID]
	_, shared := s.Shares[v.ID]
	switch {
	case v.Version != b.Version:
		return fmt.Errorf("%s: version %d, the set has %d: %w", v.Name, b.Version, v.Version, ErrVersion)
	case exported || shared:
		return fmt.Errorf("%s is exported: %w", v.Name, ErrInUse)
	case len(s.Maps[v.ID]) > 0:
		return fmt.Errorf("%s is mapped to hosts: %w", v.Name, ErrInUse)
	case b.Keep < 0:
		return invalid("%s: to be kept for %d seconds", v.Name, b.Keep)
	}
	s.Volumes = maps.Clone(s.Volumes)
	delete(s.Volumes, v.ID)
	if b.Keep > 0 {
		s.setTrash(Trashed{Volume: v, Since: s.Index, Time: c.Time, Until: s.Counted + b.Keep})
		return nil
	}
	s.erase(v)
	return nil
}

func (s *State) restoreVolume(b RestoreVolume) error {
	t, ok := s.Trash[b.Volume]
	if !ok || t.Since != b.Since {
		if v, ok := s.Volumes[b.Volume]; ok && (b.Name == "" || v.Name == b.Name) {
			return nil
		}
		return fmt.Errorf("in the trash: %w", ErrNoVolume)
	}
	v := t.Volume
	if b.Name != "" {
		v.Name = b.Name
	}
	if _, taken := s.VolumeNamed(v.Name); taken {
		return fmt.Errorf("a volume named %s: %w", v.Name, ErrNameTaken)
	}
	if err := s.mayPromise(b.Limits, v.Replicas, 0); err != nil { // it is counted already
		return err
	}
	v.Version++
	s.dropTrash(v.ID)
	s.setVolume(v)
	return nil
}

func (s *State) purgeVolume(b PurgeVolume) error {
	t, ok := s.Trash[b.Volume]
	switch {
	case !ok && slices.Contains(s.Deleted, b.Volume):
		return nil
	case !ok || t.Since != b.Since:
		return fmt.Errorf("in the trash: %w", ErrNoVolume)
	case b.Expired && t.Until > s.Counted:
		return fmt.Errorf("%s is kept for %d seconds more: %w", t.Volume.Name, t.Until-s.Counted, ErrInUse)
	}
	s.dropTrash(b.Volume)
	s.erase(t.Volume)
	return nil
}

// erase ends a volume for good: what is left of its replicas may be removed.
func (s *State) erase(v Volume) {
	if v.Share {
		s.Trees = maps.Clone(s.Trees)
		delete(s.Trees, v.ID)
	}
	s.Reservations = maps.Clone(s.Reservations)
	delete(s.Reservations, v.ID)
	s.endOutcomes(v.ID)
	s.Deleted = keep(s.Deleted, MaxDeleted, v.ID)
}

func (s *State) countTrash(b CountTrash) error {
	if b.From != s.Counted || b.To <= b.From || b.To-b.From > MaxCount {
		return invalid("counted from %d to %d, and it is %d", b.From, b.To, s.Counted)
	}
	s.Counted = b.To
	return nil
}

// moveTrash gives a machine's new identity what its old one had in the trash too.
func (s *State) moveTrash(from ids.Node, n Node) {
	for _, t := range s.Trash {
		if t.Volume.movePools(from, n) {
			s.setTrash(t)
		}
	}
}

// neededByTrash names a volume in the trash of which a node has the last in-sync replica.
func (s *State) neededByTrash(n ids.Node) (name string, needed bool) {
	for _, t := range s.Trash {
		if !slices.ContainsFunc(t.Volume.InSync, func(p Place) bool { return p.Node != n }) {
			return t.Volume.Name, true
		}
	}
	return "", false
}

// leaveTrash takes a node's replicas out of the volumes in the trash.
func (s *State) leaveTrash(n ids.Node) {
	for _, t := range s.Trash {
		if t.Volume.mentions(n) {
			v := t.Volume.withoutNode(n)
			v.InSync = slices.DeleteFunc(slices.Clone(v.InSync), func(p Place) bool { return p.Node == n })
			t.Volume = v
			s.setTrash(t)
		}
	}
}

package catalog

import (
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
	"pmsapp/internal/outcome"
	"pmsapp/internal/reserve"
)

// A catalog that is brought back from a backup is of an earlier moment than the replicas (invariant 6): docs/adr/catalog-restore.md.

// restoredSince is the version of the commands that every node of a restored catalog must know: an older one would take its in-sync sets
// for true.
const restoredSince = 3

// baseStep is what lies between the epochs of two histories of a catalog: more than a history has take-overs.
const baseStep = 100_000_000

// history numbers a history that begins at a moment: one for each minute since 2026, so that two restores from one backup have epochs and
// losses of their own. Whatever the clock says it is above that of an epoch. Epochs stay below 1<<53, for those who read JSON's numbers so.
func history(after uint64, now time.Time) uint64 {
	minutes := now.Sub(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) / time.Minute
	return max(after/baseStep+1, uint64(min(max(minutes, 0), 50_000_000)))
}

// lossStep is what lies between the Losses of two histories: more than a history has. NFS clients take an equal number for a sign that nothing was
// lost.
const lossStep = 1 << 20

// TimesLost is how often what was acknowledged and not flushed may have been lost, for people.
func (v *Volume) TimesLost() uint64 { return v.Losses % lossStep }

// Restored returns the catalog of a backup as the first state of a new history. Nothing in it may be believed of the replicas, which may be
// newer: every volume, those in the trash too, waits for volume force, nothing is to be deleted or moved, and no host holds a reservation or a
// lock. Deletions that were final are forgotten, so that what is left of the replicas is told of, and left alone. Its nodes are Former: they have to
// join again. admin is the SHA-256 digest of the new admin token, now for the event log.
func Restored(old *State, lineage ids.Lineage, admin []byte, now time.Time) *State {
	s := old.clone()
	s.Lineage, s.Admin = lineage, admin
	s.Base = history(old.Epoch, now) * baseStep
	s.Epoch, s.Leader = s.Base, ids.Node{}
	s.Former = slices.SortedFunc(maps.Keys(s.Nodes), func(a, b ids.Node) int { return slices.Compare(a[:], b[:]) })
	s.Tokens, s.Requests, s.Deleted = nil, nil, nil
	s.Events = keep(s.Events, MaxEvents, Event{Index: s.Index, Time: now, Kind: "catalog-restored", Text: fmt.Sprintf(
		"the catalog was restored from a backup of its index %d: %d volumes wait for volume force", s.Index, len(s.Volumes))})
	s.Outcomes = map[ids.Volume][]outcome.Kept{}
	s.Reservations = map[ids.Volume]reserve.State{}
	for id, r := range old.Reservations {
		s.Reservations[id] = reserve.State{Seq: r.Seq + 1}
	}
	s.Volumes, s.Trash = map[ids.Volume]Volume{}, map[ids.Volume]Trashed{}
	for id, v := range old.Volumes {
		s.Volumes[id] = v.foreign()
	}
	for id, t := range old.Trash {
		t.Volume, t.Until = t.Volume.foreign(), Forever // it may have been restored, and used, since the backup
		s.Trash[id] = t
	}
	s.Nodes = map[ids.Node]Node{}
	for id, n := range old.Nodes {
		n.Draining, n.Pools = false, slices.Clone(n.Pools)
		n.Version = max(n.Version, restoredSince) // no older program joins (knowsRestored)
		for i := range n.Pools {
			n.Pools[i].Draining = false
		}
		s.Nodes[id] = n
	}
	s.Trees = map[ids.Volume]*filetree.Tree{}
	for id, t := range old.Trees {
		s.Trees[id] = t.Renewed(crc32.Checksum(slices.Concat(id[:], lineage[:]), castagnoli()))
	}
	return s
}

// foreign is a volume of a backup: no replica is to leave or to be deleted, for what the backup says of it may be long past.
func (v Volume) foreign() Volume {
	v.Foreign = true
	v.Leaving, v.Gone = nil, nil
	v.Version++
	return v
}

// Deletions collects what commands have deleted for good that may never have been committed.
type Deletions struct {
	all   []Trashed
	trees map[ids.Volume]*filetree.Tree
}

// Note looks at the states before and after a command.
func (d *Deletions) Note(before, after *State) {
	if len(after.Volumes)+len(after.Trash) >= len(before.Volumes)+len(before.Trash) {
		return // a command deletes one volume, and makes none
	}
	note := func(t Trashed) {
		id := t.Volume.ID
		_, served := after.Volumes[id]
		if _, trashed := after.Trash[id]; served || trashed {
			return
		}
		t.Since, t.Until = after.Index, Forever
		d.all = append(d.all, t)
		if t.Volume.Share {
			if d.trees == nil {
				d.trees = map[ids.Volume]*filetree.Tree{}
			}
			d.trees[id] = before.Trees[id]
		}
	}
	for _, v := range before.Volumes {
		note(Trashed{Volume: v})
	}
	for _, t := range before.Trash {
		note(t)
	}
}

// TakenBack returns the state with what was deleted in the trash, the newest of it as far as there is room.
func (d *Deletions) TakenBack(s *State) *State {
	s = s.clone()
	for _, t := range slices.Backward(d.all) {
		if len(s.Volumes)+len(s.Trash) >= MaxVolumes || len(t.Volume.InSync) == 0 {
			continue
		}
		s.setTrash(t)
		if tree := d.trees[t.Volume.ID]; tree != nil {
			s.setTree(t.Volume.ID, tree)
		}
	}
	return s
}

// IsFormer tells whether a node is known from a backup alone: its machine has not joined since.
func (s *State) IsFormer(n ids.Node) bool { return slices.Contains(s.Former, n) }

// adoptForeign has a volume of a backup go on with one replica, wherever it is: where the volume is to have replicas follows from that. The
// places of other replicas on that node are Gone, for a node has one, and so are those that were found and the backup does not know; the rest
// are copied.
func (s *State) adoptForeign(v *Volume, b ForceVolume) error {
	n, ok := s.Nodes[b.Place.Node]
	switch {
	case !ok:
		return ErrNoNode
	case !slices.ContainsFunc(n.Pools, func(p Pool) bool { return p.ID == b.Place.Pool }):
		return invalid("node %s has no such pool", n.Name)
	case b.Lineage.IsZero() || b.From.IsZero() || b.From == b.Lineage:
		return invalid("%s: a replica of lineage %s is to begin %s", v.Name, b.From, b.Lineage)
	case len(b.Others) > MaxNodes*MaxPools:
		return invalid("%s: %d other replicas", v.Name, len(b.Others))
	case b.Size != 0 && (b.Size < v.Size || b.Size > maxSize || b.Size%int64(v.Logical) != 0):
		return invalid("volume %s has %d bytes, and cannot have %d", v.Name, v.Size, b.Size)
	}
	replicas := []Place{b.Place}
	for _, p := range v.Replicas {
		switch {
		case p == b.Place:
		case !hasNode(replicas, p.Node) && len(replicas) < max(1, min(len(v.Replicas), MaxReplicas)):
			replicas = append(replicas, p)
		default:
			v.Gone = append(slices.Clone(v.Gone), p)
		}
	}
	for _, p := range b.Others {
		if !slices.Contains(replicas, p) && !slices.Contains(v.Gone, p) {
			v.Gone = append(slices.Clone(v.Gone), p)
		}
	}
	v.Replicas, v.Foreign = replicas, false
	v.Size = max(v.Size, b.Size)
	v.Losses = max(v.Losses/lossStep+1, s.Base/baseStep) * lossStep
	return nil
}

// AdoptVolume brings a volume of which replicas were found, and the catalog knows nothing, into a catalog that was restored: it was created after the
// backup. It waits for volume force, as the others do. A repetition with the same id and name adds places that were found since.
type AdoptVolume struct {
	Epoch  uint64
	Volume Volume // ID, Lineage, Name, Size, Region, Logical, Memory; Replicas: where some were found
}

func (AdoptVolume) kind() Kind { return "adopt-volume" }

func (s *State) adoptVolume(b AdoptVolume) error {
	if err := s.current(b.Epoch); err != nil {
		return err
	}
	v := b.Volume
	if old, ok := s.Volumes[v.ID]; ok {
		if old.Name != v.Name || !old.Foreign {
			return fmt.Errorf("volume %s is known, as %s: %w", v.ID, old.Name, ErrInUse)
		}
		return s.adoptMore(old, v.Replicas)
	}
	if t, ok := s.Trash[v.ID]; ok {
		return fmt.Errorf("volume %s, %s, is in the trash: %w", v.ID, t.Volume.Name, ErrInUse)
	}
	if _, taken := s.VolumeNamed(v.Name); taken {
		return fmt.Errorf("a volume named %s: %w", v.Name, ErrNameTaken)
	}
	switch {
	case s.Base == 0:
		return invalid("volume %s: the catalog was never restored from a backup", v.Name)
	case v.Size > maxSize:
		return invalid("volume %s: %d bytes", v.Name, v.Size)
	}
	if err := s.checkNew(v); err != nil {
		return err
	}
	s.setVolume(Volume{ID: v.ID, Lineage: v.Lineage, Name: v.Name, Size: v.Size, Region: v.Region, Logical: v.Logical, Memory: v.Memory, Version: 1,
		Replicas: v.Replicas, InSync: slices.Clone(v.Replicas), Foreign: true})
	return nil
}

// adoptMore adds places where replicas of a volume have been found since it was adopted, so that it is to have as many.
func (s *State) adoptMore(v Volume, found []Place) error {
	for _, p := range found {
		n, ok := s.Nodes[p.Node]
		if !ok || !slices.ContainsFunc(n.Pools, func(q Pool) bool { return q.ID == p.Pool }) {
			return invalid("volume %s: a replica is on no known pool", v.Name)
		}
		if len(v.Replicas) < MaxReplicas && !hasNode(v.Replicas, p.Node) {
			v.Replicas, v.InSync = append(slices.Clone(v.Replicas), p), append(slices.Clone(v.InSync), p)
			v.Version++
		}
	}
	s.setVolume(v)
	return nil
}

// knowsRestored checks that a node knows what a restored catalog means.
func (s *State) knowsRestored(n Node) error {
	if s.Base != 0 && n.Version < restoredSince {
		return fmt.Errorf("%w: %s needs version %d, for the catalog was restored, and it has %d", ErrOldNode, n.Name, restoredSince, n.Version)
	}
	return nil
}

// Newest is when the newest event of the log was, by a leader's clock: about the time of a backup. Zero if there is none.
func (s *State) Newest() (t time.Time) {
	for _, e := range s.Events {
		if e.Time.After(t) {
			t = e.Time
		}
	}
	return t
}

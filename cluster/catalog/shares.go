package catalog

import (
	"fmt"
	"hash/crc32"
	"maps"
	"net/netip"
	"slices"

	"pmsapp/internal/filetree"
	"pmsapp/internal/ids"
)

// MaxRules bounds the rules of a share's export.
const MaxRules = 256

// Squash says whose identity an export replaces by its anonymous one.
type Squash string

// The ways to squash.
const (
	SquashNone Squash = "none"
	SquashRoot Squash = "root"
	SquashAll  Squash = "all"
)

// ShareExport is who may use a share: the most specific rule that contains a client's address counts.
type ShareExport struct {
	Volume ids.Volume
	Rules  []ShareRule
}

// ShareRule is what clients at some addresses may do.
type ShareRule struct {
	Clients  netip.Prefix // its address is the first of the prefix
	ReadOnly bool         `json:",omitempty"`
	Squash   Squash
	AnonUID  uint32
	AnonGID  uint32
}

type (
	// ExportShare exports a share, or changes its export; UnexportShare ends it. Both through the leader that serves the
	// volume (invariant 17).
	ExportShare struct {
		Epoch  uint64
		Export ShareExport
	}
	UnexportShare struct {
		Epoch  uint64
		Volume ids.Volume
	}
	// ChangeTree does Ops (filetree.Batch) to a share's tree, through the leader that serves the volume, at the version of
	// the in-sync set that it knows (invariants 2, 17).
	ChangeTree struct {
		Epoch   uint64
		Volume  ids.Volume
		Version uint64
		Ops     []byte
	}
)

func (ExportShare) kind() Kind   { return "export-share" }
func (UnexportShare) kind() Kind { return "unexport-share" }
func (ChangeTree) kind() Kind    { return "change-tree" }

// newTree makes the tree of a share that is created. Another lineage of a volume gives other generations to its files.
func (s *State) newTree(c Command, v Volume) {
	now := int64(0)
	if t := c.Time.UnixNano(); t > 0 && c.Time.Year() < 2100 {
		now = t
	}
	s.setTree(v.ID, filetree.New(v.Size, crc32.Checksum(v.Lineage[:], castagnoli())|1, now))
}

func (s *State) setTree(v ids.Volume, t *filetree.Tree) {
	s.Trees = maps.Clone(s.Trees)
	if s.Trees == nil {
		s.Trees = map[ids.Volume]*filetree.Tree{}
	}
	s.Trees[v] = t
}

func (s *State) changeTree(b ChangeTree) (Result, error) {
	v, err := s.change(b.Epoch, b.Volume, b.Version)
	if err != nil {
		return Result{}, err
	}
	t := s.Trees[v.ID]
	switch {
	case t == nil:
		return Result{}, fmt.Errorf("%s: %w", v.Name, ErrNoShare)
	case v.LastServed != b.Epoch:
		return Result{}, fmt.Errorf("%s: %w", v.Name, ErrNotServed)
	}
	batch, err := filetree.DecodeBatch(b.Ops)
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	for _, o := range batch.Ops {
		if o.Kind == filetree.Resize && o.Size > v.Size {
			return Result{}, invalid("%s: a tree of %d bytes on a volume of %d", v.Name, o.Size, v.Size)
		}
	}
	room := int64(filetree.MaxMeta)
	for _, o := range s.Trees {
		room -= o.Meta()
	}
	next, results := t.Apply(batch, room)
	s.setTree(v.ID, next)
	return Result{Tree: results}, nil
}

func (s *State) exportShare(b ExportShare) error {
	e := b.Export
	if err := s.mayExport(b.Epoch, e.Volume); err != nil {
		return err
	}
	switch {
	case s.Trees[e.Volume] == nil:
		return fmt.Errorf("%s: %w", s.Volumes[e.Volume].Name, ErrNoShare)
	case len(e.Rules) == 0 || len(e.Rules) > MaxRules:
		return invalid("an export with %d rules", len(e.Rules))
	}
	for i, r := range e.Rules {
		switch {
		case !r.Clients.IsValid() || r.Clients != r.Clients.Masked() || r.Clients.Addr().Is4In6() || r.Clients.Addr().Zone() != "":
			return invalid("clients %s", r.Clients)
		case r.Squash != SquashNone && r.Squash != SquashRoot && r.Squash != SquashAll:
			return invalid("squash %.20q", string(r.Squash))
		case slices.ContainsFunc(e.Rules[:i], func(o ShareRule) bool { return o.Clients == r.Clients }):
			return invalid("two rules for %s", r.Clients)
		}
	}
	s.Shares = maps.Clone(s.Shares)
	if s.Shares == nil {
		s.Shares = map[ids.Volume]ShareExport{}
	}
	s.Shares[e.Volume] = e
	return nil
}

func (s *State) unexportShare(b UnexportShare) error {
	if err := s.mayExport(b.Epoch, b.Volume); err != nil {
		return err
	}
	s.Shares = maps.Clone(s.Shares)
	delete(s.Shares, b.Volume)
	return nil
}

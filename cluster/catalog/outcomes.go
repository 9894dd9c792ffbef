package catalog

import (
	"maps"
	"slices"

	"pmsapp/internal/ids"
	"pmsapp/internal/outcome"
)

// Outcomes changes what is remembered of a volume's COMPARE AND WRITEs, through the leader that serves it (invariant 18).
type Outcomes struct {
	Epoch  uint64
	Volume ids.Volume
	Add    []outcome.Outcome `json:",omitempty"` // what overlaps them is forgotten
	Drop   []outcome.Outcome `json:",omitempty"`
}

func (Outcomes) kind() Kind { return "outcomes" }

// MaxOutcomes bounds Outcomes.Add and Outcomes.Drop.
const MaxOutcomes = outcome.Max

func (s *State) outcomes(b Outcomes) error {
	if err := s.mayExport(b.Epoch, b.Volume); err != nil {
		return err
	}
	bad := func(o outcome.Outcome) bool { return o.Valid() != nil }
	if slices.ContainsFunc(b.Add, bad) || len(b.Add) > MaxOutcomes || len(b.Drop) > MaxOutcomes {
		return invalid("outcomes that nobody can have recorded")
	}
	list := outcome.Change(s.Outcomes[b.Volume], b.Epoch, b.Add, b.Drop)
	s.Outcomes = maps.Clone(s.Outcomes)
	if s.Outcomes == nil {
		s.Outcomes = map[ids.Volume][]outcome.Kept{}
	}
	if len(list) == 0 {
		delete(s.Outcomes, b.Volume)
		return nil
	}
	s.Outcomes[b.Volume] = list
	return nil
}

// endOutcomes forgets a volume's: nobody may ask for them any more.
func (s *State) endOutcomes(v ids.Volume) {
	if _, ok := s.Outcomes[v]; ok {
		s.Outcomes = maps.Clone(s.Outcomes)
		delete(s.Outcomes, v)
	}
}

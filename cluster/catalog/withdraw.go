package catalog

import (
	"fmt"
	"maps"

	"pmsapp/internal/ids"
)

// Withdraw ends all exports of a volume that the leader does not serve, with what hosts have reserved (docs/adr/withdraw.md). It is rejected under an
// epoch in which the volume was served.
type Withdraw struct {
	Epoch  uint64
	Volume ids.Volume
}

// withdrawSince is the version of the commands that knows it.
const withdrawSince = 3

func (Withdraw) kind() Kind { return "withdraw" }

func (s *State) withdraw(b Withdraw) error {
	if err := s.current(b.Epoch); err != nil {
		return err
	}
	v, ok := s.Volumes[b.Volume]
	switch {
	case !ok:
		return ErrNoVolume
	case v.LastServed == b.Epoch:
		return fmt.Errorf("%s is served: %w", v.Name, ErrInUse)
	}
	s.Exports, s.Shares = maps.Clone(s.Exports), maps.Clone(s.Shares)
	delete(s.Exports, v.ID)
	delete(s.Shares, v.ID)
	s.setMaps(v.ID, nil)
	s.endReservations(v.ID)
	s.endOutcomes(v.ID)
	return nil
}

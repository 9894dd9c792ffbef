package catalog

import (
	"fmt"
	"maps"

	"pmsapp/internal/ids"
	"pmsapp/internal/reserve"
)

// Reserve changes the reservations of a volume, through the leader that serves it, after the I/O that the change forbids has
// drained (invariant 17). Seq is that of the reservations that the leader has judged the change by: of two changes that were
// judged by the same one the second is rejected.
type Reserve struct {
	Epoch  uint64
	Volume ids.Volume
	Seq    uint64
	Change reserve.Command
}

func (Reserve) kind() Kind { return "reserve" }

func (s *State) reserve(b Reserve) error {
	if err := s.mayExport(b.Epoch, b.Volume); err != nil {
		return err
	}
	old := s.Reservations[b.Volume]
	if old.Seq != b.Seq {
		return fmt.Errorf("change %d, the catalog has %d: %w", b.Seq, old.Seq, ErrReservations)
	}
	next, o := reserve.Apply(old, b.Change)
	if !o.Good() || next.Seq == old.Seq {
		return invalid("a change of reservations that changes nothing")
	}
	s.setReservations(b.Volume, next)
	return nil
}

func (s *State) setReservations(v ids.Volume, r reserve.State) {
	s.Reservations = maps.Clone(s.Reservations)
	if s.Reservations == nil {
		s.Reservations = map[ids.Volume]reserve.State{}
	}
	s.Reservations[v] = r
}

// endReservations forgets what hosts have reserved of a volume that they may use no more. The number of the changes goes on:
// a change judged by the old reservations fits none of the new.
func (s *State) endReservations(v ids.Volume) {
	if old, ok := s.Reservations[v]; ok {
		s.setReservations(v, reserve.State{Seq: old.Seq + 1})
	}
}

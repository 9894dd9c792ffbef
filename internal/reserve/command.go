package reserve

import "slices"

// Action is what a Command does. Those below 0x100 are the service actions of PERSISTENT RESERVE OUT (SPC-4 table 205).
type Action uint16

// The actions.
const (
	Register        Action = 0x00
	Reserve         Action = 0x01
	Release         Action = 0x02
	Clear           Action = 0x03
	Preempt         Action = 0x04
	PreemptAndAbort Action = 0x05
	RegisterIgnore  Action = 0x06 // REGISTER AND IGNORE EXISTING KEY
	RegisterMove    Action = 0x07 // REGISTER AND MOVE

	ReserveUnit Action = 0x100 // RESERVE(6) and (10)
	ReleaseUnit Action = 0x101 // RELEASE(6) and (10)
	LoseNexus   Action = 0x102 // the nexus was lost: what it holds by a RESERVE command is released
	Reset       Action = 0x103 // the logical unit was reset: what anybody holds by a RESERVE command is released
	Told        Action = 0x104 // the nexus has been told of Code, as far as changes up to Through are the reason
)

// Command is a change that is asked for.
type Command struct {
	Nexus      Nexus  // who asks
	Action     Action `json:",omitzero"`
	Scope      uint8  `json:",omitzero"`
	Type       Type   `json:",omitzero"`
	Key        uint64 `json:",omitzero"` // RESERVATION KEY
	ServiceKey uint64 `json:",omitzero"` // SERVICE ACTION RESERVATION KEY

	// Ports are all target ports of the device, where ALL_TG_PT asks for a registration with each.
	Ports []uint16 `json:",omitempty"`
	// Specified says SPEC_I_PT, and Others which initiator ports it names.
	Specified bool     `json:",omitzero"`
	Others    []string `json:",omitempty"`
	// To is the nexus that REGISTER AND MOVE moves the reservation to, and Unregister that the old one's registration goes.
	To         Nexus `json:",omitzero"`
	Unregister bool  `json:",omitzero"`

	Code    uint16 `json:",omitzero"`
	Through uint64 `json:",omitzero"`
}

// Outcome is the answer to a Command: GOOD, RESERVATION CONFLICT, or CHECK CONDITION, ILLEGAL REQUEST with ASC.
type Outcome struct {
	Conflict bool
	ASC      uint16
}

// Good tells whether o is GOOD.
func (o Outcome) Good() bool { return o == Outcome{} }

// Additional sense codes of outcomes (SPC-4 annex D).
const (
	invalidCDB       = 0x2400
	invalidParameter = 0x2600
	invalidRelease   = 0x2604 // INVALID RELEASE OF PERSISTENT RESERVATION
	noResources      = 0x5504 // INSUFFICIENT REGISTRATION RESOURCES
)

func conflict() Outcome           { return Outcome{Conflict: true} }
func illegal(code uint16) Outcome { return Outcome{ASC: code} }

// Apply does c, and returns the state after it. If nothing has changed it is s, with the same Seq.
func Apply(s State, c Command) (State, Outcome) {
	next := s
	next.Seq++
	changed, o := next.apply(c)
	if !o.Good() || !changed {
		return s, o
	}
	if len(next.Registered) > MaxRegistrations {
		return s, illegal(noResources)
	}
	return next, o
}

// apply changes s, or says that nothing changes. What it has done counts only if the outcome is good.
func (s *State) apply(c Command) (changed bool, o Outcome) {
	switch c.Action {
	case ReserveUnit, ReleaseUnit, LoseNexus, Reset:
		return s.unit(c)
	case Told:
		return s.told(c), Outcome{}
	}
	if !s.Exclusive.IsZero() { // SPC-2 5.5.1: whoever asks
		return false, conflict()
	}
	if c.Action == Register || c.Action == RegisterIgnore {
		return s.register(c)
	}
	if key := s.Key(c.Nexus); key == 0 || key != c.Key {
		return false, conflict()
	}
	switch c.Action {
	case Reserve:
		return s.reserve(c)
	case Release:
		return s.release(c)
	case Clear:
		s.notifyOthers(c.Nexus, ReservationsPreempted)
		s.Generation++
		s.Type, s.Holder, s.Registered = 0, Nexus{}, nil
		return true, Outcome{}
	case Preempt, PreemptAndAbort:
		return s.preempt(c)
	case RegisterMove:
		return s.move(c)
	}
	return false, illegal(invalidCDB)
}

// told takes the notices of a nexus away that it was told of.
func (s *State) told(c Command) bool {
	left := slices.DeleteFunc(slices.Clone(s.Notices), func(n Notice) bool { return n.Nexus == c.Nexus && n.Code == c.Code && n.Seq <= c.Through })
	changed := len(left) != len(s.Notices)
	s.Notices = left
	return changed
}

// unit does the commands about the reservation of a RESERVE command.
func (s *State) unit(c Command) (changed bool, o Outcome) {
	old := s.Exclusive
	switch c.Action {
	case Reset:
		s.Exclusive = Nexus{}
		return old != s.Exclusive, Outcome{}
	case LoseNexus:
		if old == c.Nexus {
			s.Exclusive = Nexus{}
		}
		return old != s.Exclusive, Outcome{}
	}
	if len(s.Registered) > 0 {
		// SPC-4 5.13.3: who has the access of a holder is told GOOD, and nothing is done; others conflict (SPC-2 5.5.1).
		if s.Holds(c.Nexus) || s.Type.shared() && s.Key(c.Nexus) != 0 {
			return false, Outcome{}
		}
		return false, conflict()
	}
	if c.Action == ReleaseUnit {
		if old == c.Nexus {
			s.Exclusive = Nexus{}
		}
		return old != s.Exclusive, Outcome{} // of what another holds: GOOD, and nothing is done
	}
	if !old.IsZero() && old != c.Nexus {
		return false, conflict()
	}
	s.Exclusive = c.Nexus
	return old != s.Exclusive, Outcome{}
}

package reserve

import (
	"cmp"
	"slices"
)

// Limits of one logical unit.
const (
	MaxRegistrations = 256
	MaxNotices       = 512
	MaxName          = 256 // bytes of an initiator port's name
)

// Nexus names an I_T nexus.
type Nexus struct {
	Initiator string // initiator port: "iqn...,i,0x" and the ISID as 12 hexadecimal digits (RFC 7143, 4.2.7.1), in lower case
	Port      uint16 // relative target port identifier
}

// IsZero tells whether n names nobody.
func (n Nexus) IsZero() bool { return n == Nexus{} }

func (n Nexus) compare(o Nexus) int {
	return cmp.Or(cmp.Compare(n.Initiator, o.Initiator), cmp.Compare(n.Port, o.Port))
}

// Type is the type of a persistent reservation (SPC-4 table 196); 0 is none.
type Type uint8

// The types.
const (
	WriteExclusive               Type = 1
	ExclusiveAccess              Type = 3
	WriteExclusiveRegistrants    Type = 5 // registrants only
	ExclusiveAccessRegistrants   Type = 6
	WriteExclusiveAllRegistrants Type = 7
	ExclusiveAccessAll           Type = 8
)

func (t Type) valid() bool { return t == 1 || t == 3 || t >= 5 && t <= 8 }

// shared tells whether every registered nexus has the access of the holder.
func (t Type) shared() bool { return t >= 5 }

// all tells whether every registered nexus is a holder.
func (t Type) all() bool { return t == 7 || t == 8 }

// readable tells whether those whom the reservation does not allow to write may read.
func (t Type) readable() bool { return t == 1 || t == 5 || t == 7 }

// Registration is a nexus with its key, which is never 0.
type Registration struct {
	Nexus
	Key uint64
}

// Notice is a unit attention that a nexus has not been told yet.
type Notice struct {
	Seq uint64 // of the change that it tells of
	Nexus
	Code uint16 // additional sense code and qualifier
}

// Additional sense codes of notices (SPC-4 annex D).
const (
	ReservationsPreempted  = 0x2a03
	ReservationsReleased   = 0x2a04
	RegistrationsPreempted = 0x2a05
)

// State is what is reserved. The zero State is nothing.
type State struct {
	Seq        uint64         `json:",omitzero"` // grows with each change
	Generation uint32         `json:",omitzero"` // PRGENERATION
	Type       Type           `json:",omitzero"`
	Holder     Nexus          `json:",omitzero"` // of a reservation that has one holder
	Registered []Registration `json:",omitempty"`
	Exclusive  Nexus          `json:",omitzero"` // who holds the reservation of a RESERVE command
	Notices    []Notice       `json:",omitempty"`
}

func (s *State) find(n Nexus) (int, bool) {
	return slices.BinarySearchFunc(s.Registered, n, func(r Registration, n Nexus) int { return r.compare(n) })
}

// Key is the key of a nexus, 0 if it is not registered.
func (s *State) Key(n Nexus) uint64 {
	if i, ok := s.find(n); ok {
		return s.Registered[i].Key
	}
	return 0
}

// Holds tells whether n holds the persistent reservation.
func (s *State) Holds(n Nexus) bool {
	return s.Type.all() && s.Key(n) != 0 || s.Type != 0 && !s.Type.all() && s.Holder == n
}

// Blank tells whether nothing is registered or reserved, and nobody to be told.
func (s *State) Blank() bool {
	return s.Type == 0 && len(s.Registered) == 0 && s.Exclusive.IsZero() && len(s.Notices) == 0
}

// set registers n, or changes its key; key 0 takes the registration away.
func (s *State) set(n Nexus, key uint64) {
	i, ok := s.find(n)
	s.Registered = slices.Clone(s.Registered)
	switch {
	case ok && key == 0:
		s.Registered = slices.Delete(s.Registered, i, i+1)
	case ok:
		s.Registered[i].Key = key
	case key != 0:
		s.Registered = slices.Insert(s.Registered, i, Registration{n, key})
	}
}

// notify leaves a notice for n: one of each kind, as new as its newest reason. The oldest make room.
func (s *State) notify(n Nexus, code uint16) {
	s.Notices = slices.DeleteFunc(slices.Clone(s.Notices), func(o Notice) bool { return o.Nexus == n && o.Code == code })
	s.Notices = append(s.Notices, Notice{s.Seq, n, code})
	if over := len(s.Notices) - MaxNotices; over > 0 {
		s.Notices = slices.Clone(s.Notices[over:])
	}
}

// notifyOthers leaves a notice for all who are registered but n.
func (s *State) notifyOthers(n Nexus, code uint16) {
	for _, r := range s.Registered {
		if r.Nexus != n {
			s.notify(r.Nexus, code)
		}
	}
}

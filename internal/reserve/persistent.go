package reserve

import "slices"

// register does REGISTER and REGISTER AND IGNORE EXISTING KEY (SPC-4 5.13.7, tables 206 and 207).
func (s *State) register(c Command) (changed bool, o Outcome) {
	key := s.Key(c.Nexus)
	ignore := c.Action == RegisterIgnore
	switch {
	case !ignore && c.Key != key:
		return false, conflict()
	case c.Specified && (ignore || key != 0):
		return false, illegal(invalidParameter)
	}
	others := s.others(c)
	for _, n := range others {
		if s.Key(n) != 0 { // SPEC_I_PT registers who is not registered, or nobody
			return false, illegal(invalidParameter)
		}
	}
	// What ALL_TG_PT adds is as if it had been asked for through each port: where that would conflict nothing is done. The
	// receiving port has decided already that the command succeeds.
	for _, port := range s.ports(c) {
		n := Nexus{c.Nexus.Initiator, port}
		if old := s.Key(n); n != c.Nexus && !ignore && old != c.Key {
			continue
		} else if old == 0 && c.ServiceKey == 0 {
			continue
		}
		if c.ServiceKey == 0 {
			s.unregister(n)
		} else {
			s.set(n, c.ServiceKey)
		}
		changed = true
	}
	for _, n := range others {
		s.set(n, c.ServiceKey)
	}
	if changed {
		s.Generation++
	}
	return changed, Outcome{}
}

// others are the nexuses that SPEC_I_PT names: none where there is no key to register (SPC-4 table 67).
func (s *State) others(c Command) (all []Nexus) {
	if c.ServiceKey == 0 {
		return nil
	}
	for _, name := range c.Others {
		for _, port := range s.ports(c) {
			all = append(all, Nexus{name, port})
		}
	}
	return all
}

// ports are the target ports that a registration is for.
func (s *State) ports(c Command) []uint16 {
	if slices.Contains(c.Ports, c.Nexus.Port) {
		return c.Ports
	}
	return append([]uint16{c.Nexus.Port}, c.Ports...)
}

// unregister takes a registration away, and a reservation that nobody holds then (SPC-4 5.13.11.2.2).
func (s *State) unregister(n Nexus) {
	held := s.Holds(n)
	s.set(n, 0)
	if !held || s.Type.all() && len(s.Registered) > 0 {
		return
	}
	if s.Type.shared() {
		s.notifyOthers(n, ReservationsReleased)
	}
	s.Type, s.Holder = 0, Nexus{}
}

// reserve does RESERVE (SPC-4 5.13.9).
func (s *State) reserve(c Command) (changed bool, o Outcome) {
	switch {
	case c.Scope != 0 || !c.Type.valid():
		return false, illegal(invalidCDB)
	case s.Type == 0:
		s.take(c)
		return true, Outcome{}
	case s.Holds(c.Nexus) && s.Type == c.Type:
		return false, Outcome{}
	}
	return false, conflict()
}

// take makes the nexus of c the holder.
func (s *State) take(c Command) {
	s.Type, s.Holder = c.Type, c.Nexus
	if c.Type.all() {
		s.Holder = Nexus{}
	}
}

// release does RELEASE (SPC-4 5.13.11.2.1).
func (s *State) release(c Command) (changed bool, o Outcome) {
	switch {
	case s.Type == 0 || !s.Holds(c.Nexus):
		return false, Outcome{}
	case c.Scope != 0 || c.Type != s.Type:
		return false, illegal(invalidRelease)
	}
	if s.Type.shared() {
		s.notifyOthers(c.Nexus, ReservationsReleased)
	}
	s.Type, s.Holder = 0, Nexus{}
	return true, Outcome{}
}

// preempt does PREEMPT and PREEMPT AND ABORT (SPC-4 5.13.11.2.4 and 5.13.11.2.6).
func (s *State) preempt(c Command) (changed bool, o Outcome) {
	if c.ServiceKey == 0 && !s.Type.all() {
		return false, illegal(invalidParameter)
	}
	takes := s.Type != 0 && !s.Type.all() && s.Key(s.Holder) == c.ServiceKey || s.Type.all() && c.ServiceKey == 0
	if takes && (c.Scope != 0 || !c.Type.valid()) {
		return false, illegal(invalidCDB)
	}
	goes := func(r Registration) bool {
		return (r.Key == c.ServiceKey || takes && c.ServiceKey == 0) && !(takes && r.Nexus == c.Nexus)
	}
	if !takes && !slices.ContainsFunc(s.Registered, goes) {
		return false, conflict()
	}
	old := s.Registered
	s.Registered = slices.DeleteFunc(slices.Clone(old), goes)
	for _, r := range old {
		if r.Nexus != c.Nexus && goes(r) {
			s.notify(r.Nexus, RegistrationsPreempted)
		}
	}
	switch {
	case takes:
		if s.Type != c.Type {
			s.notifyOthers(c.Nexus, ReservationsReleased)
		}
		s.take(c)
	case len(s.Registered) == 0: // it has preempted itself: an all-registrants reservation has no holder any more
		s.Type, s.Holder = 0, Nexus{}
	}
	s.Generation++
	return true, Outcome{}
}

// move does REGISTER AND MOVE (SPC-4 5.13.8).
func (s *State) move(c Command) (changed bool, o Outcome) {
	switch {
	case s.Type == 0:
		return false, illegal(invalidCDB)
	case !s.Holds(c.Nexus) || s.Type.all():
		return false, conflict()
	case c.ServiceKey == 0 || c.To.IsZero() || c.To.Initiator == c.Nexus.Initiator:
		return false, illegal(invalidParameter)
	}
	s.set(c.To, c.ServiceKey)
	s.Holder = c.To
	if c.Unregister {
		s.set(c.Nexus, 0)
	}
	s.Generation++
	return true, Outcome{}
}

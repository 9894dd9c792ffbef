package catalog

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"pmsapp/internal/ids"
)

// Limits of hosts.
const (
	MaxHosts    = 256
	MaxHostIQNs = 16
	MaxLUN      = 16383
)

// Host is an initiator that LUNs are mapped to, by one or more iSCSI names.
type Host struct {
	Name         string
	IQNs         []string // in lower case; never changed in place
	CHAPUser     string   // what the host must prove; empty: nothing
	CHAPSecret   []byte
	MutualUser   string // what the target proves to it; empty: nothing
	MutualSecret []byte
	Paths        string `json:",omitempty"` // one of those below
}

// Paths: by which portals a host comes. Empty is PathsVirtual.
const (
	PathsVirtual  = "virtual"
	PathsNodes    = "nodes"
	PathsRedirect = "redirect"
)

func checkPaths(p string) error {
	switch p {
	case "", PathsVirtual, PathsNodes, PathsRedirect:
		return nil
	}
	return invalid("paths: %q is none of %s, %s, %s", p, PathsVirtual, PathsNodes, PathsRedirect)
}

func (h Host) equal(o Host) bool {
	return h.Name == o.Name && slices.Equal(h.IQNs, o.IQNs) && h.CHAPUser == o.CHAPUser && bytes.Equal(h.CHAPSecret, o.CHAPSecret) &&
		h.Paths == o.Paths && h.MutualUser == o.MutualUser && bytes.Equal(h.MutualSecret, o.MutualSecret)
}

// Mapping is a volume as a LUN of a host.
type Mapping struct {
	Host     string
	LUN      uint16
	ReadOnly bool `json:",omitempty"`
}

type (
	// PutHost adds a host; a repetition succeeds.
	PutHost struct{ Host Host }
	// RemoveHost takes a host out that no LUN is mapped to.
	RemoveHost struct{ Name string }
	// MapLUN makes a volume a LUN of a host, UnmapLUN ends that; through the leader that serves the volume (invariant 17).
	MapLUN struct {
		Epoch  uint64
		Volume ids.Volume
		Map    Mapping
	}
	UnmapLUN struct {
		Epoch  uint64
		Volume ids.Volume
		Host   string
	}
)

func (PutHost) kind() Kind    { return "put-host" }
func (RemoveHost) kind() Kind { return "remove-host" }
func (MapLUN) kind() Kind     { return "map-lun" }
func (UnmapLUN) kind() Kind   { return "unmap-lun" }

func (s *State) putHost(h Host) error {
	switch {
	case h.Name == "" || len(h.Name) > 63 || len(h.IQNs) == 0 || len(h.IQNs) > MaxHostIQNs:
		return invalid("a host needs a name and 1 to %d iSCSI names", MaxHostIQNs)
	case !pair(h.CHAPUser, h.CHAPSecret) || !pair(h.MutualUser, h.MutualSecret):
		return invalid("host %s: CHAP needs a name and a secret", h.Name)
	case h.MutualUser != "" && (h.CHAPUser == "" || bytes.Equal(h.CHAPSecret, h.MutualSecret)):
		return invalid("host %s: mutual CHAP needs CHAP with another secret", h.Name)
	}
	if err := checkPaths(h.Paths); err != nil {
		return err
	}
	if old, ok := s.Hosts[h.Name]; ok {
		if old.equal(h) {
			return nil
		}
		return fmt.Errorf("a host named %s: %w", h.Name, ErrNameTaken)
	}
	if len(s.Hosts) >= MaxHosts {
		return fmt.Errorf("hosts, %d are allowed: %w", MaxHosts, ErrLimit)
	}
	for _, iqn := range h.IQNs {
		if iqn == "" || len(iqn) > 223 {
			return invalid("an initiator's name of %d bytes", len(iqn))
		}
		for _, o := range s.Hosts {
			if slices.Contains(o.IQNs, iqn) {
				return fmt.Errorf("%s is host %s: %w", iqn, o.Name, ErrNameTaken)
			}
		}
	}
	s.Hosts = maps.Clone(s.Hosts)
	if s.Hosts == nil {
		s.Hosts = map[string]Host{}
	}
	s.Hosts[h.Name] = h
	return nil
}

func pair(user string, secret []byte) bool {
	return (user == "") == (len(secret) == 0) && len(user) <= 255 && len(secret) <= 255
}

func (s *State) removeHost(name string) error {
	if _, ok := s.Hosts[name]; !ok {
		return ErrNoHost
	}
	for _, v := range s.sorted() {
		if slices.ContainsFunc(s.Maps[v.ID], func(m Mapping) bool { return m.Host == name }) {
			return fmt.Errorf("%s is mapped to %s: %w", v.Name, name, ErrInUse)
		}
	}
	s.Hosts = maps.Clone(s.Hosts)
	delete(s.Hosts, name)
	return nil
}

func (s *State) mapLUN(b MapLUN) error {
	if err := s.mayExport(b.Epoch, b.Volume); err != nil {
		return err
	}
	if _, ok := s.Hosts[b.Map.Host]; !ok {
		return ErrNoHost
	}
	if b.Map.LUN > MaxLUN {
		return invalid("LUN %d", b.Map.LUN)
	}
	v := s.Volumes[b.Volume]
	_, exported := s.Exports[b.Volume]
	switch {
	case v.Share:
		return fmt.Errorf("%s: %w", v.Name, ErrIsShare)
	case exported:
		return fmt.Errorf("%s is exported, not mapped: %w", v.Name, ErrInUse)
	}
	for id, all := range s.Maps {
		for _, m := range all {
			switch {
			case id == b.Volume && m == b.Map:
				return nil
			case id == b.Volume && m.Host == b.Map.Host:
				return fmt.Errorf("%s is mapped to %s as LUN %d already: %w", v.Name, m.Host, m.LUN, ErrInUse)
			case m.Host == b.Map.Host && m.LUN == b.Map.LUN:
				return fmt.Errorf("LUN %d of %s is another volume: %w", m.LUN, m.Host, ErrInUse)
			}
		}
	}
	s.setMaps(b.Volume, append(slices.Clone(s.Maps[b.Volume]), b.Map))
	return nil
}

func (s *State) unmapLUN(b UnmapLUN) error {
	if err := s.mayExport(b.Epoch, b.Volume); err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(s.Maps[b.Volume]), func(m Mapping) bool { return m.Host == b.Host })
	if len(left) == len(s.Maps[b.Volume]) {
		return nil
	}
	s.setMaps(b.Volume, left)
	if len(left) == 0 {
		s.endReservations(b.Volume)
	}
	return nil
}

func (s *State) setMaps(v ids.Volume, all []Mapping) {
	s.Maps = maps.Clone(s.Maps)
	if s.Maps == nil {
		s.Maps = map[ids.Volume][]Mapping{}
	}
	if len(all) == 0 {
		delete(s.Maps, v)
		return
	}
	s.Maps[v] = all
}

// FreeLUN is the lowest number from 1 that a host has no LUN under.
func (s *State) FreeLUN(host string) uint16 {
	taken := map[uint16]bool{}
	for _, all := range s.Maps {
		for _, m := range all {
			if m.Host == host {
				taken[m.LUN] = true
			}
		}
	}
	n := uint16(1)
	for taken[n] {
		n++
	}
	return n
}

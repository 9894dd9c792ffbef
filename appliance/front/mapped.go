package front

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/internal/reserve"
	"pmsapp/target"
	"pmsapp/target/scsi"
)

// Host is an initiator that LUNs are mapped to, as the catalog has it.
type Host struct {
	Name      string
	IQNs      []string          // in lower case
	CHAP, Own iscsi.Credentials // what the host proves, and what is proved to it
	LUNs      []HostLUN
	Paths     Paths
}

// HostLUN is a volume as a LUN of a host.
type HostLUN struct {
	Volume   ids.Volume
	LUN      uint16
	ReadOnly bool
}

// Offered is a volume that is mapped to hosts.
type Offered struct {
	Volume   ids.Volume
	Name     string
	Geometry block.Geometry
	Access   uint16        // the group of the node that serves the volume, 0 while none does
	Reserved reserve.State // as the state of the catalog numbered Index has it
	Index    uint64
}

// offered is such a volume with its LU, which all hosts share.
type offered struct {
	Offered
	lu *scsi.LU
}

// mapped is a host: its own view of the target that all mapped LUNs are in.
type mapped struct {
	Host
	door
}

func (m *mapped) has(v ids.Volume) bool {
	return slices.ContainsFunc(m.LUNs, func(l HostLUN) bool { return l.Volume == v })
}

// sameLogin tells whether sessions of a host may go on: nothing has changed but what it is mapped.
func (m *mapped) sameLogin(o Host) bool {
	same := func(a, b iscsi.Credentials) bool { return a.Name == b.Name && string(a.Secret) == string(b.Secret) }
	return slices.Equal(m.IQNs, o.IQNs) && same(m.CHAP, o.CHAP) && same(m.Own, o.Own)
}

// ApplyMaps makes the hosts, and what they are mapped, those of the catalog. A LUN more or less is told to the sessions of the
// host (UNIT ATTENTION 3Fh/0Eh); those of a host that went, or that must log in otherwise, are dropped.
func (h *Hosts) ApplyMaps(hosts []Host, volumes []Offered) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	gone := maps.Clone(h.units)
	for _, o := range volumes {
		delete(gone, o.Volume)
		u := h.units[o.Volume]
		if u == nil {
			u = &offered{o, scsi.NewLUAmong(o.Volume, h.cfg.Around)}
			h.units[o.Volume] = u
			u.lu.Reserved(o.Reserved, o.Index)
			u.lu.Expect(o.Geometry)
			h.connect(u.lu, o.Name)
			continue
		}
		u.lu.Reserved(o.Reserved, o.Index)
		u.lu.Expect(o.Geometry)
		if u.Access != o.Access {
			u.lu.AccessChanged()
		}
		u.Offered = o
	}
	left := maps.Clone(h.hosts)
	for _, w := range hosts {
		m := h.hosts[w.Name]
		if m != nil && !m.sameLogin(w) {
			m = nil
		}
		if m == nil {
			m = &mapped{door: door{scsi.NewTarget(CommonName(h.cfg.Cluster), h.cfg.Group), map[*nexus]struct{}{}}}
			h.hosts[w.Name] = m
		} else {
			delete(left, w.Name)
		}
		m.Host = w
		luns, fixed := map[uint16]*scsi.LU{}, map[uint16]bool{}
		for _, l := range w.LUNs {
			if u := h.units[l.Volume]; u != nil {
				luns[l.LUN] = u.lu
				if l.ReadOnly {
					fixed[l.LUN] = true
				}
			}
		}
		if err := m.target.SetMap(luns, fixed); err != nil {
			return fmt.Errorf("mapping LUNs to %s: %w", w.Name, err)
		}
		m.drop(ErrNotServed, h.misses(m.Paths, h.access(m), m.volumes()...))
	}
	for name, m := range left {
		if h.hosts[name] == m {
			delete(h.hosts, name)
		}
		m.drop(ErrUnexported, every)
	}
	for v, u := range gone {
		u.lu.Standby()
		delete(h.units, v)
	}
	return nil
}

// isCommon tells whether a target is that of the mapped LUNs.
func (h *Hosts) isCommon(name string) bool { return strings.EqualFold(name, CommonName(h.cfg.Cluster)) }

// known finds a host by its iSCSI name. Called with mu.
func (h *Hosts) known(iqn string) *mapped {
	iqn = strings.ToLower(iqn)
	for _, m := range h.hosts {
		if slices.Contains(m.IQNs, iqn) {
			return m
		}
	}
	return nil
}

// admitHost finds the host of a login to the target of the mapped LUNs. It returns with mu held, which what it has found is good
// for. Who is not known for certain to be nobody is told to come again.
func (h *Hosts) admitHost(l target.Login) (*mapped, error) {
	h.mu.Lock()
	m, certain := h.known(l.Initiator), false
	if m == nil || len(m.LUNs) == 0 {
		h.mu.Unlock()
		certain = h.cfg.Certain()
		h.mu.Lock()
		m = h.known(l.Initiator)
	}
	if m != nil && len(m.LUNs) > 0 {
		if _, shut := h.shut[m.Name]; shut {
			return nil, target.ErrUnavailable
		}
		return m, nil
	}
	switch {
	case !certain:
		return nil, target.ErrUnavailable
	case m == nil:
		return nil, errUnknownHost
	}
	return nil, errNoLUN
}

// CloseHost refuses logins of a host to the mapped LUNs from now on and drops its sessions; it returns when nothing that they
// brought can be submitted any more, with a function that allows logins again.
func (h *Hosts) CloseHost(ctx context.Context, name string) (undo func(), err error) {
	h.mu.Lock()
	if _, twice := h.shut[name]; twice {
		h.mu.Unlock()
		return nil, fmt.Errorf("a map of %s is being ended already: %w", name, ErrUnexported)
	}
	h.shut[name] = struct{}{}
	var open []*nexus
	if m := h.hosts[name]; m != nil {
		m.drop(ErrUnexported, every)
		open = slices.Collect(maps.Keys(m.nexuses))
	}
	h.mu.Unlock()
	undo = func() {
		h.mu.Lock()
		delete(h.shut, name)
		h.mu.Unlock()
	}
	if err := waitEnd(ctx, open); err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

// Identities are those of all LUs, in no order.
func (h *Hosts) Identities() []scsi.Identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := []scsi.Identity{}
	for _, x := range h.targets {
		all = append(all, x.lu.Identity())
	}
	for _, u := range h.units {
		all = append(all, u.lu.Identity())
	}
	return all
}

package scsi

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"pmsapp/internal/block"
	"pmsapp/internal/reserve"
	"pmsapp/target"
)

// Target is a target name with its LUN map.
type Target struct {
	name  string
	group uint16
	luns  atomic.Pointer[map[uint16]*LU]
	// fixed are the LUNs that hosts may not write. Guarded by mu; a LUN that becomes one, or ceases to be, is a new unit.
	fixed map[uint16]bool

	mu      sync.Mutex
	nexuses map[*Nexus]struct{}
}

// NewTarget returns a target without LUNs. group is the portal group tag of this node's portals, and the relative target
// port identifier.
func NewTarget(name string, group uint16) *Target {
	t := &Target{name: name, group: group, nexuses: make(map[*Nexus]struct{})}
	t.luns.Store(&map[uint16]*LU{})
	return t
}

// Name is the target's iSCSI name.
func (t *Target) Name() string { return t.name }

// SetLUNs replaces the LUN map; hosts are told if it changed. Commands under way on an LU that has left go on. LUNs are
// below 16384.
func (t *Target) SetLUNs(luns map[uint16]*LU) error { return t.SetMap(luns, nil) }

// SetMap is SetLUNs with LUNs that hosts may not write.
func (t *Target) SetMap(luns map[uint16]*LU, readOnly map[uint16]bool) error {
	for n, lu := range luns {
		if n > 0x3fff || lu == nil {
			return fmt.Errorf("scsi: target %s: LUN %d is not one", t.name, n)
		}
	}
	luns = maps.Clone(luns)
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.luns.Load()
	if maps.Equal(old, luns) && maps.Equal(t.fixed, readOnly) {
		return nil
	}
	t.fixed = maps.Clone(readOnly)
	t.luns.Store(&luns)
	for x := range t.nexuses {
		x.remap(luns)
	}
	return nil
}

// LUNs returns the LUN map, which must not be changed.
func (t *Target) LUNs() map[uint16]*LU { return *t.luns.Load() }

// numbers returns the LUNs in order.
func (t *Target) numbers() []uint16 { return slices.Sorted(maps.Keys(*t.luns.Load())) }

// Nexus makes the nexus of a session.
func (t *Target) Nexus(l target.Login) *Nexus {
	port := l.Group
	if port == 0 {
		port = t.group
	}
	x := &Nexus{target: t, login: l, port: port, units: make(map[uint16]unit),
		nexus: reserve.Nexus{Initiator: reserve.PortName(l.Initiator, l.ISID), Port: port}}
	t.mu.Lock()
	t.nexuses[x] = struct{}{}
	x.remap(*t.luns.Load())
	t.mu.Unlock()
	return x
}

// unit is an LU as a nexus has it.
type unit struct {
	lu        *LU
	attention *attentions
	flight    *flight
	readOnly  bool // to this nexus
}

// writeProtected returns the sense data with which a write to the unit is refused.
func (u unit) writeProtected() (sense, bool) {
	switch {
	case u.readOnly:
		return sense{key: gotgt.DATA_PROTECT, asc: uint16(gotgt.ASC_WRITE_PROTECT)}, true
	case u.lu.writeProtected():
		return writeProtected(), true
	}
	return sense{}, false
}

// Nexus executes the commands of one session. It is a target.Nexus.
type Nexus struct {
	target *Target
	login  target.Login
	port   uint16 // relative target port identifier: the group of the portal
	nexus  reserve.Nexus

	out       sync.Mutex // guards the questions that other nodes were asked
	questions map[uint64]question
	lastAsked uint64

	mu    sync.RWMutex
	units map[uint16]unit
	over  bool
}

// remap brings the units in line with a LUN map. Called with the target's mu.
func (x *Nexus) remap(luns map[uint16]*LU) {
	for _, lu := range x.exchange(luns) {
		lu.unreserve(x.nexus) // without mu: it may end commands of sessions, whose locks come before ours
	}
}

// exchange is remap, and returns the units that the nexus has lost.
func (x *Nexus) exchange(luns map[uint16]*LU) (lost []*LU) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return nil
	}
	first := len(x.units) == 0
	for n, u := range x.units {
		if luns[n] != u.lu || x.target.fixed[n] != u.readOnly {
			u.lu.leave(u.attention)
			u.lu.arbiter.part(u.flight)
			lost = append(lost, u.lu)
			delete(x.units, n)
		}
	}
	for n, lu := range luns {
		if _, ok := x.units[n]; !ok {
			f := &flight{nexus: x.nexus, attention: lu.join()}
			f.stop, f.reset = x.stopper(f, n), x.resetter(f, n)
			lu.arbiter.join(f)
			x.units[n] = unit{lu, f.attention, f, x.target.fixed[n]}
		}
	}
	if first {
		return lost
	}
	for _, u := range x.units {
		u.attention.add(uint16(gotgt.ASC_REPORTED_LUNS_DATA_HAS_CHANGED))
	}
	return lost
}

// unit returns the LU behind a LUN.
func (x *Nexus) unit(l target.LUN) (unit, bool) {
	n, ok := l.Number()
	if !ok {
		return unit{}, false
	}
	x.mu.RLock()
	u, ok := x.units[n]
	x.mu.RUnlock()
	return u, ok
}

// Unit implements target.Nexus.
func (x *Nexus) Unit(l target.LUN) any {
	if u, ok := x.unit(l); ok {
		return u.lu
	}
	return nil
}

// End implements target.Nexus. It has nothing to wait for: what was submitted keeps its order (block.Device), and
// commands submit nothing after Execute has returned.
func (x *Nexus) End(cause error) {
	x.target.mu.Lock()
	delete(x.target.nexuses, x)
	x.target.mu.Unlock()
	// A session that another node is to go on with is no nexus lost (SAM-5 6.3.4).
	lost := !errors.Is(cause, target.ErrMoved) && !errors.Is(cause, target.ErrShutdown) && !errors.Is(cause, block.ErrEnded)
	x.giveUp()
	x.cancelQuestions(lost)
	x.mu.Lock()
	x.over = true
	var all []*LU
	for n, u := range x.units {
		u.lu.leave(u.attention)
		u.lu.arbiter.part(u.flight)
		all = append(all, u.lu)
		delete(x.units, n)
	}
	x.mu.Unlock()
	for _, lu := range all {
		if lost {
			lu.unreserve(x.nexus)
		}
	}
}

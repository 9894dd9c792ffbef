package scsi

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"

	"pmsapp/internal/ids"
)

// Access is an asymmetric access state (SPC-4 table 215).
type Access uint8

// The states that there are.
const (
	Optimized     Access = 0x0
	StandingBy    Access = 0x2
	Transitioning Access = 0xf
)

// PortGroup is a target port group of one port; the group and the port have the same number (the target portal group tag).
type PortGroup struct {
	ID     uint16
	Access Access
}

// Around is what an LU knows of the other nodes. All of it may be nil: then there are none.
type Around struct {
	// Elsewhere has the node that serves the unit answer.
	Elsewhere Elsewhere
	// Groups returns the target port groups at which the unit is, in ascending order. It must not block.
	Groups func(ids.Volume) []PortGroup
}

// groups are the target port groups, as the port that is asked sees them: of its own it knows best, and where it is not the one
// that serves nobody can be told that it is.
func (lu *LU) groups(port uint16) []PortGroup {
	own := StandingBy
	if lu.Serving() {
		own = Optimized
		if lu.arbiter.waits() {
			own = Transitioning
		}
	}
	if lu.around.Groups == nil {
		return []PortGroup{{port, own}}
	}
	all := lu.around.Groups(lu.id)
	for i := range all {
		switch g := &all[i]; {
		case g.ID != port:
		case own == StandingBy && g.Access != StandingBy:
			g.Access = Transitioning // it serves soon, or served a moment ago
		default:
			g.Access = own
		}
	}
	return all
}

// notReady is what a unit that stands by answers at a port: whether a host should wait here or look for another port.
func (lu *LU) notReady(port uint16) sense {
	for _, g := range lu.groups(port) {
		if g.ID == port && g.Access == Transitioning {
			return transition()
		}
	}
	return standby()
}

// AccessChanged tells hosts that the states of target port groups have changed.
func (lu *LU) AccessChanged() {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.attend(nil, ascAccessChanged)
}

// transitionTime is how long, in seconds, a host should wait for a transition: the longest hold_timeout by default, and an election.
const transitionTime = 40

// reportGroups does REPORT TARGET PORT GROUPS (SPC-4 6.37).
func reportGroups(cmd *api.SCSICommand) api.SAMStat {
	format := cmd.SCB[1] >> 5
	if format > 1 {
		return refuse(cmd, invalidFieldAt(1))
	}
	b := make([]byte, 4)
	if format == 1 {
		b = append(b, 0x10, transitionTime, 0, 0)
	}
	c := callOf(cmd)
	for _, g := range c.io.unit.lu.groups(c.nexus.port) {
		const supported, implicit = 0x85, 2 // transitioning, standby, active/optimized; changed by the target alone
		id := binary.BigEndian.AppendUint16(nil, g.ID)
		b = append(b, byte(g.Access), supported, id[0], id[1], 0, implicit, 0, 1, 0, 0, id[0], id[1])
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return answer(cmd, b, uint64(binary.BigEndian.Uint32(cmd.SCB[6:])))
}

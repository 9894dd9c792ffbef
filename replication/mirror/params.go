package mirror

import (
	"errors"
	"fmt"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// Params are what a Core is made of. The caller has committed Epoch, fenced a session with every member under it, found
// none of them stale (14), removed the members that it could not fence, and committed Served for the volume (7).
type Params struct {
	// Volume is the volume as the catalog has it after all that: Version and InSync are current.
	Volume truth.Volume
	// Epoch is put into every proposal.
	Epoch peer.Epoch
	// Self is the leader's node. A session with it always exists, whether or not it holds a replica: answers need its
	// confirmation too (11).
	Self ids.Node
	// Members has one entry for each of Volume.InSync, in any order.
	Members []Member
	// Prior is the epoch under which the volume was last served before Epoch; 0 if never.
	Prior peer.Epoch
	// Physical is the largest physical block of any replica, in bytes: a power of two from 512 to 65536. Order is judged
	// in it (3). 0 means 4096.
	Physical int
	Tunables Tunables
}

// Member is an in-sync member at the fence: what peer.FencedReplica says of it. Core reads the active map itself, as
// its first command.
type Member struct {
	Node    ids.Node
	Seq     peer.Seq
	Durable peer.Seq
	// Incarnation is as at the fence: that of Volume.Volatile, if the replica is there.
	Incarnation ids.ID
}

// Tunables of one mirror. The zero value of a field means its default.
type Tunables struct {
	// Hold is hold_timeout: how long a request is held at most (5). Default 30 s.
	Hold time.Duration
	// Grace is how long a lost member of a larger set may take to come back before its removal is proposed. A failed
	// attempt to reach it ends the grace at once. Default 250 ms.
	Grace time.Duration
	// LastGrace is how long members that are out of reach are waited for when the only member in reach has failed a
	// write. Then they are removed, and that write ends with ErrMedium. Default 5 s.
	LastGrace time.Duration
	// Retry is the pause before an unknown proposal or a failed attempt to reach a member is repeated; it doubles up to
	// eight times that. Default 100 ms.
	Retry time.Duration
	// Cool is how long after its last write a region's mark is cleared at the earliest: a random write over many regions pays for a mark where
	// the last one of its region was longer ago. Where writes come back to regions that were just cleared it becomes longer, up to CoolMost.
	// Default 10 s, and eight times Cool.
	Cool, CoolMost time.Duration
	// FlushEvery is how long what was acknowledged from memory is not durable at most, while the disks are well. Default 2 s.
	FlushEvery time.Duration
	// Slow is the mean time of a write from which on a member is removed whose mean is also eight times that of every
	// other member, in three windows of SlowWindow in a row. Default 100 ms, and 10 s.
	Slow, SlowWindow time.Duration
	// HotRegions bounds the regions that are marked without need; the least recently written is cleared first.
	// Default 32768.
	HotRegions int
	// MaxIO is the longest command sent to a member, in bytes, a multiple of 64 KiB; longer requests are split. The
	// longest Read or Write of the device is four times that. Default 1 MiB.
	MaxIO int64
	// MaxZero is the same for Zero. Default 4 MiB.
	MaxZero int64
	// Chunk is the longest range that a copy holds, at most 256 KiB (3). Default 256 KiB.
	Chunk int64
	// Reconcilers is how many chunks of active regions are compared at a time after a take-over. Default 8.
	Reconcilers int
	// Resyncers is how many chunks a resync copies at a time while the volume is otherwise idle; half as many where a client had I/O
	// within the last second, two at most within the last 10 ms, and one beside client I/O. Default 16.
	Resyncers int
	// Progress is how often, during a resync, the members take note of what the joiner has by now: there it goes on after an
	// interruption. Default 2 s.
	Progress time.Duration
	// Lookup is how long a range that a replica missed has to be for its extents to be looked up before it is read, in bytes. Default
	// 8 MiB.
	Lookup int64
	// Window is of how many bytes a resync looks the extents up at a time. Default 64 MiB.
	Window int64
	// Reserve is how long a run of the source's data has to be for its space to be reserved on a joiner that was empty, in bytes. Default
	// 1 MiB.
	Reserve int64
	// Budgeted makes each chunk of a resync or a scrub wait for Granted after an Ask effect, so that all mirrors of a node share a
	// budget.
	Budgeted bool
}

// ErrParams is returned by New when Params cannot be right.
var ErrParams = errors.New("mirror: invalid parameters")

func (t Tunables) withDefaults() Tunables {
	d := func(p *time.Duration, v time.Duration) {
		if *p <= 0 {
			*p = v
		}
	}
	d(&t.Hold, 30*time.Second)
	d(&t.Grace, 250*time.Millisecond)
	d(&t.LastGrace, 5*time.Second)
	d(&t.Retry, 100*time.Millisecond)
	d(&t.Cool, 10*time.Second)
	d(&t.CoolMost, 8*t.Cool)
	d(&t.FlushEvery, 2*time.Second)
	d(&t.Slow, 100*time.Millisecond)
	d(&t.SlowWindow, 10*time.Second)
	d(&t.Progress, 2*time.Second)
	n := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	n(&t.HotRegions, 32768)
	n(&t.Reconcilers, 8)
	n(&t.Resyncers, 16)
	if t.MaxIO <= 0 {
		t.MaxIO = 1 << 20
	}
	if t.MaxZero <= 0 {
		t.MaxZero = 4 << 20
	}
	if t.Lookup <= 0 {
		t.Lookup = 8 << 20
	}
	if t.Window <= 0 {
		t.Window = 64 << 20
	}
	if t.Reserve <= 0 {
		t.Reserve = 1 << 20
	}
	if t.Chunk <= 0 || t.Chunk > maxChunk {
		t.Chunk = maxChunk
	}
	return t
}

// maxChunk bounds what a copy holds at a time (3).
const maxChunk = 256 << 10

// maxSlots bounds the nodes that a mirror deals with at a time: members, a joiner, and the leader's own.
const maxSlots = 8

func (p *Params) validate() error {
	v := &p.Volume
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: volume %v: %s", ErrParams, v.ID, fmt.Sprintf(format, a...))
	}
	if p.Physical == 0 {
		p.Physical = 4096
	}
	switch {
	case p.Epoch == 0 || p.Self.IsZero() || v.ID.IsZero():
		return bad("no epoch, node or volume")
	case v.Logical != 512 && v.Logical != 4096:
		return bad("logical block of %d bytes", v.Logical)
	case v.Size <= 0 || v.Size%int64(v.Logical) != 0:
		return bad("size of %d bytes", v.Size)
	case v.Region < 64<<10 || v.Region > 4<<20 || v.Region&(v.Region-1) != 0:
		return bad("region of %d bytes", v.Region)
	case p.Physical < v.Logical || p.Physical > 65536 || p.Physical&(p.Physical-1) != 0:
		return bad("physical block of %d bytes", p.Physical)
	case len(v.InSync) == 0 || len(v.InSync) > maxSlots-2:
		return bad("%d members", len(v.InSync))
	case len(p.Members) != len(v.InSync):
		return bad("%d members given, %d in the set", len(p.Members), len(v.InSync))
	}
	for i, m := range p.Members {
		if !inSet(v.InSync, m.Node) {
			return bad("node %v is not in the set", m.Node)
		}
		for _, o := range p.Members[:i] {
			if o.Node == m.Node {
				return bad("node %v twice", m.Node)
			}
		}
	}
	return nil
}

func inSet(set []truth.Place, n ids.Node) bool {
	for _, p := range set {
		if p.Node == n {
			return true
		}
	}
	return false
}

func (p *Params) geometry(t Tunables) block.Geometry {
	return block.Geometry{Size: p.Volume.Size, Logical: p.Volume.Logical, Physical: p.Physical, MaxLen: 8 * t.MaxIO,
		Volatile: p.Volume.Memory || len(p.Volume.Volatile) > 0, Losses: p.Volume.Losses}
}

package sim

import (
	"errors"
	"slices"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/replication/mirror"
	"pmsapp/replication/peer"
	"pmsapp/replication/truth"
)

// Break is an invariant broken on purpose, at the seams between the cores: the cores themselves stay as they ship.
type Break string

const (
	BreakNothing      Break = ""
	BreakAcknowledge  Break = "1: a member's write is taken for done when it was sent"
	BreakShrink       Break = "2: a removal is taken for committed when it was proposed"
	BreakRetire       Break = "1: a member leaves for one that has not said since that it is there"
	BreakOrder        Break = "3: the mirror believes its writes done at once, so that overlapping ones are in flight together"
	BreakUpdate       Break = "3: other writes take effect between the reading and the writing of an update"
	BreakDeadWrites   Break = "4: commands of a session that ended still reach the mirror"
	BreakRetained     Break = "4: what a disk may still read of a write is used for something else"
	BreakHeld         Break = "5: I/O is held without a limit"
	BreakHeldMedium   Break = "5: I/O that was held for too long ends with a medium error"
	BreakEpoch        Break = "6: two reigns have the same epoch"
	BreakServed       Break = "7: the epoch last served is not committed before the first answer"
	BreakFenceForgets Break = "8: a node forgets the newest epoch when it dies"
	BreakFenceOpen    Break = "8: a fence does not end the sessions of lower epochs"
	BreakFenceBusy    Break = "8: pools in which old commands still run are called fenced"
	BreakVotes        Break = "9: a node votes though its catalog was lost or reverted"
	BreakPoolsForget  Break = "9: pools do not record what their node's catalog was"
	BreakPoolsEpoch   Break = "9: a pool's epoch above the log's is taken for a reverted catalog"
	BreakFlush        Break = "10: a failed flush is tried again and believed"
	BreakRestarted    Break = "10: a replica that restarted passes for one that did not"
	BreakRecord       Break = "10: members acknowledge from memory before the catalog has their incarnations"
	BreakTold         Break = "10: nobody is told that what was not flushed may be lost"
	BreakFlushed      Break = "10: a flush is taken for done when it was sent"
	BreakConfirm      Break = "11: answers are given without asking the members' nodes"
	BreakMarks        Break = "12: marks are not durable"
	BreakClear        Break = "12: a clear takes marks that are newer, or of a write under way"
	BreakReconcile    Break = "13: active regions are not reconciled"
	BreakLost         Break = "13: blocks that no member could read when they were reconciled are read later"
	BreakStale        Break = "14: a stale replica passes for a good one"
	BreakCreate       Break = "15: a new replica holds old bytes"
	BreakCopy         Break = "15: a full copy leaves out what is at its end"
	BreakReserve      Break = "15: space is reserved for a copy by making its bytes zeros"
	BreakJoin         Break = "15: acknowledgements do not wait for the replica that joins"
	BreakMissed       Break = "12: a region that becomes active is not recorded as missed by who is absent"
	BreakMissedStart  Break = "12: when a replica leaves, the active regions are not recorded as missed"
	BreakMissedClear  Break = "12: clearing active clears missed"
	BreakMissedLate   Break = "12: writes are acknowledged before it is recorded who is absent"
	BreakPutBack      Break = "15: a replica that was put back since it left gets a partial copy"
	BreakRelay        Break = "15: a joiner does not take over what others missed that are absent still"
	BreakOwnMarks     Break = "15: what a joiner has marked itself is not copied"
	BreakDigest       Break = "16: bytes that a wire spoils are taken for good"
	BreakZero         Break = "16: one member ignores UNMAP"
	BreakSums         Break = "16: bytes that differ from their checksum are taken for good"
	BreakKept         Break = "16: what was kept of a read is answered after a write"
	BreakHints        Break = "16: reconciliation does not ask what the sums of an active region hint at"
	BreakFull         Break = "16: a full pool says that it has stored the bytes"
	BreakDeleteEarly  Break = "2: a replica that is to leave is deleted before it has left the in-sync set"
	BreakLeftBehind   Break = "15: a replica that was removed is not deleted"
	BreakDeleteLate   Break = "15: the deletion of a removed replica is taken for done when it was sent"
	BreakGrow         Break = "15: a volume grows, and not all of its members do"
	BreakServeFirst   Break = "17: a volume is deleted before its I/O has drained"
	BreakTrash        Break = "17: replicas of volumes in the trash are removed"
	BreakForce        Break = "15: volume force leaves the old members in the in-sync set"
	BreakCopying      Break = "15: that a copy begins to a replica is not recorded before"
	BreakYield        Break = "19: a witness keeps the leadership"
)

// Breaks is all of them.
func Breaks() []Break {
	return []Break{
		BreakAcknowledge, BreakShrink, BreakOrder, BreakUpdate, BreakDeadWrites, BreakRetained, BreakRetire, BreakHeld, BreakHeldMedium, BreakEpoch, BreakServed, BreakFenceForgets,
		BreakFenceOpen, BreakFenceBusy, BreakVotes, BreakPoolsForget, BreakPoolsEpoch,
		BreakFlush, BreakRestarted, BreakRecord, BreakTold, BreakFlushed, BreakConfirm, BreakMarks, BreakClear, BreakReconcile, BreakLost, BreakStale,
		BreakCreate, BreakCopy, BreakJoin, BreakDigest, BreakZero, BreakSums, BreakKept, BreakHints, BreakFull, BreakServeFirst, BreakTrash, BreakForce, BreakCopying, BreakYield,
		BreakDeleteEarly, BreakGrow, BreakLeftBehind, BreakDeleteLate,
		BreakMissed, BreakMissedStart, BreakMissedClear, BreakMissedLate, BreakPutBack,
		BreakRelay, BreakOwnMarks, BreakReserve,
	}
}

func (c *Cluster) breaks(b Break) bool { return c.broken == b }

// breakTunables changes what a mirror is opened with.
func (c *Cluster) breakTunables(t mirror.Tunables) mirror.Tunables {
	if c.breaks(BreakHeld) {
		t.Hold = time.Hour
	}
	return t
}

// breakSend may answer a call of a mirror by itself; then it tells so, and the call must not be sent.
func (m *mirrorShell) breakSend(to ids.Node, call *peer.Call) bool {
	c := m.n.c
	write := call.Kind == peer.Write || call.Kind == peer.Zero
	early := c.breaks(BreakAcknowledge) && write && c.w.Rand.Chance(0.3) ||
		c.breaks(BreakJoin) && write && !m.isMember(to) ||
		c.breaks(BreakOrder) && write
	switch {
	case early:
		// A copy goes its way; the mirror believes it done.
		double := &peer.Call{Command: call.Command}
		double.Data = slices.Clone(call.Data)
		m.ghosts++
		double.Done = func(*peer.Call) {
			m.ghosts--
			if m.ghosts == 0 {
				m.releaseHeld()
			}
		}
		if s := m.r.sessionWith(to); s != nil && !s.dead {
			s.submit(double)
		} else {
			m.n.proc.After(0, func() { double.Done(double) })
		}
	case c.breaks(BreakMissedLate) && call.Kind == peer.Know:
		double := &peer.Call{Command: call.Command, Done: func(*peer.Call) {}}
		if s := m.r.sessionWith(to); s != nil && !s.dead {
			m.n.proc.After(500*time.Millisecond, func() { s.submit(double) })
		}
	case c.breaks(BreakFlushed) && call.Kind == peer.Flush:
	case c.breaks(BreakConfirm) && call.Kind == peer.Confirm:
	case c.breaks(BreakRetire) && call.Kind == peer.Confirm && m.retiring:
	case c.breaks(BreakReconcile) && call.Kind == peer.ReadMap:
	default:
		return false
	}
	m.n.proc.After(0, func() {
		call.Answer = peer.Answer{}
		call.Done(call)
	})
	return true
}

// breakLost may read what a host was told that nobody can read; then it tells so, and the request is not over.
func (m *mirrorShell) breakLost(r *block.Request) bool {
	c := m.n.c
	if !c.breaks(BreakLost) || r.Op != block.Read || !errors.Is(r.Err, block.ErrMedium) || m.closed {
		return false
	}
	members := m.core.Status().Members
	s := m.r.sessionWith(members[c.w.Rand.Intn(len(members))].Node)
	if s == nil || s.dead {
		return false
	}
	s.submit(&peer.Call{Command: peer.Command{Kind: peer.Read, Volume: m.id, Off: r.Off, Len: r.Len, Data: r.Data}, Done: func(x *peer.Call) {
		if x.Err == nil {
			r.Err = nil
		}
		m.completed(r)
	}})
	return true
}

// breakUpdate may make two requests of an update; then it tells so, and the update must not be submitted.
func (m *mirrorShell) breakUpdate(r *block.Request) bool {
	if !m.n.c.breaks(BreakUpdate) || r.Op != block.Update {
		return false
	}
	m.do(func() {
		m.core.Submit(&block.Request{Op: block.Read, Off: r.Off, Len: r.Len, Data: r.Data, Done: func(x *block.Request) {
			if r.Err = x.Err; r.Err == nil {
				r.Err = r.Modify(r)
			}
			if r.Err != nil {
				m.complete(r)
				return
			}
			r.Op = block.Write
			m.do(func() { m.core.Submit(r) })
		}})
	})
	return true
}

// releaseHeld lets go the answers that waited for writes to be done in truth.
func (m *mirrorShell) releaseHeld() {
	held := m.held
	m.held = nil
	for _, fn := range held {
		m.r.later(fn)
	}
}

// breakProposal may answer a proposal by itself.
func (n *node) breakProposal(p any, done func(truth.Outcome, error)) bool {
	switch p := p.(type) {
	case truth.RemoveMember:
		if !n.c.breaks(BreakShrink) {
			return false
		}
		for _, v := range n.view().Volumes {
			if v.ID != p.Volume || v.Version != p.Version || len(v.InSync) == 1 {
				continue
			}
			set := slices.DeleteFunc(slices.Clone(v.InSync), func(x truth.Place) bool { return x.Node == p.Node })
			n.proc.After(0, func() { done(truth.Outcome{Version: p.Version + 1, InSync: set}, nil) })
			return true
		}
	case truth.BeginCopy:
		if n.c.breaks(BreakCopying) {
			n.proc.After(0, func() { done(truth.Outcome{Index: n.view().Index}, nil) })
			return true
		}
	case truth.SetVolatile:
		if n.c.breaks(BreakRecord) {
			n.proc.After(0, func() { done(truth.Outcome{}, nil) })
			return true
		}
	case truth.Served:
		if n.c.breaks(BreakTold) {
			for i := range p.Volumes {
				p.Volumes[i].Lost = false // what it has by now is another matter
			}
		}
		if n.c.breaks(BreakServed) {
			n.proc.After(0, func() { done(truth.Outcome{Index: n.view().Index}, nil) })
			return true
		}
	}
	return false
}

// breakView changes what a reign sees of the catalog.
func (n *node) breakView(v *truth.View) *truth.View {
	if n.c.breaks(BreakTrash) && len(v.Trash) > 0 {
		w := *v
		w.Deleted, w.Trash = append(slices.Clone(v.Deleted), v.Trash...), nil
		return &w
	}
	if n.c.breaks(BreakForce) {
		w := *v
		w.Volumes = slices.Clone(v.Volumes)
		for i := range w.Volumes {
			if w.Volumes[i].Adopted != (truth.Adoption{}) {
				w.Volumes[i].InSync = w.Volumes[i].Replicas
			}
		}
		return &w
	}
	if n.c.breaks(BreakServed) {
		w := *v
		w.Volumes = slices.Clone(v.Volumes)
		for i := range w.Volumes {
			w.Volumes[i].LastServed = w.Epoch
		}
		return &w
	}
	return v
}

// breakFenced changes a node's answer to a fence.
func (n *node) breakFenced(f peer.Fenced) peer.Fenced {
	if n.c.breaks(BreakEpoch) {
		return doubled(f)
	}
	if n.c.breaks(BreakForce) {
		return n.c.ofNewLineage(f)
	}
	if !n.c.breaks(BreakStale) {
		return f
	}
	f.Pools = slices.Clone(f.Pools)
	for i := range f.Pools {
		p := &f.Pools[i]
		p.Accepted, p.Reverted = []peer.EpochRange{{Lo: 1, Hi: n.c.truth.view.Epoch - 1}}, false
		p.Replicas = slices.Clone(p.Replicas)
		for j := range p.Replicas {
			p.Replicas[j].Seq, p.Replicas[j].Durable = 1<<20, 0
		}
	}
	return f
}

// halved is the epoch that BreakEpoch says to nodes: each is that of two reigns.
func (c *Cluster) halved(e peer.Epoch) peer.Epoch {
	if c.breaks(BreakEpoch) {
		return (e + 1) / 2
	}
	return e
}

// doubled is an answer to such an epoch in the numbers of the reigns.
func doubled(f peer.Fenced) peer.Fenced {
	f.Highest = max(2*f.Highest, 1) - 1
	f.Pools = slices.Clone(f.Pools)
	for i := range f.Pools {
		p := &f.Pools[i]
		p.Previous = max(2*p.Previous, 1) - 1
		p.Accepted = slices.Clone(p.Accepted)
		for j := range p.Accepted {
			p.Accepted[j].Lo, p.Accepted[j].Hi = 2*p.Accepted[j].Lo-1, 2*p.Accepted[j].Hi
		}
	}
	return f
}

// ofNewLineage is an answer to a fence in which the replicas of volumes that were forced are of their new lineage.
func (c *Cluster) ofNewLineage(f peer.Fenced) peer.Fenced {
	f.Pools = slices.Clone(f.Pools)
	for i := range f.Pools {
		p := &f.Pools[i]
		p.Replicas = slices.Clone(p.Replicas)
		for j := range p.Replicas {
			if v := c.trueVolume(c.volIndex(p.Replicas[j].Spec.Volume)); v != nil {
				p.Replicas[j].Spec.Lineage = v.Lineage
			}
		}
	}
	return f
}

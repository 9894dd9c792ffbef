// Package peer is the vocabulary between a leader and the nodes that hold replicas: the commands that a session between
// nodes carries, their answers, and the contract of such a session. It has no behaviour. The same words are spoken to
// the leader's own replicas (without a message) and to a peer's (over iSCSI, package remote).
//
// A session is bound to the epoch of the leader that opened it. It executes nothing before Fence has answered, and
// nothing after a higher epoch was accepted by the node (invariant 8).
package peer

import (
	"context"
	"errors"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
)

// Epoch numbers a leader's reign (invariant 6). 0 means none.
type Epoch uint64

// Seq numbers marks. The leader assigns it, growing within a volume for ever, over epochs too (invariants 12 and 14).
type Seq uint64

// Kind is what a Command does.
type Kind uint8

const (
	// Read fills Data with Len bytes of the replica at Off. Bytes that differ from their checksum are ErrMedium (invariant 16).
	Read Kind = iota + 1
	// Write stores Data at Off durably, or in memory if it is Volatile. If a region that it touches is clean, or active with a Seq below this one's, the
	// region is durably marked active with Seq, and Durable recorded, before a byte of the data is applied. So a region's
	// Seq never falls while it is active, and a Clear that was sent before a write cannot undo that write's mark.
	Write
	// Zero makes Len bytes at Off read as zeros, as durably as Write, and frees space. It marks like Write.
	Zero
	// Confirm does nothing; its success says that the node has accepted no epoch above the session's (invariant 11).
	// Volume is not used.
	Confirm
	// Clear makes the listed active regions clean: those whose recorded Seq is at or below the named one and that have no
	// write in progress; the others are left as they are. It is no error if none is cleared. Durable is recorded in the
	// step in which one becomes clean.
	Clear
	// ReadMap answers the active regions of the replica, with their Seq, in Answer.Active, and what else the leader has to
	// know of it: Birth, Incarnation, Highest and Known. What was written before is durable then, as after a Flush.
	ReadMap
	// Extents answers in Answer.Extents the parts of [Off, Off+Len) that hold data, in ascending order; what is between
	// them reads as zeros. Parts may be joined, so that the list stays short: a hole may be called data, never data a hole.
	Extents
	// Create makes the replica of Spec, durable, reading as zeros, all regions clean. If a replica of the same volume
	// and lineage that was never written exists already, that is a success (a repeated proposal).
	Create
	// Delete removes the replica in the pool Spec.Pool, or in any if that is zero, and frees its space. It is a success if
	// there is none.
	Delete
	// Reset makes a replica that is foreign, stale or absent into an empty one of Spec: as Delete and Create in one.
	Reset
	// Sums reads Len bytes at Off, as Read does, and answers in Answer.Sums the CRC-32C of each block of 4096 bytes, but no
	// data. Off is a multiple of 4096, and so is Off+Len unless it is the end.
	Sums
	// Grow makes the replica as large as Spec.Size, durably; what is new reads as zeros, and is clean. Its lineage and region
	// are those of Spec. One that is as large or larger is left as it is. Both sizes are multiples of 4096.
	Grow
	// Know says, in Others, what the volume's other replicas are: all of them that the leader knows, at most MaxOthers. It is
	// durable when it is answered. For each that is absent the replica keeps a missed map, at most MaxAbsent of them: the
	// regions of which it has, or may have, bytes that the absent one lacks. A map that is there already (of the same ID) is
	// kept, and its Epoch and Seq rise to those named; one of a replica that was present is begun with the regions that are
	// active; with All it is begun anew with all regions. From then on the flush that marks a region active records it as
	// missed too, and every active region is missed. A map of a replica that is present, or is not named, is dropped.
	Know
	// ReadMissed answers in Answer.Extents the regions of [Off, Off+Len), as bytes, that the missed map of Others[0] has.
	// For a zero Birth it is those in all the replica's own maps: active, and missed by anybody. ErrInvalid: no such map.
	ReadMissed
	// AddMissed adds the regions of Missed to the missed map of Others[0], durably.
	AddMissed
	// DropMissed takes the regions of Missed out of the missed map of Others[0], but for those that are active; Epoch and
	// Seq of Others[0] are what the absent replica has to have from then on, and are durable before a region is taken out.
	DropMissed
	// Flush makes every write of the replica durable that was answered before. After one that failed the replica has another
	// incarnation (invariant 10).
	Flush
	// Reserve says that most of [Off, Off+Len) is about to be written. Space may be taken for what has none; no byte changes, no region is
	// marked, and holes go on reading as zeros. Nothing rests upon its answer, nor upon when it is executed.
	Reserve
)

// MaxOthers and MaxAbsent bound what a replica knows of the others.
const (
	MaxOthers = 5
	MaxAbsent = 2
)

// ReplicaID names a replica as it was made: Birth is random, and another one each time that it is made anew. So what was
// recorded of a replica is never taken for that of another in its place.
type ReplicaID struct {
	Node  ids.Node
	Pool  ids.Pool
	Birth ids.ID
}

// Other is what a replica knows of another one of its volume (invariant 12).
type Other struct {
	ID     ReplicaID
	Absent bool // it is not in the in-sync set: there is a missed map of it. Otherwise no write that it missed was acknowledged
	All    bool // Know: begin the map anew, with all regions
	// What it lacks is only in the map if its pool has accepted Epoch and it has recorded Seq: otherwise it was put back to
	// a state before that. 0: nothing is relied upon.
	Epoch Epoch
	Seq   Seq
}

// RegionSeq is an active region and the Seq of the mark that made it so.
type RegionSeq struct {
	Region uint32 // Off / Spec.Region
	Seq    Seq
}

// Extent is a range of bytes.
type Extent struct{ Off, Len int64 }

// Spec is what a replica is made of, kept in its superblock.
type Spec struct {
	Volume  ids.Volume
	Lineage ids.Lineage
	Pool    ids.Pool
	Size    int64 // bytes
	Region  int64 // bytes, a power of two from 64 KiB to 4 MiB
}

// Command is one request to a node about one replica.
type Command struct {
	Kind   Kind
	Volume ids.Volume
	Off    int64 // bytes, a multiple of 512
	Len    int64 // bytes, a multiple of 512; len(Data) for Read and Write
	Data   []byte
	// Volatile says of a Write or a Zero that it need not be durable when it is answered, only its mark: a Flush makes it so.
	Volatile bool
	Proved   bool // Read: ErrMedium also if the checksums say so that are void, since the region is active: they may be wrong
	Kept     bool // Read: it may be answered with what the node has kept of an earlier read, and kept. Not sent to other nodes
	Seq      Seq  // Write, Zero: the mark to record if a region is clean
	Durable  Seq  // Write, Zero, Clear: the highest Seq that all members had durable when this was sent
	Regions  []RegionSeq
	Spec     Spec     // Create, Reset, Grow; Delete: its Pool
	Others   []Other  // Know: all; ReadMissed, AddMissed, DropMissed: one
	Missed   []Extent // AddMissed, DropMissed: whole regions
	// MayRetain says of a Write that the caller can do without Data where Answer.Retained says that it must. Not sent to other nodes.
	MayRetain bool
	// Lent, if not nil, is a goroutine that may carry the command out where it is executed. Not sent to other nodes.
	Lent *block.Lent
}

// Answer is the outcome of a Command.
type Answer struct {
	Retained    bool  // a Write with MayRetain was given up, and a disk may still read Data: nothing may be written to it any more
	Err         error // nil, or one that errors.Is one of the errors below
	Active      []RegionSeq
	Extents     []Extent
	Sums        []uint32
	Birth       ids.ID  // ReadMap: of the replica
	Incarnation ids.ID  // ReadMap: as FencedReplica.Incarnation. From then on the session's commands are for it
	Highest     Seq     // ReadMap: as FencedReplica.Seq
	Known       []Other // ReadMap: what is on record of the others
}

// Errors of commands and sessions.
var (
	// ErrLost is returned when the session died; the command may or may not have been executed, and a later session
	// of the same or a higher epoch is not opened before it has finished or can no longer touch a medium.
	ErrLost = errors.New("peer: the session was lost")
	// ErrEpoch is returned when the node has accepted a higher epoch.
	ErrEpoch = errors.New("peer: the node has accepted a higher epoch")
	// ErrNoSpace is returned when the pool is full. The bytes are as before, or partly as written.
	ErrNoSpace = errors.New("peer: the pool is full")
	// ErrMedium is returned when the disk failed to read, write or flush.
	ErrMedium = errors.New("peer: the disk failed")
	// ErrNoReplica is returned when the node has no usable replica of the volume (absent, foreign, or its pool is).
	ErrNoReplica = errors.New("peer: no such replica")
	// ErrInvalid is returned for a command that is outside the replica, not aligned, or unknown.
	ErrInvalid = errors.New("peer: invalid command")
)

// Call is a Command under way. The caller owns it before Submit and from Done on: nothing reads or fills Data after Done,
// whatever the error, but where Answer.Retained says so. A session that gives up a command which is still running works on a copy of the data,
// or waits.
type Call struct {
	Command
	Answer
	// Done is called exactly once, from any goroutine, perhaps before Submit has returned. It must not block.
	Done func(*Call)
	// Owner is the caller's.
	Owner any
}

// Session is one epoch-bound session of a leader with one node. Commands that are under way together may be executed
// in any order; whoever submits overlapping ones orders them itself (invariant 3).
type Session interface {
	// Submit begins c and returns at once. After the session died every call ends with ErrLost or ErrEpoch.
	Submit(c *Call)
	// Fenced is the node's answer to the session's epoch, received before the session was handed out.
	Fenced() Fenced
	// Poll asks again for the pools that were busy, and for pools that have appeared since.
	Poll(ctx context.Context) (Fenced, error)
	// Done is closed when the session has died; Err says why then.
	Done() <-chan struct{}
	Err() error
	// Close ends the session. Calls under way end with ErrLost.
	Close()
}

// Dialer opens sessions. Open returns an *EpochError if the node has accepted a higher epoch than e.
type Dialer interface {
	Open(ctx context.Context, node ids.Node, e Epoch) (Session, error)
}

// EpochError is the refusal of a session whose epoch is too low. It is an ErrEpoch.
type EpochError struct{ Accepted Epoch }

func (e *EpochError) Error() string   { return ErrEpoch.Error() }
func (e *EpochError) Is(t error) bool { return t == ErrEpoch }

// Fenced is a node's answer to a new epoch: per pool, and per replica that it found there.
type Fenced struct {
	Highest Epoch // the highest epoch that the node or any of its pools had recorded before this one
	Pools   []FencedPool
}

// FencedPool is the state of one pool at a fence.
type FencedPool struct {
	Pool     ids.Pool
	Busy     bool  // a command of a lower epoch may still touch the medium: its replicas are not fenced
	Previous Epoch // the epoch that the pool had recorded before: the highest of Accepted, 0 if none
	// Accepted is every epoch that the pool had accepted before this fence, as ascending ranges that do not touch: kept in
	// the pool beside its epoch, written by the same flush, at most MaxAccepted of them (the two lowest are merged when
	// there would be more). One epoch is not enough: a fence overwrites it, and with it the evidence that the pool was
	// reverted, if the leader then dies before it has acted on the answer (replication/reign/DESIGN.md, "Previous").
	Accepted []EpochRange
	// Reverted says that the pool had recorded the session's own epoch before, and has lost it: the node keeps, beside the
	// epoch on its catalog disk, which pools have recorded it. The epoch is not added to the list again, now or later: it
	// would prove what is not so. The leader takes over anew, and judges the pool by its list under the next epoch.
	Reverted bool
	Replicas []FencedReplica
}

// MaxAccepted bounds FencedPool.Accepted.
const MaxAccepted = 64

// EpochRange is the epochs from Lo to Hi, both included.
type EpochRange struct{ Lo, Hi Epoch }

// Has tells whether e is in one of the ranges.
func Has(rs []EpochRange, e Epoch) bool {
	for _, r := range rs {
		if r.Lo <= e && e <= r.Hi {
			return true
		}
	}
	return false
}

// Accept returns rs with e added at its end; e is not below any epoch in rs. It does not change rs.
func Accept(rs []EpochRange, e Epoch) []EpochRange {
	out := append([]EpochRange(nil), rs...)
	if n := len(out); n > 0 && e <= out[n-1].Hi {
		return out
	} else if n > 0 && e == out[n-1].Hi+1 {
		out[n-1].Hi = e
		return out
	}
	out = append(out, EpochRange{e, e})
	if len(out) > MaxAccepted {
		out[1].Lo = out[0].Lo
		out = out[1:]
	}
	return out
}

// FencedReplica is the state of one replica at a fence. One that is damaged or of another cluster is foreign.
type FencedReplica struct {
	Spec    Spec
	Foreign bool
	// Incarnation is another one after each start of the node's process, and whenever a flush failed after Volatile writes
	// were answered: the replica may lack what was answered before and not flushed (invariant 10). A session's commands are
	// for the incarnation that its first answer to the fence named, or a ReadMap since: when there is another one they end with
	// ErrNoReplica.
	Incarnation ids.ID
	Seq         Seq // the highest sequence of a mark that it ever recorded, cleared ones included
	Durable     Seq // the highest Durable that a mark on it, or a Clear of one, carried
	Active      int // number of active regions
}

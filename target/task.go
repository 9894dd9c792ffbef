package target

import (
	"encoding/binary"

	"pmsapp/internal/block"
)

// MaxCDB is the length in bytes of the longest CDB: a variable-length one (SPC-5 4.2.3), 8 bytes and 252 more.
const MaxCDB = 260

// maxSense bounds a task's sense data: SPC-5 4.5.1.
const maxSense = 252

// Attribute is a task attribute as RFC 7143 section 11.3.1 codes it.
type Attribute uint8

const (
	Untagged Attribute = iota
	Simple
	Ordered
	HeadOfQueue
	ACA
)

// LUN is the 8-byte logical unit number of SAM-5 4.7.
type LUN [8]byte

// FlatLUN returns the LUN of a number below 16384, in the form that REPORT LUNS lists: peripheral device addressing up
// to 255, flat space addressing above.
func FlatLUN(n uint16) (l LUN) {
	if n > 255 {
		n |= 0x4000
	}
	binary.BigEndian.PutUint16(l[:], n)
	return l
}

// Number returns the number of a single-level LUN, in either addressing method; ok is false for any other LUN.
func (l LUN) Number() (n uint16, ok bool) {
	n = binary.BigEndian.Uint16(l[:])
	if binary.BigEndian.Uint64(l[:])&0x0000ffffffffffff != 0 {
		return 0, false
	}
	switch n >> 14 {
	case 0:
		return n, n <= 255
	case 1:
		return n & 0x3fff, true
	}
	return 0, false
}

// Task is one SCSI command of a session.
//
// Ownership: the connection layer owns a Task and everything in it, but for the time between Nexus.Execute and the call
// of Done, when the nexus does. DataOut is lent for that time; a nexus that keeps it longer sets DataOut to nil. DataIn
// is given away by Done: it is a buffer of block.Get (or nil, or one that nothing uses any more), and the layer puts it
// back after it was sent.
type Task struct {
	LUN      LUN
	CDB      []byte // 16 bytes, or up to MaxCDB
	Attr     Attribute
	Tag      uint32 // the initiator task tag
	Read     bool   // the R flag
	Write    bool   // the W flag
	ExpIn    int64  // bytes that the initiator expects to receive
	ExpOut   int64  // bytes that it expects to send
	Accepted Want   // what Nexus.Accept asked for

	// DataOut is what the initiator sent, in a buffer of block.Get. Its length is Accepted.Out, never more than ExpOut.
	DataOut []byte

	// Lent, if not nil, is the goroutine that calls Execute: it may carry out what would wait for a disk.
	Lent *block.Lent

	// DataIn is the answer's data. The layer sends at most ExpIn bytes of it, and reports the rest as an overflow.
	DataIn []byte
	// Moved is how many bytes the command would have moved by its CDB; the layer reports the difference to ExpOut or ExpIn
	// as the residual. For a command that sends data it may be left 0: then len(DataIn) counts.
	Moved int64
	// Status is the SAM status.
	Status byte
	// Sense goes with the status if it is not empty. SenseBuf is room for it.
	Sense    []byte
	SenseBuf [maxSense]byte
	// Drop, if not nil, says that the task must never be answered and its session must be dropped (invariant 8).
	Drop error

	// Done ends the task. The nexus calls it exactly once for each task executed, from any goroutine, perhaps before
	// Execute has returned, perhaps after End has. It does not block.
	Done func(*Task)
	// Stop, if Execute has set it, is called when the task is stopped after Execute has returned; when it returns the task
	// can no longer reach a medium but by what keeps its range (invariant 4). Done is called nevertheless. A nexus that
	// submits everything within Execute needs none. It may be called after Done.
	Stop func()
	// Delivered, if not nil when Done is called, is called when the initiator has acknowledged the answer; never if it does
	// not, or if there was none. It must not block.
	Delivered func()
	// State is the nexus's own. It survives the reuse of a Task, always with the same Nexus, so that what is needed per
	// command is allocated once; it is nil in a new Task.
	State any

	cdb [MaxCDB]byte
	flow
}

// Want is what a nexus needs for a task.
type Want struct {
	Out int64 // bytes of Data-Out to collect before Execute, at most ExpOut; what comes beyond is thrown away
	In  int64 // bytes of memory that the answer's data will take
}

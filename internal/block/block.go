// Package block is the contract between whoever has block I/O to do (the SCSI device server, the share's file tree)
// and whoever does it (the mirror). It has no behaviour of its own but the buffers in buffer.go.
package block

import "errors"

// Op is what a Request does.
type Op uint8

const (
	// Read fills Data from the device. One of no bytes ends when every in-sync member's node has confirmed, in an exchange begun
	// after Submit, that it has accepted no newer epoch (invariant 11).
	Read Op = iota + 1
	// Write stores Data. It is done when every in-sync member has it durably (invariant 1).
	Write
	// Zero makes Len bytes read as zeros and frees their space where it can (SBC-4 UNMAP, WRITE SAME with UNMAP).
	Zero
	// Flush is done when everything done before it is durable on every in-sync member (SBC-4 SYNCHRONIZE CACHE).
	Flush
	// Update reads into Data, lets Modify change it, and stores it like a Write, in one: no request that overlaps it takes
	// effect in between (SBC-4 COMPARE AND WRITE, ORWRITE).
	Update
	// Map fills Extents with the parts of the range that hold data (SBC-4 GET LBA STATUS). Len may be above MaxLen.
	Map
)

// Extent is a range of bytes.
type Extent struct{ Off, Len int64 }

// Errors that a Request ends with, besides nil. They are compared with errors.Is.
var (
	// ErrRange is returned when Off or Len is outside the device or not a multiple of its logical block.
	ErrRange = errors.New("block: outside the device or not aligned to its blocks")
	// ErrNoSpace is returned when a write found a member's pool full. Nothing else is lost: DATA PROTECT 27h/07h.
	ErrNoSpace = errors.New("block: a pool is full")
	// ErrMedium is returned when no in-sync member could read or write the range: MEDIUM ERROR.
	ErrMedium = errors.New("block: medium error on the last replica")
	// ErrHeld is returned when I/O was held for hold_timeout: BUSY, or a dropped connection. Never a medium error.
	ErrHeld = errors.New("block: held for longer than hold_timeout")
	// ErrEnded is returned when the mirror was closed or its epoch ended with the request unanswered. Whoever brought
	// the request must be dropped without an answer (invariant 8).
	ErrEnded = errors.New("block: the epoch of this mirror has ended")
)

// Request is one I/O. The submitter owns it before Submit and again from the call of Done on; it may then be used anew.
type Request struct {
	Op   Op
	Off  int64 // bytes, a multiple of the logical block
	Len  int64 // bytes, a multiple of the logical block; len(Data) for Read, Write and Update
	Data []byte
	FUA  bool // Write, Update, Zero: durable even where the volume's durability is memory

	// Modify is called once by an Update whose Data was read: it changes Data to what is to be stored, or returns an error,
	// with which the request then ends and nothing is stored. It holds up the device: it must be short, must not block,
	// and must not call the device.
	Modify func(*Request) error
	// Extents is what a Map found: ascending, within the range; what is between them reads as zeros. A hole may be called
	// data, never data a hole. Set before Done is called.
	Extents []Extent

	// MayRetain says of a Write that its submitter can do without Data for good. Then, and only then, the device may set Retained before it calls
	// Done: a disk that hangs still has Data, so that nothing may be written to it or done with it any more.
	MayRetain, Retained bool
	// Lent, if not nil, is the goroutine that has brought the request: it may carry it out.
	Lent *Lent

	// Err is set before Done is called.
	Err error
	// Done is called exactly once, from any goroutine, perhaps before Submit has returned. It must not block.
	Done func(*Request)
	// Owner is the submitter's, untouched by the device.
	Owner any
}

// Geometry describes a device. All sizes are bytes.
type Geometry struct {
	Size     int64 // a multiple of LogicalBlock
	Logical  int   // 512 or 4096
	Physical int   // a multiple of Logical, at most 65536
	MaxLen   int64 // the longest Read, Write or Update; Zero may be longer
	// Volatile says that what was written may be lost until a Flush, or a write with FUA, has made it durable: in a loss of power of
	// all members at once. Losses is how often that may have happened so far.
	Volatile bool
	Losses   uint64
}

// Device is an open volume.
//
// Order: of two requests that overlap (in physical blocks) and of which at least one changes bytes, the one submitted
// first takes effect first, even when nobody waits for its answer any more. So an aborted command needs nothing of the
// device: its submitter drops the answer, and later commands that overlap it still come after it (invariant 4).
type Device interface {
	Geometry() Geometry
	// Submit begins r and returns at once; r.Done tells the end. It is safe for concurrent use.
	Submit(r *Request)
}

package initiator

import (
	"time"

	"pmsapp/internal/iscsi"
)

// SCSI status codes (SAM-5 5.3.1).
const (
	StatusGood                = 0x00
	StatusCheckCondition      = 0x02
	StatusConditionMet        = 0x04
	StatusBusy                = 0x08
	StatusReservationConflict = 0x18
	StatusTaskSetFull         = 0x28
	StatusACAActive           = 0x30
	StatusTaskAborted         = 0x40
)

// Command is one SCSI command. The caller owns it, and its buffers, before Submit and from the call of Done on; it may
// then be used anew. DataOut and DataIn are not both used by one command.
type Command struct {
	LUN     uint64
	CDB     []byte // up to 260 bytes
	Attr    byte   // iscsi.AttrSimple and so on; 0 is taken for AttrSimple
	DataOut []byte // sent to the target
	DataIn  []byte // filled by the target

	// Patient has Timeouts.Command not count for it: it may take as long as it does.
	Patient bool

	// Err is nil if the target answered; then Status is its answer. Otherwise nothing else below has a meaning.
	Err    error
	Status byte
	Sense  []byte // valid until the command is used anew
	// Received is how many bytes of DataIn were filled, from its beginning.
	Received int
	// Residual is by how many bytes the command moved fewer than len(DataOut) or len(DataIn); negative if it would have
	// moved more.
	Residual int

	// Done is called exactly once, from any goroutine, perhaps before Submit has returned. It must not block.
	Done func(*Command)
	// Owner is the caller's.
	Owner any

	// What follows is guarded by Session.mu.
	state      commandState
	next, prev *Command // in the list that state says
	itt        uint32
	cmdSN      uint32
	dataSN     uint32 // of the next Data-In
	r2tSN      uint32 // of the next R2T
	r2ts       [maxR2T]burst
	firstR2T   int
	countR2T   int
	moved      time.Duration // when it was submitted, then sent, or something last came for it
	refs       int           // PDUs of this command that the writer has not sent yet: the buffers are in use
	senseBuf   [252]byte
}

// commandState says where a command is.
type commandState uint8

const (
	stateIdle    commandState = iota
	statePending              // in Session.pending: not sent
	stateSent                 // in a slot
	stateData                 // in a slot, and in Session.bursts: the target asked for data
	stateEnded                // answered, but refs > 0
)

// burst is a piece of data that the target asked for.
type burst struct{ ttt, offset, length uint32 }

// list is a list of commands linked through themselves.
type list struct {
	head, tail *Command
}

func (l *list) push(c *Command) {
	c.prev, c.next = l.tail, nil
	if l.tail == nil {
		l.head = c
	} else {
		l.tail.next = c
	}
	l.tail = c
}

func (l *list) remove(c *Command) {
	if c.prev == nil {
		l.head = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		l.tail = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.next, c.prev = nil, nil
}

// finish takes every command out and calls its Done.
func (l *list) finish() {
	for l.head != nil {
		c := l.head
		l.remove(c)
		c.Done(c)
	}
}

// check tells whether the command can be sent at all.
func (c *Command) check() error {
	if len(c.CDB) == 0 || len(c.CDB) > iscsi.MaxCDB || len(c.DataOut) > 0 && len(c.DataIn) > 0 || c.Done == nil ||
		uint64(len(c.DataOut)) > 1<<31 || uint64(len(c.DataIn)) > 1<<31 {
		return ErrCommand
	}
	return nil
}

// reset prepares a command for being sent.
func (c *Command) reset() {
	c.Err, c.Status, c.Sense, c.Received, c.Residual = nil, 0, nil, 0, 0
	c.dataSN, c.r2tSN, c.firstR2T, c.countR2T, c.refs = 0, 0, 0, 0, 0
}

package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"pmsapp/internal/ids"
)

// MaxCommand bounds an encoded command, in bytes.
const MaxCommand = 4 << 20

// Command is one change of the catalog.
type Command struct {
	// Request makes it idempotent; empty for commands that are so by themselves.
	Request string
	Time    time.Time // the proposer's, for the event log and the expiry of tokens
	Body    Body
}

// Body is what a command does: one of the types below.
type Body interface {
	kind() Kind
}

// Kind names a command in the log.
type Kind string

type (
	// Bootstrap is the first command of a cluster.
	Bootstrap struct {
		Cluster ids.Cluster
		Lineage ids.Lineage
		Admin   []byte
	}
	// PutNode adds a node, or changes what is known of it. A pool that another node had becomes this one's, with its
	// replicas: it is that machine under a new identity (invariant 9), and the old one is removed when it has no pool left.
	// Former is an identity that the machine gave up: all its pools are the new one's. Group is chosen by the state machine.
	PutNode struct {
		Node   Node
		Former ids.Node
	}
	// RemoveNode takes a node out. It is rejected while a replica on it is in an in-sync set.
	RemoveNode struct{ Node ids.Node }
	// AddToken and UseToken are for joins.
	AddToken struct{ Token Token }
	UseToken struct {
		Digest  []byte
		Node    ids.Node
		Witness bool
	}
	// AddEvents appends to the event log. Index is set by the state machine.
	AddEvents struct{ Events []Event }

	// TakeOver begins the reign of Node under Epoch, above the catalog's (invariant 6).
	TakeOver struct {
		Node  ids.Node
		Epoch uint64
	}
	// RemoveUnfenced is invariant 7's: see truth.RemoveUnfenced.
	RemoveUnfenced struct {
		Epoch  uint64
		Fenced []ids.Pool
		Remove []ids.Pool
		Reason string
	}
	// Served records the epoch as the last served of volumes whose set still has the named version.
	Served struct {
		Epoch   uint64
		Volumes []VolumeVersion
	}
	// RemoveMember and AddMember change an in-sync set (invariant 2).
	RemoveMember struct {
		Epoch   uint64
		Volume  ids.Volume
		Version uint64
		Node    ids.Node
		Reason  string
	}
	AddMember struct {
		Epoch   uint64
		Volume  ids.Volume
		Version uint64
		Node    ids.Node
	}
	// CreateVolume adds a volume whose replicas are made (invariant 15); a repetition with the same id succeeds.
	CreateVolume struct {
		Epoch  uint64
		Volume Volume
		Limits []Limit `json:",omitempty"`
	}
	// DeleteVolume removes a volume that is not exported, and whose set has the named version; a repetition succeeds. It goes to
	// the trash, to be kept for Keep seconds of State.Counted; with 0 it is gone for good.
	DeleteVolume struct {
		Epoch   uint64
		Volume  ids.Volume
		Version uint64
		Keep    int64
	}
	// SetExport exports a volume, or changes its export. RemoveExport ends it. Both through the leader that serves the
	// volume (invariant 17): Epoch must be the catalog's and the volume's last served.
	SetExport struct {
		Epoch  uint64
		Export Export
	}
	RemoveExport struct {
		Epoch  uint64
		Volume ids.Volume
	}
)

// VolumeVersion names a volume at a version of its in-sync set.
type VolumeVersion struct {
	Volume  ids.Volume
	Version uint64
	Lost    bool `json:",omitempty"` // see truth.VolumeVersion
}

func (Bootstrap) kind() Kind      { return "bootstrap" }
func (PutNode) kind() Kind        { return "put-node" }
func (RemoveNode) kind() Kind     { return "remove-node" }
func (AddToken) kind() Kind       { return "add-token" }
func (UseToken) kind() Kind       { return "use-token" }
func (AddEvents) kind() Kind      { return "add-events" }
func (TakeOver) kind() Kind       { return "take-over" }
func (RemoveUnfenced) kind() Kind { return "remove-unfenced" }
func (Served) kind() Kind         { return "served" }
func (RemoveMember) kind() Kind   { return "remove-member" }
func (AddMember) kind() Kind      { return "add-member" }
func (CreateVolume) kind() Kind   { return "create-volume" }
func (DeleteVolume) kind() Kind   { return "delete-volume" }
func (SetExport) kind() Kind      { return "set-export" }
func (RemoveExport) kind() Kind   { return "remove-export" }

// known tells since which version a kind is known, and how to read it.
type known struct {
	since int
	read  func([]byte) (Body, error)
}

func reader[T Body](since int) known {
	return known{since, func(b []byte) (Body, error) {
		var v T
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return nil, errors.New("bytes after the body")
		}
		return v, nil
	}}
}

// kinds returns all kinds of commands.
func kinds() map[Kind]known {
	return map[Kind]known{
		"bootstrap": reader[Bootstrap](1), "put-node": reader[PutNode](1), "remove-node": reader[RemoveNode](1),
		"add-token": reader[AddToken](1), "use-token": reader[UseToken](1), "add-events": reader[AddEvents](1),
		"take-over": reader[TakeOver](1), "remove-unfenced": reader[RemoveUnfenced](1), "served": reader[Served](1),
		"remove-member": reader[RemoveMember](1), "add-member": reader[AddMember](1),
		"create-volume": reader[CreateVolume](1), "delete-volume": reader[DeleteVolume](1),
		"force-volume": reader[ForceVolume](1), "begin-copy": reader[BeginCopy](1),
		"set-drain": reader[SetDrain](1), "resize-volume": reader[ResizeVolume](1),
		"add-replica": reader[AddReplica](1), "retire-replica": reader[RetireReplica](1),
		"drop-replica": reader[DropReplica](1), "forget-replica": reader[ForgetReplica](1),
		"restore-volume": reader[RestoreVolume](1), "purge-volume": reader[PurgeVolume](1), "count-trash": reader[CountTrash](1),
		"set-export": reader[SetExport](1), "remove-export": reader[RemoveExport](1),
		"export-share": reader[ExportShare](1), "unexport-share": reader[UnexportShare](1), "change-tree": reader[ChangeTree](1),
		"reserve": reader[Reserve](1), "outcomes": reader[Outcomes](1), "put-host": reader[PutHost](1), "remove-host": reader[RemoveHost](1),
		"map-lun": reader[MapLUN](1), "unmap-lun": reader[UnmapLUN](1),
		"scrubbed": reader[Scrubbed](1), "set-resync": reader[SetResync](1),
		"adopt-volume": reader[AdoptVolume](restoredSince), "withdraw": reader[Withdraw](withdrawSince),
		"set-volatile": reader[SetVolatile](1), "set-durability": reader[SetDurability](1),
	}
}

// wire is a command as it is in the log (docs/FORMATS.md).
type wire struct {
	Kind    Kind            `json:"kind"`
	Request string          `json:"request,omitempty"`
	Time    time.Time       `json:"time"`
	Body    json.RawMessage `json:"body"`
}

// Encode writes a command for the log, in the form that every version can read.
func Encode(c Command) ([]byte, error) {
	body, err := json.Marshal(c.Body)
	if err != nil {
		return nil, fmt.Errorf("encoding a %s: %w", c.Body.kind(), err)
	}
	b, err := json.Marshal(wire{c.Body.kind(), c.Request, c.Time, body})
	if err != nil {
		return nil, fmt.Errorf("encoding a %s: %w", c.Body.kind(), err)
	}
	if len(b) > MaxCommand {
		return nil, fmt.Errorf("a %s of %d bytes: %w", c.Body.kind(), len(b), ErrTooLong)
	}
	return b, nil
}

// decode reads a command from the log, and tells since which version it is known in this form.
func decode(b []byte) (c Command, since int, err error) {
	if len(b) > MaxCommand {
		return Command{}, 0, ErrTooLong
	}
	if len(b) > 0 && b[0] == binaryForm {
		c, err = decodeBinary(b)
		return c, binarySince, err
	}
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return Command{}, 0, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	k, ok := kinds()[w.Kind]
	if !ok {
		return Command{}, 0, fmt.Errorf("%w: %.40q", ErrUnknownCommand, string(w.Kind))
	}
	if len(w.Request) > 128 {
		return Command{}, 0, fmt.Errorf("%w: a request id of %d bytes", ErrUnreadable, len(w.Request))
	}
	body, err := k.read(w.Body)
	if err != nil {
		return Command{}, 0, fmt.Errorf("%w: %s: %w", ErrUnreadable, w.Kind, err)
	}
	return Command{Request: w.Request, Time: w.Time, Body: body}, k.since, nil
}

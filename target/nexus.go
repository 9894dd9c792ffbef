package target

import (
	"errors"
	"fmt"
	"net/netip"

	"pmsapp/internal/iscsi"
)

// Nexus is what executes the tasks of one session (SAM-5: the I_T nexus). The Provider makes one for each session.
//
// Accept, Cancel and Execute are called by one goroutine at a time and must not block. Accept is called in the order of
// the commands (CmdSN); each task accepted is then either executed or cancelled, when its data is there, in any order.
type Nexus interface {
	// Accept looks at a command that has arrived, without its data yet, and says what it will need.
	Accept(t *Task) Want
	// Execute starts a task. Its end is told by t.Done.
	Execute(t *Task)
	// Cancel says that an accepted task will not be executed: it was aborted before its data was complete.
	Cancel(t *Task)
	// Manage carries out the nexus's part in a task management function: it checks that the function makes sense, and
	// establishes unit attentions for other nexuses. The layer has stopped nothing yet when it is called, and, if it
	// returns FunctionComplete, drops then the answers of the tasks that the function names, in all sessions of the
	// server, before the function is answered. So FunctionComplete promises, for each such task, what invariant 4 asks
	// for: it keeps its range. A nexus that cannot promise that waits here until it can, or refuses.
	Manage(m Management) Response
	// Unit returns a comparable value that identifies the logical unit behind a LUN, nil if there is none. Tasks of
	// different sessions with the same Unit are in the scope of one LOGICAL UNIT RESET.
	Unit(l LUN) any
	// End says that the session is over, and why. No method is called after it. It returns when every task executed has
	// finished, or can no longer reach a medium, or (hosts' nexuses only) keeps its range (invariant 4). Their Done may
	// still be called later; the answers go nowhere.
	End(cause error)
}

// Function is a task management function as RFC 7143 section 11.5.1 codes it.
type Function uint8

const (
	AbortTask Function = iota + 1
	AbortTaskSet
	ClearACA
	ClearTaskSet
	LogicalUnitReset
	TargetWarmReset
	TargetColdReset
	TaskReassign
)

// Management is a task management request.
type Management struct {
	Function Function
	LUN      LUN
}

// Response is the answer to a task management request as RFC 7143 section 11.6.1 codes it.
type Response uint8

const (
	FunctionComplete      Response = 0
	TaskDoesNotExist      Response = 1
	LUNDoesNotExist       Response = 2
	TaskStillAllegiant    Response = 3
	ReassignNotSupported  Response = 4
	FunctionNotSupported  Response = 5
	FunctionNotAuthorized Response = 6
	FunctionRejected      Response = 255
)

// Login is what a connection has said about itself.
type Login struct {
	Discovery bool
	Initiator string // iSCSI name
	Alias     string
	Target    string // iSCSI name; empty for discovery
	ISID      [6]byte
	Portal    netip.AddrPort // the address that the initiator connected to
	Remote    netip.AddrPort
	// Vendor has the X- keys of the login, in their order. Not filled for Credentials.
	Vendor []iscsi.Pair
	// User is the CHAP name under which the initiator has authenticated itself, empty if it has not.
	User string
}

// Credentials say how a login must be authenticated. The zero value asks for nothing.
type Credentials struct {
	// User and Secret are the CHAP name and secret that the initiator must prove. If User is empty, none is asked.
	User, Secret string
	// MutualUser and MutualSecret are what the target proves when the initiator asks for it.
	MutualUser, MutualSecret string
}

// Opened is a login accepted.
type Opened struct {
	Nexus Nexus
	// Keys are sent with the last login response.
	Keys []iscsi.Pair
	// Digests asks for CRC32C on headers and data: a login that did not agree to both is refused.
	Digests bool
}

// Discovered is a target in the answer to SendTargets.
type Discovered struct {
	Name    string
	Portals []Portal
}

// Portal is an address of a target. Portals of different nodes are in different groups.
type Portal struct {
	Addr  netip.AddrPort
	Group uint16
}

// Provider is what the connection layer asks about the world. Its methods are called by the goroutines of connections,
// several at once; they may block for a while, but Discover and Credentials only shortly.
type Provider interface {
	// Credentials returns how l must be authenticated, or a *Refusal (unknown target, initiator not allowed).
	Credentials(l Login) (Credentials, error)
	// Open accepts a login to a target, or returns a *Refusal. Any other error is answered as a target error. An earlier
	// session of the same initiator port with the same target has ended before it is called (invariant 4). Every nexus
	// returned is ended by End.
	Open(l Login) (Opened, error)
	// Discover returns the targets that the initiator may see.
	Discover(l Login) []Discovered
}

// Refusal is a login that was refused, with its status (RFC 7143 section 11.13.5) and keys that go with the answer.
type Refusal struct {
	Status iscsi.LoginStatus
	Why    string
	Keys   []iscsi.Pair
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("login refused: %s: %s", r.Status, r.Why)
}

// Refusals that a Provider has use for.
var (
	ErrNoTarget      = &Refusal{Status: iscsi.LoginNotFound, Why: "no such target"}
	ErrForbidden     = &Refusal{Status: iscsi.LoginForbidden, Why: "the initiator may not use this target"}
	ErrUnavailable   = &Refusal{Status: iscsi.LoginUnavailable, Why: "the service is not available at present"}
	ErrOutOfResource = &Refusal{Status: iscsi.LoginOutOfResources, Why: "out of resources"}
)

// Causes of a session's end, besides errors of its connection.
var (
	// ErrReinstated is the cause when the same initiator port logged in anew.
	ErrReinstated = errors.New("target: the session was reinstated")
	// ErrLogout is the cause when the initiator logged out.
	ErrLogout = errors.New("target: the initiator logged out")
	// ErrShutdown is the cause when the server was shut down.
	ErrShutdown = errors.New("target: the server was shut down")
	// ErrProtocol is the cause when the initiator broke the protocol.
	ErrProtocol = errors.New("target: protocol error")
	// ErrIdle is the cause when the initiator left a NOP-In unanswered.
	ErrIdle = errors.New("target: the initiator does not answer")
	// ErrReset is the cause when a TARGET COLD RESET ended the session.
	ErrReset = errors.New("target: the target was reset")
)

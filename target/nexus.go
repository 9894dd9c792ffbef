package target

import (
	"errors"
	"fmt"
	"net/netip"

	"pmsapp/internal/iscsi"
)

// Nexus is what executes the tasks of one session (SAM-5: the I_T nexus). The Provider makes one for each session.
//
// Its methods, but for End, are called by one goroutine at a time and must not block. Accept is called in the order of
// the commands (CmdSN); each task accepted is then either executed or cancelled, when its data is there, in any order.
type Nexus interface {
	// Accept looks at a command that has arrived, without its data yet, and says what it will need.
	Accept(t *Task) Want
	// Execute starts a task. Its end is told by t.Done.
	Execute(t *Task)
	// Cancel says that an accepted task will not be executed: it was aborted before its data was complete.
	Cancel(t *Task)
	// Manage carries out the nexus's part in a task management function: it checks that the function makes sense, and
	// establishes unit attentions. If it returns FunctionComplete the layer stops, before the function is answered, the
	// tasks that it names: those of this session (AbortTask, AbortTaskSet, ClearTaskSet), and those of all sessions of the
	// server whose Unit is among the units returned (the resets; ClearTaskSet if the task set is shared). Those not executed yet are cancelled, and those executed are not answered.
	// So FunctionComplete promises for the latter what invariant 4 asks for: they keep their ranges. A nexus that cannot
	// promise that refuses.
	//
	// then, if it is not nil, is what is to be done besides and may take a while. With FunctionComplete the layer calls it when those
	// tasks are stopped, without a lock; the function is answered with what done is told, once, from any goroutine. When the session
	// has ended the answer goes nowhere.
	Manage(m Management) (r Response, units []any, then func(done func(Response)))
	// Unit returns a comparable value that identifies the logical unit behind a LUN, nil if there is none.
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
	ISID      iscsi.ISID
	Portal    netip.AddrPort // the address that the initiator connected to
	Group     uint16         // the target portal group tag of that address
	Remote    netip.AddrPort
	// Vendor has the X- keys of the login, in their order. Not filled for Credentials.
	Vendor []iscsi.Pair
	// Drop ends the session that is being opened, now or later, with a cause, and does not wait for the end. nil for
	// Credentials and Discover.
	Drop func(cause error)
	// Stop ends tasks of the session that is being opened as an abort does, with the same promise when it returns (see
	// Nexus.Manage), and tells how many. It must not be called within a method of a nexus: two that stop each other's would
	// wait for each other. nil for Credentials and Discover.
	Stop func(match func(*Task) bool) int
	// User is the CHAP name under which the initiator has authenticated itself, empty if it has not.
	User string
}

// Opened is a login accepted.
type Opened struct {
	Nexus Nexus
	// Keys are sent with the last login response.
	Keys []iscsi.Pair
	// Digests asks for CRC32C on headers and data: a login that did not agree to both is refused.
	Digests bool
	// Trusted exempts the session from the bound on the memory of all sessions: other nodes, which bound what they send.
	Trusted bool
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
	// Credentials returns how l must be authenticated, or a *Refusal (unknown target, initiator not allowed). The zero
	// Auth asks for nothing.
	Credentials(l Login) (iscsi.Auth, error)
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
	// ErrStalled is the cause when the initiator took nothing of what it was sent, or sent nothing of what it was asked for.
	ErrStalled = errors.New("target: the initiator takes no answers, or sends no data")
	// ErrIdle is the cause when the initiator left a NOP-In unanswered.
	ErrIdle = errors.New("target: the initiator does not answer")
	// ErrMoved is in the cause when what the session was for is served by another node now, or soon: the nexus is not lost.
	ErrMoved = errors.New("target: it is served elsewhere")
	// ErrReset is the cause when a TARGET COLD RESET ended the session.
	ErrReset = errors.New("target: the target was reset")
)

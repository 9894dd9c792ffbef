package initiator

import (
	"errors"
	"strings"

	"pmsapp/internal/iscsi"
)

// The ways in which a path dies. Each is compared with errors.Is; Session.Err and the Err of commands wrap one of them.
var (
	// ErrConnect is returned when no TCP connection could be made.
	ErrConnect = errors.New("initiator: cannot connect")
	// ErrLoginTimeout is returned when connection and login took longer than login_timeout.
	ErrLoginTimeout = errors.New("initiator: login timeout")
	// ErrLoginRefused is returned when the target refused the login; a *RefusedError tells why.
	ErrLoginRefused = errors.New("initiator: login refused")
	// ErrAuth is returned when the target did not prove who it is.
	ErrAuth = errors.New("initiator: the target failed to authenticate")
	// ErrLogin is returned when target and initiator do not agree on the parameters of the session.
	ErrLogin = errors.New("initiator: login failed")
	// ErrPeerClosed is returned when the target or the network ended the connection.
	ErrPeerClosed = errors.New("initiator: connection closed by the target")
	// ErrNoopTimeout is returned when a probe of an idle path was not answered within noop_timeout.
	ErrNoopTimeout = errors.New("initiator: noop timeout")
	// ErrRecoveryTimeout is returned when nothing came over an active path for recovery_timeout.
	ErrRecoveryTimeout = errors.New("initiator: recovery timeout")
	// ErrCommandTimeout is returned when a command was with the target for Timeouts.Command and nothing came for it, or could
	// not even be sent for so long because the target's window was full.
	ErrCommandTimeout = errors.New("initiator: a command hangs at the target")
	// ErrDigest is returned when a header or data digest was wrong, here or at the target.
	ErrDigest = errors.New("initiator: digest error")
	// ErrProtocol is returned when the target broke the protocol, or says that this end has.
	ErrProtocol = errors.New("initiator: protocol error")
	// ErrLogoutRequested is returned when the target asked for a logout.
	ErrLogoutRequested = errors.New("initiator: the target asked for a logout")
	// ErrDropped is returned when the target announced that it drops the connection or the session.
	ErrDropped = errors.New("initiator: the target dropped the session")
	// ErrClosed is returned when this end closed the session.
	ErrClosed = errors.New("initiator: session closed")
)

// Errors of single commands, on a session that lives.
var (
	// ErrQueueFull is returned when Config.Queue commands are under way already.
	ErrQueueFull = errors.New("initiator: too many commands under way")
	// ErrAborted is returned when the command was ended by task management.
	ErrAborted = errors.New("initiator: the command was aborted")
	// ErrFailed is returned when the target could not execute the command (response "target failure").
	ErrFailed = errors.New("initiator: the target failed to execute the command")
	// ErrCommand is returned for a command that cannot be sent.
	ErrCommand = errors.New("initiator: invalid command")
	// ErrTask is returned when the target refused a task management function; a *TaskError tells why.
	ErrTask = errors.New("initiator: task management function refused")
	// ErrRejected is returned when the target rejected a request that the session can do without.
	ErrRejected = errors.New("initiator: request rejected")
)

// RefusedError is a login that the target refused. It is an ErrLoginRefused.
type RefusedError struct {
	Status iscsi.LoginStatus
	Keys   []iscsi.Pair // what came with the refusal
}

func (e *RefusedError) Error() string { return ErrLoginRefused.Error() + ": " + e.Status.String() }

// moved tells where the target is to be found instead, if that is what the refusal says.
func (e *RefusedError) moved() (portal string, ok bool) {
	if e.Status != iscsi.LoginMovedTemporarily && e.Status != iscsi.LoginMovedPermanently {
		return "", false
	}
	for _, k := range e.Keys {
		if k.Key == iscsi.KeyTargetAddress {
			p, err := parsePortal(k.Value)
			return p.Addr, err == nil && !strings.HasPrefix(p.Addr, ":")
		}
	}
	return "", false
}

// Is makes errors.Is(e, ErrLoginRefused) true.
func (e *RefusedError) Is(t error) bool { return t == ErrLoginRefused }

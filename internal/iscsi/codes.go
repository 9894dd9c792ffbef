package iscsi

import "fmt"

// LoginStatus is class (high byte) and detail (low byte) of a Login Response (RFC 7143, 11.13.5).
type LoginStatus uint16

const (
	LoginOK               LoginStatus = 0x0000
	LoginMovedTemporarily LoginStatus = 0x0101
	LoginMovedPermanently LoginStatus = 0x0102
	LoginInitiatorError   LoginStatus = 0x0200
	LoginAuthFailed       LoginStatus = 0x0201
	LoginForbidden        LoginStatus = 0x0202
	LoginNotFound         LoginStatus = 0x0203
	LoginRemoved          LoginStatus = 0x0204
	LoginBadVersion       LoginStatus = 0x0205
	LoginTooManyConns     LoginStatus = 0x0206
	LoginMissingParameter LoginStatus = 0x0207
	LoginCannotInclude    LoginStatus = 0x0208
	LoginBadSessionType   LoginStatus = 0x0209
	LoginNoSession        LoginStatus = 0x020a
	LoginInvalid          LoginStatus = 0x020b
	LoginTargetError      LoginStatus = 0x0300
	LoginUnavailable      LoginStatus = 0x0301
	LoginOutOfResources   LoginStatus = 0x0302
)

func (s LoginStatus) Class() byte  { return byte(s >> 8) }
func (s LoginStatus) Detail() byte { return byte(s) }

func (s LoginStatus) String() string {
	var t string
	switch s {
	case LoginOK:
		t = "success"
	case LoginMovedTemporarily:
		t = "target moved temporarily"
	case LoginMovedPermanently:
		t = "target moved permanently"
	case LoginInitiatorError:
		t = "initiator error"
	case LoginAuthFailed:
		t = "authentication failure"
	case LoginForbidden:
		t = "authorization failure"
	case LoginNotFound:
		t = "target not found"
	case LoginRemoved:
		t = "target removed"
	case LoginBadVersion:
		t = "unsupported version"
	case LoginTooManyConns:
		t = "too many connections"
	case LoginMissingParameter:
		t = "missing parameter"
	case LoginCannotInclude:
		t = "cannot include in session"
	case LoginBadSessionType:
		t = "session type not supported"
	case LoginNoSession:
		t = "session does not exist"
	case LoginInvalid:
		t = "invalid during login"
	case LoginTargetError:
		t = "target error"
	case LoginUnavailable:
		t = "service unavailable"
	case LoginOutOfResources:
		t = "out of resources"
	default:
		t = "unknown status"
	}
	return fmt.Sprintf("%s (%02x/%02x)", t, s.Class(), s.Detail())
}

// Task management functions and responses (11.5, 11.6).
const (
	TaskAbort       = 1
	TaskAbortSet    = 2
	TaskClearACA    = 3
	TaskClearSet    = 4
	TaskLUReset     = 5
	TaskWarmReset   = 6
	TaskColdReset   = 7
	TaskReassign    = 8
	TaskDone        = 0
	TaskNoTask      = 1
	TaskNoLUN       = 2
	TaskAllegiant   = 3
	TaskNoReassign  = 4
	TaskUnsupported = 5
	TaskAuthFailed  = 6
	TaskRejected    = 255
)

// Responses of a SCSI Response (11.4.3).
const (
	ResponseCompleted = 0
	ResponseFailed    = 1
)

// Reasons and responses of logout (11.14, 11.15).
const (
	LogoutSession    = 0
	LogoutConnection = 1
	LogoutRecovery   = 2
	LogoutDone       = 0
	LogoutNoCID      = 1
	LogoutNoRecovery = 2
	LogoutFailed     = 3
)

// Reasons of a Reject (11.17.1).
const (
	RejectDataDigest    = 0x02
	RejectSNACK         = 0x03
	RejectProtocol      = 0x04
	RejectUnsupported   = 0x05
	RejectImmediate     = 0x06
	RejectTaskInProcess = 0x07
	RejectInvalidAck    = 0x08
	RejectInvalidField  = 0x09
	RejectLongOperation = 0x0a
	RejectNegotiation   = 0x0b
	RejectWaiting       = 0x0c
)

// Events of an Asynchronous Message (11.9.1).
const (
	AsyncSCSI           = 0
	AsyncLogoutRequest  = 1
	AsyncDropConnection = 2
	AsyncDropSession    = 3
	AsyncNegotiate      = 4
	AsyncTaskTerminated = 5
	AsyncVendor         = 255
)

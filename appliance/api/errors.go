package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Error is an answer that is no success. Its text is for people and says what to do.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + " (" + e.Hint + ")"
}

// Is compares codes.
func (e *Error) Is(t error) bool {
	o, ok := t.(*Error)
	return ok && o.Code == e.Code
}

// The codes, with the status that goes with each.
var (
	// ErrInvalid is returned for a request that makes no sense.
	ErrInvalid = &Error{Status: http.StatusBadRequest, Code: "invalid"}
	// ErrToken is returned for a call without the admin token, or with another.
	ErrToken = &Error{Status: http.StatusUnauthorized, Code: "token"}
	// ErrNotFound is returned when what the request names does not exist.
	ErrNotFound = &Error{Status: http.StatusNotFound, Code: "not-found"}
	// ErrConflict is returned when the cluster's state does not allow it: a name in use, an exported volume, the last node.
	ErrConflict = &Error{Status: http.StatusConflict, Code: "conflict"}
	// ErrNoLeader is returned when no node leads, or the leader was lost meanwhile: the call may be repeated.
	ErrNoLeader = &Error{Status: http.StatusServiceUnavailable, Code: "no-leader"}
	// ErrInternal is returned for everything else.
	ErrInternal = &Error{Status: http.StatusInternalServerError, Code: "internal"}
)

// Errorf makes an error of a kind.
func Errorf(kind *Error, hint, format string, a ...any) *Error {
	return &Error{Status: kind.Status, Code: kind.Code, Message: fmt.Sprintf(format, a...), Hint: hint}
}

// asError turns any error into one that can be sent.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Errorf(ErrInternal, "", "%v", err)
}

type envelope struct {
	Error *Error `json:"error"`
}

// decodeError reads an answer that is no success.
func decodeError(status int, body []byte) error {
	var e envelope
	if json.Unmarshal(body, &e) != nil || e.Error == nil {
		return Errorf(&Error{Status: status, Code: "internal"}, "is this a pmsApp API address?",
			"the answer is not one of pmsApp's: HTTP status %d", status)
	}
	e.Error.Status = status
	return e.Error
}

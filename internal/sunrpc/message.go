package sunrpc

import (
	"errors"
	"fmt"

	"pmsapp/internal/xdr"
)

// The kinds of message, and the flavors of credentials (RFC 5531 8.2, 9).
const (
	msgCall  = 0
	msgReply = 1
	version  = 2

	AuthNone  = 0
	AuthSys   = 1
	AuthShort = 2

	// MaxAuth bounds the body of credentials and verifiers (RFC 5531 8.2).
	MaxAuth = 400
	// MaxGroups is how many supplementary groups AUTH_SYS carries.
	MaxGroups  = 16
	maxMachine = 255
	// MaxCallHeader is the longest header of a call, before its arguments.
	MaxCallHeader = 6*4 + 2*(8+MaxAuth)
)

// AcceptStat is accept_stat: how far an accepted call got.
type AcceptStat uint32

const (
	Success      AcceptStat = 0
	ProgUnavail  AcceptStat = 1
	ProgMismatch AcceptStat = 2
	ProcUnavail  AcceptStat = 3
	GarbageArgs  AcceptStat = 4
	SystemErr    AcceptStat = 5
)

func (s AcceptStat) Error() string {
	names := [...]string{"success", "program unavailable", "program version mismatch", "procedure unavailable",
		"garbage arguments", "system error"}
	if int(s) < len(names) {
		return "rpc: " + names[s]
	}
	return fmt.Sprintf("rpc: accept_stat %d", uint32(s))
}

// AuthStat is auth_stat: why a call was denied.
type AuthStat uint32

const (
	AuthBadCred      AuthStat = 1
	AuthRejectedCred AuthStat = 2
	AuthBadVerf      AuthStat = 3
	AuthTooWeak      AuthStat = 5
)

func (s AuthStat) Error() string {
	return fmt.Sprintf("rpc: authentication failed (auth_stat %d)", uint32(s))
}

// ErrMessage is returned for what is no RPC message at all: nothing can be answered to it.
var ErrMessage = errors.New("rpc: not a message of the expected kind")

// ErrVersion is returned for a call of another RPC version than 2: RPC_MISMATCH.
var ErrVersion = errors.New("rpc: not version 2")

// Cred is who calls. Without AUTH_SYS it is nobody.
type Cred struct {
	Flavor uint32
	UID    uint32
	GID    uint32
	Groups []uint32 // at most MaxGroups
}

// Header is the begin of a call.
type Header struct {
	XID              uint32
	Prog, Vers, Proc uint32
	Cred             Cred
}

// ReadCall reads the header of a call; the arguments are what is left in d. Errors: ErrMessage, ErrVersion (the XID is
// right), an AuthStat (everything but the credentials is).
func ReadCall(d *xdr.Decoder) (Header, error) {
	var h Header
	h.XID = d.Uint32()
	if kind := d.Uint32(); d.Err() != nil || kind != msgCall {
		return h, ErrMessage
	}
	if v := d.Uint32(); d.Err() == nil && v != version {
		return h, ErrVersion
	}
	h.Prog, h.Vers, h.Proc = d.Uint32(), d.Uint32(), d.Uint32()
	flavor, body := d.Uint32(), d.Opaque(MaxAuth)
	d.Uint32() // the verifier of AUTH_NONE and AUTH_SYS says nothing
	d.Opaque(MaxAuth)
	if d.Err() != nil {
		return h, ErrMessage
	}
	var err error
	h.Cred, err = readCred(flavor, body)
	return h, err
}

// readCred reads AUTH_NONE and AUTH_SYS (RFC 5531 appendix A). There is no other flavor here.
func readCred(flavor uint32, body []byte) (Cred, error) {
	c := Cred{Flavor: flavor}
	switch flavor {
	case AuthNone:
		return c, nil
	case AuthSys:
	default:
		return c, AuthRejectedCred
	}
	d := xdr.NewDecoder(body, nil)
	d.Uint32() // a stamp
	d.Opaque(maxMachine)
	c.UID, c.GID = d.Uint32(), d.Uint32()
	n := d.Uint32()
	if n > MaxGroups {
		return c, AuthBadCred
	}
	for range n {
		c.Groups = append(c.Groups, d.Uint32())
	}
	if d.Err() != nil {
		return c, AuthBadCred
	}
	return c, nil
}

// WriteCall writes the header of a call.
func WriteCall(e *xdr.Encoder, h Header, machine string) {
	e.Uint32(h.XID)
	e.Uint32(msgCall)
	e.Uint32(version)
	e.Uint32(h.Prog)
	e.Uint32(h.Vers)
	e.Uint32(h.Proc)
	e.Uint32(h.Cred.Flavor)
	var body xdr.Encoder
	if h.Cred.Flavor == AuthSys {
		body.Uint32(0)
		body.String(machine)
		body.Uint32(h.Cred.UID)
		body.Uint32(h.Cred.GID)
		body.Uint32(uint32(len(h.Cred.Groups)))
		for _, g := range h.Cred.Groups {
			body.Uint32(g)
		}
	}
	e.Opaque(body.B)
	e.Uint32(AuthNone)
	e.Opaque(nil)
}

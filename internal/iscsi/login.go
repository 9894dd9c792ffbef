package iscsi

import (
	"errors"
	"fmt"
)

// ErrLogin is returned when the other end broke the rules of login.
var ErrLogin = errors.New("iscsi: login protocol error")

// LoginError is a login refused by the target. Keys are those that came with the refusal.
type LoginError struct {
	Status LoginStatus
	Keys   []Pair
}

func (e *LoginError) Error() string { return "iscsi: login refused: " + e.Status.String() }

const (
	maxLoginText  = 32 << 10 // bytes of one sequence of text
	maxLoginSteps = 64       // PDUs of one login from one end
	maxName       = 223      // bytes of an iSCSI name (RFC 7143, 4.2.7.1)
)

// LoginPDU is a login request or response to be sent. The sequence numbers are for the sender to fill in.
type LoginPDU struct {
	BHS  BHS
	Data []byte
}

// loginText is an end's outgoing text, which may need several PDUs.
type loginText struct {
	rest []byte
}

// next takes what goes into the next PDU; more tells whether the C bit must be set.
func (t *loginText) next() (data []byte, more bool) {
	n := min(len(t.rest), LoginMaxData)
	data, t.rest = t.rest[:n], t.rest[n:]
	return data, len(t.rest) > 0
}

func validName(s string) bool { return s != "" && len(s) <= maxName }

// checkStages verifies the stages and the bits of byte 1 of a login PDU.
func checkStages(h *BHS) error {
	csg, nsg := h.CSG(), h.NSG()
	if csg != StageSecurity && csg != StageOperational {
		return fmt.Errorf("current stage %d: %w", csg, ErrLogin)
	}
	if !h.Has(FlagTransit) {
		return nil
	}
	if h.Has(FlagContinue) {
		return fmt.Errorf("both T and C: %w", ErrLogin)
	}
	if nsg != StageOperational && nsg != StageFull || nsg <= csg {
		return fmt.Errorf("from stage %d to stage %d: %w", csg, nsg, ErrLogin)
	}
	return nil
}

// collectVendor keeps the vendor keys among pairs.
func collectVendor(have []Pair, p Pair) ([]Pair, error) {
	if len(have) >= 32 {
		return have, fmt.Errorf("too many vendor keys: %w", ErrLogin)
	}
	return append(have, p), nil
}

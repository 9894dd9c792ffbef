package iscsi

import (
	"bytes"
	"crypto/md5"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// CHAP with MD5 (RFC 1994; RFC 7143, 12.1.3).

// ErrAuth is returned when the other end did not prove who it is, or broke the rules of CHAP.
var ErrAuth = errors.New("iscsi: authentication failed")

// errSameSecret refuses what would let an initiator's proof be shown back to it as the target's (RFC 7143, 9.2.1).
var errSameSecret = fmt.Errorf("one secret for both directions: %w", ErrAuth)

// Credentials are a name and the secret that proves it.
type Credentials struct {
	Name   string
	Secret []byte
}

const (
	chapMD5          = "5"
	challengeLen     = 16
	maxChallenge     = 1024
	maxCHAPName      = 255
	chapResponseSize = md5.Size
)

// CHAPResponse is the proof of a secret for a challenge.
func CHAPResponse(id byte, secret, challenge []byte) [md5.Size]byte {
	b := make([]byte, 0, 1+len(secret)+len(challenge))
	b = append(b, id)
	b = append(b, secret...)
	return md5.Sum(append(b, challenge...))
}

// challenger is the end that asks for a proof.
type challenger struct {
	id        byte
	challenge []byte
}

// newChallenger takes a fresh challenge from rnd.
func newChallenger(rnd io.Reader) (*challenger, error) {
	var b [1 + challengeLen]byte
	if _, err := io.ReadFull(rnd, b[:]); err != nil {
		return nil, fmt.Errorf("making a challenge: %w", err)
	}
	return &challenger{id: b[0], challenge: b[1:]}, nil
}

func (c *challenger) pairs() []Pair {
	return []Pair{{KeyCHAPIdentifier, strconv.Itoa(int(c.id))}, {KeyCHAPChallenge, encodeBinary(c.challenge)}}
}

// verify checks the other end's name and proof against what they must be, in constant time. It returns ErrAuth.
func (c *challenger) verify(want Credentials, name, response string) error {
	got, err := decodeBinary(response, chapResponseSize)
	if err != nil {
		return err
	}
	proof := CHAPResponse(c.id, want.Secret, c.challenge)
	ok := subtle.ConstantTimeCompare(proof[:], got)
	ok &= subtle.ConstantTimeCompare([]byte(want.Name), []byte(name))
	if ok != 1 {
		return fmt.Errorf("wrong name or secret: %w", ErrAuth)
	}
	return nil
}

// prove answers a challenge. sent is the challenge that this end has made itself on this connection, if any: getting it
// back would be an attempt to have this end answer it for the other one.
func prove(own Credentials, id, challenge string, sent []byte) ([]Pair, error) {
	n, err := strconv.ParseUint(id, 10, 8)
	if err != nil {
		return nil, fmt.Errorf("%s=%.20q: %w", KeyCHAPIdentifier, id, ErrAuth)
	}
	c, err := decodeBinary(challenge, maxChallenge)
	if err != nil {
		return nil, err
	}
	if len(c) == 0 || bytes.Equal(c, sent) {
		return nil, fmt.Errorf("empty or reflected challenge: %w", ErrAuth)
	}
	proof := CHAPResponse(byte(n), own.Secret, c)
	return []Pair{{KeyCHAPName, own.Name}, {KeyCHAPResponse, encodeBinary(proof[:])}}, nil
}

func encodeBinary(b []byte) string { return "0x" + hex.EncodeToString(b) }

// decodeBinary reads a hexadecimal (0x) or base64 (0b) constant of at most limit bytes.
func decodeBinary(s string, limit int) ([]byte, error) {
	if len(s) < 2 || len(s) > 2+2*limit+4 {
		return nil, fmt.Errorf("binary value of %d characters: %w", len(s), ErrAuth)
	}
	var b []byte
	var err error
	switch strings.ToLower(s[:2]) {
	case "0x":
		digits := s[2:]
		if len(digits)%2 != 0 {
			digits = "0" + digits
		}
		b, err = hex.DecodeString(digits)
	case "0b":
		b, err = base64.StdEncoding.DecodeString(s[2:])
	default:
		err = errors.New("neither 0x nor 0b")
	}
	if err != nil {
		return nil, fmt.Errorf("binary value: %w: %w", err, ErrAuth)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("binary value of %d bytes: %w", len(b), ErrAuth)
	}
	return b, nil
}

package cluster

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
)

// A join token is "pmsapp-join.SECRET.CA.ADDRESSES": 16 random bytes, the SHA-256 digest of the CA's certificate, and
// addresses between nodes with commas, each in base64url without padding. The catalog has only the digest of the secret.
const joinPrefix = "pmsapp-join"

type joinToken struct {
	secret [16]byte
	ca     [sha256.Size]byte
	addrs  []string
}

func newJoinToken(ca []byte, addrs []string) joinToken {
	t := joinToken{ca: sha256.Sum256(ca), addrs: addrs}
	rand.Read(t.secret[:])
	return t
}

func (t joinToken) String() string {
	e := base64.RawURLEncoding.EncodeToString
	return strings.Join([]string{joinPrefix, e(t.secret[:]), e(t.ca[:]), e([]byte(strings.Join(t.addrs, ",")))}, ".")
}

// digest is what the catalog knows of the secret.
func (t joinToken) digest() []byte {
	d := sha256.Sum256(t.secret[:])
	return d[:]
}

// parseJoinToken returns an ErrToken that says what is wrong.
func parseJoinToken(s string) (t joinToken, err error) {
	bad := func(why string) (joinToken, error) {
		return joinToken{}, fmt.Errorf("%w: %s (pmsapp node token makes one)", ErrToken, why)
	}
	parts := strings.Split(strings.TrimSpace(s), ".")
	if parts[0] != joinPrefix {
		return bad("this is not a join token")
	}
	if len(parts) != 4 || len(s) > 4096 {
		return bad("it is not complete")
	}
	var fields [3][]byte
	for i, p := range parts[1:] {
		if fields[i], err = base64.RawURLEncoding.DecodeString(p); err != nil {
			return bad("it is damaged")
		}
	}
	if len(fields[0]) != len(t.secret) || len(fields[1]) != len(t.ca) {
		return bad("it is damaged")
	}
	copy(t.secret[:], fields[0])
	copy(t.ca[:], fields[1])
	for a := range strings.SplitSeq(string(fields[2]), ",") {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return bad("it is damaged")
		}
		t.addrs = append(t.addrs, a)
	}
	return t, nil
}

package api

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
)

// An admin token is "pmsapp-admin.SECRET.CA": 32 random bytes and the SHA-256 digest of the CA's certificate (DER), both in
// base64url without padding. It is sent whole.
const tokenPrefix = "pmsapp-admin"

// MakeToken makes an admin token for the cluster whose CA has this certificate.
func MakeToken(ca *x509.Certificate) string {
	var secret [32]byte
	rand.Read(secret[:])
	digest := sha256.Sum256(ca.Raw)
	return tokenPrefix + "." + base64.RawURLEncoding.EncodeToString(secret[:]) + "." +
		base64.RawURLEncoding.EncodeToString(digest[:])
}

// caOf returns the digest of the CA that a token names.
func caOf(token string) ([sha256.Size]byte, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[0] != tokenPrefix {
		return [32]byte{}, Errorf(ErrToken, "it is the file admin.token that init wrote", "this is not an admin token")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(b) != sha256.Size {
		return [32]byte{}, Errorf(ErrToken, "copy the file admin.token again", "the admin token is damaged")
	}
	return [32]byte(b), nil
}

// ReadToken reads a token file.
func ReadToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("there is no admin token %s (pmsapp init made it on the cluster's first node: copy it here, or name its file with --token-file)", path)
	}
	if err != nil {
		return "", fmt.Errorf("reading the admin token: %w (name its file with --token-file)", err)
	}
	return strings.TrimSpace(string(b)), nil
}

var errPinned = errors.New("the node's certificate is not signed by the CA of the cluster that this admin token is for")

// clientTLS trusts exactly the CA that the token names, whatever the address.
func clientTLS(ca [sha256.Size]byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The verification below takes the place of the usual one: the CA comes with the chain and must have the digest.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errPinned
			}
			roots := x509.NewCertPool()
			for _, c := range cs.PeerCertificates[1:] {
				if sha256.Sum256(c.Raw) == ca {
					roots.AddCert(c)
				}
			}
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots,
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
			if err != nil {
				return fmt.Errorf("%w: %w", errPinned, err)
			}
			return nil
		},
	}
}

package cluster

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"pmsapp/internal/ids"
)

// identity is who this machine is in its cluster, and what it knows that nobody else may: the file "identity" in the state
// directory, 0600. It is JSON after a line "pmsapp identity 1 CRC", the CRC-32C of the JSON in hexadecimal.
type identity struct {
	Cluster ids.Cluster
	Node    ids.Node
	Name    string
	Witness bool
	CA      []byte // certificate, DER
	CAKey   []byte // PKCS 8
	Cert    []byte // this node's, DER
	Key     []byte // PKCS 8
	Secret  []byte // the cluster's key, 32 bytes
	// Peers are addresses between nodes, for when the catalog is lost.
	Peers []string
	// Former is the identity that this machine gave up last (invariant 9); zero if none.
	Former ids.Node
	// Fresh says that the catalog of this identity was never written: that it is empty is no loss then.
	Fresh bool
}

const identityHead = "pmsapp identity 1 "

func identityPath(dir string) string { return filepath.Join(dir, "identity") }
func catalogPath(dir string) string  { return filepath.Join(dir, "catalog.db") }

// loadIdentity returns ErrNoCluster if there is none, and ErrCorrupt for a damaged one.
func loadIdentity(dir string) (*identity, error) {
	b, err := os.ReadFile(identityPath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: run pmsapp init here, or pmsapp join with a token of the cluster", dir, ErrNoCluster)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the identity: %w", err)
	}
	id, ok := parseIdentity(b)
	if !ok {
		return nil, fmt.Errorf("%s: %w: restore it from a backup, or empty the state directory and join with a new token",
			identityPath(dir), ErrCorrupt)
	}
	return id, nil
}

func parseIdentity(b []byte) (*identity, bool) {
	head, body, ok := bytes.Cut(b, []byte("\n"))
	want := fmt.Sprintf("%s%08x", identityHead, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	var id identity
	if !ok || string(head) != want || json.Unmarshal(body, &id) != nil || id.Node.IsZero() || len(id.Secret) != 32 {
		return nil, false
	}
	return &id, true
}

// save replaces the file durably.
func (id *identity) save(dir string) error {
	body, err := json.MarshalIndent(id, "", " ")
	if err != nil {
		return fmt.Errorf("encoding the identity: %w", err)
	}
	head := fmt.Sprintf("%s%08x\n", identityHead, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	return WriteFile(identityPath(dir), append([]byte(head), body...))
}

// WriteFile replaces a file with one that only its owner may read, durably and as a whole.
func WriteFile(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// The certificates' dates are far away on both sides: a clock that is wrong must not end a cluster.
func validity() (from, to time.Time) {
	return time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding a key: %w", err)
	}
	return k, der, nil
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("a key: %w: %w", ErrCorrupt, err)
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T: %w", k, ErrCorrupt)
	}
	return ec, nil
}

// makeCA makes the cluster's CA.
func (id *identity) makeCA() error {
	k, der, err := newKey()
	if err != nil {
		return err
	}
	from, to := validity()
	t := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: "pmsApp cluster " + id.Cluster.String()},
		NotBefore: from, NotAfter: to, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign}
	id.CA, err = x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	if err != nil {
		return fmt.Errorf("making the CA: %w", err)
	}
	id.CAKey = der
	return nil
}

// sign makes a node's certificate for a public key (PKIX, DER).
func (id *identity) sign(node ids.Node, public []byte) ([]byte, error) {
	ca, err := x509.ParseCertificate(id.CA)
	if err != nil {
		return nil, fmt.Errorf("the CA: %w: %w", ErrCorrupt, err)
	}
	key, err := parseKey(id.CAKey)
	if err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("a public key: %w", err)
	}
	if _, ok := pub.(*ecdsa.PublicKey); !ok {
		return nil, fmt.Errorf("a public key of type %T: %w", pub, ErrCorrupt)
	}
	from, to := validity()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: serial(),
		Subject: pkix.Name{CommonName: node.String()}, NotBefore: from, NotAfter: to, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, ca, pub, key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	return der, nil
}

// certificate is what this node shows, with the CA's.
func (id *identity) certificate() (tls.Certificate, error) {
	k, err := parseKey(id.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{id.Cert, id.CA}, PrivateKey: k}, nil
}

// derive makes a key for one purpose of the cluster's.
func (id *identity) derive(purpose string) []byte {
	h := hmac.New(sha256.New, id.Secret)
	h.Write([]byte("pmsapp cluster: " + purpose))
	return h.Sum(nil)
}

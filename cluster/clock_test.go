package cluster

import (
	"crypto/x509"
	"testing"
	"time"

	"pmsapp/internal/ids"
)

// A clock that jumps, to when machines without a battery wake up or far ahead, must not keep nodes from talking.
func TestCertificatesHoldWhateverTheClockSays(t *testing.T) {
	id := identity{Cluster: ids.NewCluster()}
	if err := id.makeCA(); err != nil {
		t.Fatal(err)
	}
	key, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := id.sign(ids.NewNode(), pub)
	if err != nil {
		t.Fatal(err)
	}
	ca, err1 := x509.ParseCertificate(id.CA)
	cert, err2 := x509.ParseCertificate(der)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(1, 0), time.Now(), time.Date(2038, 1, 20, 0, 0, 0, 0, time.UTC),
		time.Date(2106, 2, 8, 0, 0, 0, 0, time.UTC)} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("at %v: %v", at, err)
		}
	}
}
